"""How loud it is, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seldrt.levels import FLOOR_DBFS, LevelMeter

WINDOW = 2400


def test_a_sine_and_its_closed_form() -> None:
    time_s = np.arange(2 * WINDOW)[:, None] / 24000
    x = np.array([1.0, 0.5, 0.001, 0.0]) * np.sin(2 * np.pi * 1000 * time_s + np.pi / 2)  # 100 periods, from the peak
    for told in LevelMeter(WINDOW).push(0, x.astype(np.float32)):
        assert told.rms_dbfs == pytest.approx([-3.01, -9.03, -63.01, FLOOR_DBFS], abs=0.006)
        assert told.peak_dbfs == pytest.approx([0.0, -6.02, -60.0, FLOOR_DBFS], abs=0.006)


def test_a_peak_may_be_negative_and_silence_has_the_floor_of_the_protocol() -> None:
    x = np.zeros((WINDOW, 2), np.float32)
    x[7, 0] = -0.5
    (told,) = LevelMeter(WINDOW).push(0, x)
    assert told.peak_dbfs == [-6.02, -120.0]
    assert (told.sample, told.samples) == (0, WINDOW)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3000), max_size=12))
def test_the_cut_does_not_matter(sizes: list[int]) -> None:
    x = np.random.default_rng(0).normal(0, 0.1, (sum(sizes), 4)).astype(np.float32)
    whole = LevelMeter(WINDOW).push(0, x)
    meter, cut, start = LevelMeter(WINDOW), [], 0
    for size in sizes:
        cut += meter.push(start, x[start : start + size])
        start += size
    assert [told.sample for told in whole] == [i * WINDOW for i in range(len(x) // WINDOW)]
    assert [(told.sample, told.samples) for told in cut] == [(told.sample, told.samples) for told in whole]
    for one, other in zip(cut, whole, strict=True):
        assert one.rms_dbfs == pytest.approx(other.rms_dbfs, abs=0.011)
        assert one.peak_dbfs == other.peak_dbfs


@pytest.mark.parametrize("lost", [1, 1400, 2400, 9999])
def test_a_window_that_misses_samples_is_left_out(lost: int) -> None:
    x = np.full((6 * WINDOW, 4), 0.1, np.float32)
    meter = LevelMeter(WINDOW)
    told = meter.push(0, x[:3000])
    for start in range(3000 + lost, 3000 + lost + len(x), 480):
        told += meter.push(start, x[:480])
    resumed = -(-(3000 + lost) // WINDOW)
    assert [loudness.sample // WINDOW for loudness in told] == [0, *range(resumed, told[-1].sample // WINDOW + 1)]
    assert len(told) >= 5
    assert all(loudness.peak_dbfs == [-20.0] * 4 for loudness in told)


def test_what_is_no_number_gives_a_number() -> None:
    x = np.zeros((WINDOW, 2), np.float32)
    x[5] = np.nan, np.inf
    (told,) = LevelMeter(WINDOW).push(0, x)
    assert np.isfinite([*told.rms_dbfs, *told.peak_dbfs]).all()
