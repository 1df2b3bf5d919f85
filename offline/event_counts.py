"""Whole events instead of segments: found, missed and invented, as a user of the daemon would count them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline.metrics import ROUNDING_DEG, THRESHOLD_DEG, checked_rows, row_pairs
from seldrt.config import LABEL_RATE_HZ
from seldrt.findings import GAP_LABELS
from seldrt.spatial import angle_deg, unit_vector

LABELS_PER_MINUTE = 60.0 * LABEL_RATE_HZ


@dataclasses.dataclass(frozen=True)
class EventCounts:
    """True events, those found with the angle to each, and predicted ones that are not there; add them up."""

    true: int = 0
    found: int = 0
    false: int = 0
    minutes: float = 0.0
    angles_deg: tuple[float, ...] = ()  # one for each found event

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    @property
    def recall(self) -> float:
        """Share of the true events that were found; NaN where there are none."""
        return self.found / self.true if self.true else float("nan")

    @property
    def located(self) -> int:
        """So many of the found events are not further off than the metrics allow, 20 degrees."""
        return sum(angle <= THRESHOLD_DEG + ROUNDING_DEG for angle in self.angles_deg)

    @property
    def median_angle_deg(self) -> float:
        """Median over the found events; NaN where there are none."""
        return float(np.median(self.angles_deg)) if self.angles_deg else float("nan")

    @property
    def false_per_minute(self) -> float:
        return self.false / self.minutes if self.minutes else float("nan")


def event_recall(reference: ArrayLike, prediction: ArrayLike, classes: int, label_frames: int) -> EventCounts:
    """Count events instead of segments: what a user of the daemon would say it heard, missed and invented.

    Events are those of `event_rows`. One is found when at least one label frame has a prediction of its class; its
    angle is the median over those frames of the angle to the nearest one. A predicted event is false when no frame of
    it has a true event of its class. ``label_frames`` is the length of the recording (100 ms each). Rows as for
    `count`.
    """
    ref, pred = checked_rows(reference, classes, "reference"), checked_rows(prediction, classes, "prediction")
    i, j = row_pairs(ref, pred, classes)
    pair_angles = angle_deg(unit_vector(ref[i, 3], ref[i, 4]), unit_vector(pred[j, 3], pred[j, 4]))
    nearest = np.full(len(ref), np.inf)
    np.minimum.at(nearest, i, pair_angles)
    angles = [
        float(np.median(nearest[event][np.isfinite(nearest[event])]))
        for event in event_rows(ref)
        if np.isfinite(nearest[event]).any()
    ]
    matched = np.zeros(len(pred), dtype=bool)
    matched[j] = True
    false = sum(not matched[event].any() for event in event_rows(pred))
    minutes = label_frames / LABELS_PER_MINUTE
    return EventCounts(len(event_rows(ref)), len(angles), false, minutes, tuple(angles))


def event_rows(rows: NDArray[np.number[Any]]) -> list[NDArray[np.intp]]:
    """Row indices of each event: one class and track, without a gap of more than `GAP_LABELS`."""
    if not len(rows):
        return []
    order = np.lexsort((rows[:, 0], rows[:, 2], rows[:, 1]))
    frame, class_id, track = rows[order, :3].T
    starts = (np.diff(frame) > GAP_LABELS + 1) | (np.diff(class_id) != 0) | (np.diff(track) != 0)
    return np.split(order, np.flatnonzero(starts) + 1)
