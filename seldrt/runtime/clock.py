"""When a frame was captured: the frame counter of a device against this computer's clocks.

Frames are counted against the monotonic clock, which nobody sets; the wall clock only adds its offset. So a step of
the wall clock (NTP, a hand) moves the times that are told and nothing else.

A block arrives some time after it was captured, never before: the least delayed arrival of the last seconds tells
best. So the fit follows the drift of the device's clock, and the jitter of callbacks does not show. Where even the
least delay stays longer than before, by more than drift, frames are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 0.5  # of arrival: a backlog, however long, comes in one window or with delays that fall
WINDOWS = 10  # whose least delay tells
DRIFT_PPM = 2500  # at most: what USB allows; crystals have 100, and NTP slews this computer's clock by 500
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
        self._leasts_ns: list[int] = []  # the least offset of each of the last windows, this one's at the end
        self._window_ends_ns = 0  # monotonic
        self._resuming = False

    def resume(self) -> None:
        """The next frames come from a stream that was opened anew."""
        self._resuming = self.origin_ns is not None

    def note(self, count: int, arrived_ns: int) -> int:
        """``count`` more frames had come by ``arrived_ns``; says how many were lost before them.

        After `resume` the clock tells how many, and at least one: the sound before and after never was one. Within a
        stream two windows in a row tell, so it is known a second or so after.
        """
        offset_ns = arrived_ns - (self.frames + count) * _S_NS // self._rate
        over, lost = arrived_ns >= self._window_ends_ns, 0
        if self.origin_ns is None:
            self.origin_ns = offset_ns
        elif self._resuming:
            lost = max(self._frames_in(offset_ns - self.origin_ns), 1)
        elif over:
            lost = self._look_back(self.origin_ns)
        self._resuming = False
        offset_ns -= lost * _S_NS // self._rate
        if over:
            self._leasts_ns = [*self._leasts_ns[1 - WINDOWS :], offset_ns]
            self._window_ends_ns = arrived_ns + round(WINDOW_S * _S_NS)
        self._leasts_ns[-1] = min(self._leasts_ns[-1], offset_ns)
        self.origin_ns = min(self.origin_ns, offset_ns)
        self.frames += lost + count
        return lost

    def _look_back(self, origin_ns: int) -> int:
        """How many frames the last two windows agree to miss; if none, the origin follows the drift."""
        latest = self._leasts_ns[-2:]
        late_ns = min(latest) - origin_ns
        if late_ns > LOST_MS * 1e6:
            falls = latest[0] - latest[-1] > LOST_MS * 1e6  # what was kept still comes
            return 0 if falls else self._frames_in(late_ns)
        self.origin_ns = min(*self._leasts_ns, origin_ns + round(WINDOW_S * DRIFT_PPM * 1000))
        return 0

    def frame_at(self, monotonic_ns: int) -> int:
        """The frame that was captured at that time, or will have been."""
        return 0 if self.origin_ns is None else self._frames_in(monotonic_ns - self.origin_ns)

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
        self._what, self._text, self._told_until_ns = "", "", monotonic_ns()

    def complaints(self) -> dict[str, str]:
        """By how much it was set, for `TOLD_S`: times that were told before are off by that."""
        before_ns, self._offset_ns = self._offset_ns, self._wall.offset_ns()
        step_s = (self._offset_ns - before_ns) / _S_NS
        if abs(step_s) > SET_S:
            direction = "forward" if step_s > 0 else "back"
            slept = ", or the computer slept" if step_s > 0 else ""
            self._text = f"set {direction} by {_in_words(abs(step_s))}{slept}: times before that are off"
            self._what = "clock: again" if self._told() and self._what == "clock" else "clock"  # another key is news
            self._told_until_ns = self._monotonic_ns() + round(TOLD_S * _S_NS)
        return {self._what: self._text} if self._told() else {}

    def _told(self) -> bool:
        return self._monotonic_ns() < self._told_until_ns


def _in_words(seconds: float) -> str:
    for unit, length_s in (("years", 365.25 * 86_400), ("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
