"""seldrt run: listen to a microphone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from seldrt.cli.chain import Flags, chain_options, prepare, settings
from seldrt.cli.listener import Listener
from seldrt.cli.shell import say, setting
from seldrt.config import ConfigError, DaemonConfig, override

if TYPE_CHECKING:
    from seldrt.microphones import Floats


@click.command()
@setting("--device", env="DEVICE", metavar="NAME", meaning="Input device, see `seldrt devices`.")
@setting("--device-rate", env="DEVICE_RATE", type=int, metavar="HZ", meaning="Sample rate to open the device with.")
@setting("--wait", env="WAIT", is_flag=True, default=None, meaning="Wait for a device that is not there yet.")
@setting("--record", env="RECORD", metavar="DIR", meaning="Record the device's raw sound in this folder.")
@setting(
    "--record-max-mb",
    env="RECORD_MAX_MB",
    type=int,
    metavar="MB",
    meaning="Largest size of that folder; the oldest files are deleted.",
)
@chain_options
def run(**flags: Any) -> None:
    """Listen to a microphone until stopped."""
    from seldrt.detection import safe_name
    from seldrt.microphones import Profile, choose_profile
    from seldrt.runtime.devices import check_rate
    from seldrt.runtime.microphone import Microphone

    config, to_room = run_settings(flags)
    capture, kept = config.capture, config.record

    def meaning(name: str) -> Profile:
        return choose_profile(capture.mic, name).turned(to_room)

    with ExitStack() as stack:
        publisher = prepare(config, flags, stack)
        microphone = stack.enter_context(closing(Microphone(capture, meaning)))
        check_rate(microphone.name, microphone.device_rate, capture.device_rate)
        name = safe_name(microphone.name)
        if kept.dir:
            from seldrt.runtime.recorder import Recorder

            heard = override(capture, mic=capture.mic or microphone.profile.name, channels=())
            source = config.publisher.source or name
            text = settings_text(replace(config, capture=heard), source)
            microphone.keeper = Recorder(kept, source, text, microphone.name)
            stack.enter_context(closing(microphone.keeper))
            say(f"recording to {kept.dir}, at most {kept.max_mb} MB")
        listener = stack.enter_context(closing(Listener(config, flags, publisher)))
        for line in crowded(config):
            say(f"note: {line}")
        listener.listen(microphone, name)


def run_settings(flags: Flags) -> tuple[DaemonConfig, Floats]:
    """The settings, and the rotation to the room; refused where no device needs to be opened to know better."""
    from seldrt.microphones import orientation, profile

    config = settings(flags)
    capture = config.capture
    if not capture.device:
        raise ConfigError("which microphone? give --device NAME; `seldrt devices` lists them")
    if capture.mic:
        profile(capture.mic)
    return config, orientation(capture.mount, capture.yaw_deg)


def crowded(config: DaemonConfig) -> Iterator[str]:
    """Which disks will be full before the folders on them are as large as they may be."""
    from seldrt.runtime.clip_folder import kept_clips
    from seldrt.runtime.folders import fitting_bytes, kept_bytes
    from seldrt.runtime.recorder import kept_files

    disks: dict[int, list[tuple[str, Path, int, int]]] = {}
    for option, wanted, files in (("record", config.record, kept_files), ("clips", config.clips, kept_clips)):
        if wanted.dir:
            folder = Path(wanted.dir)
            there = (f"--{option} {folder}", folder, kept_bytes(files(folder)), wanted.max_mb)
            disks.setdefault(folder.stat().st_dev, []).append(there)
    for folders in disks.values():
        names, paths, kept, most_mb = zip(*folders, strict=True)
        fitting_mb = fitting_bytes(paths[0], sum(kept), sum(most_mb) * 1_000_000) // 1_000_000
        if fitting_mb < sum(most_mb):
            yield (
                f"{' and '.join(names)}: the disk has room for {fitting_mb} MB, not for {sum(most_mb)}; the oldest are "
                "deleted sooner: make room, or give a smaller --record-max-mb or --clips-max-mb"
            )


def settings_text(config: DaemonConfig, source: str) -> str:
    """TOML with all that the detections depend on, and their source, for a replay elsewhere and later."""
    import tomlkit

    pipeline, capture = (
        replace(section, **{key: str(Path(value).resolve())}) if Path(value).is_file() else section
        for section, key, value in (
            (config.pipeline, "model", config.pipeline.model),
            (config.capture, "mic", config.capture.mic),
        )
    )
    plain = msgspec.to_builtins(replace(config, pipeline=pipeline, capture=capture))
    kept = {name: plain[name] for name in ("capture", "pipeline", "postprocess") if plain[name]}
    return tomlkit.dumps(kept | {"publisher": {"source": source}})
