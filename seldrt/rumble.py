"""Rumble filter: wind, traffic and hum that drown all else are turned down to what backgrounds usually have.

In every place the background is louder the lower its frequency. Wind in a microphone adds 20 dB and more to that,
which is like nothing that networks have learnt from. So the level of each low band over that of the middle of the
spectrum, in dB and averaged over about a second (a knock hardly moves it), is limited. All channels get the same gain,
so directions do not change. Nothing is ever made louder.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from seldrt.config import FeatureConfig
from seldrt.stream import Scan

Floats = NDArray[np.float64]

EDGES_HZ = (20.0, 60.0, 110.0, 180.0, 270.0, 410.0, 590.0, 900.0)  # of the low bands
USUAL_DB = (18.0, 17.0, 14.0, 12.0, 10.0, 8.0, 5.5)  # over the middle; three quarters of synthetic scenes have less
MIDDLE_HZ = (600.0, 4000.0)
AVERAGE_S = 1.0
_POWER_FLOOR = 1e-12  # of spectra as `seldrt.features.stft` gives them; below is digital silence


@lru_cache
def _bands(config: FeatureConfig) -> tuple[Floats, Floats, Floats]:
    """What gives mean powers (bins, bands + 1), the middle last; gains in dB (bands, bins); usual levels (bands,)."""
    hz = np.arange(config.n_fft // 2 + 1) * config.sample_rate / config.n_fft
    inside = [(low <= hz) & (hz < high) for low, high in [*pairwise(EDGES_HZ), MIDDLE_HZ]]
    there = [bool(band.any()) for band in inside[:-1]]
    means = np.stack([band / band.sum() for band in inside if band.any()], axis=1)
    centres = np.sqrt(np.multiply(EDGES_HZ[:-1], EDGES_HZ[1:]))[there]
    low = np.count_nonzero(hz < EDGES_HZ[-1])
    octaves = np.log2(np.maximum(hz[:low], 1))
    nodes = np.log2([*centres, EDGES_HZ[-1]])
    spread = np.stack([np.interp(octaves, nodes, row) for row in np.eye(len(nodes))[:-1]])
    return means, spread, np.array(USUAL_DB)[there]


def rumble_stage(config: FeatureConfig) -> Scan:
    """Spectra (n, channels, bins) in and out; the first channel, W, tells the levels. It waits for nothing."""
    means, spread, usual_db = _bands(config)
    share = 1 / (AVERAGE_S * config.frame_rate_hz)
    low = spread.shape[1]

    def step(average: Floats, spectra: NDArray[np.complex64]) -> tuple[Floats, NDArray[np.complex64]]:
        w = spectra[:, 0, : len(means)]
        levels_db = 10 * np.log10((w.real**2 + w.imag**2) @ means + _POWER_FLOOR)
        over_db, average = lfilter([share], [1, share - 1], levels_db[:, :-1] - levels_db[:, -1:], axis=0, zi=average)
        cut_db = np.clip(over_db - usual_db, 0, config.max_rumble_cut_db) @ spread
        quieter = spectra.copy()
        quieter[..., :low] *= (10 ** (-cut_db / 20)).astype(np.float32)[:, None]
        return average, quieter

    return Scan(step, lambda: np.zeros((1, len(usual_db))))
