"""What the daemon listens to: see `seldrt.runtime.recording` and `seldrt.runtime.microphone`.

A source hands out `Block`s of AmbiX samples at the model's rate, each with the index of its first sample. A jump of
the index means that samples were lost. A block may be empty: the source then only gives the daemon its turn, so that
it stays responsive (at least every `TURN_S` seconds).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seldrt.detection import Clock
from seldrt.microphones import CHANNELS, Profile
from seldrt.samples import LOUDEST

TURN_S = 0.2

Samples = NDArray[np.float32]


class Block(NamedTuple):
    """Samples (n, 4) float32 AmbiX at the model's rate, and the index of the first."""

    sample: int
    samples: Samples
    breaks_off: bool = False  # what follows, if anything, is not connected


class Source(Protocol):
    """What the daemon asks of a source."""

    @property
    def waits(self) -> bool:
        """Whether its sound comes when it is asked for, so that nobody is too slow for it."""

    @property
    def overruns(self) -> int:
        """Times that the device or the ring ran over."""

    @property
    def seeking(self) -> bool:
        """Whether there is no device now, and one is looked for."""

    def complaints(self) -> dict[str, str]:
        """What is wrong now, by what it is wrong with: the device, or a channel."""

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
        self._to_foa = profile.stage(to_hz)
        self._stream = None
        if from_hz != to_hz:
            import soxr

            self._stream = soxr.ResampleStream(from_hz, to_hz, CHANNELS, dtype="float32")

    def push(self, samples: NDArray[Any], last: bool = False) -> Samples:
        """What is ready of the samples (n, 4) so far; with ``last`` all the rest, and the end."""
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32), last=last)
        parts = [self._to_foa.push(samples), self._to_foa.flush() if last else None]
        whole = np.concatenate([np.zeros((0, CHANNELS), np.float32), *(part for part in parts if part is not None)])
        return whole.clip(-LOUDEST, LOUDEST)  # gains, and resampling, may make more of what was a sample
