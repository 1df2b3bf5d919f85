"""The ring against a model, with a real writer thread, and with a writer that laps a reader in the middle of a copy."""

from __future__ import annotations

import threading
import time

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from seldrt.runtime.ring import Ring


def counted(start: int, count: int) -> np.ndarray:
    """Frames that hold their own index (exact in float32 up to 2**24), the second channel its negative."""
    index = np.arange(start, start + count, dtype=np.float32)
    return np.stack([index, -index], axis=1)


def check_read(ring: Ring, limit: int, expected: int) -> int:
    """One read holds what its index says, and goes on at or after ``expected``; the end of the read."""
    first, frames = ring.read(limit)
    assert first >= expected
    assert len(frames) <= limit
    np.testing.assert_array_equal(frames, counted(first, len(frames)))
    return first + len(frames)


STEPS = st.tuples(st.sampled_from(["write", "read", "skip"]), st.integers(0, 30))


@given(st.integers(1, 20), st.lists(STEPS, max_size=60))
@example(2, [("write", 1), ("skip", 0), ("write", 1), ("read", 2)])
def test_every_frame_is_read_once_in_order_or_counted_as_lost(capacity: int, steps: list[tuple[str, int]]) -> None:
    """The model: indices of the frames in the ring, in order; a read never spans two that are not neighbours."""
    ring, index, end, got = Ring(capacity, 2), 0, 0, 0
    kept: list[int] = []
    for action, count in steps:
        if action == "write":
            ring.write(counted(index, count))
            kept += range(index, index + count)
            index += count
        elif action == "skip":
            ring.skip(count)
            index += count
        else:
            overrun = len(kept) > capacity
            lost, overruns = ring.lost, ring.overruns
            first, frames = ring.read(count)
            np.testing.assert_array_equal(frames, counted(first, len(frames)))
            assert ring.lost - lost == first - end
            assert ring.overruns - overruns == overrun
            if overrun:
                kept = kept[-(capacity // 2) :] if capacity > 1 else []
            assert first == (kept[0] if kept else index)
            connected = [i for n, i in enumerate(kept) if i == kept[0] + n][:count]
            assert list(range(first, first + len(frames))) == connected
            kept = kept[len(connected) :]
            end = first + len(frames)
            got += len(frames)
        assert ring.available == len(kept)
    while ring.available:
        got += len(ring.read(1000)[1])
    assert len(ring.read(1000)[1]) == 0
    assert got + ring.lost == index


def test_a_read_is_a_copy() -> None:
    ring = Ring(4, 2)
    ring.write(counted(0, 4))
    _, frames = ring.read(4)
    ring.write(counted(4, 4))
    np.testing.assert_array_equal(frames, counted(0, 4))


class LappedRing(Ring):
    """A ring whose writer strikes while the reader copies."""

    strike: np.ndarray | None = None

    def _copy(self, first: int, count: int) -> np.ndarray:
        frames = super()._copy(first, count // 2)
        if self.strike is not None:
            self.write(self.strike)
            self.strike = None
        return np.concatenate([frames, super()._copy(first + count // 2, count - count // 2)])


@given(st.integers(1, 25))
def test_what_was_overwritten_during_the_copy_is_cut_off_and_counted(strike: int) -> None:
    ring = LappedRing(16, 2)
    ring.write(counted(0, 16))
    ring.strike = counted(16, strike)
    end = check_read(ring, 12, 0)
    assert end == 12 or strike > 12
    while ring.available:
        end = check_read(ring, 12, end)
    assert end == 16 + strike
    assert ring.lost >= min(strike, 12)


def test_a_writer_thread_loses_nothing_silently() -> None:
    ring, total, block = Ring(4096, 2), 400_000, 480

    def write() -> None:
        for start in range(0, total, block):
            ring.write(counted(start, min(block, total - start)))
            if start % 9600 == 0:
                time.sleep(0.0001)

    writer = threading.Thread(target=write)
    writer.start()
    end = got = 0
    while end < total:
        assert ring.wait(1, 10.0)
        start, end = end, check_read(ring, 1000, end)
        got += end - start
    writer.join()
    assert got == total
    assert ring.lost < total  # some came through
    assert (ring.lost > 0) == (ring.overruns > 0)


def test_wait_returns_when_the_frames_are_there_or_the_time_is_over() -> None:
    ring = Ring(100, 2)
    start_s = time.monotonic()
    assert not ring.wait(1, 0.05)
    assert time.monotonic() - start_s >= 0.05
    timer = threading.Timer(0.05, ring.write, [counted(0, 10)])
    timer.start()
    assert not ring.wait(11, 0.2)
    assert ring.wait(10, 10.0)
    timer.join()
