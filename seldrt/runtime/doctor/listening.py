"""A few seconds of what a device gives, or of what it once gave to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from seldrt.config import CaptureConfig
from seldrt.microphones import CHANNELS
from seldrt.runtime.devices import FIRST_CHANNELS, LOWEST_RATE_HZ, CaptureError
from seldrt.runtime.doctor.finding import Finding, bad, doubtful, good
from seldrt.runtime.recording import open_recording
from seldrt.runtime.watched import WatchedInput

SETTLING_S = 1.0  # servers give their first callbacks in a bunch
LATE_MS, MISSING_MS = 20.0, 100.0
LONGEST_S = 60.0  # of a recording that is looked at

Shown = Callable[[NDArray[np.float32]], None]


class Heard(NamedTuple):
    """Frames (n, 4) float32 as the device gave them, and what is known of their coming."""

    name: str
    rate: int
    frames: NDArray[np.float32]
    overruns: int = 0
    missing_ms: float = 0.0  # sound that did not come, by the monotonic clock
    left_out_s: float = 0.0  # of a long recording


def listen(capture: CaptureConfig, seconds: float, shown: Shown) -> Heard:
    """What the device gives within so many seconds, opened as `run` does; ``shown`` sees each block.

    `CaptureError` when it cannot be opened, or gives nothing.
    """
    source = WatchedInput(replace(capture, wait=False))
    blocks, arrivals = [], []
    with closing(source):
        source.open()
        assert source.device is not None
        assert source.ring is not None
        source.listen()
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            source.ring.wait(source.rate * capture.block_ms // 1000, 0.2)
            first, frames = source.ring.read(source.rate)
            if len(frames):
                come = first + len(frames) + source.ring.available
                arrivals.append((time.monotonic(), come / source.rate))
                blocks.append(frames)
                shown(frames)
            if source.away:
                raise CaptureError(source.complaint())
    if not blocks:
        raise CaptureError(
            f"{source.device.name}: open, but no samples in {seconds:.0f} s: is the audio server frozen?"
        )
    overruns = source.overflows + source.ring.overruns
    missing = missing_ms(arrivals) + 1000 * source.ring.lost / source.rate
    return Heard(source.device.name, source.rate, np.concatenate(blocks), overruns, missing)


def read(path: Path, channels: Sequence[int]) -> Heard:
    """The first minute of a recording as a device would have given it; `CaptureError` as for `replay`."""
    with closing(open_recording(path, channels)) as file:
        frames = file.read(round(LONGEST_S * file.samplerate), dtype="float32", always_2d=True)
        left_out_s = (file.frames - len(frames)) / file.samplerate
        four = frames[:, [channel - 1 for channel in channels or FIRST_CHANNELS]]
        return Heard(path.name, file.samplerate, four, left_out_s=left_out_s)


def missing_ms(arrivals: list[tuple[float, float]]) -> float:
    """Sound that did not come, from pairs of (monotonic seconds, seconds of sound until then).

    Blocks are late by chance, but the least late of the last second is later than that of the first by what is lost.
    """
    begin_s = arrivals[0][0] + SETTLING_S
    late_s = [(at_s, at_s - sound_s) for at_s, sound_s in arrivals if at_s >= begin_s]
    if not late_s or late_s[-1][0] - late_s[0][0] < 2:
        return 0.0
    first = min(late for at_s, late in late_s if at_s < late_s[0][0] + 1)
    last = min(late for at_s, late in late_s if at_s > late_s[-1][0] - 1)
    return (last - first) * 1000


def check_opened(heard: Heard) -> Finding:
    """The device opened exactly as asked: its rate, four channels."""
    text = f"{heard.name}: opens with {CHANNELS} channels at {heard.rate} Hz"
    figures = {"device": heard.name, "rate_hz": heard.rate, "channels": CHANNELS}
    if heard.rate < LOWEST_RATE_HZ:
        remedy = f"choose a device of at least {LOWEST_RATE_HZ} Hz: nothing above {heard.rate // 2} Hz is heard"
        return bad(text, remedy, **figures)
    return good(text, **figures)


def check_flow(heard: Heard) -> Finding:
    """No overruns, and as many frames as the clock says."""
    figures = {
        "frames": len(heard.frames),
        "seconds": round(len(heard.frames) / heard.rate, 3),
        "overruns": heard.overruns,
        "missing_ms": round(heard.missing_ms, 1),
    }
    text = f"{figures['seconds']:.1f} s of sound came, {heard.overruns} overruns, {heard.missing_ms:.0f} ms missing"
    remedy = "give it a USB port of its own, close other audio programs, look at the load of the computer"
    if heard.missing_ms > MISSING_MS:
        return bad(text, remedy, **figures)
    if heard.overruns or heard.missing_ms > LATE_MS:
        return doubtful(text, remedy, **figures)
    return good(text, **figures)
