"""The streaming law for each kind of stage, and the outside oracles of what they compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

from seldrt.stream import Array, Blocks, Chain, Map, Scan, Windowed, run
from tests.contracts import assert_streaming_law, outputs

X = np.random.default_rng(1).standard_normal((53, 2))


def means(past: int, future: int = 0, hop: int = 1) -> Windowed:
    """The mean over each window of past + hop + future frames."""

    def fn(x: Array) -> Array:
        return sliding_window_view(x, past + hop + future, axis=0)[::hop].mean(axis=-1)

    return Windowed(fn, past, future, hop)


def smoother(hop: int = 1, delay: int = 0) -> Scan:
    """y[k] = y[k - 1] / 2 + the sum of input block k."""

    def step(state: Array, x: Array) -> tuple[Array, Array]:
        blocks = x.reshape(-1, hop, *x.shape[1:]).sum(axis=1)
        y = np.empty_like(blocks)
        for k, block in enumerate(blocks):
            state = state / 2 + block
            y[k] = state
        return state, y

    return Scan(step, lambda: np.zeros(2), hop, delay)


STAGES = {
    "map": (lambda: Map(np.abs), 1),
    "windowed, past only": (lambda: means(4), 1),
    "windowed, future only": (lambda: means(0, 4), 1),
    "windowed, longer than the input": (lambda: means(60, 60), 1),
    "windowed, hop": (lambda: means(3, 2, 4), 4),
    "windowed, fill": (lambda: Windowed(lambda x: x[:-3] + x[3:], 1, 2, fill=5.0), 1),
    "scan": (smoother, 1),
    "scan, hop": (lambda: smoother(3), 3),
    "scan, delay": (lambda: smoother(1, 4), 1),
    "scan, hop and delay": (lambda: smoother(3, 2), 3),
    "chain": (lambda: Chain(Map(np.abs), means(3, 2, 4), smoother(2, 1), means(1, 1)), 8),
    "chain of one": (lambda: Chain(means(2, 2)), 1),
    "chain of none": (Chain, 1),
    "blocks": (lambda: Blocks(Chain(means(3, 2), smoother(2, 1)), 5), 2),
    "blocks, as long as the hop": (lambda: Blocks(means(3, 5, 4), 4), 4),
    "blocks, longer than the input": (lambda: Blocks(means(3, 2), 100), 1),
}


@pytest.mark.parametrize("name", STAGES)
def test_the_law(name):
    make_stage, hop = STAGES[name]
    assert_streaming_law(make_stage, X, hop, atol=1e-12)


@given(cuts=st.lists(st.integers(0, 20), max_size=30), length=st.integers(0, len(X)))
def test_any_cut_of_a_long_chain(cuts, length):
    make_stage, hop = STAGES["chain"]
    y, expected = outputs(make_stage(), X[:length], cuts), run(make_stage(), X[:length])
    assert (0 if y is None else len(y)) == length // hop
    if expected is not None:
        np.testing.assert_allclose(y, expected, atol=1e-12)


@given(cuts=st.lists(st.integers(0, 20), max_size=30))
def test_blocks_make_equal_bits(cuts):
    single = X.astype(np.float32)

    def make_stage() -> Blocks:
        return Blocks(Windowed(lambda x: np.cumsum(x, axis=0)[4:], 4), 8)  # depends on how frames share a call

    np.testing.assert_array_equal(outputs(make_stage(), single, cuts), run(make_stage(), single))


def test_windowed_is_a_filter_with_silence_around():
    expected = uniform_filter1d(X, 5, axis=0, mode="constant")
    np.testing.assert_allclose(run(means(2, 2), X), expected, atol=1e-12)


def test_scan_is_a_recursive_filter():
    np.testing.assert_allclose(run(smoother(), X, block=7), lfilter([1], [1, -0.5], X, axis=0), atol=1e-12)


def test_a_chain_adds_latency_in_frames_of_its_own_input():
    chain = Chain(means(3, 2, 4), smoother(2, 3), means(1, 5))
    assert chain.hop == 8
    assert chain.latency == 2 + (3 * 2) * 4 + 5 * 8


def test_run_of_nothing_gives_nothing():
    assert run(means(2, 2), X[:0]) is None
    assert run(means(2, 2, 4), X[:3]) is None


def test_the_contract_catches_a_stage_that_looks_further_ahead_than_it_says():
    class Liar(Windowed):
        def __init__(self) -> None:
            super().__init__(lambda x: x[:-2] + x[2:], 0, 2)
            self.latency = 1

    with pytest.raises(AssertionError):
        assert_streaming_law(Liar, X)


def test_the_contract_catches_a_stage_that_keeps_a_view_of_the_callers_buffer():
    class Holder(Map):
        latency = 1

        def __init__(self) -> None:
            self.held: Array | None = None

        def push(self, x: Array) -> Array | None:
            if not len(x):
                return None
            y = x[:-1] if self.held is None else np.concatenate([self.held, x[:-1]])
            self.held = x[-1:]
            return y

        def flush(self) -> Array | None:
            y, self.held = self.held, None
            return y

    with pytest.raises(AssertionError, match="differ"):
        assert_streaming_law(Holder, X)


def test_the_contract_catches_a_stage_that_forgets_to_forget():
    class Elephant(Map):
        def __init__(self) -> None:
            self.total = np.zeros(2)

        def push(self, x: Array) -> Array | None:
            if not len(x):
                return None
            y = self.total + np.cumsum(x, axis=0)
            self.total = y[-1]
            return y

    with pytest.raises(AssertionError, match="after a flush"):
        assert_streaming_law(Elephant, X)
