"""The running median behind the harmonic-percussive separation: its definition, and a compiled twin, equal to the bit.

The twin keeps columns of sorted values: each step removes the oldest value of a column and inserts the newest, by
comparisons alone and for many columns at once, so that the compiler makes vector instructions of it. numba keeps the
compiled code on disk, where it can. Without numba the definition serves, ten times slower.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

try:
    from numba import njit
except ImportError:
    njit = None  # type: ignore[assignment]

Array = NDArray[np.float32]

_TILE = 256  # columns at a time: the sorted rows of them stay in the first-level cache


def running_median_numpy(x: Array, size: int) -> Array:
    """The definition of `running_median`."""
    windows = sliding_window_view(x, size, axis=0)
    return np.partition(windows, size // 2, axis=-1)[..., size // 2]


def running_median_compiled(x: Array, size: int) -> Array:
    """`running_median` by numba."""
    x = np.require(x, np.float32, ("C", "W"))
    out = np.empty((len(x) - size + 1, *x.shape[1:]), np.float32)
    _compiled()(x.reshape(len(x), -1), size, out.reshape(len(out), -1))
    return out


def running_median(x: Array, size: int) -> Array:
    """Median (n - size + 1, ...) of every ``size`` (odd) neighbours along axis 0 of x (n >= size, ...), float32."""
    return running_median_numpy(x, size) if njit is None else running_median_compiled(x, size)


def _slide_columns(x: Array, size: int, out: Array) -> None:
    n, width = x.shape
    ranked = np.empty((size, _TILE), np.float32)
    below = np.empty(_TILE, np.float32)
    for start in range(0, width, _TILE):
        tile = min(_TILE, width - start)
        ranked[:] = np.inf
        for t in range(n):
            newest = x[t, start : start + tile]
            below[:tile] = -np.inf
            if t < size:  # the window fills up
                for i in range(t + 1):
                    for j in range(tile):
                        kept = ranked[i, j]
                        ranked[i, j] = min(kept, max(below[j], newest[j]))
                        below[j] = kept
            else:
                oldest = x[t - size, start : start + tile]
                for i in range(size - 1):
                    for j in range(tile):
                        kept = ranked[i, j] if ranked[i, j] < oldest[j] else ranked[i + 1, j]
                        ranked[i, j] = min(kept, max(below[j], newest[j]))
                        below[j] = kept
                for j in range(tile):
                    ranked[size - 1, j] = max(below[j], newest[j])
            if t >= size - 1:
                out[t - size + 1, start : start + tile] = ranked[size // 2, :tile]


@cache
def _compiled() -> Any:
    """`_slide_columns` as machine code."""
    types = "void(float32[:, ::1], intp, float32[:, ::1])"
    try:
        return njit(types, cache=True, nogil=True)(_slide_columns)
    except Exception:  # no place to write to, no room there, or the power failed and what was kept is no code
        return njit(types, nogil=True)(_slide_columns)
