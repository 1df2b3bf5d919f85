"""When a frame was captured: the frame counter of a device against this computer's clocks.

Frames are counted against the monotonic clock, which nobody sets; the wall clock only adds its offset. So a step of
the wall clock (NTP, a hand) moves the times that are told and nothing else.

A block arrives some time after it was captured, never before: the least delayed arrival of the last seconds tells
best. So the fit follows the drift of the device's clock, and the jitter of callbacks does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 5.0
LOST_MS = 50.0  # a delay that stays so much longer is no drift, nor a sound server that waits for 2048 frames now
SET_S = 1.0  # a step of the wall clock that is told
TOLD_S = 60.0  # for so long
STEADY_NS = 100_000  # the wall clock's offset is held while it keeps within this: two readings are never simultaneous

_S_NS = 1_000_000_000


class ClockFit:
    """Monotonic time of frame 0 of a device of ``rate`` Hz, and how many frames never came."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self.frames = 0  # so far, the lost ones included
        self.origin_ns: int | None = None  # until the first block
        self._least_ns = 0  # the least offset of this window
        self._window_ends = 0  # frame
        self._resuming = False

    def resume(self) -> None:
        """The next frames come from a stream that was opened anew."""
        self._resuming = self.origin_ns is not None

    def note(self, count: int, arrived_ns: int) -> int:
        """``count`` more frames had come by ``arrived_ns``; says how many were lost before them.

        After `resume` the clock tells how many, and at least one: the sound before and after never was one. Within a
        stream it is what the least delay of a window has grown by, if that is more than drift.
        """
        offset_ns = arrived_ns - (self.frames + count) * _S_NS // self._rate
        lost = 0
        if self.origin_ns is None:
            self._open_window(offset_ns)
            self.origin_ns = offset_ns
        elif self._resuming:
            lost = max(self._frames_in(offset_ns - self.origin_ns), 1)
            offset_ns -= lost * _S_NS // self._rate
            self.origin_ns = offset_ns
            self._open_window(offset_ns)
        elif self.frames >= self._window_ends:
            late_ns = self._least_ns - self.origin_ns
            if late_ns > LOST_MS * 1e6:
                lost = self._frames_in(late_ns)
                offset_ns -= lost * _S_NS // self._rate
            else:
                self.origin_ns = self._least_ns
            self._open_window(offset_ns)
        self._resuming = False
        self._least_ns = min(self._least_ns, offset_ns)
        self.origin_ns = min(self.origin_ns, self._least_ns)
        self.frames += lost + count
        return lost

    def frame_at(self, monotonic_ns: int) -> int:
        """The frame that was captured at that time, or will have been."""
        return 0 if self.origin_ns is None else self._frames_in(monotonic_ns - self.origin_ns)

    def _open_window(self, offset_ns: int) -> None:
        self._least_ns = offset_ns
        self._window_ends = self.frames + round(WINDOW_S * self._rate)

    def _frames_in(self, ns: int) -> int:
        return round(ns * self._rate / _S_NS)


class WallClock:
    """UNIX time of the monotonic clock's zero, as the wall clock says now."""

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic_ns, self._wall_ns = monotonic_ns, wall_ns
        self._offset_ns = 0

    def offset_ns(self) -> int:
        """To be added to a monotonic time; moves only when the wall clock was set."""
        width_ns, offset_ns = min(self._read() for _ in range(3))
        if abs(offset_ns - self._offset_ns) > STEADY_NS + width_ns:
            self._offset_ns = offset_ns
        return self._offset_ns

    def _read(self) -> tuple[int, int]:
        before_ns, wall_ns, after_ns = self._monotonic_ns(), self._wall_ns(), self._monotonic_ns()
        return after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2


class ClockWatch:
    """Whether the wall clock was set lately, against the monotonic one; as often as `complaints` is asked."""

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic_ns, self._wall = monotonic_ns, WallClock(monotonic_ns, wall_ns)
        self._offset_ns = self._wall.offset_ns()
        self._text, self._told_until_ns = "", monotonic_ns()

    def complaints(self) -> dict[str, str]:
        """By how much it was set, for `TOLD_S`: times that were told before are off by that."""
        before_ns, self._offset_ns = self._offset_ns, self._wall.offset_ns()
        step_s = (self._offset_ns - before_ns) / _S_NS
        if abs(step_s) > SET_S:
            direction = "forward" if step_s > 0 else "back"
            slept = ", or the computer slept" if step_s > 0 else ""
            self._text = f"set {direction} by {_in_words(abs(step_s))}{slept}: times before that are off"
            self._told_until_ns = self._monotonic_ns() + round(TOLD_S * _S_NS)
        return {"clock": self._text} if self._monotonic_ns() < self._told_until_ns else {}


def _in_words(seconds: float) -> str:
    for unit, length_s in (("years", 365.25 * 86_400), ("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
