"""The metrics of DCASE 2020 Task 3: ER20, F20, LE_CD, LR_CD.

Definition: the official 2020 evaluation code (metrics/SELD_evaluation_metrics.py of the seld-dcase2020
baseline) after Mesaros et al., "Joint measurement of localization and detection of sound events", WASPAA
2019. Later editions of the task count differently. Each recording is cut into segments of 10 label frames (1
s); what is counted are *class segments*, a class in one segment, however many tracks it has there. Counts are
pooled over classes, segments and recordings (micro average).

Rows of a recording are (n, 5): frame, class, track, azimuth_deg, elevation_deg, as in the metadata CSV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from seldrt.config import SeldrtError
from seldrt.spatial import angle_deg, unit_vector

METRICS = ("er_20", "f_20", "le_cd", "lr_cd", "lr_recall", "seld")
EPS = 2.0**-52  # where the official code has it: errors over an empty reference give an ER of 4.5e15
THRESHOLD_DEG = 20.0
SEGMENT_LABELS = 10  # label frames: 1 s
ROUNDING_DEG = 1e-9  # the threshold is inclusive: 20 degrees exactly must not hang on the last bit

Floats = NDArray[np.float64]


class MetricsError(SeldrtError):
    """Rows that cannot be counted."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics: best is 0, 1, 0, 1, 1, 0."""

    er_20: float  # error rate, location-dependent at 20 degrees
    f_20: float  # F-score, location-dependent at 20 degrees
    le_cd: float  # class-dependent localization error, degrees; 180 when no class was ever found
    lr_cd: float  # the official "localization recall" of 2020, in truth an F-score of the detections
    lr_recall: float  # the recall that the name promises
    seld: float  # mean of er_20, 1 - f_20, le_cd / 180 and 1 - lr_cd: the criterion of early stopping


@dataclasses.dataclass(frozen=True)
class SeldCounts:
    """What was counted, in class segments; add the counts of recordings, then ask for `scores`.

    The arrays have one number a class. For error analysis: `missed` class segments of the reference share no
    frame with a prediction of their class; `misplaced` ones do, but point over 20 degrees away; `false` are
    predicted in a segment where the class is silent.
    """

    reference: Floats  # (classes,)
    predicted: Floats
    detected: Floats  # in both, with at least one common frame
    correct: Floats  # detected, within the angle threshold
    false: Floats  # predicted, not in the reference
    angle_sum_deg: Floats  # over the detected
    substitutions: float = 0.0  # pairs of a lost and a false class in one segment
    deletions: float = 0.0
    insertions: float = 0.0

    @classmethod
    def zero(cls, classes: int) -> SeldCounts:
        """The counts of no recording."""
        none = np.zeros(classes)
        return cls(none, none, none, none, none, none)

    def __add__(self, other: SeldCounts) -> SeldCounts:
        return SeldCounts(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    @property
    def missed(self) -> Floats:
        return self.reference - self.detected

    @property
    def misplaced(self) -> Floats:
        return self.detected - self.correct

    def totals(self) -> Floats:
        """The nine numbers, summed over classes, that `scores` needs: (9,)."""
        return np.array([np.sum(value) for value in _values(self)])

    def scores(self) -> Scores:
        """The official metrics over all classes."""
        return Scores(*scores_of(self.totals()).tolist())

    def scores_per_class(self) -> list[Scores]:
        """The metrics of each class as if it were the only one; the error rate then has no substitutions."""
        lost = self.reference - self.correct
        alone = [*_values(self)[:6], np.zeros_like(lost), lost, self.false]
        return [Scores(*row) for row in scores_of(np.stack(alone, axis=-1)).tolist()]


def count(reference: ArrayLike, prediction: ArrayLike, classes: int) -> SeldCounts:
    """Count one recording.

    ``reference`` and ``prediction`` are rows (n, 5) in any order; n may be 0. The angle of a class segment is
    the mean over its common frames; in a frame with several tracks of the class it is the sum over the pairs
    that match best (as the official code has it). Raises `MetricsError` for rows that are not of that form.
    """
    cells = class_segments(reference, prediction, classes)
    correct = cells.detected & (cells.angle_deg <= THRESHOLD_DEG + ROUNDING_DEG)
    lost, false = (cells.in_ref & ~correct).sum(axis=1), cells.false.sum(axis=1)
    return SeldCounts(
        reference=cells.in_ref.sum(axis=0, dtype=float),
        predicted=cells.in_pred.sum(axis=0, dtype=float),
        detected=cells.detected.sum(axis=0, dtype=float),
        correct=correct.sum(axis=0, dtype=float),
        false=cells.false.sum(axis=0, dtype=float),
        angle_sum_deg=np.where(cells.detected, cells.angle_deg, 0).sum(axis=0),
        substitutions=float(np.minimum(lost, false).sum()),
        deletions=float(np.maximum(0, lost - false).sum()),
        insertions=float(np.maximum(0, false - lost).sum()),
    )


@dataclasses.dataclass(frozen=True)
class ClassSegments:
    """The class segments of one recording; all arrays are (segments, classes)."""

    in_ref: NDArray[np.bool_]
    in_pred: NDArray[np.bool_]
    angle_deg: Floats  # mean over the common frames; NaN where there are none

    @property
    def detected(self) -> NDArray[np.bool_]:
        return np.isfinite(self.angle_deg)

    @property
    def false(self) -> NDArray[np.bool_]:
        return self.in_pred & ~self.in_ref


def class_segments(reference: ArrayLike, prediction: ArrayLike, classes: int) -> ClassSegments:
    """Which class is where in which segment, and how far off it is; as `count`, of which this is the first half."""
    ref, pred = checked_rows(reference, classes, "reference"), checked_rows(prediction, classes, "prediction")
    segments = 1 + int(max(ref[:, 0].max(initial=0), pred[:, 0].max(initial=0))) // SEGMENT_LABELS
    in_ref, in_pred = (np.zeros((segments, classes), dtype=bool) for _ in range(2))
    for rows, present in ((ref, in_ref), (pred, in_pred)):
        present[_indices(rows[:, 0]) // SEGMENT_LABELS, _indices(rows[:, 1])] = True
    angle_sum, common = (np.zeros((segments, classes)) for _ in range(2))
    frame, class_id, angle = frame_angles(ref, pred, classes)
    np.add.at(angle_sum, (frame // SEGMENT_LABELS, class_id), angle)
    np.add.at(common, (frame // SEGMENT_LABELS, class_id), 1)
    mean = np.divide(angle_sum, common, out=np.full_like(angle_sum, np.nan), where=common > 0)
    return ClassSegments(in_ref, in_pred, mean)


def bootstrap_interval(
    per_recording: Sequence[SeldCounts], rng: np.random.Generator, n: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % intervals of each metric, by drawing whole recordings ``n`` times with replacement.

    Frames of one recording depend on each other, so whole recordings are drawn: the intervals are those of other
    recordings like these. Scenes that are made of the same sounds depend on each other, too: of scenes of other sounds
    the intervals would be wider. Needs at least one; of one recording the interval is a point, which says nothing.
    """
    if not per_recording:
        raise MetricsError("no recording to draw from")
    totals = np.stack([counts.totals() for counts in per_recording])
    times_drawn = rng.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=n)
    drawn = scores_of(times_drawn @ totals)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(METRICS, low, high, strict=True)}


def checked_rows(rows: ArrayLike, classes: int, name: str) -> Floats:
    """Rows as an (n, 5) array of floats; `MetricsError` names the first row that is out of range."""
    try:
        table = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        raise MetricsError(f"{name}: the rows are not numbers of one width") from None
    if table.size == 0:
        return np.zeros((0, 5))
    if table.ndim != 2 or table.shape[1] != 5:
        form = "frame, class, track, azimuth_deg, elevation_deg"
        raise MetricsError(f"{name}: the rows have shape {table.shape}, not (n, 5): {form}")
    frame, class_id, _, azimuth, elevation = table.T
    rules = {
        "every value must be finite": np.isfinite(table).all(axis=1),
        "the frame must be a whole number from 0": (frame >= 0) & (frame % 1 == 0),
        f"the class must be a whole number in 0..{classes - 1}": np.isin(class_id, np.arange(classes)),
        "the azimuth must be in -180..180 degrees": np.abs(azimuth) <= 180,
        "the elevation must be in -90..90 degrees": np.abs(elevation) <= 90,
    }
    for rule, holds in rules.items():
        if not holds.all():
            row = int(np.argmin(holds))
            raise MetricsError(f"{name}, row {row} ({', '.join(f'{v:g}' for v in table[row])}): {rule}")
    return table


def scores_of(totals: Floats) -> Floats:
    """The six `METRICS` (..., 6) of totals (..., 9) in the order of the fields of `SeldCounts`."""
    reference, predicted, detected, correct, _, angle_sum, s, d, i = np.moveaxis(totals, -1, 0)
    er = (s + d + i) / (reference + EPS)
    f = _f_score(correct, reference, predicted)
    le = np.where(detected > 0, angle_sum / np.maximum(detected, 1), 180.0)
    lr = _f_score(detected, reference, predicted)
    seld = (er + (1 - f) + le / 180 + (1 - lr)) / 4
    return np.stack([er, f, le, lr, detected / (reference + EPS), seld], axis=-1)


def _f_score(hits: Floats, reference: Floats, predicted: Floats) -> Floats:
    return 2 * hits / (reference + predicted + EPS)


def frame_angles(ref: Floats, pred: Floats, classes: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Frame, class and summed angle of the best matching for each frame that has a class in both tables."""
    i, j = row_pairs(ref, pred, classes)
    angle = angle_deg(_doa(ref[i]), _doa(pred[j]))
    keys, first, size = np.unique(_keys(ref, classes)[i], return_index=True, return_counts=True)
    total = angle[first]  # the pairs come in the order of their keys
    for k in np.flatnonzero(size > 1):
        pairs = slice(first[k], first[k] + size[k])
        table = angle[pairs].reshape(len(np.unique(i[pairs])), -1)
        total[k] = table[linear_sum_assignment(table)].sum()
    return keys // classes, keys % classes, total


def nearest_angle_deg(rows: NDArray[np.int64], doa: ArrayLike, numbers: Sequence[int]) -> Floats:
    """Angles (frames, classes) of directions (frames, classes, 3) to the nearest label row of their frame and class.

    Infinite where there is none. ``numbers`` are those that the label rows (n, 5) give to the classes.
    """
    doa = np.asarray(doa)
    nearest = np.full(doa.shape[:2], np.inf)
    for column, number in enumerate(numbers):
        own = rows[(rows[:, 1] == number) & (rows[:, 0] < len(doa))]
        angle = angle_deg(unit_vector(own[:, 3], own[:, 4]), doa[own[:, 0], column])
        np.minimum.at(nearest, (own[:, 0], column), angle)
    return nearest


def row_pairs(ref: Floats, pred: Floats, classes: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of all pairs of rows with equal frame and class, by frame and class, then reference row."""
    ref_keys, pred_keys = _keys(ref, classes), _keys(pred, classes)
    ref_order, pred_order = np.argsort(ref_keys, kind="stable"), np.argsort(pred_keys, kind="stable")
    start = np.searchsorted(pred_keys[pred_order], ref_keys[ref_order], side="left")
    stop = np.searchsorted(pred_keys[pred_order], ref_keys[ref_order], side="right")
    partners = [np.arange(a, b) for a, b in zip(start, stop, strict=True)]
    return np.repeat(ref_order, stop - start), pred_order[np.concatenate([np.zeros(0, dtype=np.intp), *partners])]


def _keys(rows: Floats, classes: int) -> NDArray[np.intp]:
    return _indices(rows[:, 0]) * classes + _indices(rows[:, 1])


def _indices(column: Floats) -> NDArray[np.intp]:
    return column.astype(np.intp)


def _doa(rows: Floats) -> Floats:
    return unit_vector(rows[:, 3], rows[:, 4])


def _values(counts: SeldCounts) -> tuple[Any, ...]:
    return tuple(getattr(counts, field.name) for field in dataclasses.fields(counts))
