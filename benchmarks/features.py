"""The feature stage at live blocks beside plain librosa on blocks of a second; microseconds per 10-ms frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, interleaved
from seldrt.config import FeatureConfig
from seldrt.features import PRESETS, features_stage
from seldrt.stream import Stage, run

Floats = NDArray[np.floating[Any]]

SECONDS = 1
BLOCK_S = 0.1


def librosa_features(samples: Floats, config: FeatureConfig, filters: Floats) -> Floats:
    """What `seldrt.features.features` gives, (frames, 13, n_mels) of samples (n, 4), as its definitions read."""
    margin = (config.n_fft - config.win_length) // 2  # librosa puts the window into the middle of the transform
    before = margin + config.win_length - config.hop_length
    padded = np.pad(samples.T, [(0, 0), (before, margin)])
    spectra = librosa.stft(
        padded, n_fft=config.n_fft, hop_length=config.hop_length, win_length=config.win_length, center=False
    )

    def log_mel(power: Floats) -> Floats:
        bands = librosa.feature.melspectrogram(S=power, sr=config.sample_rate, n_mels=config.n_mels)
        return librosa.power_to_db(bands, amin=1e-10, top_db=None)

    power = np.abs(spectra) ** 2
    parts = [librosa.decompose.hpss(np.abs(channel), kernel_size=config.hpss_kernel) for channel in spectra]
    levels = log_mel(power)
    harmonic = log_mel(np.stack([part[0] for part in parts]) ** 2)
    percussive = log_mel(np.stack([part[1] for part in parts]) ** 2)
    flow = np.conj(spectra[:1]) * spectra[[3, 1, 2]] / (power.sum(axis=0) + 1e-10)
    weights = filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)
    means = [part.mean(axis=0, keepdims=True) for part in (levels, harmonic, percussive)]
    stacked = np.concatenate([levels, weights @ flow.real, weights @ flow.imag, *means])
    return stacked.transpose(2, 0, 1).astype(np.float32)


def pushed(stage: Stage, samples: Floats, block: int) -> Callable[[], None]:
    """Pushes all samples into a running stage, block by block."""

    def push() -> None:
        for start in range(0, len(samples), block):
            stage.push(samples[start : start + block])

    return push


def difference(samples: Floats, config: FeatureConfig, filters: Floats) -> float:
    """Greatest difference (dB, or of intensities) between both ways, where medians see no edge of the block."""
    ours = run(features_stage(config), samples)
    assert ours is not None
    inner = slice(config.hpss_kernel, -config.hpss_kernel)
    return float(np.abs(ours[inner] - librosa_features(samples, config, filters)[inner]).max())


def measure(rounds: int) -> tuple[list[Row], dict[str, float]]:
    """The rows, and how far the paper's features differ between both ways."""
    config = PRESETS["paper"]
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((SECONDS * config.sample_rate, 4))).astype(np.float32)
    block = round(BLOCK_S * config.sample_rate)
    filters = librosa.filters.mel(sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels)
    ways: dict[str, Callable[[], object]] = {
        "seldrt, preset paper": pushed(features_stage(config), samples, block),
        "seldrt, preset compact": pushed(features_stage(PRESETS["compact"]), samples, block),
        "librosa, preset paper": lambda: librosa_features(samples, config, filters),
    }
    frames = SECONDS * config.frame_rate_hz
    targets = {"seldrt, preset paper": "≤ 500", "librosa, preset paper": "≥ 10 x"}
    found = interleaved(ways, rounds, dict.fromkeys(ways, frames / 1e6), targets)
    return found, {"greatest_difference_of_features": difference(samples, config, filters)}
