"""Rumble filter: wind, traffic and hum that drown all else are turned down to what backgrounds usually have.

In every place the background is louder the lower its frequency. Wind in a microphone adds 20 dB and more to that,
which is like nothing that networks have learnt from. Where the lowest bands say that there is such a thing, the level
of each low band over that of the middle of the spectrum is limited. It is a mean in dB, over bins (a tone that is alone
in its band hardly moves it) and over about a second (nor does a knock). All channels get the same gain, so directions
do not change. Nothing is ever made louder.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seldrt.config import FeatureConfig
from seldrt.stream import Scan

Floats = NDArray[np.float64]

EDGES_HZ = (20.0, 60.0, 110.0, 180.0, 270.0, 410.0, 590.0, 900.0)  # of the low bands
USUAL_DB = (15.5, 15.5, 12.0, 10.0, 7.5, 6.0, 2.5)  # over the middle; three quarters of synthetic scenes have less
MIDDLE_HZ = (600.0, 4000.0)
LOWEST_BANDS = 3  # whose mean over what is usual tells rumble from a sound
LOUD_DB, RAMP_DB = 8.0, 6.0  # of that mean: up to here nothing is cut, so much further all
AVERAGE_S = 1.0
FIRST_WEIGHT = 0.2  # of what is usual, in the average, before anything was heard
_POWER_FLOOR = 1e-12  # of spectra as `seldrt.features.stft` gives them; below is digital silence


@lru_cache
def _bands(config: FeatureConfig) -> tuple[Floats, Floats, slice, Floats]:
    """Means over low bins (bins, bands), gains of bands at these (bands, bins), the middle, usual levels (bands,)."""
    hz = np.arange(config.n_fft // 2 + 1) * config.sample_rate / config.n_fft
    low_hz = hz[hz < EDGES_HZ[-1]]
    inside = np.array([(low <= low_hz) & (low_hz < high) for low, high in pairwise(EDGES_HZ)])
    there = inside.any(axis=1)
    means = inside[there].T / inside[there].sum(axis=1)
    nodes = np.log2([*np.sqrt(np.multiply(EDGES_HZ[:-1], EDGES_HZ[1:]))[there], EDGES_HZ[-1]])
    spread = np.array([np.interp(np.log2(np.maximum(low_hz, 1)), nodes, row) for row in np.eye(len(nodes))[:-1]])
    return means, spread, slice(*np.searchsorted(hz, MIDDLE_HZ)), np.array(USUAL_DB)[there]


def rumble_stage(config: FeatureConfig) -> Scan:
    """Spectra (n, channels, bins) in and out; the first channel, W, tells the levels. It waits for nothing."""
    means, spread, middle, usual_db = _bands(config)
    share = 1 / (AVERAGE_S * config.frame_rate_hz)
    low = spread.shape[1]

    def step(state: tuple[int, Floats], spectra: NDArray[np.complex64]) -> tuple[Any, NDArray[np.complex64]]:
        frames, average = state
        w = spectra[:, 0]
        power = w.real**2 + w.imag**2 + np.float32(_POWER_FLOOR)
        middle_db = 10 * np.log10(power[:, middle].mean(axis=1, keepdims=True))
        over_db = 10 * np.log10(power[:, :low]) @ means - middle_db - usual_db
        for row in over_db:
            average = row[:] = share * row + (1 - share) * average
        after = np.arange(frames, frames + len(spectra)) + 1
        over_db /= (1 - (1 - FIRST_WEIGHT) * (1 - share) ** after)[:, None]
        rumble_db = over_db[:, :LOWEST_BANDS].mean(axis=1, keepdims=True)
        share_cut = np.clip((rumble_db - LOUD_DB) / RAMP_DB, 0, 1)
        cut_db = np.clip(share_cut * over_db, 0, config.max_rumble_cut_db) @ spread
        quieter = spectra.copy()
        quieter[..., :low] *= (10 ** (-cut_db / 20)).astype(np.float32)[:, None]
        return (frames + len(spectra), average), quieter

    return Scan(step, lambda: (0, np.zeros(len(usual_db))))
