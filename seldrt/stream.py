"""The streaming law: every buffer of the signal chain lives here.

A *stage* eats arrays whose axis 0 is time and gives arrays whose axis 0 is time:

    push(x) -> y | None      feed the next frames, take what is ready
    flush() -> y | None      the stream ends: take the rest; the stage is as new afterwards
    latency                  how many input frames past t must be known before y[:t // hop] is out
    hop                      input frames for one output frame

**The law:** however the input is cut, the concatenated output is the same, and N inputs give exactly N // hop
outputs. An offline computation is a stream that begins and ends, so extraction, evaluation, replay and the live
daemon share one code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Stage(Protocol):
    """What the law asks of a stage; see the module's text."""

    @property
    def latency(self) -> int: ...

    @property
    def hop(self) -> int: ...

    def push(self, x: Array) -> Array | None: ...

    def flush(self) -> Array | None: ...


def _joined(parts: Sequence[Array | None]) -> Array | None:
    full = [part for part in parts if part is not None and len(part)]
    if not full:
        return None
    return full[0] if len(full) == 1 else np.concatenate(full)


def _filler(fill: Any, count: int, like: Array) -> Array:
    return np.broadcast_to(np.asarray(fill, like.dtype), (count, *like.shape[1:]))


class Map:
    """A function without memory, applied to each block: ``fn`` gives as many frames as it gets."""

    latency = 0
    hop = 1

    def __init__(self, fn: Callable[[Array], Array]) -> None:
        self._fn = fn

    def push(self, x: Array) -> Array | None:
        return self._fn(x) if len(x) else None

    def flush(self) -> Array | None:
        return None


class Windowed:
    """A function with finite memory.

    ``fn`` gets past + n * hop + future frames and gives n; its k-th output may depend on the frames
    [k * hop, k * hop + past + hop + future) of what it got, and on nothing else. Before the stream begins and
    after it ends, every frame is ``fill`` (a number or one frame).
    """

    def __init__(self, fn: Callable[[Array], Array], past: int, future: int = 0, hop: int = 1, fill: Any = 0.0) -> None:
        self._fn, self._past, self._future, self._fill = fn, past, future, fill
        self._buffer: Array | None = None
        self.latency, self.hop = future, hop

    def push(self, x: Array) -> Array | None:
        if not len(x):
            return None
        held = _filler(self._fill, self._past, x) if self._buffer is None else self._buffer
        self._buffer = np.concatenate([held, x])
        ready = (len(self._buffer) - self._past - self._future) // self.hop
        if ready <= 0:
            return None
        y = self._fn(self._buffer[: self._past + ready * self.hop + self._future])
        self._buffer = self._buffer[ready * self.hop :]
        return y

    def flush(self) -> Array | None:
        if self._buffer is None:
            return None
        y = self.push(_filler(self._fill, self._future, self._buffer))
        self._buffer = None
        return y


class Scan:
    """A recursion: ``step(state, x) -> (state, y)`` with the state in the open.

    ``x`` always holds a multiple of ``hop`` frames. With a ``delay`` of d, the step's output k speaks of input
    block k - d: the first d outputs are dropped and the stream is ended with d blocks of ``fill``.
    """

    def __init__(
        self,
        step: Callable[[Any, Array], tuple[Any, Array]],
        initial: Callable[[], Any],
        hop: int = 1,
        delay: int = 0,
        fill: Any = 0.0,
    ) -> None:
        self._step, self._initial, self._delay, self._fill = step, initial, delay, fill
        self.hop, self.latency = hop, delay * hop
        self._reset()

    def _reset(self) -> None:
        self._state = self._initial()
        self._rest: Array | None = None
        self._to_drop = self._delay

    def push(self, x: Array) -> Array | None:
        joined = _joined([self._rest, x])
        if joined is None:
            return None
        whole = len(joined) // self.hop * self.hop
        self._rest = joined[whole:].copy()  # a view would let the caller's (reused) block change under us
        if not whole:
            return None
        self._state, y = self._step(self._state, joined[:whole])
        dropped = min(self._to_drop, len(y))
        self._to_drop -= dropped
        return y[dropped:] if len(y) > dropped else None

    def flush(self) -> Array | None:
        rest = self._rest
        y = None
        if rest is not None and self._delay:
            self._rest = rest[:0]
            y = self.push(_filler(self._fill, self.latency, rest))
        self._reset()
        return y


class Chain:
    """Stages one after the other; latency and hop are in frames of the chain's own input."""

    def __init__(self, *stages: Stage) -> None:
        self.stages = stages

    @property
    def hop(self) -> int:
        return math.prod(stage.hop for stage in self.stages)

    @property
    def latency(self) -> int:
        total, hop = 0, 1
        for stage in self.stages:
            total += stage.latency * hop
            hop *= stage.hop
        return total

    def push(self, x: Array) -> Array | None:
        y: Array | None = x
        for stage in self.stages:
            if y is None:
                return None
            y = stage.push(y)
        return y

    def flush(self) -> Array | None:
        y: Array | None = None
        for stage in self.stages:
            y = _joined([stage.push(y) if y is not None else None, stage.flush()])
        return y


class Blocks:
    """Feeds a stage with blocks of exactly ``size`` frames (the last may be shorter).

    Floating-point sums depend on how many frames share one call. With equal calls the output is equal to the
    bit, however the input was cut.
    """

    def __init__(self, stage: Stage, size: int) -> None:
        self._stage, self._size = stage, size
        self._rest: Array | None = None

    @property
    def latency(self) -> int:
        # What the stage must know is known once the block that holds it is full: t + latency, rounded up.
        inner, step = self._stage.latency, math.gcd(self.hop, self._size)
        return inner + -inner % step + self._size - step

    @property
    def hop(self) -> int:
        return self._stage.hop

    def push(self, x: Array) -> Array | None:
        joined = _joined([self._rest, x])
        if joined is None:
            return None
        whole = len(joined) // self._size * self._size
        self._rest = joined[whole:].copy()
        return _joined([self._stage.push(joined[i : i + self._size]) for i in range(0, whole, self._size)])

    def flush(self) -> Array | None:
        rest, self._rest = self._rest, None
        last = self._stage.push(rest) if rest is not None and len(rest) else None
        return _joined([last, self._stage.flush()])


def run(stage: Stage, x: Array, block: int | None = None) -> Array | None:
    """The whole of ``x`` through the stage, in blocks of ``block`` frames (default: all at once), and flush."""
    block = block or max(len(x), 1)
    return _joined([*(stage.push(x[i : i + block]) for i in range(0, len(x), block)), stage.flush()])
