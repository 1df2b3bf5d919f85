"""A sound file of each event, for people to listen to and sort, and for networks to learn from.

Mono, as a cardioid hears that points to the event and follows it: what sounds elsewhere is weaker in it. The file is
``CLASS/SOURCE_YYYYMMDD/HHMMSS.mmmZ_az+030_el-05_p0.87.flac``, by the onset, the direction when it was last heard and
the highest confidence; of a recording that nobody dated ``CLASS/SOURCE/00012.345s_...``. So the folder is one of class
folders, as `offline.bank` reads it, in which the clips of a day stay together.
"""

from __future__ import annotations

import glob
import io
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seldrt.config import ClipsConfig, ConfigError
from seldrt.detection import Clock, Event, EventChange, StreamInfo, check_name
from seldrt.files import whole
from seldrt.runtime.folders import FolderError, changed_ns, size_bytes, surplus, why_not, writable_folder
from seldrt.runtime.sinks import Sink
from seldrt.spatial import foa_gains, unit_vector

CLIPPING = "keep clips in"  # what the folder is for
NAME = re.compile(r"_az[+-]\d{3}_el[+-]\d{2}_p[01]\.\d{2}\.flac(\.[0-9a-f]{12}\.part)?$")
DATED = re.compile(r"\d{6}\.(\d{3})Z" + NAME.pattern)
DRIFT_MS = 50  # that the onset of a message may be off the one in a name
COUNTED_SHARE = 0.05  # of the size of the folder: so much is added before it is counted anew, as others may add, too
TRIES = 5
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
        self._uncounted_bytes = self._most_bytes  # what lies there already

    def keep(self, clip: Clip) -> None:
        path = self._folder / clip.event.class_ / _group(clip) / f"{_time(clip)}_{_heard(clip.event)}.flac"
        if not self._folder.is_dir():
            raise FolderError(f"{self._folder}: is gone, so clips are lost")
        try:
            self._write(path, flac(clip))
        except OSError as error:
            raise FolderError(f"{path}: the clip is not kept: {why_not(error, self._folder)}") from None
        self._uncounted_bytes += size_bytes(path)
        if self._uncounted_bytes > COUNTED_SHARE * self._most_bytes:
            self._make_room(path)
            self._uncounted_bytes = 0

    def _write(self, path: Path, content: bytes) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                with whole(path) as partial:
                    partial.write_bytes(content)
                return
            except FileNotFoundError:  # another daemon made room just then, and took the empty folder
                if not tries_left:
                    raise

    def _make_room(self, newest: Path) -> None:
        room = round((1 - COUNTED_SHARE) * self._most_bytes) - size_bytes(newest)
        for path in surplus((path for path in kept_clips(self._folder) if path != newest), room):
            with suppress(OSError):  # another took it, or it is not ours to take
                path.unlink()
                path.parent.rmdir()  # of the source and day, and then the class, when nothing is left
                path.parent.parent.rmdir()


def kept_clips(folder: Path) -> list[Path]:
    """The clips in a folder, and what is left of those whose writing was cut off; the oldest first."""
    found = map(folder.joinpath, glob.iglob("*/*/*", root_dir=folder, include_hidden=True))
    clips = (path for path in found if NAME.search(path.name) and os.path.isfile(path) and not _is_linked(path))
    return sorted(clips, key=lambda path: (changed_ns(path), path))


def find_clip(folder: Path, class_: str, source: str, onset_ms: int) -> Path | None:
    """The clip of an event by what its message says; ``onset_ms`` is UNIX time. None where there is none."""
    apart_ms: dict[Path, int] = {}
    for second in {(onset_ms - DRIFT_MS) // 1000, (onset_ms + DRIFT_MS) // 1000}:
        try:
            onset = datetime.fromtimestamp(second, UTC)
            group = folder / check_name(class_, "class") / f"{check_name(source, 'source')}_{onset:%Y%m%d}"
        except (ConfigError, ValueError, OverflowError, OSError):  # of years that no calendar has
            return None
        for path in group.glob(f"{onset:%H%M%S}.*.flac"):
            found = DATED.fullmatch(path.name)
            if found and path.is_file() and not path.is_symlink():
                apart_ms[path] = abs(second * 1000 + int(found[1]) - onset_ms)
    nearest = min(apart_ms, key=apart_ms.__getitem__, default=None)
    return nearest if nearest and apart_ms[nearest] <= DRIFT_MS else None


def _is_linked(path: Path) -> bool:
    """Whether it stands somewhere else: there it is not ours to take away."""
    return any(map(os.path.islink, (path, path.parent, path.parent.parent)))


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
        self._sound.push(sample, samples)
        self._cut_due()

    def event(self, change: EventChange) -> None:
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
            event = self._info.event(change, self._clock())
            event.onset_ns = life.onset_ns
            event.confidence = max(change.source.confidence for change in life.told)
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


def flac(clip: Clip) -> bytes:
    """The file, of 24 bits: made before it is written, since the sound library does not tell that a disk is full."""
    import soundfile

    event, content = clip.event, io.BytesIO()
    peak = max(float(np.abs(clip.samples).max()), 1.0)
    with soundfile.SoundFile(content, "w", clip.rate, 1, "PCM_24", format="FLAC") as file:
        file.title = event.class_
        file.comment = (
            f"{event.source}: azimuth {event.azimuth_deg:.1f}, elevation {event.elevation_deg:.1f}, "
            f"confidence {event.confidence:.2f}, {event.duration_ms} ms"
        ) + (f", {20 * np.log10(peak):.1f} dB over full scale, turned down" if peak > 1 else "")
        if clip.dated:
            file.date = _day(event).isoformat()
        file.write(clip.samples / peak)
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
