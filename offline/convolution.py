"""Convolution of sounds with the four-channel responses of places and microphones."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal import oaconvolve

Floats = NDArray[np.floating]


def convolve(dry: Floats, response: Floats) -> NDArray[np.float32]:
    """A signal (n,) through one response (m, 4): (n + m - 1, 4)."""
    return oaconvolve(dry[:, None], response, axes=0).astype(np.float32)


def convolve_moving(dry: Floats, responses: Floats, step: int) -> NDArray[np.float32]:
    """A signal (n,) through the responses (k, m, 4) of positions `step` samples apart: (n + m - 1, 4).

    Response k holds at sample k * step and fades into its neighbours in between (Hann windows that sum to 1).
    """
    k, m, channels = responses.shape
    padded = np.zeros((k + 1) * step, dtype=np.float32)
    padded[step : step + len(dry)] = dry[: k * step]
    window = (0.5 - 0.5 * np.cos(np.pi * np.arange(2 * step) / step)).astype(np.float32)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, 2 * step)[::step] * window
    n_fft = scipy.fft.next_fast_len(2 * step + m - 1, real=True)
    spectra = scipy.fft.rfft(blocks, n_fft)[:, :, None] * scipy.fft.rfft(responses, n_fft, axis=1)
    pieces = scipy.fft.irfft(spectra, n_fft, axis=1)[:, : 2 * step + m - 1]
    wet = np.zeros(((k + 1) * step + m - 1, channels), dtype=np.float32)
    for i, piece in enumerate(pieces):
        wet[i * step : i * step + len(piece)] += piece
    return wet[step : step + len(dry) + m - 1]


def convolve_sum(streams: Floats, responses: Floats) -> NDArray[np.float32]:
    """The sum over streams (j, n) of each through its own response (j, m, 4); the first n samples: (n, 4)."""
    n, m = streams.shape[1], responses.shape[1]
    n_fft = scipy.fft.next_fast_len(max(8 * m, 8192), real=True)
    hop = n_fft - m + 1
    transfer = scipy.fft.rfft(responses.astype(np.float32), n_fft, axis=1).transpose(1, 0, 2)
    wet = np.zeros((n, responses.shape[2]), dtype=np.float32)
    for begin in range(0, n, hop):
        block = scipy.fft.rfft(streams[:, begin : begin + hop].astype(np.float32), n_fft)
        piece = scipy.fft.irfft((block.T[:, None, :] @ transfer)[:, 0], n_fft, axis=0)[: n - begin]
        wet[begin : begin + n_fft] += piece
    return wet
