"""The sound of each event, cut out of the stream: mono, as a cardioid hears that points to the event and follows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from seldrt.config import ClipsConfig
from seldrt.detection import Clock, StreamInfo
from seldrt.findings import EventChange
from seldrt.runtime.clip_folder import Clip
from seldrt.runtime.sinks import Sink
from seldrt.spatial import foa_gains, unit_vector

NEWS_S = 2.0  # the offset of an event is told so long after it, beside the latency, at most

Samples = NDArray[np.float32]


class ClipSink(Sink):
    """Cuts the events of a stream out of its sound, and hands them to ``keep``.

    ``clock`` is that of a microphone or of a dated recording, ``latency_samples`` what the pipeline waits for. An
    event longer than ``longest_s`` is kept up to there, and told while it goes on. With ``only``, no other class is.
    """

    def __init__(
        self,
        info: StreamInfo,
        clock: Callable[[], Clock] | None,
        config: ClipsConfig,
        latency_samples: int,
        keep: Callable[[Clip], None],
        complaint: Callable[[], str] = str,
    ) -> None:
        beginning = Clock(0, info.sample_rate)
        self._info, self._clock, self._dated = info, clock or (lambda: beginning), clock is not None
        self._keep, self._complaint = keep, complaint
        self._wanted = config.only or info.classes
        self._before, self._after, self._longest, news = (
            round(seconds * info.sample_rate) for seconds in (config.before_s, config.after_s, config.longest_s, NEWS_S)
        )
        self._sound = _Sound(self._before + self._longest + self._after + news + latency_samples)
        self._lives: dict[int, _Life] = {}
        self._due: list[tuple[int, _Life]] = []  # clips that end at a sample which was not heard yet

    def heard(self, sample: int, samples: Samples) -> None:
        self._sound.push(sample, samples)
        self._cut_due()

    def event(self, change: EventChange) -> None:
        if self._info.classes[change.source.class_id] not in self._wanted:
            return
        life = self._lives.get(change.event_id)
        if life is None:
            life = self._lives[change.event_id] = _Life(self._clock().ns(change.source.onset_sample))
        life.add(change)
        if not life.cut and (change.phase == "offset" or change.duration_samples >= self._longest):
            life.cut = True
            end = change.source.onset_sample + min(change.duration_samples, self._longest) + self._after
            self._due.append((end, life))
            self._cut_due()
        if change.phase == "offset":
            del self._lives[change.event_id]

    def complaints(self) -> dict[str, str]:
        text = self._complaint()
        return {"clips": text} if text else {}

    def breaks_off(self) -> None:
        due, self._due = self._due, []
        for end, life in due:
            self._cut(end, life)
        self._sound.forget()

    def _cut_due(self) -> None:
        due, self._due = self._due, []
        for end, life in due:
            if end <= self._sound.end:
                self._cut(end, life)
            else:
                self._due.append((end, life))

    def _cut(self, end: int, life: _Life) -> None:
        change = life.told[-1]
        first, samples = self._sound.between(change.source.onset_sample - self._before, end)
        if len(samples):
            surest = max((told.source for told in life.told), key=lambda source: source.confidence)
            event = self._info.event(replace(change, source=surest), self._clock())
            event.onset_ns = life.onset_ns
            self._keep(Clip(event, beam(samples, first, life.places), self._info.sample_rate, self._dated))


class _Life:
    """An event so far: all that was told of it until its clip was cut."""

    def __init__(self, onset_ns: int) -> None:
        self.onset_ns = onset_ns  # as it was told first: the clock follows the drift of a device
        self.told: list[EventChange] = []
        self.cut = False

    def add(self, change: EventChange) -> None:
        if not self.cut:
            self.told.append(change)

    @property
    def places(self) -> list[tuple[int, float, float]]:
        return [(told.sample, told.source.azimuth_deg, told.source.elevation_deg) for told in self.told]


class _Sound:
    """Sound without a gap: the last block, the ``length`` samples before it, and a little more."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._blocks: deque[tuple[int, Samples]] = deque()
        self.end = 0

    def push(self, sample: int, samples: Samples) -> None:
        """Samples (n, 4), the first of which is number ``sample``."""
        if not len(samples):
            return
        self._blocks.append((sample, samples.copy()))
        self.end = sample + len(samples)
        while (oldest := self._blocks[0])[0] + len(oldest[1]) <= sample - self._length:
            self._blocks.popleft()

    def forget(self) -> None:
        self._blocks.clear()

    def between(self, first: int, end: int) -> tuple[int, Samples]:
        """What is known of these samples, and the number of the first."""
        parts = [(at, block[max(first - at, 0) : max(end - at, 0)]) for at, block in self._blocks]
        parts = [(at, part) for at, part in parts if len(part)]
        if not parts:
            return first, np.zeros((0, 4), np.float32)
        return max(first, parts[0][0]), np.concatenate([part for _, part in parts])


def beam(samples: Samples, first: int, places: Sequence[tuple[int, float, float]]) -> Samples:
    """Mono (n,), as a cardioid hears AmbiX samples (n, 4) from number ``first`` on, pointed from place to place.

    Places are (sample, azimuth, elevation) in degrees, in order; a plane wave from there keeps its level.
    """
    at, azimuth_deg, elevation_deg = np.array(places, dtype=float).T
    gains = foa_gains(unit_vector(azimuth_deg, elevation_deg))
    index = np.arange(first, first + len(samples))
    follow = np.stack([np.interp(index, at, gain) for gain in gains.T], axis=1)
    mono: Samples = (0.5 * (samples * follow).sum(1)).astype(np.float32)
    return mono
