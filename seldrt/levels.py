"""How loud the channels are, ten times a second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seldrt.findings import Loudness

FLOOR_DBFS = -120.0  # of digital silence; below what 20 bits can say


class LevelMeter:
    """RMS and peak of each channel over windows of ``window_samples``, which start at multiples of that."""

    def __init__(self, window_samples: int) -> None:
        self._window = window_samples
        self._start = self._filled = 0
        self._squares = self._peaks = np.zeros(0)

    def push(self, sample: int, samples: NDArray[np.float32]) -> list[Loudness]:
        """The windows that these samples (n, channels) complete; ``sample`` is the index of the first.

        However the samples are cut, the windows are the same, but for the last bits; one that misses samples is left
        out.
        """
        if sample != self._start + self._filled:  # some were lost: the next whole window
            self._start, self._filled = -(-sample // self._window) * self._window, 0
            samples = samples[self._start - sample :]
        told = []
        while len(samples):
            part = samples[: self._window - self._filled].astype(np.float64)
            samples = samples[len(part) :]
            if self._filled == 0:
                self._squares = self._peaks = np.zeros(part.shape[1])
            self._squares = self._squares + np.square(part).sum(0)
            self._peaks = np.maximum(self._peaks, np.abs(part).max(0))
            self._filled += len(part)
            if self._filled == self._window:
                told.append(self._loudness())
                self._start, self._filled = self._start + self._window, 0
        return told

    def _loudness(self) -> Loudness:
        rms = np.sqrt(self._squares / self._window)
        return Loudness(
            sample=self._start, samples=self._window, rms_dbfs=decibels(rms), peak_dbfs=decibels(self._peaks)
        )


def decibels(amplitudes: NDArray[np.float64]) -> list[float]:
    """dB relative to an amplitude of 1, rounded to hundredths; `FLOOR_DBFS` at least, also for what is no number."""
    floor = 10 ** (FLOOR_DBFS / 20)
    return [round(float(value), 2) for value in 20 * np.log10(np.maximum(np.nan_to_num(amplitudes), floor))]
