"""seldrt run: listen to a microphone."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from seldrt.cli.chain import chain_options, prepare, serve, settings
from seldrt.cli.shell import say, setting
from seldrt.config import ConfigError, DaemonConfig, override


@click.command()
@setting("--device", env="DEVICE", metavar="NAME", meaning="Input device, see `seldrt devices`.")
@setting("--device-rate", env="DEVICE_RATE", type=int, metavar="HZ", meaning="Rate to open it with.")
@setting("--wait", env="WAIT", is_flag=True, default=None, meaning="Wait for a device that is not there yet.")
@setting("--record", env="RECORD", metavar="DIR", meaning="Keep what the device gives in that folder.")
@setting("--record-max-mb", env="RECORD_MAX_MB", type=int, metavar="MB", meaning="Size of the folder; the oldest go.")
@chain_options
def run(
    device: str | None,
    device_rate: int | None,
    wait: bool | None,
    record: str | None,
    record_max_mb: int | None,
    **flags: Any,
) -> None:
    """Listen to a microphone until stopped."""
    from seldrt.detection import safe_name
    from seldrt.microphones import Profile, choose_profile, orientation, profile
    from seldrt.runtime.devices import FIRST_CHANNELS, check_rate
    from seldrt.runtime.microphone import Microphone

    config = settings(flags)
    capture = override(config.capture, device=device, device_rate=device_rate, wait=wait)
    if not capture.device:
        raise ConfigError("which microphone? give --device NAME; `seldrt devices` lists them")
    if capture.mic:
        profile(capture.mic)  # before anything is opened
    to_room = orientation(capture.mount, capture.yaw_deg)

    def meaning(name: str) -> Profile:
        return choose_profile(capture.mic, name).turned(to_room)

    with ExitStack() as stack:
        publisher = prepare(config.publisher, flags, stack)
        microphone = Microphone(
            *(capture.device, meaning, capture.block_ms, capture.ring_s, capture.device_rate, capture.wait),
            channels=capture.channels or FIRST_CHANNELS,
        )
        stack.enter_context(closing(microphone))
        check_rate(microphone.name, microphone.device_rate, capture.device_rate)
        name = safe_name(microphone.name)
        kept = override(config.record, dir=record, max_mb=record_max_mb)
        if kept.dir:
            from seldrt.runtime.recorder import Recorder

            heard = override(capture, mic=capture.mic or microphone.profile.name, channels=())
            text = settings_text(replace(config, capture=heard))
            microphone.keeper = Recorder(kept, config.publisher.source or name, text, microphone.name)
            stack.enter_context(closing(microphone.keeper))
            say(f"recording to {kept.dir}, at most {kept.max_mb} MB")
        serve(config, flags, microphone, name, publisher, stack)


def settings_text(config: DaemonConfig) -> str:
    """TOML with all that the detections depend on, for a replay elsewhere and later."""
    import tomlkit

    pipeline, capture = (
        replace(section, **{key: str(Path(value).resolve())}) if Path(value).is_file() else section
        for section, key, value in (
            (config.pipeline, "model", config.pipeline.model),
            (config.capture, "mic", config.capture.mic),
        )
    )
    plain = msgspec.to_builtins(replace(config, pipeline=pipeline, capture=capture))
    return tomlkit.dumps({name: plain[name] for name in ("capture", "pipeline", "postprocess") if plain[name]})
