"""Startup, main loop, shutdown: blocks from a source through the pipeline to the sinks, and a status once a second.

One thread computes and tells, live and in replay; others only fill the ring, write what is kept, and say lines to
people. So an error anywhere surfaces here, and the status cannot claim a life that is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from seldrt.config import SeldrtError
from seldrt.detection import Status, StreamInfo
from seldrt.events import EventTracker
from seldrt.findings import EventChange, LabelFrame
from seldrt.microphones import CHANNELS
from seldrt.runtime.capture import Block, Source
from seldrt.runtime.clock import ClockWatch
from seldrt.runtime.health import DEAF_S, Health
from seldrt.runtime.publisher import Publisher
from seldrt.runtime.sinks import MessageSink, Sink
from seldrt.runtime.systemd import ServiceManager

STATUS_S = 1.0


class Pipeline(Protocol):
    """What the daemon asks of a pipeline; see `seldrt.pipeline`."""

    sample_rate: int
    samples_per_label: int
    classes: tuple[str, ...]
    reported: tuple[str, ...]  # those of them that are reported
    model_id: str

    @property
    def latency_samples(self) -> int: ...

    def push(self, samples: NDArray[Any]) -> list[LabelFrame]: ...

    def flush(self) -> list[LabelFrame]: ...


class Summary(NamedTuple):
    """What a run came to."""

    heard_s: float
    computed_s: float
    frames: int
    events: int
    lost_samples: int


def stream_info(pipeline: Pipeline, source: str) -> StreamInfo:
    """What messages need to know of a pipeline; ``source`` is the name in topics."""
    return StreamInfo(
        source=source,
        classes=pipeline.classes,
        sample_rate=pipeline.sample_rate,
        samples_per_label=pipeline.samples_per_label,
    )


class Daemon:
    """Listens to ``source`` until it ends or is stopped; ``info`` is what `stream_info` says of the pipeline.

    Without a publisher there are no messages and no status, only the sinks. ``tell`` takes a line for people: what is
    wrong, once, and when it is over. ``events`` are those of streams before, so that numbers of events go on.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: Source,
        info: StreamInfo,
        sinks: Sequence[Sink] = (),
        publisher: Publisher | None = None,
        tell: Callable[[str], None] = lambda line: None,
        events: EventTracker | None = None,
    ) -> None:
        self._pipeline, self._source, self._publisher = pipeline, source, publisher
        self._info = info
        wire = [MessageSink(info, source.clock, publisher.send)] if publisher else []
        self._sinks = [*wire, *sinks]
        self._events = events or EventTracker(pipeline.sample_rate, pipeline.samples_per_label)
        self._health, self._clock = Health(pipeline.sample_rate), ClockWatch()
        self._base = 0  # sample at which the pipeline's present stream began: a whole label frame
        self._expected = 0  # the sample that comes next
        self._broken_off = False  # the pipeline's stream has ended; the next sample begins another
        self._frames = self._event_count = 0
        self._tell = tell
        self._told: dict[str, str] = {}  # what is wrong, as far as it was told
        self._service = ServiceManager()
        self._status_due_s = 0.0

    def run(self) -> Summary:
        """The whole life; every sink is finished in the good case, and the last status is sent in every case."""
        try:
            self._service.tell("READY=1")
            for block in self._blocks():
                self._hear(block)
                self._tell_status()
            self._service.tell("STOPPING=1")
            self._end_of_stream()
            for sink in self._sinks:
                sink.finish()
        except Exception as error:  # the subscribers learn of it; the caller gets it
            self._send_status("failed", str(error) or type(error).__name__)
            raise
        self._send_status("ended")
        health = self._health
        heard_s = max(self._expected - health.lost_samples, 0) / self._info.sample_rate
        return Summary(heard_s, health.computed_s, self._frames, self._event_count, health.lost_samples)

    def _blocks(self) -> Iterator[Block]:
        """Those of the source; where it breaks off, as a damaged recording does, all is told that was heard."""
        try:
            yield from self._source.blocks(self._info.sample_rate)
        except SeldrtError:
            self._end_of_stream()
            raise

    def _hear(self, block: Block) -> None:
        samples = block.samples
        if block.sample > self._expected or (self._broken_off and len(samples)):
            self._lose_until(block.sample)
        self._expected = block.sample + len(samples)
        for sink in self._sinks:
            sink.heard(block.sample, samples)
        if len(samples):
            self._compute(samples[max(self._base - block.sample, 0) :])  # after a loss, from the next label frame on
        if block.breaks_off:
            self._end_of_stream()

    def _compute(self, samples: NDArray[Any]) -> None:
        start_s = time.perf_counter()
        frames = self._pipeline.push(samples)
        self._health.computed(time.perf_counter() - start_s, len(samples))
        self._say(frames)

    def _say(self, frames: list[LabelFrame]) -> None:
        label = self._info.samples_per_label
        for frame in frames:
            if self._base:
                frame = _later(frame, self._base, label)
            changes = self._events.push(frame)
            for sink in self._sinks:
                sink.frame(frame)
            self._say_events(changes)
            self._frames += 1
            newest = min(frame.sample + label + self._pipeline.latency_samples, self._expected)
            self._health.published(time.time_ns() - self._source.arrived_ns(newest))

    def _say_events(self, changes: Iterable[EventChange]) -> None:
        for change in changes:
            self._event_count += change.phase == "onset"
            for sink in self._sinks:
                sink.event(change)

    def _end_of_stream(self) -> None:
        """Silence up to the end of the last label frame, so that no sample goes unheard; then what is left."""
        if self._broken_off:
            return
        self._broken_off = True
        missing = (self._base - self._expected) % self._info.samples_per_label
        if missing and self._expected > self._base:
            self._compute(np.zeros((missing, CHANNELS), np.float32))
        start_s = time.perf_counter()
        frames = self._pipeline.flush()
        self._health.computed(time.perf_counter() - start_s, 0)
        self._say(frames)
        self._say_events(self._events.close())
        for sink in self._sinks:
            sink.breaks_off()

    def _lose_until(self, sample: int) -> None:
        """What came before a loss ends like a stream; a new one begins with the next whole label frame."""
        self._end_of_stream()
        label = self._info.samples_per_label
        self._base = -(-sample // label) * label
        self._broken_off = False
        lost_samples = self._base - self._expected
        if not lost_samples:
            return
        for sink in self._sinks:
            sink.gap(self._expected, lost_samples)
        self._health.lost(lost_samples)

    def _tell_status(self) -> None:
        now_s = time.monotonic()
        greeting = self._publisher is not None and self._publisher.attend(self._info.source)
        if greeting or now_s >= self._status_due_s:
            self._send_status("running")
        if now_s >= self._status_due_s:
            self._status_due_s = now_s + STATUS_S
            self._tell_news()

    def _complaints(self) -> dict[str, str]:
        found = self._clock.complaints() | self._source.complaints()
        for sink in self._sinks:
            found |= sink.complaints()
        return self._health.complaints(self._source.overruns, "device" in found, self._source.waits) | found

    def _tell_news(self) -> None:
        """What is wrong now and was not, and the other way round; the service manager learns that we live."""
        found = self._complaints()
        for what in [what for what in found if what not in self._told]:
            self._tell(f"degraded: {what}: {found[what]}")
        for what in [what for what in self._told if what not in found]:
            self._tell(f"resolved: {what}: {self._told[what].partition('; ')[0]}")  # and not what was done about it
        self._told = found
        if self._health.unheard_s < DEAF_S or self._source.seeking:
            self._service.tell("WATCHDOG=1", f"STATUS={_line(found) or 'listening'}")

    def _send_status(self, state: Literal["running", "ended", "failed"], error: str = "") -> None:
        if self._publisher is None:
            return
        p50, p95, p99 = self._health.latencies_ms()
        why = error or _line(self._complaints())
        status = Status(
            source=self._info.source,
            t_capture_ns=self._source.clock().ns(self._expected),
            sample=self._expected,
            state=state,
            uptime_s=round(self._health.uptime_s, 3),
            overruns=self._source.overruns,
            lost_samples=self._health.lost_samples,
            real_time_factor=self._health.real_time_factor(),
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
            model_id=self._pipeline.model_id,
            degraded=bool(why),
            why=why,
            classes=list(self._pipeline.reported),
        )
        self._publisher.send(status)


def _line(complaints: dict[str, str]) -> str:
    return "; ".join(f"{what}: {text}" for what, text in sorted(complaints.items()))


def _later(frame: LabelFrame, samples: int, samples_per_label: int) -> LabelFrame:
    sources = [replace(source, onset_sample=source.onset_sample + samples) for source in frame.sources]
    index = frame.index + samples // samples_per_label
    return replace(frame, index=index, sample=frame.sample + samples, sources=sources)
