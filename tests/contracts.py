"""The streaming law as one reusable test: every stage of the chain, and the chain itself, is held to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seldrt.findings import LabelFrame
from seldrt.stream import Array, Stage


class FrameStage(Protocol):
    """What says label frames: a tracker, or the whole pipeline."""

    def push(self, x: Any) -> list[LabelFrame]: ...

    def flush(self) -> list[LabelFrame]: ...


class AsArrays:
    """A stage of arrays around one that gives `LabelFrame` lists, so that the law can be asserted of it.

    Gives (n, classes, 7) float64: track, onset sample, azimuth, elevation, confidence, frame index, sample;
    -1 where a class is silent.
    """

    def __init__(self, stage: FrameStage, classes: int, latency: int = 0, hop: int = 1) -> None:
        self._stage, self._classes, self.latency, self.hop = stage, classes, latency, hop

    def push(self, x: Array) -> Array | None:
        return self._array(self._stage.push(x))

    def flush(self) -> Array | None:
        return self._array(self._stage.flush())

    def _array(self, frames: list[LabelFrame]) -> Array | None:
        if not frames:
            return None
        out = np.full((len(frames), self._classes, 7), -1.0)
        for row, frame in zip(out, frames, strict=True):
            row[:, 5:] = frame.index, frame.sample
            for s in frame.sources:
                row[s.class_id, :5] = s.track, s.onset_sample, s.azimuth_deg, s.elevation_deg, s.confidence
        return out


def outputs(stage: Stage, x: Array, cuts: Sequence[int]) -> Array | None:
    """The concatenated output for ``x`` cut into blocks of these sizes; what they leave follows in one block.

    The caller's buffer is overwritten after each push, as an audio device does.
    """
    parts, start = [], 0
    for size in [*cuts, len(x)]:
        block = x[start : start + size].copy()
        start += len(block)
        parts.append(_kept(stage.push(block)))
        block[...] = -77
    parts.append(_kept(stage.flush()))
    full = [part for part in parts if part is not None]
    return np.concatenate(full) if full else None


def assert_streaming_law(
    make_stage: Callable[[], Stage],
    x: Array,
    hop: int = 1,
    atol: float = 1e-6,
    seed: int = 0,
    nan: bool = True,
) -> None:
    """Hold a stage to the law on the input ``x`` (time on axis 0); ``atol=0`` asks for equal bits.

    Checked: any cut of the input (also empty blocks, single frames, blocks shorter than a window) gives the
    same output; N inputs give N // hop outputs, for short N too; y[: t // hop] is out when t + latency frames
    are in, and (with ``nan``) nothing that comes later reaches it; a flushed stage is as new; what was pushed
    may be overwritten.
    """
    expected = outputs(make_stage(), x, [])
    assert _count(expected) == len(x) // hop
    assert make_stage().hop == hop
    rng = np.random.default_rng(seed)
    for cuts in _cuts(len(x), rng):
        _assert_same(outputs(make_stage(), x, cuts), expected, atol, f"cut into {cuts[:20]}")
    _assert_as_new_after_flush(make_stage(), x, expected, atol)
    for length in {0, 1, 2, hop - 1, hop, hop + 1, *rng.integers(0, len(x) + 1, 4).tolist()}:
        short = outputs(make_stage(), x[:length], [1])
        assert _count(short) == len(x[:length]) // hop, f"{length} inputs gave {_count(short)} outputs, hop {hop}"
    for t in {0, 1, hop, *rng.integers(0, len(x) + 1, 6).tolist()}:
        _assert_latency(make_stage, x, t, expected, atol, nan and np.issubdtype(x.dtype, np.inexact))


def _assert_latency(
    make_stage: Callable[[], Stage], x: Array, t: int, expected: Array | None, atol: float, nan: bool
) -> None:
    stage = make_stage()
    known, due = t + stage.latency, t // stage.hop
    if known <= len(x):
        early = _kept(stage.push(x[:known].copy()))
        assert _count(early) >= due, f"{known} frames in: {_count(early)} out, {due} due (latency {stage.latency})"
        _assert_same(_head(early, due), _head(expected, due), atol, f"the first {due} outputs, pushed alone")
    if nan:
        spoiled = x.copy()
        spoiled[known:] = np.nan
        with np.errstate(all="ignore"):
            y = outputs(make_stage(), spoiled, [])
        _assert_same(_head(y, due), _head(expected, due), atol, f"NaN from frame {known} on, t = {t}")


def _assert_as_new_after_flush(stage: Stage, x: Array, expected: Array | None, atol: float) -> None:
    assert _count(stage.flush()) == 0, "a stage that was fed nothing has nothing to flush"
    outputs(stage, x[: len(x) // 2 + 1], [])
    assert _count(stage.flush()) == 0, "a second flush has nothing to give"
    _assert_same(outputs(stage, x, [len(x) // 3]), expected, atol, "after a flush")


def _cuts(length: int, rng: np.random.Generator) -> Iterator[list[int]]:
    yield [1] * length
    yield [0, 0, length, 0]
    yield [0, *[3, 0] * (length // 3)]
    for longest in (2, 7, 40, max(length, 1)):
        yield rng.integers(0, longest + 1, 2 * length // (longest + 1) + 2).tolist()


def _kept(y: Array | None) -> Array | None:
    return None if y is None else y.copy()


def _count(y: Array | None) -> int:
    return 0 if y is None else len(y)


def _head(y: Array | None, count: int) -> Array | None:
    return None if y is None else y[:count]


def _assert_same(actual: Array | None, expected: Array | None, atol: float, what: str) -> None:
    assert _count(actual) == _count(expected), f"{what}: {_count(actual)} outputs, not {_count(expected)}"
    if actual is None or expected is None:
        return
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, not {expected.dtype}"
    close: NDArray[np.bool_] = np.isclose(actual, expected, rtol=0.0, atol=atol, equal_nan=True)
    assert close.all(), f"{what}: the outputs differ first at {np.argwhere(~close)[0].tolist()}"
