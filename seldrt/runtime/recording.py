"""A recording as a source: checked at the door, then handed out at its pace."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from seldrt.config import RATES_HZ
from seldrt.detection import Clock
from seldrt.files import check_utf8
from seldrt.microphones import CHANNELS, Profile
from seldrt.runtime.capture import TURN_S, Block, Resampler, Samples
from seldrt.runtime.channels import ChannelCheck
from seldrt.runtime.devices import FIRST_CHANNELS, CaptureError
from seldrt.samples import UNKNOWN, fault

UNKNOWN_BLOCK = 1000
HEADER_BYTES = 10_000  # more than a sound file without sound has


class Recording:
    """A sound file, at the pace of ``speed`` (1 = real time; None = as fast as the computer goes).

    ``channels`` are the four that are heard, by number from 1; () takes a file of four as it is. One that ``loops``
    begins again at its end, as long as it is not stopped, and is one stream all the same. `CaptureError` when
    the file is missing, no sound, empty, truncated, not of four channels, of a rate that no microphone has, or holds
    what is no sample: NaN, inf, 32768.
    """

    live = False

    def __init__(
        self,
        path: Path,
        profile: Profile,
        speed: float | None = 1.0,
        block_ms: int = 20,
        channels: Sequence[int] = (),
        loops: bool = False,
    ) -> None:
        self.overruns, self.loops = 0, loops
        self.seeking, self.waits = False, speed is None
        self.profile = profile
        self._path, self._speed, self._block_ms = path, speed, block_ms
        self._picked = [channel - 1 for channel in channels or FIRST_CHANNELS]
        self._file = open_recording(path, channels)
        self.device_rate: int = self._file.samplerate
        self.stopped = False
        self._start_ns = self._handed_ns = 0
        self._rate = 1
        self._frames = self._left = frames_of(self._file)  # that were not handed out yet
        self._check = ChannelCheck(CHANNELS, self.device_rate)

    @property
    def length_s(self) -> float:
        return self._frames / self.device_rate

    @property
    def played_s(self) -> float:
        """How far it has come."""
        return self.length_s - self._left / self.device_rate

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        self._rate, self._start_ns = sample_rate, time.time_ns()
        start_s, sample = time.monotonic(), 0
        for samples in self._converted(sample_rate):
            if self._speed is not None:
                due_s = start_s + (sample + len(samples)) / sample_rate / self._speed
                while (left_s := due_s - time.monotonic()) > 0 and not self.stopped:
                    time.sleep(min(left_s, TURN_S))
                    yield Block(sample, samples[:0])
            self._handed_ns = time.time_ns()
            yield Block(sample, samples)
            sample += len(samples)

    def complaints(self) -> dict[str, str]:
        return self._check.complaints()

    def clock(self) -> Clock:
        return Clock(self._start_ns, self._rate)

    def arrived_ns(self, sample: int) -> int:
        if self._speed is None:
            return self._handed_ns
        return self._start_ns + round(sample / self._rate / self._speed * 1e9)

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self._file.close()

    def _converted(self, sample_rate: int) -> Iterator[Samples]:
        rate = self.device_rate
        resampler = Resampler(rate, sample_rate, self.profile)
        size = max(rate * self._block_ms // 1000, 1)
        while self._left and not self.stopped:
            chunk = _read(self._file, self._path, min(size, self._left))[:, self._picked]
            self._left -= len(chunk)
            self._check.push(chunk)
            yield resampler.push(chunk)
            if self.loops and not self._left:
                self._file.seek(0)
                self._left = self._frames
        yield resampler.push(np.zeros((0, CHANNELS), np.float32), last=True)


def open_recording(path: Path, channels: Sequence[int] = ()) -> Any:
    """The sound file, checked to its end; `CaptureError` as for `Recording`."""
    import soundfile

    check_utf8(path, CaptureError)
    if not path.exists():
        raise CaptureError(f"{path}: no such file")
    if path.is_dir():
        endings = set()
        with suppress(OSError):  # of a folder that cannot be looked into
            endings = {inside.suffix for inside in path.iterdir() if inside.suffix.lower() in (".wav", ".flac")}
        there = f"give the recordings in it: {path}/*{min(endings)}" if endings else "with no recordings directly in it"
        raise CaptureError(f"{path}: a folder, not a file; {there}")
    if not path.is_file():
        raise CaptureError(f"{path}: not a file")
    if not path.stat().st_size:
        raise CaptureError(f"{path}: the file is empty")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: the name says .raw
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise CaptureError(f"{path}: not a sound file that can be read (WAV, FLAC): {reason}") from None
    try:
        _check(file, path, channels)
    except BaseException:
        file.close()
        raise
    return file


def _check(file: Any, path: Path, channels: Sequence[int]) -> None:
    if file.channels < max(channels, default=CHANNELS) or (not channels and file.channels != CHANNELS):
        plural = "s" if file.channels > 1 else ""
        needs = f"needs {CHANNELS}" if not channels else f"channel {max(channels)} is asked for"
        hint = ": name them with --channels, like 1,2,3,4" if file.channels > CHANNELS and not channels else ""
        raise CaptureError(f"{path}: {file.channels} channel{plural}; {needs}{hint}")
    lowest, highest = RATES_HZ
    if not lowest <= file.samplerate <= highest:
        raise CaptureError(f"{path}: its sample rate is {file.samplerate} Hz; it must lie in {lowest} to {highest} Hz")
    mended = shlex.quote(f"mended_{path.stem}.wav")  # with the date, if the name has one
    mend = f"`sox --ignore-length {shlex.quote(str(path))} {mended}` saves what is there"
    if not file.frames:
        full = path.stat().st_size > HEADER_BYTES
        raise CaptureError(
            f"{path}: holds no samples" + (f", says its header; after a power cut {mend}" if full else "")
        )
    # A cut WAV has a data chunk that promises more than the file holds (streams that never knew say 0 or 2**32 - 1).
    promised = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    cut = promised and int(promised[2]) < int(promised[1]) < 0xFFFFF000
    if cut or (file.frames != UNKNOWN and not _has_last_frame(file)):
        again = f"copy it again, or {mend}" if cut else "copy it again"
        raise CaptureError(f"{path}: truncated: the file ends before its sound does; {again}")
    if file.subtype in ("FLOAT", "DOUBLE"):
        start = 0
        for chunk in file.blocks(65536, dtype="float32", always_2d=True):
            if told := fault(chunk, start, file.samplerate):
                raise CaptureError(f"{path}: {told}")
            start += len(chunk)
        file.seek(0)


def frames_of(file: Any) -> int:
    """How many frames a sound file holds, also one that was never ended, and does not say."""
    if file.frames != UNKNOWN:
        return int(file.frames)
    import soundfile

    count = 0
    with soundfile.SoundFile(file.name) as again, suppress(RuntimeError):  # LibsndfileError: the last piece is torn
        while read := len(again.read(UNKNOWN_BLOCK, dtype="float32")):
            count += read
    return count


def _has_last_frame(file: Any) -> bool:
    try:
        file.seek(file.frames - 1)
        found = len(file.read(1)) == 1
        file.seek(0)
    except RuntimeError:  # LibsndfileError
        return False
    return found


def _read(file: Any, path: Path, count: int) -> Samples:
    try:
        chunk: Samples = file.read(count, dtype="float32", always_2d=True)
    except RuntimeError as error:  # LibsndfileError
        raise CaptureError(f"{path}: damaged at {file.tell() / file.samplerate:.3f} s: {error}") from None
    if len(chunk) < count:
        raise CaptureError(f"{path}: truncated at {file.tell() / file.samplerate:.3f} s; copy or record it again")
    return chunk
