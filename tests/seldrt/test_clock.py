"""The clock of a device against a simulated one: drift, jitter, bursts, losses, and a wall clock that is set."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from seldrt.runtime.clock import DRIFT_PPM, LOST_MS, WINDOW_S, WINDOWS, ClockFit, ClockWatch, WallClock

RATE = 48000
BLOCK = 960
HOUR_S = 3600
START_NS = 7_000_000_000_000
TOLD_S = 3 * WINDOW_S + 0.1  # after a loss: it may begin in the midst of a window, and windows end with a block
FOLLOWED_S = WINDOWS * WINDOW_S


def arrivals(
    seconds: float, ppm: float, burst: int = 1, ends: np.ndarray | None = None
) -> Iterator[tuple[float, float]]:
    """When blocks were captured and when they arrived, ns: ``burst`` together, as late as an exponential of 3 ms.

    ``ends`` are the frames with which blocks end, if they are not all as long.
    """
    rng = np.random.default_rng(0)
    true_rate = RATE * (1 + ppm * 1e-6)
    ends = np.arange(1, round(seconds * RATE / BLOCK) + 1) * BLOCK if ends is None else ends
    late_ns = rng.exponential(3e6, len(ends) // burst + 1)
    for block, end in enumerate(ends):
        handed = min(block // burst * burst + burst, len(ends)) - 1
        yield START_NS + end / true_rate * 1e9, START_NS + ends[handed] / true_rate * 1e9 + late_ns[block // burst]


def error_ms(fit: ClockFit, captured_ns: float) -> float:
    """How far the fit is off for the frame that was captured then."""
    assert fit.origin_ns is not None
    return abs(fit.origin_ns + fit.frames * 1e9 / RATE - captured_ns) / 1e6


@pytest.mark.parametrize("longest", [BLOCK, 2048])
@pytest.mark.parametrize(("ppm", "burst"), [(-200, 1), (200, 1), (-200, 7), (200, 7)])
def test_an_hour_of_drift_and_jitter(ppm: float, burst: int, longest: int) -> None:
    shortest = BLOCK if longest == BLOCK else 1
    sizes = np.random.default_rng(1).integers(shortest, longest + 1, 2 * HOUR_S * RATE // (shortest + longest))
    fit, worst_ms = ClockFit(RATE), 0.0
    for block, (captured_ns, arrived_ns) in enumerate(arrivals(0, ppm, burst, sizes.cumsum()), 1):
        assert fit.note(int(sizes[block - 1]), round(arrived_ns)) == 0
        if fit.frames > FOLLOWED_S * RATE and block % burst == 0:
            worst_ms = max(worst_ms, error_ms(fit, captured_ns))
    assert worst_ms < 2.0  # the drift until the slow side is seen, and the least jitter of that time


def test_a_stream_opened_anew_goes_on_with_the_clock() -> None:
    fit, lost = ClockFit(RATE), 0
    away_frames = 12 * RATE + 345
    blocks = list(arrivals(60, 50))
    for block, (captured_ns, arrived_ns) in enumerate(blocks, 1):
        if block == 1500:
            fit.resume()
        if block < 1500 or block * BLOCK > 1500 * BLOCK + away_frames:
            lost += fit.note(BLOCK, round(arrived_ns))
            if block > 1000:
                assert error_ms(fit, captured_ns) < 25.0 if block < 2200 else 2.0
    assert abs(lost - away_frames) < 2 * BLOCK
    assert abs(fit.frames - len(blocks) * BLOCK) < BLOCK


def test_a_stream_opened_anew_never_is_the_old_one() -> None:
    fit = ClockFit(RATE)
    fit.resume()  # before anything was heard it is no news
    assert fit.note(BLOCK, START_NS) == 0
    fit.resume()
    assert fit.note(BLOCK, START_NS + BLOCK * 10**9 // RATE) == 1
    assert fit.note(BLOCK, START_NS + 2 * BLOCK * 10**9 // RATE) == 0


def test_frames_that_never_came_are_found_by_the_clock() -> None:
    """A server that drops without a flag; how much is known to the jitter, how soon to a second or so."""
    fit, dropped, found, when_s = ClockFit(RATE), 3 * BLOCK, 0, 0.0
    for block, (captured_ns, arrived_ns) in enumerate(arrivals(60, -50)):
        if not 20 * RATE <= block * BLOCK < 20 * RATE + dropped:
            if lost := fit.note(BLOCK, round(arrived_ns)):
                found, when_s = found + lost, block * BLOCK / RATE
            if found:
                assert error_ms(fit, captured_ns) < 3.0
    assert abs(found - dropped) < 0.003 * RATE
    assert 20 < when_s < 20 + dropped / RATE + TOLD_S


@pytest.mark.parametrize(("every_s", "dropped_ms"), [(5, 40), (2, 30), (1, 10)])
def test_losses_too_short_to_be_seen_are_told_together(every_s: float, dropped_ms: int) -> None:
    fit, found, dropped = ClockFit(RATE), 0, 0
    for block, (captured_ns, arrived_ns) in enumerate(arrivals(120, 0)):
        if block * BLOCK % (every_s * RATE) == 0:
            dropped += dropped_ms * RATE // 1000
        found += fit.note(BLOCK, round(arrived_ns + dropped * 1e9 / RATE))
        assert error_ms(fit, captured_ns + dropped * 1e9 / RATE) < LOST_MS + 2 * dropped_ms
    untold_s = 120e-6 * DRIFT_PPM + (LOST_MS + 2 * dropped_ms) / 1000  # what may be drift, and what comes next
    assert dropped - untold_s * RATE < found <= dropped


class Stall:
    """The program gets nothing for a while; the server keeps the last or the first ``kept_s`` of that.

    What it kept is handed over a block each ``pace_s`` at the most.
    """

    def __init__(self, stall_s: float, kept_s: float, first: bool = True, pace_s: float = 0.0) -> None:
        self._stall_ns, self._kept_ns, self._pace_ns, self._first = stall_s * 1e9, kept_s * 1e9, pace_s * 1e9, first
        self.lost_s = max(stall_s - kept_s, 0.0)

    def watch(self, begin_s: float, fit: ClockFit) -> tuple[list[int], float]:
        """The losses told, and seconds of sound that were dated wrongly."""
        begin_ns = START_NS + begin_s * 1e9
        end_ns, told, wrong, handed_ns = begin_ns + self._stall_ns, [], 0, 0.0
        for captured_ns, arrived_ns in arrivals(begin_s + self._stall_ns / 1e9 + 12, 20):
            if begin_ns < arrived_ns < end_ns:
                arrived_ns = end_ns
                if captured_ns > begin_ns + self._kept_ns if self._first else captured_ns < end_ns - self._kept_ns:
                    continue
            handed_ns = max(arrived_ns, handed_ns + self._pace_ns)
            if lost := fit.note(BLOCK, round(handed_ns)):
                told.append(lost)
            wrong += captured_ns > START_NS + 1e9 and error_ms(fit, captured_ns) > 3.0
        return told, wrong * BLOCK / RATE


BEGINNINGS_S = np.arange(7.0, 12.0, 0.21)  # in all phases of the windows


@pytest.mark.parametrize("pace_s", [0.0, 0.012])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kept_s", [0.1, 0.5])
@pytest.mark.parametrize("stall_s", [0.3, 1.0, 3.0, 7.0])
def test_what_was_dropped_in_a_stall_is_told_soon_and_once(
    stall_s: float, kept_s: float, first: bool, pace_s: float
) -> None:
    if (stall := Stall(stall_s, kept_s, first, pace_s)).lost_s:
        for begin_s in BEGINNINGS_S:
            (lost,), wrong_s = stall.watch(begin_s, ClockFit(RATE))
            assert abs(lost / RATE - stall.lost_s) < 2.5 * BLOCK / RATE
            assert wrong_s < TOLD_S + 2 * kept_s


@pytest.mark.parametrize("pace_s", [0.0, 0.005, 0.012])
@pytest.mark.parametrize("stall_s", [0.3, 1.0, 3.0, 7.0, 60.0])
def test_what_only_comes_late_after_a_stall_is_not_lost(stall_s: float, pace_s: float) -> None:
    for begin_s in BEGINNINGS_S:
        assert Stall(stall_s, stall_s, pace_s=pace_s).watch(begin_s, ClockFit(RATE)) == ([], 0.0)


def test_a_server_that_hands_out_once_in_a_while_loses_nothing_unseen() -> None:
    """Bursts of 0.6 s, each of which is a pause."""
    fit, found = ClockFit(RATE), 0
    for captured_ns, arrived_ns in arrivals(60, -100, burst=30):
        if not 30e9 < captured_ns - START_NS < 31.2e9:
            found += fit.note(BLOCK, round(arrived_ns))
    assert abs(found / RATE - 1.2) < BLOCK / RATE


def test_a_server_that_waits_longer_from_now_on_has_lost_nothing() -> None:
    """PipeWire goes from 512 to 2048 frames when another program wishes so."""
    fit = ClockFit(RATE)
    for captured_ns, arrived_ns in arrivals(60, 20):
        later_ns = 1536 / 48000 * 1e9 if arrived_ns > START_NS + 20e9 else 0
        assert fit.note(BLOCK, round(arrived_ns + later_ns)) == 0
        assert fit.frames < FOLLOWED_S * RATE or error_ms(fit, captured_ns) < 35


def test_the_frame_of_a_time() -> None:
    fit = ClockFit(RATE)
    assert fit.frame_at(START_NS) == 0
    fit.note(BLOCK, START_NS)
    assert fit.frame_at(START_NS) == BLOCK
    assert fit.frame_at(START_NS + 10**9) == BLOCK + RATE


class Clocks:
    """Two simulated clocks that are read one after the other."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.set_ns = 1_700_000_000_000_000_000 - START_NS
        self.pause_ns = 2_000  # between two readings
        self.late_ns = 0  # and after one of the wall clock
        self.held_up: list[int] = []  # the same, after each of the next

    def monotonic_ns(self) -> int:
        self.now_ns += self.pause_ns
        return self.now_ns

    def wall_ns(self) -> int:
        self.now_ns += self.pause_ns
        read_ns = self.now_ns + self.set_ns
        self.now_ns += self.held_up.pop(0) if self.held_up else self.late_ns
        return read_ns


@pytest.mark.parametrize("step_s", [-1.0, 1.0])
def test_a_step_of_the_wall_clock_is_followed_at_once_and_exactly_once(step_s: float) -> None:
    clocks = Clocks()
    wall = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    fit = ClockFit(RATE)
    told: list[int] = []
    for block, (captured_ns, arrived_ns) in enumerate(arrivals(60, 100)):
        clocks.now_ns = round(arrived_ns)
        if block == 1500:
            clocks.set_ns += round(step_s * 1e9)
        assert fit.note(BLOCK, round(arrived_ns)) == 0
        assert fit.origin_ns is not None
        told.append(fit.origin_ns + fit.frames * 10**9 // RATE + wall.offset_ns())
        if block > 500:
            assert abs(told[-1] - (captured_ns + clocks.set_ns)) < 2e6
    steps_ms = np.diff(told[500:]) / 1e6 - BLOCK / RATE * 1e3
    assert (np.abs(steps_ms) > 2).sum() == 1
    assert abs(steps_ms[np.argmax(np.abs(steps_ms))] - step_s * 1e3) < 2


@pytest.mark.parametrize(
    ("step_s", "told"),
    [
        (-3600, "set back by 3600 s: times before that are off"),
        (56.4 * 365.25 * 86_400, "set forward by 56 years, or the computer slept: times before that are off"),
        (3 * 86_400, "set forward by 3 days, or the computer slept: times before that are off"),
        (-7300, "set back by 2 hours: times before that are off"),
        (-14_400, "set back by 4 hours: times before that are off"),
        (1.1, "set forward by 1 s, or the computer slept: times before that are off"),
        (0.9, None),
    ],
)
def test_a_clock_that_is_set_is_told_for_a_while(step_s: float, told: str | None) -> None:
    clocks = Clocks()
    watch = ClockWatch(clocks.monotonic_ns, clocks.wall_ns)
    assert watch.complaints() == {}
    clocks.set_ns += round(step_s * 1e9)
    for _ in range(50):
        assert watch.complaints() == ({"clock": told} if told else {})
        clocks.now_ns += 10**9
    clocks.now_ns += 11 * 10**9
    assert watch.complaints() == {}


def test_a_clock_that_is_set_again_is_news() -> None:
    """Who tells people tells what was not there before, by its key; programs read the word before the colon."""
    clocks = Clocks()
    watch, told = ClockWatch(clocks.monotonic_ns, clocks.wall_ns), list[str]()
    for step_s in (-30, 90, 5):
        clocks.set_ns += step_s * 10**9
        for _ in range(2):
            told += [f"{what}: {text.partition(',')[0].partition(':')[0]}" for what, text in watch.complaints().items()]
        clocks.now_ns += 10 * 10**9
    assert told[::2] == ["clock: set back by 30 s", "clock: again: set forward by 90 s", "clock: set forward by 5 s"]
    assert told[1::2] == told[::2]
    clocks.now_ns += 60 * 10**9
    assert watch.complaints() == {}
    clocks.set_ns -= 10 * 10**9
    assert list(watch.complaints()) == ["clock"]


def test_readings_that_are_not_simultaneous_do_not_move_the_time() -> None:
    clocks = Clocks()
    wall = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    offset_ns = wall.offset_ns()
    assert abs(offset_ns - clocks.set_ns) < 10_000
    clocks.pause_ns = 30_000_000  # the process lost its turn between any two
    assert wall.offset_ns() == offset_ns
    clocks.pause_ns = 2_000
    clocks.late_ns = 30_000_000  # and now behind the wall clock only
    assert wall.offset_ns() == offset_ns
    clocks.late_ns = 0
    clocks.set_ns += 50_000  # what readings differ by
    assert wall.offset_ns() == offset_ns
    clocks.set_ns += 100_000  # slewed
    assert abs(wall.offset_ns() - clocks.set_ns) < 10_000


@pytest.mark.parametrize("turn", range(3))
def test_of_three_readings_the_quickest_tells(turn: int) -> None:
    clocks = Clocks()
    clocks.held_up = [30_000_000] * 3
    clocks.held_up[turn] = 0
    assert abs(WallClock(clocks.monotonic_ns, clocks.wall_ns).offset_ns() - clocks.set_ns) < 10_000


def test_on_a_slow_computer_the_wall_clock_is_read_halfway() -> None:
    clocks = Clocks()
    clocks.pause_ns = 30_000_000
    assert abs(WallClock(clocks.monotonic_ns, clocks.wall_ns).offset_ns() - clocks.set_ns) < 10_000


def test_the_real_clocks_are_read() -> None:
    assert abs(time.monotonic_ns() + WallClock().offset_ns() - time.time_ns()) < 1_000_000_000
