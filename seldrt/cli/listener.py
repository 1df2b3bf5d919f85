"""Listening with settings: the model, outputs and subscribers that `run` and `replay` open, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from seldrt.cli.chain import Flags
from seldrt.cli.info import latency_lines
from seldrt.cli.shell import say
from seldrt.config import ClipsConfig, DaemonConfig
from seldrt.signals import stop_on_signals

if TYPE_CHECKING:
    from seldrt.detection import StreamInfo
    from seldrt.events import EventTracker
    from seldrt.pipeline import Pipeline
    from seldrt.replies import Info
    from seldrt.runtime.clip_folder import ClipFolder
    from seldrt.runtime.microphone import Microphone
    from seldrt.runtime.outputs import TextFile
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.recording import Recording
    from seldrt.runtime.sinks import Lines, Sink

Item = TypeVar("Item")
LINES_THAT_WAIT = 1000  # for a slow disk: more than a minute of findings


class Listener:
    """The model, the outputs and the subscribers that streams share, one stream after the other.

    All but the folder of clips is opened with the first stream, so that a signal is heeded while the model is loaded.
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
        from seldrt.runtime.background import LineWriter
        from seldrt.runtime.clips import ClipSink
        from seldrt.runtime.daemon import Daemon, stream_info
        from seldrt.runtime.sinks import DcaseCsv, EventLines, LevelSink

        config, flags, publisher = self._config, self._flags, self._publisher
        with ExitStack() as stack:
            stack.enter_context(stop_on_signals(source.stop))
            tell = stack.enter_context(closing(LineWriter(say))).say if source.live else say
            first = self._pipeline is None
            pipeline = self._pipeline or self._open(add=source.live)
            stream = stream_info(pipeline, config.publisher.source or default_name)
            clock = source.clock if source.live else None
            if begun_ns is not None:
                clock = partial(Clock, begun_ns, stream.sample_rate)
            sinks = list(more_sinks)
            for kind, file in self._outputs:
                in_background = source.live and not file.is_stdout  # its reader may hold everything up, and end it
                writer = keeping(file.write, kind.KIND, in_background, tell, LINES_THAT_WAIT)
                sinks.append(kind(stream, clock, *stack.enter_context(writer)))
            if flags["dcase"]:
                sinks.append(stack.enter_context(closing(DcaseCsv(flags["dcase"]))))
            if self._clips is not None:
                keep = stack.enter_context(keeping(self._clips.keep, "clips", source.live, tell))
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
                tell(f"model {pipeline.model_id}; latency:")
                for line in latency_lines(latencies):
                    tell(line)
                for left, right in config.pipeline.ignore:
                    tell(f"ignoring the {(right - left) % 360:g} degrees from {left:g} to {right:g}")
            if publisher is not None:
                tell(f"publishing {stream.source} at {publisher.endpoint}")
                if publisher.control_endpoint:
                    tell(f"answering requests at {publisher.control_endpoint}")
                publisher.introduce(introduction(pipeline, stream, source.profile.name, latencies))
                if config.publisher.levels:
                    sinks.append(LevelSink(stream, source.clock, publisher.send))
            summary = Daemon(pipeline, source, stream, sinks, publisher, tell, self._events).run()
            tell(
                f"{summary.heard_s:.1f} s of sound, {summary.computed_s:.1f} s of computing, "
                f"{summary.frames} label frames, {summary.events} events, {summary.lost_samples} samples lost"
            )
        return stream

    def _open(self, add: bool) -> Pipeline:
        from seldrt.events import EventTracker
        from seldrt.pipeline import open_pipeline
        from seldrt.runtime.outputs import TextFile
        from seldrt.runtime.sinks import EventTable, JsonLines

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
    clips = f"clips of {', '.join(config.only)}" if config.only else "clips"
    say(f"keeping {clips} in {config.dir}, at most {config.max_mb} MB")
    return folder


@contextmanager
def keeping(
    keep: Callable[[Item], None], what: str, in_background: bool, tell: Callable[[str], None], room: int = 50
) -> Iterator[tuple[Callable[[Item], None], Callable[[], str]]]:
    """What keeps and what says why something was lost; ``in_background``, sound does not wait for it."""
    if not in_background:
        yield keep, str
        return
    from seldrt.runtime.background import BackgroundWorker

    worker = BackgroundWorker(keep, what, room)
    try:
        with closing(worker):
            yield worker.give, worker.complaint
    finally:  # what was done last, nobody else tells
        if trouble := worker.complaint():
            tell(f"{what}: {trouble}")


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
