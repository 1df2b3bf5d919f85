"""Time-frequency features: pure functions, and the stage that makes them of a stream.

Samples (n, 4) are AmbiX FOA (W, Y, Z, X). Spectra are (frames, channels, bins). The stage gives one float32 array
(frames, len(FEATURE_NAMES), n_mels) whose channels have names; each task takes those of `TASK_CHANNELS`.
Frame k covers the ``win_length`` samples that end at sample (k + 1) * hop_length.
Definitions: ETRI report, section 2; intensity after Perotin et al. (2019) with SN3D energy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from seldrt.config import FeatureConfig
from seldrt.gain import gain_stage
from seldrt.medians import running_median
from seldrt.rumble import rumble_stage
from seldrt.stream import Chain, Windowed

Array = NDArray[np.float32]

LOG_MEL = ("log_mel_w", "log_mel_y", "log_mel_z", "log_mel_x")
INTENSITY = ("active_x", "active_y", "active_z", "reactive_x", "reactive_y", "reactive_z")
MEAN_LOG_MEL = ("log_mel_mean", "harmonic_mean", "percussive_mean")
FEATURE_NAMES = LOG_MEL + INTENSITY + MEAN_LOG_MEL
TASK_CHANNELS = {
    "sad": MEAN_LOG_MEL,
    "sed": MEAN_LOG_MEL,
    "doae": LOG_MEL + INTENSITY,
    "baseline": LOG_MEL + INTENSITY[:3],
}

PRESETS = {
    "paper": FeatureConfig(),
    # One pass over the past only, a longer window for the pitch of voices, a quarter of the bands; any microphone.
    "compact": FeatureConfig(
        n_fft=1024, win_length=960, n_mels=64, hpss_time="trailing", max_gain_db=50.0, max_rumble_cut_db=60.0
    ),
}

_POWER_FLOOR = 1e-10  # -100 dB, and the guard of every division by a power


def task_indices(task: str) -> list[int]:
    """Where the channels of a task stand in `FEATURE_NAMES`."""
    return [FEATURE_NAMES.index(name) for name in TASK_CHANNELS[task]]


# --- spectra -------------------------------------------------------------------------------------------------------


def stft(samples: NDArray[np.floating], config: FeatureConfig) -> NDArray[np.complex64]:
    """Spectra (frames, channels, n_fft // 2 + 1) of every whole window in samples (n, channels); Hann, no padding."""
    windows = sliding_window_view(samples, config.win_length, axis=0)[:: config.hop_length]
    windowed = windows.astype(np.float32, copy=False) * _hann(config.win_length)
    return scipy.fft.rfft(windowed, config.n_fft, axis=-1)


@lru_cache
def _hann(length: int) -> Array:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@lru_cache
def mel_filters(config: FeatureConfig) -> Array:
    """Triangular mel filters (n_mels, bins) on Slaney's scale, each of unit area (those of librosa's default)."""
    edges = _mel_to_hz(np.linspace(_hz_to_mel(config.f_min_hz), _hz_to_mel(config.f_max_hz), config.n_mels + 2))
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


_LINEAR_STEP_HZ, _LOG_START_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27  # Slaney's auditory toolbox


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_START_HZ:
        return hz / _LINEAR_STEP_HZ
    return float(_LOG_START_HZ / _LINEAR_STEP_HZ + np.log(hz / _LOG_START_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    start = _LOG_START_HZ / _LINEAR_STEP_HZ
    return np.where(
        mel < start,
        mel * _LINEAR_STEP_HZ,
        _LOG_START_HZ * np.exp(_LOG_STEP * (np.maximum(mel, start) - start)),
    )


@lru_cache
def _sparse_mel(config: FeatureConfig) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(mel_filters(config))


@lru_cache
def _sparse_mel_mean(config: FeatureConfig) -> scipy.sparse.csr_matrix:
    filters = mel_filters(config)
    return scipy.sparse.csr_matrix(filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-12))


def _bands(matrix: scipy.sparse.csr_matrix, values: Array) -> Array:
    flat = values.reshape(-1, values.shape[-1])
    return (matrix @ flat.T).T.reshape(*values.shape[:-1], matrix.shape[0])


def power(spectra: NDArray[np.complex64]) -> Array:
    """Squared magnitude, same shape, float32."""
    return spectra.real**2 + spectra.imag**2


def log_mel(power_spectra: Array, config: FeatureConfig) -> Array:
    """Mel-band power in dB (..., n_mels) of power spectra (..., bins); the floor is -100 dB."""
    return 10 * np.log10(np.maximum(_bands(_sparse_mel(config), power_spectra), np.float32(_POWER_FLOOR)))


def intensity(spectra: NDArray[np.complex64], config: FeatureConfig) -> Array:
    """Active and reactive intensity (frames, 6, n_mels) as `INTENSITY` names them, of FOA spectra (frames, 4, bins).

    conj(W) [X, Y, Z] over the energy |W|^2 + |X|^2 + |Y|^2 + |Z|^2, averaged with mel weights. The active part of a
    plane wave from the unit vector u is u / 2.
    """
    w, xyz = spectra[:, :1], spectra[:, [3, 1, 2]]
    energy = power(spectra).sum(axis=1, keepdims=True) + np.float32(_POWER_FLOOR)
    flow = np.conj(w) * xyz / energy
    return _bands(_sparse_mel_mean(config), np.concatenate([flow.real, flow.imag], axis=1))


# --- harmonic and percussive parts ---------------------------------------------------------------------------------


def harmonic_percussive(power_spectra: Array, config: FeatureConfig) -> tuple[Array, Array]:
    """Power of the harmonic and of the percussive part, (n - kernel + 1, channels, bins) each.

    Median filtering (Fitzgerald 2010) with soft masks of power 2: the median over ``hpss_kernel`` frames keeps what
    lasts, the median over as many bins keeps what is short. Of n frames (n, channels, bins) those remain that have a
    whole window; frame k of the result masks frame k + (kernel - 1) / 2 of the input when the median is centred,
    k + kernel - 1 when it is trailing. Bins are mirrored at both ends.
    """
    reach, past = config.hpss_kernel // 2, hpss_past(config)
    harmonic = running_median(power_spectra, config.hpss_kernel)
    present = power_spectra[past : past + len(harmonic)]
    bins_first = np.ascontiguousarray(np.moveaxis(present, -1, 0))
    mirrored = np.pad(bins_first, [(reach, reach), (0, 0), (0, 0)], mode="symmetric")
    percussive = np.moveaxis(running_median(mirrored, config.hpss_kernel), 0, -1)
    # The median of the power is the squared median of the magnitude: these quotients are masks of power 2.
    total = harmonic + percussive + np.float32(_POWER_FLOOR)
    return present * (harmonic / total) ** 2, present * (percussive / total) ** 2


# --- the stage -----------------------------------------------------------------------------------------------------


def features(spectra: NDArray[np.complex64], config: FeatureConfig) -> Array:
    """All features (n - kernel + 1, len(FEATURE_NAMES), n_mels) of spectra (n, 4, bins), in the order of the names."""
    past = hpss_past(config)
    power_spectra = power(spectra)
    harmonic, percussive = harmonic_percussive(power_spectra, config)
    present = slice(past, past + len(harmonic))
    levels = log_mel(np.stack([power_spectra[present], harmonic, percussive], axis=1), config)
    return np.concatenate(
        [levels[:, 0], intensity(spectra[present], config), levels.mean(axis=2)], axis=1, dtype=np.float32
    )


def hpss_past(config: FeatureConfig) -> int:
    """Frames before the present one that the harmonic median needs."""
    return config.hpss_kernel - 1 - hpss_future(config)


def hpss_future(config: FeatureConfig) -> int:
    """Frames after the present one that the harmonic median needs: its latency."""
    return config.hpss_kernel // 2 if config.hpss_time == "centred" else 0


def features_stage(config: FeatureConfig) -> Chain:
    """Samples (n, 4) in, features (n // hop_length, len(FEATURE_NAMES), n_mels) out; silence before and after."""
    spectra = Windowed(lambda x: stft(x, config), past=config.win_length - config.hop_length, hop=config.hop_length)
    channels = Windowed(lambda x: features(x, config), past=hpss_past(config), future=hpss_future(config))
    gain = [gain_stage(config, float((_hann(config.win_length) ** 2).sum()))] if config.max_gain_db else []
    rumble = [rumble_stage(config)] if config.max_rumble_cut_db else []
    return Chain(spectra, *rumble, *gain, channels)


def silence(config: FeatureConfig) -> Array:
    """The features (len(FEATURE_NAMES), n_mels) of digital silence."""
    spectra = np.zeros((config.hpss_kernel, 4, config.n_fft // 2 + 1), np.complex64)
    return features(spectra, config)[0]
