"""From the capsules of an array to FOA by the very code that serves the microphone, and what real capsules add."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from offline.arrays import SAMPLE_RATE
from offline.convolution import convolve_sum
from offline.dataset import Recording
from offline.files import audio_blocks
from seldrt import microphones
from seldrt.microphones.layout import Capsules, Layout
from seldrt.samples import CHANNELS

Floats = NDArray[np.floating]

FILTER_TAPS = 1024
DELAY_SAMPLES = FILTER_TAPS // 2  # of the filters; taken out again
BINS_HZ = np.fft.rfftfreq(FILTER_TAPS, 1 / SAMPLE_RATE)


class CapsuleArray(msgspec.Struct, frozen=True):
    """Four capsules: on the rigid `sphere` of the DCASE array, or an open `tetrahedron` of cardioids.

    patterns: a of a + (1 - a) cos (tetrahedron). delays_us: of each capsule. low_cuts_hz: corner of each capsule's
    first-order high-pass, 0 for none.
    """

    kind: str
    radius_m: float
    patterns: tuple[float, ...] = (0.5,) * CHANNELS
    delays_us: tuple[float, ...] = (0.0,) * CHANNELS
    low_cuts_hz: tuple[float, ...] = (0.0,) * CHANNELS


def capsule_errors(capsules: CapsuleArray) -> NDArray[np.complex128]:
    """Gains (bins, 4) at BINS_HZ by which the capsules differ from ideal ones of their kind, but for patterns."""
    turn = -2j * np.pi * BINS_HZ[:, None] * 1e-6
    frequency = np.maximum(BINS_HZ, BINS_HZ[1] / 4)[:, None]
    return np.exp(turn * np.array(capsules.delays_us)) / (1 - 1j * np.array(capsules.low_cuts_hz) / frequency)


def filtered(samples: Floats, gains: NDArray[np.complex128]) -> NDArray[np.float32]:
    """Samples (n, 4) at 24 kHz, each channel through its gains (bins, 4) at BINS_HZ: (n, 4), in time with them."""
    delay = np.exp(-2j * np.pi * BINS_HZ * DELAY_SAMPLES / SAMPLE_RATE)[:, None]
    filters = scipy.fft.irfft(gains * delay, FILTER_TAPS, axis=0).T
    padded = np.pad(samples, ((0, DELAY_SAMPLES), (0, 0)))
    return convolve_sum(padded.T, filters[:, :, None] * np.eye(CHANNELS)[:, None, :])[DELAY_SAMPLES:]


def to_foa(samples: Floats, capsules: CapsuleArray) -> NDArray[np.float32]:
    """Recording (n, 4) of ideal capsules of a kind at 24 kHz -> FOA (n, 4) as `capsules` with their errors give it.

    The conversion takes them for ideal, as a live one does.
    """
    if any(capsules.delays_us) or any(capsules.low_cuts_hz):
        samples = filtered(samples, capsule_errors(capsules))
    radius_mm = round(1000 * capsules.radius_m, 3)
    profile = microphones.profile("tau-mic") if capsules.kind == "sphere" else _tetrahedron(radius_mm)
    return profile.to_foa(samples, SAMPLE_RATE)


@lru_cache(maxsize=8)
def _tetrahedron(radius_mm: float) -> microphones.Profile:
    channels = ("FLU", "FRD", "BLD", "BRU")
    return microphones.Profile(
        "tetrahedron", Layout(about="", channels=channels, capsules=Capsules(radius_mm=radius_mm))
    )


def foa_blocks(recording: Recording, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """A recording as FOA piece by piece (samples, 4), `mic` ones by the profile tau-mic.

    `ConfigError` as `audio_blocks`.
    """
    blocks = audio_blocks(recording.audio, sample_rate)
    if recording.array == "foa":
        yield from blocks
        return
    stage = microphones.profile("tau-mic").stage(sample_rate)
    for piece in (*map(stage.push, blocks), stage.flush()):
        if piece is not None:
            yield piece


def read_foa(recording: Recording, sample_rate: int) -> NDArray[np.float32]:
    """A whole recording as FOA (samples, 4); `ConfigError` as `foa_blocks`."""
    return np.concatenate([np.zeros((0, CHANNELS), np.float32), *foa_blocks(recording, sample_rate)])
