"""The running median behind the harmonic-percussive separation: its definition, and two faster twins, equal to the bit.

The compiled twin keeps columns of sorted values: each step removes the oldest value of a column and inserts the
newest, by comparisons alone and for many columns at once, so that the compiler makes vector instructions of it. numba
keeps the compiled code on disk, where it may write. Without numba a sorting network of whole arrays serves, whose
windows share the sorting of their parts.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

try:
    from numba import njit
except ImportError:
    njit = None  # type: ignore[assignment]

Array = NDArray[np.float32]

_TILE = 256  # columns at a time: the sorted rows of them stay in the first-level cache
_NETWORK_TILE = 65536  # numbers at a time: enough to hide the calls, few enough for the second-level cache


def running_median_numpy(x: Array, size: int) -> Array:
    """The definition of `running_median`."""
    windows = sliding_window_view(x, size, axis=0)
    return np.partition(windows, size // 2, axis=-1)[..., size // 2]


def running_median_compiled(x: Array, size: int) -> Array:
    """`running_median` by numba."""
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty((len(x) - size + 1, *x.shape[1:]), np.float32)
    _slide_columns(x.reshape(len(x), -1), size, out.reshape(len(out), -1))
    return out


def running_median_network(x: Array, size: int) -> Array:
    """`running_median` by minima and maxima of arrays: what numpy alone does best."""
    columns = x.reshape(len(x), -1)
    out = np.empty((len(x) - size + 1, columns.shape[1]), np.float32)
    tile = max(1, _NETWORK_TILE // len(x))
    for start in range(0, columns.shape[1], tile):
        part = np.ascontiguousarray(columns[:, start : start + tile], np.float32)
        out[:, start : start + tile] = _median_rows(part, size)
    return out.reshape(-1, *x.shape[1:])


def running_median(x: Array, size: int) -> Array:
    """Median (n - size + 1, ...) of every ``size`` (odd) neighbours along axis 0 of x (n >= size, ...), float32."""
    return running_median_network(x, size) if njit is None else running_median_compiled(x, size)


def _median_rows(x: Array, size: int) -> Array:
    count, rank = len(x) - size + 1, size // 2 + 1
    if size == 1:
        return x

    @cache
    def ranked(length: int) -> list[Array]:
        """The values of every ``length`` neighbours, from the least to the greatest."""
        if length == 1:
            return [x]
        half, windows = _half(length), len(x) - length + 1
        rest = ranked(length - half)
        return _merged([row[:windows] for row in ranked(half)], [row[half : half + windows] for row in rest])

    half = _half(size)
    early = [row[:count] for row in ranked(half)]
    late = [row[half : half + count] for row in ranked(size - half)]
    # The value of a rank in two ranked lists together: the least of the maxima of two prefixes with so many values.
    median = early[rank - 1]
    for i in range(rank - len(late), rank):
        median = np.minimum(median, np.maximum(early[i - 1], late[rank - i - 1]))
    return median


def _half(length: int) -> int:
    """The greatest power of 2 below ``length``: windows of such lengths are shared."""
    return 1 << (length - 1).bit_length() - 1


def _merged(a: list[Array], b: list[Array]) -> list[Array]:
    """Batcher's odd-even merge of two ranked lists."""
    if not a or not b:
        return a or b
    if len(a) == len(b) == 1:
        return [np.minimum(a[0], b[0]), np.maximum(a[0], b[0])]
    even, odd = _merged(a[::2], b[::2]), _merged(a[1::2], b[1::2])
    out = even[:1]
    for low, high in zip(odd, even[1:], strict=False):
        out += [np.minimum(low, high), np.maximum(low, high)]
    return out + (even[len(odd) + 1 :] or odd[len(even) - 1 :])


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


if njit is not None:
    try:
        _slide_columns = njit(cache=True, nogil=True)(_slide_columns)
    except RuntimeError:  # no place to write to
        _slide_columns = njit(nogil=True)(_slide_columns)
