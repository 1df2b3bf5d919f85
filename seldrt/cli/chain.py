"""What the commands that listen share: the options, the settings they make, and what is refused at the door."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from seldrt.cli.info import model_option
from seldrt.cli.shell import Names, Sectors, Sensitivity, options, say, setting
from seldrt.config import EVERY_CLASS, ConfigError, DaemonConfig, PublisherConfig, load_toml, override

if TYPE_CHECKING:
    from seldrt.runtime.publisher import Publisher

Flags = dict[str, Any]

COMPUTE = click.Choice(["cpu", "cuda", "mps"])
setting_options = options(  # what `settings` takes
    setting("--config", env="CONFIG", metavar="FILE", meaning="Settings in TOML, see configs/seldrt.toml."),
    model_option,
    setting("--only", env="ONLY", type=Names(), metavar="CLASS,...", meaning="Report only these classes."),
    setting(
        "--ignore",
        env="IGNORE",
        type=Sectors(),
        metavar="AZ..AZ,...",
        meaning="Report nothing from these azimuths, counter-clockwise: 20..60",
    ),
    setting(
        "--sensitivity",
        env="SENSITIVITY",
        type=Sensitivity(),
        metavar="X,CLASS=X,...",
        meaning="Above 1 reports more, including more false events; below 1, fewer.",
    ),
    setting("--quick", env="QUICK", is_flag=True, default=None, meaning="Report sooner, and a little less surely."),
    setting("--compute", env="COMPUTE", type=COMPUTE, meaning="Device that runs the networks."),
    setting("--mic", env="MIC", metavar="PROFILE", meaning="Profile of the microphone, see docs/microphones.md."),
    setting(
        "--channels", env="CHANNELS", metavar="N,N,N,N", meaning="The four input channels, from 1: 5,6,7,8 or 5-8."
    ),
    setting(
        "--mount",
        env="MOUNT",
        metavar="HOW",
        meaning="How it is mounted: upright, upside-down, endfire, or yaw=0,pitch=0,roll=0",
    ),
    setting(
        "--yaw",
        "yaw_deg",
        env="YAW",
        type=float,
        metavar="DEG",
        meaning="Azimuth in the room that its front points to.",
    ),
    setting("--block-ms", env="BLOCK_MS", type=click.IntRange(1, 1000), meaning="Length of an audio block, in ms."),
    setting("--threads", env="THREADS", type=click.IntRange(1, 1024), meaning="CPU threads for the networks."),
    setting("--bind", env="BIND", metavar="URL", meaning="Publish at tcp://HOST:PORT or ipc://PATH."),
    setting("--source", env="SOURCE", metavar="NAME", meaning="Name of this microphone in the topics."),
    setting(
        "--control", env="CONTROL", metavar="URL", meaning="Also answer requests at this address, see docs/protocol.md."
    ),
    setting(
        "--curve-keys",
        env="CURVE_KEYS",
        metavar="DIR",
        meaning="Admit only clients with a key in this folder, see `seldrt keys`.",
    ),
    setting(
        "--insecure-bind",
        env="INSECURE_BIND",
        is_flag=True,
        default=None,
        meaning="Allow an address that others on the network can reach, without keys.",
    ),
    setting("--levels", env="LEVELS", is_flag=True, default=None, meaning="Also publish how loud the channels are."),
    setting("--clips", env="CLIPS", metavar="DIR", meaning="Keep a sound file of each event in that folder."),
    setting(
        "--clips-max-mb",
        env="CLIPS_MAX_MB",
        type=int,
        metavar="MB",
        meaning="Largest size of the clips folder; the oldest clips are deleted.",
    ),
    setting(
        "--clips-only", env="CLIPS_ONLY", type=Names(), metavar="CLASS,...", meaning="Keep clips of no other classes."
    ),
)
chain_options = options(
    setting_options,
    click.option("--no-publish", is_flag=True, help="Do not publish over ZeroMQ."),
    click.option("--dcase", metavar="OUT.csv", help="Write a DCASE table when the stream ends."),
    click.option("--csv", metavar="OUT.csv", help="Write a line for each finished event (`run` appends)."),
    click.option(
        "--jsonl", metavar="OUT.jsonl", help="Write frames, events and gaps as JSON lines (`run` appends); - is stdout."
    ),
    click.option("--quiet", is_flag=True, help="Do not print a line for each event."),
)


def settings(flags: Flags) -> DaemonConfig:
    """The file, if one is named, with the flags over it: those called like a setting, and those of the folders."""
    config = load_toml(flags["config"], DaemonConfig) if flags["config"] else DaemonConfig()
    if flags["channels"]:
        flags = flags | {"channels": channel_numbers(flags["channels"])}
    capture, pipeline, publisher = (
        override(section, **{name: flags.get(name) for name in section.__struct_fields__})
        for section in (config.capture, config.pipeline, config.publisher)
    )
    record = override(config.record, dir=flags.get("record"), max_mb=flags.get("record_max_mb"))
    clips = override(config.clips, dir=flags["clips"], max_mb=flags["clips_max_mb"], only=flags["clips_only"])
    return replace(config, capture=capture, pipeline=pipeline, publisher=publisher, record=record, clips=clips)


def channel_numbers(text: str) -> tuple[int, ...]:
    """Numbers of channels as people write them: 5,6,7,8 or 5-8."""
    numbers: list[int] = []
    if re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        for part in text.split(","):
            first, *last = (int(number) for number in part.split("-"))
            numbers += range(first, (last or [first])[0] + 1)
    if len(numbers) != 4:
        raise ConfigError(f"--channels {text}: give four numbers from 1, like 5,6,7,8 or 5-8")
    return tuple(numbers)


def check_publishing(config: PublisherConfig, flags: Flags) -> None:
    """Refuses a name of the source and addresses that will not do, whoever else runs here."""
    from seldrt.detection import check_name
    from seldrt.runtime.sockets import check_address

    if config.source:
        check_name(config.source, "source name")
    for url in [] if flags["no_publish"] else filter(None, (config.bind, config.control)):
        check_address(url, config.insecure_bind or bool(config.curve_keys))


def check_wanted(config: DaemonConfig) -> None:
    """Refuses classes that the model has not, before it is loaded, and clips of what is not reported or kept."""
    pipeline, clips = config.pipeline, config.clips
    if clips.only and not clips.dir:
        raise ConfigError(f"--clips-only {','.join(clips.only)}: in which folder? give --clips DIR, too")
    if pipeline.only and (left_out := [name for name in clips.only if name not in pipeline.only]):
        raise ConfigError(f"--clips-only {','.join(left_out)}: is left out by --only")
    if names := (*pipeline.only, *(pipeline.sensitivity.keys() - {EVERY_CLASS}), *clips.only):
        from seldrt.pipeline import check_names

        check_names(pipeline.model, names)


def prepare(config: DaemonConfig, flags: Flags, stack: ExitStack, recordings: Sequence[Path] = ()) -> Publisher | None:
    """All that can be refused before the model is loaded: names, outputs, the address."""
    from seldrt.keys import load_allowed
    from seldrt.runtime.outputs import check_outputs
    from seldrt.runtime.publisher import Publisher

    check_wanted(config)
    wanted = config.publisher
    check_publishing(wanted, flags)
    read = {Path(recording): "the recording itself" for recording in recordings}
    for name, what in ((flags["config"], "the settings"), (config.pipeline.model, "the model")):
        if name and Path(name).is_file():  # a model may also be called by its name alone
            read[Path(name)] = what
    check_outputs(flags["dcase"], (flags["csv"], flags["jsonl"]), read)
    if flags["no_publish"]:
        if flags["control"]:
            raise ConfigError("--control answers for what is published: leave out --no-publish")
        return None
    publisher = Publisher(wanted.bind, wanted.insecure_bind, wanted.control, wanted.curve_keys)
    for told in load_allowed(Path(wanted.curve_keys))[1] if wanted.curve_keys else ():
        say(f"key file ignored: {told}")
    return stack.enter_context(closing(publisher))
