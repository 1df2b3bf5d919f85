"""What a device gave, kept on disk as it came, so that an odd detection can be replayed to the bit.

Files of bounded length in one folder of bounded size; beside each, a TOML file with the settings it was heard with:
``seldrt replay X.flac --config X.toml``. A file begins where the stream begins, after a loss, or a whole number of
label frames later, so that the label frames of a replay are those of the day. It also ends when the clock was set.

A name is ``SOURCE_YYYYMMDDThhmmss.mmmZ.flac``, the capture time of the first sample. What 24 bits hold exactly is
FLAC; what they do not (a sound server that scales, 32-bit converters) is a float WAV. ``.part`` is still being written,
or could not be ended.
"""

from __future__ import annotations

import errno
import math
import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seldrt.config import LABEL_RATE_HZ, RecordConfig
from seldrt.files import replace
from seldrt.microphones import CHANNELS
from seldrt.runtime.clock import SET_S
from seldrt.runtime.folders import (
    FUTURE_NS,
    fitting_bytes,
    kept_bytes,
    size_bytes,
    surplus,
    why_not,
    writable_folder,
)
from seldrt.runtime.health import RECENT_S

PAUSE_S = 10.0  # after a failure
BACKLOG_S = 20.0  # of sound that waits for the disk; beyond that it is not recorded
FULL_SCALE = 2.0**23
WAV_LIMIT_BYTES = 2 << 30
LEAST_PIECE_BYTES = 250_000  # of a file, on a disk that is nearly full
RECORDING = "record to"  # what the folder is for
PIECES = 8  # at least so many files fill the folder, so that making room costs little of what is kept
KEPT = re.compile(r"_(\d{8}T\d{6}\.\d{3}Z)\.(flac|wav)(\.part)?$")

Samples = NDArray[np.float32]


class Recorder:
    """Keeps what `keep` is given; a thread of its own writes, so that no disk holds the listener up.

    ``settings`` is the text of the TOML files, ``device`` a name for the tags of the sound files. `FolderError` when
    the folder cannot be written to; what fails later is a complaint, and after `PAUSE_S` it begins another file.
    """

    def __init__(self, config: RecordConfig, source: str, settings: str, device: str) -> None:
        self._config, self._source, self._settings, self._device = config, source, settings, device
        self._folder = writable_folder(config.dir, RECORDING)
        self._piece_bytes = 0  # how large a file may be
        self._waiting: queue.SimpleQueue[tuple[int, Samples, int, int] | None] = queue.SimpleQueue()
        self._given_frames = self._taken_frames = 0  # each has one writing thread
        self._behind_s = self._deleted_s = -RECENT_S  # when something was left out, and a file deleted, last
        self._file: KeptFile | None = None
        self._expected, self._rate = -1, 0  # the frame that comes next, and how many a second
        self._origin_ns = 0  # when frame 0 was captured, as the last block had it
        self._was_set = False  # the clock, since the file was begun
        self._extension = "flac"
        self._failure = ""  # why it records nothing now
        self._again_s = 0.0  # when it tries anew
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def keep(self, first: int, frames: Samples, rate: int, captured_ns: int) -> None:
        """Takes frames (n, 4) at ``rate`` Hz, not to be changed afterwards; ``first`` is the index of the first.

        ``captured_ns`` is its UNIX time. Never waits.
        """
        if not len(frames):
            return
        if self._given_frames - self._taken_frames > BACKLOG_S * rate:
            self._behind_s = time.monotonic()
            return
        self._given_frames += len(frames)
        self._waiting.put((first, frames, rate, captured_ns))

    def complaints(self) -> dict[str, str]:
        """Why not everything is recorded, lately."""
        if self._failure:
            return {"recording": f"{self._folder}: nothing is recorded, detection goes on: {self._failure}"}
        if time.monotonic() - self._deleted_s < RECENT_S:
            return {"recording": f"{self._folder}: the file was deleted while it was written; another one is begun"}
        if time.monotonic() - self._behind_s < RECENT_S:
            return {"recording": f"{self._folder}: the disk is too slow, some sound is not recorded"}
        return {}

    def close(self) -> None:
        """Writes what waits, and ends the file."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while (entry := self._waiting.get()) is not None:
                if self._failure and time.monotonic() < self._again_s:  # it waited when writing failed
                    pass
                elif self._succeeds(self._write, *entry):
                    self._failure = ""
                self._taken_frames += len(entry[1])
            self._succeeds(self._end_file)
        except BaseException as error:
            self._failure, self._again_s = f"the recorder has ended ({error!r}); start seldrt anew", math.inf
            raise

    def _succeeds(self, work: Callable[..., None], *arguments: Any) -> bool:
        try:
            work(*arguments)
            return True
        except Exception as error:  # of the system, or of the sound library; the next try may do
            self._failure, self._again_s = why_not(error, self._folder), time.monotonic() + PAUSE_S
            file, self._file = self._file, None
            if file is not None:
                file.give_up()
            return False

    def _write(self, first: int, frames: Samples, rate: int, captured_ns: int) -> None:
        if (first, rate) != (self._expected, self._rate):
            self._end_file()
        self._expected, self._rate = first + len(frames), rate
        before_ns, self._origin_ns = self._origin_ns, captured_ns - first * 1_000_000_000 // rate
        self._was_set |= abs(self._origin_ns - before_ns) > SET_S * 1e9
        label_frames = rate // LABEL_RATE_HZ
        start = 0
        while start < len(frames):
            into_label = self._file.frames % label_frames if self._file else 0
            piece = frames[start : start + label_frames - into_label]
            if self._file and not into_label and self._file.is_gone:
                self._deleted_s = time.monotonic()
                self._file.give_up()
                self._file = None
            if self._file and not into_label and (self._was_set or self._is_full(self._file, label_frames)):
                self._end_file()
            if self._extension == "flac" and not is_24_bit(piece):
                self._end_file()
                self._extension = "wav"
            if self._file is None:
                captured = captured_ns + start * 1_000_000_000 // rate
                self._make_room(captured)
                self._file = KeptFile(self._named(captured), rate, self._tags(first + start, captured), self._settings)
                self._was_set = False
            self._file.write(piece)
            start += len(piece)

    def _is_full(self, file: KeptFile, label_frames: int) -> bool:
        """Whether a file is long enough, or too big for old ones to make room for new ones piece by piece."""
        long = file.frames >= round(self._config.file_s * LABEL_RATE_HZ) * label_frames
        return long or file.size_bytes >= min(self._piece_bytes, WAV_LIMIT_BYTES)

    def _named(self, captured_ns: int) -> Path:
        return self._folder / f"{self._source}_{_stamp(captured_ns)}.{self._extension}"

    def _tags(self, first: int, captured_ns: int) -> dict[str, str]:
        seconds, rest_ns = divmod(captured_ns, 1_000_000_000)
        date = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"
        return {"title": self._source, "date": date, "comment": f"device {self._device}; frame {first} of the stream"}

    def _make_room(self, now_ns: int) -> None:
        """Deletes the oldest files until the next one, grown to its limit, has its place, also on a small disk."""
        files = kept_files(self._folder, now_ns)
        most = fitting_bytes(self._folder, kept_bytes(files), self._config.max_mb * 1_000_000)
        self._piece_bytes = max(most // PIECES, LEAST_PIECE_BYTES)
        room = (PIECES - 1) * self._piece_bytes - self._piece_bytes // 8  # a label frame may stick out
        for path in surplus(files, room):
            with suppress(OSError):  # it is not ours to take or, on Windows, somebody listens to it
                path.unlink(missing_ok=True)
                _settings_beside(path).unlink(missing_ok=True)

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class KeptFile:
    """A sound file of device samples that has its name, without ``.part``, once it is whole."""

    def __init__(self, path: Path, rate: int, tags: dict[str, str], settings: str) -> None:
        import soundfile

        self.part = path.with_name(path.name + ".part")
        self.frames = 0
        self._path = path
        exact = path.suffix == ".flac"
        kind, subtype = ("FLAC", "PCM_24") if exact else ("WAV", "FLOAT")
        self._to_file = as_int32 if exact else np.asarray
        beside = _settings_beside(path)
        try:
            text = f"# seldrt replay {path.name} --config {path.stem}.toml\n{settings}"
            beside.write_bytes(text.encode("utf-8", "surrogateescape"))
            self._file = soundfile.SoundFile(self.part, "w", rate, CHANNELS, subtype, format=kind)
            for tag, value in tags.items():
                setattr(self._file, tag, value)
        except Exception:
            self.part.unlink(missing_ok=True)
            beside.unlink(missing_ok=True)
            raise

    @property
    def size_bytes(self) -> int:
        return size_bytes(self.part)

    @property
    def is_gone(self) -> bool:
        """Whether somebody deleted it; a disk that cannot tell may still take what comes."""
        try:
            self.part.stat()
        except OSError as error:
            return error.errno == errno.ENOENT
        return False

    def write(self, frames: Samples) -> None:
        self._file.write(self._to_file(frames))
        self.frames += len(frames)

    def close(self) -> None:
        self._file.close()
        try:
            replace(self.part, self._path)
        except OSError:  # on Windows, another program holds it; no reason to lose what comes
            self.give_up()

    def give_up(self) -> None:
        """What could be written stays ``.part``; nothing stays of a file without sound."""
        from soundfile import LibsndfileError

        with suppress(OSError, LibsndfileError):
            self._file.close()
        if not self.frames or self.is_gone:
            with suppress(OSError):
                self.part.unlink(missing_ok=True)
                _settings_beside(self.part).unlink(missing_ok=True)


def kept_files(folder: Path, now_ns: int | None = None) -> list[Path]:
    """The recordings in a folder, finished or not, the oldest first: by their names, and `FUTURE_NS`.

    ``now_ns`` is UNIX time; None takes it from the wall clock.
    """
    latest = _stamp((time.time_ns() if now_ns is None else now_ns) + FUTURE_NS)
    captured = {path: found[1] for path in folder.iterdir() if (found := KEPT.search(path.name))}
    return sorted(captured, key=lambda path: (captured[path] <= latest, captured[path]))


def is_24_bit(samples: NDArray[Any]) -> bool:
    """Whether float samples are whole multiples of 2**-23 in [-1, 1): what devices of 16 and 24 bits give."""
    scaled = samples * np.float32(FULL_SCALE)
    return bool((scaled == np.rint(scaled)).all() and scaled.min() >= -FULL_SCALE and scaled.max() < FULL_SCALE)


def as_int32(samples: NDArray[Any]) -> NDArray[np.int32]:
    """24-bit samples at the top of 32 bits: floats would be scaled by 2**23 - 1 on their way to a file."""
    return (samples * np.float32(FULL_SCALE)).astype(np.int32) << 8


def _stamp(time_ns: int) -> str:
    """UNIX time as names have it."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{rest_ns // 1_000_000:03d}Z"


def _settings_beside(path: Path) -> Path:
    """The TOML file of a sound file, finished or not."""
    return path.with_name(re.sub(r"\.(flac|wav)(\.part)?$", ".toml", path.name))
