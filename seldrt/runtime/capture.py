"""Where samples come from: a recording, or a microphone.

A source hands out `Block`s of AmbiX samples at the model's rate, each with the index of its first sample. A jump of
the index means that samples were lost. A block may be empty: the source then only gives the daemon its turn, so that
it stays responsive (at least every `TURN_S` seconds).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seldrt.detection import Clock
from seldrt.microphones import CHANNELS, Profile
from seldrt.runtime.devices import CaptureError, find_input, open_input, portaudio
from seldrt.runtime.ring import Ring

TURN_S = 0.2
CLOCK_WINDOW_S = 10.0

Samples = NDArray[np.float32]


class Block(NamedTuple):
    """Samples (n, 4) float32 AmbiX at the model's rate, and the index of the first."""

    sample: int
    samples: Samples


class Source(Protocol):
    """What the daemon asks of a source."""

    @property
    def overruns(self) -> int:
        """Times that samples were lost."""

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        """The samples from now on, at ``sample_rate`` Hz, until the source ends or is stopped."""

    def clock(self) -> Clock:
        """Sample index -> UNIX time of its capture; for a recording, as if it had begun with the replay."""

    def arrived_ns(self, sample: int) -> int:
        """UNIX time at which the sample was there to be computed with."""

    def stop(self) -> None:
        """Ends `blocks` soon, after what was captured so far; a plain flag, so a signal handler may call it."""


class Resampler:
    """Device samples to FOA at the model's rate; the result does not depend on how the stream is cut."""

    def __init__(self, from_hz: int, to_hz: int, profile: Profile) -> None:
        self._profile = profile
        self._stream = None
        if from_hz != to_hz:
            import soxr

            self._stream = soxr.ResampleStream(from_hz, to_hz, CHANNELS, dtype="float32")

    def push(self, samples: NDArray[Any], last: bool = False) -> Samples:
        """What is ready of the samples (n, 4) so far; with ``last`` all the rest, and the end."""
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32), last=last)
        return self._profile.to_foa(samples)


class Recording:
    """A 4-channel sound file, at the pace of ``speed`` (1 = real time; None = as fast as the computer goes).

    `CaptureError` when the file is missing, no sound, empty, truncated, not of four channels, or holds NaN or inf.
    """

    def __init__(self, path: Path, profile: Profile, speed: float | None = 1.0, block_ms: int = 20) -> None:
        self.overruns = 0
        self._path, self._profile, self._speed, self._block_ms = path, profile, speed, block_ms
        self._file = _open(path)
        self._stopped = False
        self._start_ns = self._handed_ns = 0
        self._rate = 1

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        self._rate, self._start_ns = sample_rate, time.time_ns()
        start_s, sample = time.monotonic(), 0
        for samples in self._converted(sample_rate):
            if self._speed is not None:
                due_s = start_s + (sample + len(samples)) / sample_rate / self._speed
                while (left_s := due_s - time.monotonic()) > 0 and not self._stopped:
                    time.sleep(min(left_s, TURN_S))
                    yield Block(sample, samples[:0])
            self._handed_ns = time.time_ns()
            yield Block(sample, samples)
            sample += len(samples)

    def clock(self) -> Clock:
        return Clock(self._start_ns, self._rate)

    def arrived_ns(self, sample: int) -> int:
        if self._speed is None:
            return self._handed_ns
        return self._start_ns + round(sample / self._rate / self._speed * 1e9)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._file.close()

    def _converted(self, sample_rate: int) -> Iterator[Samples]:
        rate = self._file.samplerate
        resampler = Resampler(rate, sample_rate, self._profile)
        size = max(rate * self._block_ms // 1000, 1)
        left = self._file.frames
        while left and not self._stopped:
            chunk = _read(self._file, self._path, min(size, left))
            left -= len(chunk)
            yield resampler.push(chunk)
        yield resampler.push(np.zeros((0, CHANNELS), np.float32), last=True)


class Microphone:
    """A live input device; its first four channels are what ``profile`` says.

    ``device`` is a number, a name, or a part of a name that fits one input only. ``device_rate`` is in Hz; 0 takes what
    the device prefers. `CaptureError` when there is no such device, it is ambiguous, has too few channels or cannot be
    opened, or when PortAudio is missing.
    """

    def __init__(
        self, device: str, profile: Profile, block_ms: int = 20, ring_s: float = 10.0, device_rate: int = 0
    ) -> None:
        found = find_input(device)
        self.name = found.name
        self.device_rate = device_rate or found.rate
        self._profile, self._block_frames = profile, max(self.device_rate * block_ms // 1000, 1)
        self._ring = Ring(max(round(ring_s * self.device_rate), 4 * self._block_frames), CHANNELS)
        self._fit = ClockFit(self.device_rate)
        self._noted = (0, 0)  # frames so far, and when they had come
        self._overflows = 0
        self._stopped = False
        self._rate = self.device_rate
        self._stream = open_input(found, self.device_rate, self._block_frames, self._captured)

    def _captured(self, frames: NDArray[Any], overflow: bool) -> None:
        """The audio callback: copies and notes, nothing else."""
        self._ring.write(frames)
        self._noted = (self._ring.written, time.time_ns())
        self._overflows += overflow

    @property
    def overruns(self) -> int:
        return self._overflows + self._ring.overruns

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        self._rate = sample_rate
        expected = sample = 0
        resampler = Resampler(self.device_rate, sample_rate, self._profile)
        nothing = np.zeros((0, CHANNELS), np.float32)
        with portaudio(f"{self.name}: cannot start"):
            self._stream.start()
        while True:
            stopping = self._stopped
            with portaudio(f"{self.name}: the device failed"):
                active = self._stream.active
                if stopping and active:
                    self._stream.stop()
            if not stopping and not active:
                raise CaptureError(f"{self.name}: the device stopped delivering; is it still plugged in?")
            self._ring.wait(1 if stopping else self._block_frames, 0.0 if stopping else TURN_S)
            first, frames = self._ring.read(self.device_rate // 2)
            self._fit.note(*self._noted)
            if not np.isfinite(frames).all():
                raise CaptureError(f"{self.name}: the device delivers samples that are not numbers")
            if first > expected:  # lost: end what was, begin anew at the right index
                rest = resampler.push(nothing, last=True)
                yield Block(sample, rest)
                sample = first * sample_rate // self.device_rate
                resampler = Resampler(self.device_rate, sample_rate, self._profile)
            expected = first + len(frames)
            samples = resampler.push(frames, last=stopping and not self._ring.available)
            yield Block(sample, samples)
            sample += len(samples)
            if stopping and not self._ring.available:
                return

    def clock(self) -> Clock:
        return Clock(self._fit.origin_ns, self._rate)

    def arrived_ns(self, sample: int) -> int:
        return self.clock().ns(sample)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._stream.close()


class ClockFit:
    """UNIX time of frame 0 of a device: the frame counter against the clock.

    A block arrives some time after it was captured, never before: the least delayed arrival of the last ten seconds
    tells best. So the fit follows the drift of the device's clock, and the jitter of callbacks does not show.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self.origin_ns = time.time_ns()  # until the first block
        self._least_ns = 0
        self._window_ends = -1  # frame

    def note(self, frames: int, arrived_ns: int) -> None:
        """``frames`` frames had come by ``arrived_ns``."""
        if not frames:
            return
        offset_ns = arrived_ns - frames * 1_000_000_000 // self._rate
        if frames >= self._window_ends:
            self.origin_ns = offset_ns if self._window_ends < 0 else self._least_ns
            self._least_ns = offset_ns
            self._window_ends = frames + round(CLOCK_WINDOW_S * self._rate)
        self._least_ns = min(self._least_ns, offset_ns)
        self.origin_ns = min(self.origin_ns, self._least_ns)


def _open(path: Path) -> Any:
    import soundfile

    if not path.exists():
        raise CaptureError(f"{path}: no such file")
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
        _check(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check(file: Any, path: Path) -> None:
    if file.channels != CHANNELS:
        plural = "s" if file.channels > 1 else ""
        raise CaptureError(f"{path}: {file.channels} channel{plural}; needs {CHANNELS} (--mic says which)")
    if not file.frames:
        raise CaptureError(f"{path}: holds no samples")
    # A cut WAV has a data chunk that promises more than the file holds (streams that never knew say 0 or 2**32 - 1).
    promised = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    cut = promised and int(promised[2]) < int(promised[1]) < 0xFFFFF000
    if cut or not _has_last_frame(file):
        raise CaptureError(f"{path}: truncated: the file ends before its sound does; copy it again")
    if file.subtype in ("FLOAT", "DOUBLE"):
        start = 0
        for chunk in file.blocks(65536, dtype="float32", always_2d=True):
            finite = np.isfinite(chunk).all(axis=1)
            if not finite.all():
                at_s = (start + int(np.argmin(finite))) / file.samplerate
                raise CaptureError(f"{path}: a sample that is no number (NaN or inf) at {at_s:.3f} s")
            start += len(chunk)
        file.seek(0)


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
