"""Events found, missed and invented: golden values."""

from __future__ import annotations

import numpy as np
import pytest

from offline.event_counts import EventCounts, event_recall
from tests.offline.test_metrics import CLASSES, rows


def test_event_recall():
    reference = [
        *rows(range(0, 20), 0, azimuth=0),
        *rows(range(10, 30), 0, azimuth=90, track=1),
        *rows(range(40, 50), 0, azimuth=0),  # the track number of the first, a second event
        *rows(range(0, 20), 1),
    ]
    prediction = [
        *rows([5, 7], 0, azimuth=10),  # one frame missing between: one event
        *rows([12], 0, azimuth=70, track=1),
        *rows(range(25, 35), 1),  # class 1 is silent by then
        *rows(range(10), 2),
        *rows(range(20, 30), 2),
    ]
    events = event_recall(reference, prediction, CLASSES, label_frames=300)
    assert (events.true, events.found, events.located, events.false) == (4, 2, 2, 3)
    assert events.recall == 0.5
    assert events.angles_deg == pytest.approx((10, 20))  # frame 12 is nearer to the second event, counts for both
    assert events.false_per_minute == 6
    twice = events + events
    assert (twice.true, twice.minutes, len(twice.angles_deg), twice.located) == (8, 1.0, 4, 4)
    assert twice.median_angle_deg == pytest.approx(15)


def test_event_recall_of_nothing():
    nothing = event_recall([], [], CLASSES, 600)
    assert nothing == EventCounts(minutes=1.0)
    assert np.isnan([nothing.recall, nothing.median_angle_deg, EventCounts().false_per_minute]).all()


def test_an_event_is_located_within_20_degrees():
    far = event_recall(rows(range(10)), rows(range(10), azimuth=21), CLASSES, label_frames=10)
    assert (far.found, far.located) == (1, 0)


def test_an_event_that_is_told_too_early_and_too_long_is_not_false():
    events = event_recall(rows(range(10, 20)), rows(range(5, 25)), CLASSES, label_frames=300)
    assert (events.true, events.found, events.false) == (1, 1, 0)
