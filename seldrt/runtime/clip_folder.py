"""A folder of clips: a sound file of each event, for people to listen to and sort, and for networks to learn from.

A file is ``CLASS/SOURCE_YYYYMMDD/HHMMSS.mmmZ_az+030_el-05_p0.87.flac``, by the onset, and by
direction and confidence when its class was surest; of a recording that nobody dated ``CLASS/SOURCE/00012.345s_...``.
So it is a folder of class folders, as `offline.bank` reads it, in which the clips of a day stay together.
"""

from __future__ import annotations

import glob
import io
import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seldrt.config import ClipsConfig, ConfigError
from seldrt.detection import Event, check_name
from seldrt.files import NO_ROOM, whole
from seldrt.runtime.folders import (
    FUTURE_NS,
    FolderError,
    changed_ns,
    fitting_bytes,
    kept_bytes,
    size_bytes,
    surplus,
    why_not,
    writable_folder,
)

CLIPPING = "keep clips in"  # what the folder is for
NAME = re.compile(r"_az[+-]\d{3}_el[+-]\d{2}_p[01]\.\d{2}\.flac(\.[0-9a-f]{12}\.part)?$")
DATED = re.compile(r"\d{6}\.(\d{3})Z" + NAME.pattern)
DRIFT_MS = 50  # that the onset of a message may be off the one in a name
COUNTED_SHARE = 0.05  # of the size of the folder: so much is added before it is counted anew, as others may add, too
TRIES = 5


class Clip(NamedTuple):
    """Mono samples (n,) at ``rate`` Hz of an event as it was when its class was surest.

    ``dated`` if its times are UNIX times.
    """

    event: Event
    samples: NDArray[np.float32]
    rate: int
    dated: bool


class ClipFolder:
    """Keeps clips in a folder of bounded size: the oldest make room, also on a full disk. `FolderError` when not."""

    def __init__(self, config: ClipsConfig) -> None:
        self._folder = writable_folder(config.dir, CLIPPING)
        self._most_bytes = config.max_mb * 1_000_000
        self._addable_bytes = 0.0  # before it is counted anew what lies there

    def keep(self, clip: Clip) -> None:
        path = self._folder / clip.event.class_ / _group(clip) / f"{_time(clip)}_{_heard(clip.event)}.flac"
        if not self._folder.is_dir():
            raise FolderError(f"{self._folder}: is gone, so clips are lost")
        try:
            self._write(path, flac(clip))
        except OSError as error:
            raise FolderError(f"{path}: the clip is not kept: {why_not(error, self._folder)}") from None
        self._addable_bytes -= size_bytes(path)
        if self._addable_bytes < 0:
            self._make_room(path)

    def _write(self, path: Path, content: bytes) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                with whole(path) as partial:
                    partial.write_bytes(content)
                return
            except FileNotFoundError:  # another daemon made room just then, and took the empty folder
                if not tries_left:
                    raise
            except OSError as error:
                if error.errno not in NO_ROOM or not tries_left:
                    raise
                self._make_room(path, missing_bytes=len(content))

    def _make_room(self, newest: Path, missing_bytes: int = 0) -> None:
        """Deletes the oldest but ``newest`` until the rest fits, and what is missing has a place with some to spare."""
        others, newest_bytes = [path for path in kept_clips(self._folder) if path != newest], size_bytes(newest)
        kept = kept_bytes(others)
        if missing_bytes > kept:  # in vain
            return
        most = fitting_bytes(self._folder, kept + newest_bytes, self._most_bytes)
        room = round((1 - COUNTED_SHARE) * most) - newest_bytes
        if missing_bytes:
            room = min(room, kept * 9 // 10 - missing_bytes)
        self._addable_bytes = COUNTED_SHARE * most
        for path in surplus(others, room):
            with suppress(OSError):  # another took it, or it is not ours to take
                path.unlink()
                path.parent.rmdir()  # of the source and day, and then the class, when nothing is left
                path.parent.parent.rmdir()


def kept_clips(folder: Path) -> list[Path]:
    """The clips in a folder, and what is left of those whose writing was cut off; the oldest first.

    They are as old as the file system says; see `FUTURE_NS`.
    """
    latest_ns = time.time_ns() + FUTURE_NS
    found = map(folder.joinpath, glob.iglob("*/*/*", root_dir=folder, include_hidden=True))
    clips = (path for path in found if NAME.search(path.name) and os.path.isfile(path) and not _is_linked(path))
    changed = {path: changed_ns(path) for path in clips}
    return sorted(changed, key=lambda path: (changed[path] <= latest_ns, changed[path], path))


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


def _day(event: Event) -> datetime:
    return datetime.fromtimestamp(event.onset_ns / 1e9, UTC)


def _group(clip: Clip) -> str:
    return f"{clip.event.source}_{_day(clip.event):%Y%m%d}" if clip.dated else clip.event.source


def _time(clip: Clip) -> str:
    if clip.dated:
        return f"{_day(clip.event):%H%M%S.%f}"[:-3] + "Z"
    return f"{clip.event.onset_ns / 1e9:09.3f}s"


def _heard(event: Event) -> str:
    return f"az{event.azimuth_deg:+z04.0f}_el{event.elevation_deg:+z03.0f}_p{event.confidence:.2f}"
