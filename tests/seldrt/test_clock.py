"""The clock of a device against a simulated one: drift, jitter, bursts, losses, and a wall clock that is set."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from seldrt.runtime.clock import WINDOW_S, ClockFit, ClockWatch, WallClock

RATE = 48000
BLOCK = 960
HOUR_S = 3600
START_NS = 7_000_000_000_000


def arrivals(seconds: float, ppm: float, burst: int = 1) -> Iterator[tuple[int, float]]:
    """When blocks were captured and when they arrived, ns: ``burst`` together, as late as an exponential of 3 ms."""
    rng = np.random.default_rng(0)
    true_rate = RATE * (1 + ppm * 1e-6)
    blocks = round(seconds * RATE / BLOCK)
    late_ns = rng.exponential(3e6, blocks // burst + 1)
    for block in range(1, blocks + 1):
        captured_ns = START_NS + block * BLOCK / true_rate * 1e9
        handed = -(-block // burst) * burst
        yield captured_ns, START_NS + handed * BLOCK / true_rate * 1e9 + late_ns[handed // burst - 1]


def error_ms(fit: ClockFit, captured_ns: float) -> float:
    """How far the fit is off for the frame that was captured then."""
    assert fit.origin_ns is not None
    return abs(fit.origin_ns + fit.frames * 1e9 / RATE - captured_ns) / 1e6


@pytest.mark.parametrize(("ppm", "burst"), [(-100, 1), (100, 7)])
def test_an_hour_of_drift_and_jitter(ppm: float, burst: int) -> None:
    fit, worst_ms = ClockFit(RATE), 0.0
    for captured_ns, arrived_ns in arrivals(HOUR_S, ppm, burst):
        assert fit.note(BLOCK, round(arrived_ns)) == 0
        if fit.frames > WINDOW_S * RATE and fit.frames // BLOCK % burst == 0:
            worst_ms = max(worst_ms, error_ms(fit, captured_ns))
    # two windows of drift (the slow side is only seen when a window is over), and the least jitter of one
    assert worst_ms < 2 * WINDOW_S * 100e-6 * 1e3 + 0.5


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
    """A server that drops without a flag; how much is known to the jitter, how soon to two windows."""
    fit, dropped, found, when_s = ClockFit(RATE), 3 * BLOCK, 0, 0.0
    for block, (captured_ns, arrived_ns) in enumerate(arrivals(60, -50)):
        if not 20 * RATE <= block * BLOCK < 20 * RATE + dropped:
            if lost := fit.note(BLOCK, round(arrived_ns)):
                found, when_s = found + lost, block * BLOCK / RATE
            if block * BLOCK > 20 * RATE + 2 * WINDOW_S * RATE + 2 * dropped:
                assert error_ms(fit, captured_ns) < 3.0
    assert abs(found - dropped) < 0.003 * RATE
    assert 20 < when_s < 20 + 2 * WINDOW_S + 0.2


def test_what_only_comes_late_is_not_lost() -> None:
    """A server that froze for 1.5 s and then delivers all that it kept."""
    fit = ClockFit(RATE)
    for captured_ns, arrived_ns in arrivals(60, 0):
        thawed_ns = START_NS + 21.5e9
        late_ns = thawed_ns if START_NS + 20e9 < arrived_ns < thawed_ns else arrived_ns
        assert fit.note(BLOCK, round(late_ns)) == 0
        assert fit.frames < WINDOW_S * RATE or error_ms(fit, captured_ns) < 1.0


def test_a_server_that_waits_longer_from_now_on_has_lost_nothing() -> None:
    """PipeWire goes from 512 to 2048 frames when another program wishes so."""
    fit = ClockFit(RATE)
    for captured_ns, arrived_ns in arrivals(60, 20):
        later_ns = 1536 / 48000 * 1e9 if arrived_ns > START_NS + 20e9 else 0
        assert fit.note(BLOCK, round(arrived_ns + later_ns)) == 0
        assert fit.frames < WINDOW_S * RATE or error_ms(fit, captured_ns) < 35


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

    def monotonic_ns(self) -> int:
        self.now_ns += self.pause_ns
        return self.now_ns

    def wall_ns(self) -> int:
        self.now_ns += self.pause_ns
        read_ns = self.now_ns + self.set_ns
        self.now_ns += self.late_ns
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


def test_the_real_clocks_are_read() -> None:
    assert abs(time.monotonic_ns() + WallClock().offset_ns() - time.time_ns()) < 1_000_000_000
