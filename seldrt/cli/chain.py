"""What `run` and `replay` share: the options, the settings they make, and listening with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from seldrt.cli.info import latency_lines, model_option
from seldrt.cli.shell import Names, Sensitivity, options, say, setting
from seldrt.config import ClipsConfig, ConfigError, DaemonConfig, PipelineConfig, PublisherConfig, load_toml, override
from seldrt.signals import stop_on_signals

if TYPE_CHECKING:
    from seldrt.detection import StreamInfo
    from seldrt.events import EventTracker
    from seldrt.pipeline import Pipeline
    from seldrt.replies import Info
    from seldrt.runtime.clip_folder import Clip, ClipFolder
    from seldrt.runtime.microphone import Microphone
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.recording import Recording
    from seldrt.runtime.sinks import Lines, Sink, TextFile

Flags = dict[str, Any]

COMPUTE = click.Choice(["cpu", "cuda", "mps"])
setting_options = options(  # what `settings` takes
    setting("--config", env="CONFIG", metavar="FILE", meaning="Settings in TOML, see configs/seldrt.toml."),
    model_option,
    setting("--only", env="ONLY", type=Names(), metavar="CLASS,...", meaning="Report no other classes."),
    setting(
        "--sensitivity",
        env="SENSITIVITY",
        type=Sensitivity(),
        metavar="X,CLASS=X,...",
        meaning="Above 1 reports more, and more that is false; below 1 less.",
    ),
    setting("--quick", env="QUICK", is_flag=True, default=None, meaning="Report sooner, and a little less surely."),
    setting("--compute", env="COMPUTE", type=COMPUTE, meaning="Where the networks compute."),
    setting("--mic", env="MIC", metavar="PROFILE", meaning="What the channels are, see docs/microphones.md."),
    setting("--channels", env="CHANNELS", metavar="N,N,N,N", meaning="The four to hear, from 1: 5,6,7,8 or 5-8."),
    setting("--mount", env="MOUNT", metavar="HOW", meaning="upright, upside-down, endfire, yaw=0,pitch=0,roll=0"),
    setting("--yaw", "yaw_deg", env="YAW", type=float, metavar="DEG", meaning="Where its front points in the room."),
    setting("--block-ms", env="BLOCK_MS", type=click.IntRange(1, 10_000), meaning="Sound per turn, in ms."),
    setting("--threads", env="THREADS", type=click.IntRange(1, 1024), meaning="Threads of the networks."),
    setting("--bind", env="BIND", metavar="URL", meaning="Publish at tcp://HOST:PORT or ipc://PATH."),
    setting("--source", env="SOURCE", metavar="NAME", meaning="Name of this microphone in the topics."),
    setting("--control", env="CONTROL", metavar="URL", meaning="Answer requests there, see docs/protocol.md."),
    setting("--curve-keys", env="CURVE_KEYS", metavar="DIR", meaning="Only for clients with keys, see `seldrt keys`."),
    setting(
        "--insecure-bind",
        env="INSECURE_BIND",
        is_flag=True,
        default=None,
        meaning="Allow an address that the network can reach.",
    ),
    setting("--levels", env="LEVELS", is_flag=True, default=None, meaning="Also publish how loud the channels are."),
    setting("--clips", env="CLIPS", metavar="DIR", meaning="Keep a sound file of each event in that folder."),
    setting("--clips-max-mb", env="CLIPS_MAX_MB", type=int, metavar="MB", meaning="Its size; the oldest clips go."),
)
chain_options = options(
    setting_options,
    click.option("--no-publish", is_flag=True, help="No messages over ZeroMQ."),
    click.option("--dcase", metavar="OUT.csv", help="Write a DCASE table when the stream ends."),
    click.option("--csv", metavar="OUT.csv", help="Write a table of the events that are over (run: add them)."),
    click.option("--jsonl", metavar="OUT.jsonl", help="Write JSON lines as they come (run: add them); - is stdout."),
    click.option("--quiet", is_flag=True, help="No line for each event."),
)


def settings(flags: Flags) -> DaemonConfig:
    """The file, if one is named, with the flags over it."""
    config = load_toml(flags["config"], DaemonConfig) if flags["config"] else DaemonConfig()
    publisher = override(
        config.publisher,
        bind=flags["bind"],
        control=flags["control"],
        curve_keys=flags["curve_keys"],
        insecure_bind=flags["insecure_bind"],
        levels=flags["levels"],
        source=flags["source"],
    )
    pipeline = override(
        config.pipeline,
        model=flags["model"],
        only=flags["only"],
        sensitivity=flags["sensitivity"],
        quick=flags["quick"],
        device=flags["compute"],
        threads=flags["threads"],
    )
    capture = override(
        config.capture,
        mic=flags["mic"],
        channels=flags["channels"] and channel_numbers(flags["channels"]),
        mount=flags["mount"],
        yaw_deg=flags["yaw_deg"],
        block_ms=flags["block_ms"],
    )
    clips = override(config.clips, dir=flags["clips"], max_mb=flags["clips_max_mb"])
    return replace(config, capture=capture, pipeline=pipeline, publisher=publisher, clips=clips)


def device_settings(flags: Flags) -> DaemonConfig:
    """`settings`, with those of the device and of what is kept of its sound: what `run` uses."""
    config = settings(flags)
    return replace(
        config,
        capture=override(
            config.capture, device=flags["device"], device_rate=flags["device_rate"], wait=flags.get("wait")
        ),
        record=override(config.record, dir=flags["record"], max_mb=flags["record_max_mb"]),
    )


def channel_numbers(text: str) -> tuple[int, ...]:
    """Numbers of channels as people write them: 5,6,7,8 or 5-8."""
    numbers: list[int] = []
    if re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        for part in text.split(","):
            first, *last = (int(number) for number in part.split("-"))
            numbers += range(first, max([first, *last]) + 1)
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


def check_wanted(config: PipelineConfig) -> None:
    """Refuses classes that the model has not, before it is loaded."""
    if config.only or config.sensitivity:
        from seldrt.pipeline import check_names

        check_names(config)


def prepare(config: DaemonConfig, flags: Flags, stack: ExitStack, recordings: Sequence[Path] = ()) -> Publisher | None:
    """All that can be refused before the model is loaded: names, outputs, the address."""
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.sinks import check_outputs

    check_wanted(config.pipeline)
    wanted = config.publisher
    check_publishing(wanted, flags)
    check_outputs(flags["dcase"], (flags["csv"], flags["jsonl"]), recordings)
    if flags["no_publish"]:
        return None
    publisher = Publisher(wanted.bind, wanted.insecure_bind, wanted.control, wanted.curve_keys)
    return stack.enter_context(closing(publisher))


class Listener:
    """The model, the outputs and the subscribers that streams share, one stream after the other.

    All is opened with the first stream, so that a signal is heeded while the model is loaded.
    """

    def __init__(self, config: DaemonConfig, flags: Flags, publisher: Publisher | None) -> None:
        self._config, self._flags, self._publisher = config, flags, publisher
        self._pipeline: Pipeline | None = None
        self._events: EventTracker | None = None
        self._outputs: list[tuple[type[Lines], TextFile]] = []
        self._clips = clip_folder(config.clips)
        self._told: list[str] = []  # of the microphone
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    def listen(
        self,
        source: Microphone | Recording,
        default_name: str,
        more_sinks: Sequence[Sink] = (),
        begun_ns: int | None = None,
    ) -> StreamInfo:
        """Until the source ends or a signal comes; ``begun_ns`` is when a recording began, UNIX time, for the files."""
        from seldrt.detection import Clock
        from seldrt.runtime.aside import Aside
        from seldrt.runtime.clips import ClipSink
        from seldrt.runtime.daemon import Daemon, stream_info
        from seldrt.runtime.display import EventLines
        from seldrt.runtime.sinks import DcaseCsv, LevelSink

        config, flags, publisher = self._config, self._flags, self._publisher
        with ExitStack() as stack:
            stack.enter_context(stop_on_signals(source.stop))
            tell = stack.enter_context(closing(Aside(say))).say if source.live else say
            first = self._pipeline is None
            pipeline = self._pipeline or self._open(add=source.live)
            stream = stream_info(pipeline, config.publisher.source or default_name)
            clock = source.clock if source.live else None
            if begun_ns is not None:
                clock = partial(Clock, begun_ns, stream.sample_rate)
            sinks = [*more_sinks, *(kind(file, stream, clock) for kind, file in self._outputs)]
            if flags["dcase"]:
                sinks.append(stack.enter_context(closing(DcaseCsv(flags["dcase"], stream.samples_per_label))))
            if self._clips is not None:
                keep = stack.enter_context(clip_keeper(self._clips, source.live, tell))
                sinks.append(ClipSink(stream, clock, config.clips, pipeline.latency_samples, *keep))
            if not flags["quiet"]:
                sinks.append(EventLines(stream, tell))
            about = microphone_lines(source, pipeline.sample_rate)
            for line in about if about != self._told else ():
                tell(line)
            self._told = about
            filters_ms = source.profile.latency_ms(pipeline.sample_rate)
            latencies = [*([("capsule filters", filters_ms)] if filters_ms else []), *pipeline.latency_table]
            if first:
                tell(f"model {pipeline.model_id}; waits for:")
                for line in latency_lines(latencies):
                    tell(line)
            if publisher is not None:
                tell(f"publishing {stream.source} at {publisher.endpoint}")
                if publisher.control_endpoint:
                    tell(f"answering requests at {publisher.control_endpoint}")
                publisher.introduce(introduction(pipeline, stream, source.profile.name, latencies))
                if config.publisher.levels:
                    sinks.append(LevelSink(stream, source.clock, publisher.send))
            summary = Daemon(pipeline, source, stream, sinks, publisher, tell, self._events).run()
            tell(
                f"{summary.heard_s:.1f} s heard, {summary.computed_s:.1f} s computed, {summary.frames} label frames, "
                f"{summary.events} events, {summary.lost_samples} samples lost"
            )
        return stream

    def _open(self, add: bool) -> Pipeline:
        from seldrt.events import EventTracker
        from seldrt.pipeline import open_pipeline
        from seldrt.runtime.sinks import EventTable, JsonLines, TextFile

        pipeline = open_pipeline(self._config.pipeline, self._config.postprocess)
        for output, kind in ((self._flags["csv"], EventTable), (self._flags["jsonl"], JsonLines)):
            if output:
                file = self._stack.enter_context(closing(TextFile(output, kind.HEADING, add)))
                self._outputs.append((kind, file))
        self._pipeline, self._events = pipeline, EventTracker(pipeline.sample_rate, pipeline.samples_per_label)
        return pipeline


def clip_folder(config: ClipsConfig) -> ClipFolder | None:
    """Where clips are kept, if they are."""
    if not config.dir:
        return None
    from seldrt.runtime.clip_folder import ClipFolder

    folder = ClipFolder(config)
    say(f"keeping clips in {config.dir}, at most {config.max_mb} MB")
    return folder


@contextmanager
def clip_keeper(
    folder: ClipFolder, live: bool, tell: Callable[[str], None]
) -> Iterator[tuple[Callable[[Clip], None], Callable[[], str]]]:
    """What takes clips and what says why some were lost: in a thread of its own where the sound does not wait."""
    if not live:
        yield folder.keep, str
        return
    from seldrt.runtime.aside import Behind

    behind = Behind(folder.keep, "clips")
    try:
        with closing(behind):
            yield behind.give, behind.complaint
    finally:  # what was done last, nobody else tells
        if trouble := behind.complaint():
            tell(f"clips: {trouble}")


def microphone_lines(source: Microphone | Recording, sample_rate: int) -> list[str]:
    """What the channels are taken for, and why; and what is done to the rate."""
    profile, rate = source.profile, source.device_rate
    lines = [f"microphone profile {profile.name}, {profile.why}: {profile.layout.about}"]
    if profile.layout.caution:
        lines.append(f"  note: {profile.layout.caution}")
    if rate and rate != sample_rate:
        lines.append(f"resampling from {rate} to {sample_rate} Hz")
    if 0 < rate < sample_rate:
        lines.append(f"warning: there is nothing above {rate // 2} Hz in this sound, and the networks expect it")
    return lines


def introduction(pipeline: Pipeline, stream: StreamInfo, mic: str, latencies: Sequence[tuple[str, float]]) -> Info:
    """What the control socket answers to `info`."""
    from seldrt import __version__
    from seldrt.replies import Info, Waiting

    waits_for = [Waiting(stage=stage, latency_ms=ms) for stage, ms in latencies]
    return Info(
        source=stream.source,
        version=__version__,
        classes=list(stream.classes),
        model_id=pipeline.model_id,
        mic=mic,
        sample_rate=stream.sample_rate,
        frame_ms=stream.samples_per_label * 1000 // stream.sample_rate,
        latency_ms=sum(stage.latency_ms for stage in waits_for),
        waits_for=waits_for,
    )
