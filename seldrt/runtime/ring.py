"""A preallocated ring of sample frames between one writer (the audio callback) and one reader.

The writer never waits: it overwrites the oldest frames. The reader finds out from two counters, as with a sequence
lock: the writer raises `_claimed` before it touches memory and `_written` after. What the reader copied is whole as
far as `_claimed` had not come around to it when the copy was done; the rest is cut off. Every frame has an index, so
whatever was lost shows as a jump of the index, and is never spliced.

The counters count frames that were in the ring; the writer can also `skip` frames that never reached it. Each counter
has one writing thread and grows only; the GIL orders the stores.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Ring:
    """Room for ``capacity`` frames of ``channels`` float32 samples."""

    def __init__(self, capacity: int, channels: int) -> None:
        self._frames = np.empty((capacity, channels), np.float32)
        self._frames.fill(0.0)  # touches the memory now, not in the callback
        self._capacity = capacity
        self._claimed = 0  # frames that the writer has begun to write, ever
        self._written = 0  # frames that are ready, ever
        self._read = 0  # frames that the reader is done with, ever
        self._skips: deque[tuple[int, int]] = deque()  # (frames written before, frames skipped), not read yet
        self._skipped = 0  # frames skipped before what the reader reads next
        self._end = 0  # index after the last frame read
        self._arrived = threading.Event()
        self.lost = 0  # frames that the reader never saw
        self.overruns = 0  # times that the reader was too slow

    @property
    def available(self) -> int:
        """Frames that wait for the reader; more than the capacity when some are lost already."""
        return self._written - self._read

    def write(self, frames: NDArray[Any]) -> None:
        """Writer: copies frames (n, channels) in; never waits, never allocates sample memory."""
        end = self._written + len(frames)
        self._claimed = end
        kept = frames[-self._capacity :] if len(frames) > self._capacity else frames
        start = (end - len(kept)) % self._capacity
        head = min(len(kept), self._capacity - start)
        self._frames[start : start + head] = kept[:head]
        self._frames[: len(kept) - head] = kept[head:]
        self._written = end
        self._arrived.set()

    def skip(self, count: int) -> None:
        """Writer: ``count`` frames were lost on the way here; the index of the next one is so much higher."""
        if count:  # nothing lost is no jump
            self._skips.append((self._written, count))

    def read(self, limit: int) -> tuple[int, NDArray[np.float32]]:
        """Reader: the index of the first frame and a copy of at most ``limit`` frames (n, channels), without a jump.

        An index beyond the end of the last read says how much was lost. A reader that was overrun goes on in the
        middle of the ring, so that it is not overrun again at once.
        """
        written, first = self._written, self._read
        if written - first > self._capacity:
            first = written - self._capacity // 2
        while self._skips and self._skips[0][0] <= first:
            self._skipped += self._skips.popleft()[1]
        end = min(first + limit, written, self._skips[0][0] if self._skips else written)
        frames = self._copy(first, end - first)
        torn = min(max(self._claimed - self._capacity - first, 0), len(frames))
        first += torn
        self.overruns += first > self._read
        self._read = end
        index = first + self._skipped
        self.lost += index - self._end
        self._end = index + end - first
        return index, frames[torn:]

    def wait(self, count: int, timeout_s: float) -> bool:
        """Reader: until ``count`` frames are there (true) or the time is over (false)."""
        deadline = time.monotonic() + timeout_s
        while self.available < count:
            self._arrived.clear()
            if self.available >= count:
                break
            if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                return self.available >= count
        return True

    def _copy(self, first: int, count: int) -> NDArray[np.float32]:
        start = first % self._capacity
        head = min(count, self._capacity - start)
        return np.concatenate([self._frames[start : start + head], self._frames[: count - head]])
