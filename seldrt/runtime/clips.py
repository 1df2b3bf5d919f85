"""A sound file of each event, for people to listen to and sort, and for networks to learn from.

Mono, as a cardioid hears that points to the event and follows it: what sounds elsewhere is weaker in it. The file is
``CLASS/SOURCE_YYYYMMDD/HHMMSS.mmmZ_az+030_el-05_p0.87.flac``, by the onset, the direction when it was last heard and
the highest confidence; of a recording that nobody dated ``CLASS/SOURCE/00012.345s_...``. So the folder is one of class
folders, as `offline.bank` reads it, in which the clips of a day stay together.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seldrt.config import ClipsConfig
from seldrt.detection import Clock, Event, EventChange, StreamInfo
from seldrt.files import whole
from seldrt.runtime.folders import FolderError, kept_bytes, size_bytes, surplus, why_not, writable_folder
from seldrt.runtime.sinks import Sink
from seldrt.spatial import foa_gains, unit_vector

CLIPPING = "keep clips in"  # what the folder is for
NAME = re.compile(r"_az[+-]\d{3}_el[+-]\d{2}_p[01]\.\d{2}\.flac$")
ROOM_SHARE = 0.9  # of the size of the folder, once the oldest have gone
NEWS_S = 2.0  # the offset of an event is told so long after it, beside the latency, at most

Samples = NDArray[np.float32]


class Clip(NamedTuple):
    """Mono samples (n,) of an event as it was last told, at ``rate`` Hz; ``dated`` if its times are UNIX times."""

    event: Event
    samples: Samples
    rate: int
    dated: bool


class ClipFolder:
    """Keeps clips in a folder of bounded size: the oldest make room. `FolderError` when it cannot."""

    def __init__(self, config: ClipsConfig) -> None:
        self._folder = writable_folder(config.dir, CLIPPING)
        self._most_bytes = config.max_mb * 1_000_000
        self._bytes = kept_bytes(self._kept())

    def keep(self, clip: Clip) -> None:
        path = self._folder / clip.event.class_ / _group(clip) / f"{_time(clip)}_{_heard(clip.event)}.flac"
        try:
            with whole(path) as partial:
                partial.write_bytes(flac(clip))
            self._bytes += size_bytes(path)
            if self._bytes > self._most_bytes:
                self._make_room()
        except OSError as error:
            raise FolderError(f"{path}: the clip is not kept: {why_not(error, self._folder)}") from None

    def _kept(self) -> list[Path]:
        """The clips, the oldest first; not what somebody else put there."""
        found = [path for path in self._folder.glob("*/*/*.flac") if NAME.search(path.name)]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path))

    def _make_room(self) -> None:
        kept = self._kept()
        for path in surplus(kept, int(ROOM_SHARE * self._most_bytes)):
            path.unlink(missing_ok=True)
        self._bytes = kept_bytes(kept)


class ClipSink(Sink):
    """Cuts the events of a stream out of its sound, and hands them to ``keep``.

    ``clock`` is that of a microphone or of a dated recording, ``latency_samples`` what the pipeline waits for. An
    event longer than ``longest_s`` is kept up to there, and told while it goes on.
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
        self._before, self._after, self._longest, news = (
            round(seconds * info.sample_rate) for seconds in (config.before_s, config.after_s, config.longest_s, NEWS_S)
        )
        self._sound = _Sound(self._before + self._longest + self._after + news + latency_samples)
        self._lives: dict[int, _Life] = {}
        self._due: list[tuple[int, _Life]] = []  # clips that end at a sample which was not heard yet

    def heard(self, sample: int, samples: Samples) -> None:
        if len(samples) and sample != self._sound.end:
            self._cut_all()
        self._sound.push(sample, samples)
        self._cut_due()

    def event(self, change: EventChange) -> None:
        life = self._lives.setdefault(change.event_id, _Life(change))
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

    def finish(self) -> None:
        self._cut_all()

    def _cut_due(self) -> None:
        due, self._due = self._due, []
        for end, life in due:
            if end <= self._sound.end:
                self._cut(end, life)
            else:
                self._due.append((end, life))

    def _cut_all(self) -> None:
        """What sound follows, if any, is not connected."""
        due, self._due = self._due, []
        for end, life in due:
            self._cut(end, life)

    def _cut(self, end: int, life: _Life) -> None:
        change = life.last
        first, samples = self._sound.between(change.source.onset_sample - self._before, end)
        if len(samples):
            event = self._info.event(change, self._clock())
            event.confidence = life.confidence
            self._keep(Clip(event, beam(samples, first, life.places), self._info.sample_rate, self._dated))


class _Life:
    """An event so far: as it was told last, and where it was at which sample."""

    def __init__(self, change: EventChange) -> None:
        self.last = change
        self.confidence = 0.0
        self.places: list[tuple[int, float, float]] = []
        self.cut = False

    def add(self, change: EventChange) -> None:
        if self.cut:
            return
        source = change.source
        self.last = change
        self.confidence = max(self.confidence, source.confidence)
        self.places.append((change.sample, source.azimuth_deg, source.elevation_deg))


class _Sound:
    """Sound without a gap: the last block, the ``length`` samples before it, and a little more."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._blocks: deque[Samples] = deque()
        self._first = self.end = 0

    def push(self, sample: int, samples: Samples) -> None:
        """Samples (n, 4), the first of which is number ``sample``; a jump forgets what was before."""
        if not len(samples):
            return
        if sample != self.end:
            self._blocks.clear()
            self._first = sample
        self._blocks.append(samples.copy())
        self.end = sample + len(samples)
        while sample - self._first - len(self._blocks[0]) >= self._length:
            self._first += len(self._blocks.popleft())

    def between(self, first: int, end: int) -> tuple[int, Samples]:
        """What is known of these samples, and the number of the first."""
        first = max(first, self._first)
        whole = np.concatenate([np.zeros((0, 4), np.float32), *self._blocks])
        return first, whole[first - self._first : max(end - self._first, 0)]


def flac(clip: Clip) -> bytes:
    """The file, of 24 bits: made before it is written, since the sound library does not tell that a disk is full."""
    import soundfile

    event, content = clip.event, io.BytesIO()
    with soundfile.SoundFile(content, "w", clip.rate, 1, "PCM_24", format="FLAC") as file:
        file.title = event.class_
        file.comment = (
            f"{event.source}: azimuth {event.azimuth_deg:.1f}, elevation {event.elevation_deg:.1f}, "
            f"confidence {event.confidence:.2f}, {event.duration_ms} ms"
        )
        if clip.dated:
            file.date = _day(event).isoformat()
        file.write(clip.samples)
    return content.getvalue()


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


def _day(event: Event) -> datetime:
    return datetime.fromtimestamp(event.onset_ns / 1e9, UTC)


def _group(clip: Clip) -> str:
    return f"{clip.event.source}_{_day(clip.event):%Y%m%d}" if clip.dated else clip.event.source


def _time(clip: Clip) -> str:
    if clip.dated:
        return f"{_day(clip.event):%H%M%S.%f}"[:-3] + "Z"
    return f"{clip.event.onset_ns / 1e9:09.3f}s"


def _heard(event: Event) -> str:
    return f"az{event.azimuth_deg:+04.0f}_el{event.elevation_deg:+03.0f}_p{event.confidence:.2f}"
