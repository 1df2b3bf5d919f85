"""Confidences that are right as often as they say, against labels drawn with a known probability; spreads by hand."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from offline import reliability
from offline.reliability import Exact, Said, Sure
from seldrt.config import PostprocessConfig
from seldrt.postprocess import log_odds

ALL = PostprocessConfig(
    sad_threshold=0.0, sed_thresholds=(0.0,), sad_median_labels=1, sed_median_labels=(1,), doa_smoothing=False
)
NUMBERS = (4, 2)  # of two classes, in the labels


def scene(slope: float, offset: float, seed: int, frames: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of two classes and label rows: the first sounds with a probability of that slope and offset."""
    rng = np.random.default_rng(seed)
    x = np.ones((frames, 2, 5), np.float32)
    x[..., 1] = rng.uniform(0.001, 0.999, (frames, 2))
    probability = 1 / (1 + np.exp(-(slope * log_odds(x[:, 0, 1]) + offset)))
    sounds = np.stack([rng.random(frames) < probability, rng.random(frames) < x[:, 1, 1]], 1)
    frame, column = np.nonzero(sounds)
    return x, np.stack([frame, np.array(NUMBERS)[column], *np.zeros((3, len(frame)), int)], 1)


def test_slope_and_offset_are_found_for_each_class() -> None:
    scenes = [scene(0.5, -0.8, seed) for seed in (1, 2)]
    found, told_off, told_before = reliability.calibrated(scenes, ALL, NUMBERS)
    assert found.confidence_slopes == pytest.approx((0.5, 1.0), abs=0.04)
    assert found.confidence_offsets == pytest.approx((-0.8, 0.0), abs=0.04)
    assert reliability.calibrated(scenes, found, NUMBERS).postprocess == found  # of what SED says

    def off(settings: PostprocessConfig) -> float:
        said = reliability.what_is_said([scene(0.5, -0.8, 3)], settings, NUMBERS)
        return reliability.expected_error(reliability.reliability(said))

    assert off(ALL) == pytest.approx(told_before, abs=0.01)
    assert told_before > 0.05
    assert max(off(found), told_off) < 0.015


def test_what_is_never_said_stays_as_it_is() -> None:
    x, rows = scene(1.0, 0.0, 1, 500)
    x[:, 1, 1] = 0.0
    found = reliability.calibrated([(x, rows)], ALL, NUMBERS).postprocess
    assert (found.confidence_slopes[1], found.confidence_offsets[1]) == (1.0, 0.0)
    assert reliability.calibrated([(x[:0], rows[:0])], ALL, NUMBERS).postprocess.confidence_slopes == (1.0, 1.0)


def test_a_class_that_does_not_sound_keeps_what_it_had() -> None:
    x, rows = scene(0.5, -0.8, 1, 500)
    before = replace(ALL, confidence_slopes=(0.9, 0.8), confidence_offsets=(0.1, -0.2))
    found = reliability.calibrated([(x, rows[rows[:, 1] == NUMBERS[0]])], before, NUMBERS).postprocess
    assert (found.confidence_slopes[1], found.confidence_offsets[1]) == (0.8, -0.2)
    assert found.confidence_slopes[0] == pytest.approx(0.5, abs=0.15)


def test_a_few_seconds_prove_little() -> None:
    x, _ = scene(1.0, 0.0, 1, 20)
    once = np.array([[0, NUMBERS[0], 0, 0, 0]])
    few, many = (
        reliability.calibrated([(x, once)] * n, ALL, NUMBERS).postprocess.confidence_offsets[0] for n in (1, 50)
    )
    assert -1 < few < -0.2
    assert many < -1.5


def test_who_is_surer_stays_surer_even_where_that_is_wrong() -> None:
    confidence = np.linspace(0.05, 0.95, 2000)
    assert reliability._fitted(confidence, confidence < 0.5)[0] == reliability.SLOPES[0] > 0


def test_reliability_is_counted_as_by_hand() -> None:
    error_deg = np.array([1.0, np.inf, 2.0, 3.0, np.inf])
    said = Said(np.zeros(5, int), np.array([0.52, 0.58, 0.91, 0.95, 1.0]), np.zeros(5), error_deg)
    bins = reliability.reliability(said)
    assert bins == [
        Sure(2, pytest.approx(0.55), 0.5),
        Sure(3, pytest.approx(2.86 / 3), pytest.approx(2 / 3)),
    ]
    assert reliability.expected_error(bins) == pytest.approx((2 * 0.05 + 0.86) / 5)
    assert reliability.expected_error([Sure(1, 0.2, 1.0), Sure(1, 0.9, 0.1)]) == pytest.approx(0.8)  # too low, too high
    assert reliability.expected_error([]) == 0.0


def test_exactness_is_counted_as_by_hand() -> None:
    error_deg = np.array([1.0, 5.0, np.inf, 30.0, 10.0])
    said = Said(np.zeros(5, int), np.ones(5), np.array([0.2, 0.6, 0.7, 9.0, 20.0]), error_deg)
    assert reliability.exactness(said) == [Exact(2, pytest.approx(0.4), 3.0, 0.0), Exact(2, 14.5, 20.0, 0.5)]
    said = Said(np.zeros(3, int), np.ones(3), np.array([0.2, 0.3, 0.4]), np.array([1.0, 5.0, 15.0]))
    assert reliability.exactness(said) == [Exact(3, pytest.approx(0.3), 5.0, 0.0)]


def test_the_error_is_the_angle_to_the_nearest_of_the_class() -> None:
    x = np.ones((3, 2, 5), np.float32)
    x[..., 2:] = 1.0, 0.0, 0.0
    rows = np.array([[0, 4, 0, 30, 0], [0, 4, 1, -10, 0], [1, 2, 0, 0, 90], [7, 4, 0, 0, 0]])
    said = reliability.what_is_said([(x, rows)], ALL, NUMBERS)
    assert said.class_id.tolist() == [0, 1] * 3
    assert said.error_deg == pytest.approx([10.0, np.inf, np.inf, 90.0, np.inf, np.inf])
    assert said.right.tolist() == [True, False, False, True, False, False]
