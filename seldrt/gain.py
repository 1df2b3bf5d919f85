"""Automatic gain: a quiet background is raised to a level at which networks have learnt.

How loud a recording is says more of the microphone, its preamplifier and its distance than of what sounds. All
channels get the same gain, so directions do not change. It follows the background and not the events: the level
that a tenth of the last minute stays below. So what goes on without a pause for longer is taken for background, and
when a loud background ends, six seconds pass until a quiet one is raised. Nothing is ever made weaker.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

import numpy as np
from numpy.typing import NDArray

from seldrt.config import FeatureConfig
from seldrt.stream import Scan

BACKGROUND_DBFS = -65.0  # what quieter ones are raised to
WINDOW_S = 60.0
SHARE = 0.1  # of the window that is quieter than its background
NOTHING_DBFS = -110.0  # a frame below is digital silence, and says nothing of the background
RUMBLE_HZ = 100.0  # what is lower does not count: wind, handling, an offset


class Background:
    """The level that a `SHARE` of the last ``frames`` frames stays below, of those that say something.

    The first ``partial`` ones do not: their windows begin before the stream.
    """

    def __init__(self, frames: int, partial: int) -> None:
        self._frames, self._partial = frames, partial
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def after(self, level_dbfs: float) -> float:
        """The background when the next frame has this level; `BACKGROUND_DBFS` before the first that says something."""
        if self._partial:
            self._partial -= 1
        elif level_dbfs > NOTHING_DBFS:
            self._recent.append(level_dbfs)
            insort(self._sorted, level_dbfs)
            if len(self._recent) > self._frames:
                del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        return self._sorted[int(SHARE * len(self._sorted))] if self._sorted else BACKGROUND_DBFS


def levels_dbfs(spectra: NDArray[np.complex64], config: FeatureConfig, window_energy: float) -> NDArray[np.float64]:
    """RMS level (n,) above `RUMBLE_HZ` of spectra (n, bins) of windows with the sum of squares ``window_energy``."""
    first = int(np.ceil(RUMBLE_HZ * config.n_fft / config.sample_rate))
    power = (spectra.real[:, first:] ** 2 + spectra.imag[:, first:] ** 2).sum(axis=-1, dtype=float)
    return 10 * np.log10(np.maximum(2 * power / (config.n_fft * window_energy), 1e-20))


def gain_stage(config: FeatureConfig, window_energy: float) -> Scan:
    """Spectra (n, channels, bins) in and out; the first channel, W, tells the level. It waits for nothing.

    ``window_energy`` is the sum of the squares of the window of the spectra.
    """

    def step(background: Background, spectra: NDArray[np.complex64]) -> tuple[Background, NDArray[np.complex64]]:
        levels = levels_dbfs(spectra[:, 0], config, window_energy)
        quiet_db = BACKGROUND_DBFS - np.array([background.after(level) for level in levels.tolist()])
        gains = 10 ** (np.clip(quiet_db, 0, config.max_gain_db) / 20)
        return background, spectra * gains.astype(np.float32)[:, None, None]

    partial = -(-config.win_length // config.hop_length) - 1
    return Scan(step, lambda: Background(round(WINDOW_S * config.frame_rate_hz), partial))
