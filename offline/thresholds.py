"""The best setting of each class: what a class does under each of its settings, and the best combination.

A setting is a threshold of SED and the length of its median. Given the gate (SAD), classes depend on each other by the
substitutions alone: so what a class does in each segment is counted once for each of its settings, and the best
combination is found class by class, in turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from offline.estimates import Estimates, Rows
from offline.metrics import ROUNDING_DEG, SEGMENT_LABELS, THRESHOLD_DEG, nearest_angle_deg, scores_of
from seldrt.config import PostprocessConfig
from seldrt.findings import GAP_LABELS
from seldrt.postprocess import activity_stage, begun_earlier, hysteresis
from seldrt.spatial import azimuth_elevation, unit_vector
from seldrt.stream import run

HIGHEST_PRICE = 10.0  # of one false event: more than any setting can win
LOWEST_PRICE = 1e-6
PRICE_STEPS = 10
SWEEPS = 10

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Counts = NDArray[np.int16]

CRITERIA: dict[str, Callable[[Floats], Floats]] = {  # of scores (..., 6); lower is better
    "seld": lambda scores: scores[..., 5],
    "f_20": lambda scores: 1 - scores[..., 1],
}


class Strip:
    """Estimates and label rows of scenes one after the other, filled up with silence to whole segments.

    ``spoken`` are the numbers that the labels give to the classes of the estimates, of ``classes`` in all. Directions
    are those of the network in whole degrees, without smoothing.
    """

    def __init__(self, scenes: Sequence[tuple[Estimates, Rows]], spoken: Sequence[int], classes: int) -> None:
        spans = [max(len(x), int(rows[:, 0].max(initial=-1)) + 1) + GAP_LABELS + 1 for x, rows in scenes]
        lengths = [-(-span // SEGMENT_LABELS) * SEGMENT_LABELS for span in spans]
        self.frames, self.segments = sum(lengths), sum(lengths) // SEGMENT_LABELS
        self._firsts = np.cumsum([0, *lengths])[:-1].tolist()
        self._estimates = [x for x, _ in scenes]
        self.angle_deg = np.full((self.frames, len(spoken)), np.inf)  # to the nearest of the class; inf: it is silent
        in_ref = np.zeros((self.segments, classes), dtype=bool)
        for first, (estimates, rows) in zip(self._firsts, scenes, strict=True):
            in_ref[(first + rows[:, 0]) // SEGMENT_LABELS, rows[:, 1]] = True
            azimuth, elevation = azimuth_elevation(estimates[..., 2:])
            said = unit_vector(np.rint(azimuth), np.rint(elevation))
            self.angle_deg[first : first + len(said)] = nearest_angle_deg(rows, said, spoken)
        self.in_ref = in_ref[:, spoken]
        self.never_said = np.delete(in_ref, spoken, axis=1).sum(axis=1)  # classes in each segment that nobody knows

    def medians(self, of: int, labels: int) -> NDArray[np.float32]:
        """Running medians of SAD (0) or SED (1) over so many label frames: (frames, classes)."""
        classes = self.angle_deg.shape[1]
        stage = activity_stage(PostprocessConfig(sad_median_labels=1, sed_median_labels=(labels,)), [""] * classes)
        y = np.zeros((self.frames, classes), np.float32)
        for first, estimates in zip(self._firsts, self._estimates, strict=True):
            x = estimates.copy()
            x[..., 1] = x[..., of]
            medians = run(stage, x)
            if medians is not None:
                y[first : first + len(x)] = medians[..., 1]
        return y


@dataclasses.dataclass(frozen=True)
class Options:
    """K settings of one class (threshold, median length), and what it does with each in S segments."""

    settings: list[tuple[float, int]]
    lost: Counts  # (K, S)
    false: Counts  # (K, S)
    sums: Floats  # (K, 6): the first six of `SeldCounts.totals`
    false_events: Floats  # (K,) in the quiet scenes


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes with labels and quiet ones, where the gate is open in them, and their medians of SED by length."""

    strips: Sequence[Strip]
    open: Sequence[Bools]  # (frames,)
    medians: Mapping[int, Sequence[NDArray[np.float32]]]  # (frames, classes)

    def options(
        self, column: int, choices: Sequence[tuple[int, Sequence[float]]], hold: float = 1.0, lookback: int = 0
    ) -> Options:
        """What one class does with each choice: median lengths, each with thresholds.

        ``hold`` is `sed_hold`, ``lookback`` is `sed_lookback_labels`.
        """
        scenes = self.strips[0]
        angle = scenes.angle_deg[:, column].reshape(-1, SEGMENT_LABELS)
        in_ref = scenes.in_ref[:, column]
        settings: list[tuple[float, int]] = []
        parts: list[tuple[Counts, Counts, Floats, Floats]] = []
        for labels, thresholds in choices:
            heard, quiet = (median[:, column] for median in self.medians[labels])
            levels = np.asarray(thresholds).astype(heard.dtype)[:, None]
            active, quiet_active = (
                _active(is_open, median, levels, hold, lookback)
                for is_open, median in zip(self.open, (heard, quiet), strict=True)
            )
            active = active.reshape(len(levels), -1, SEGMENT_LABELS)
            some = np.flatnonzero(active.any(axis=(0, 2)) | in_ref)  # nothing happens in the other segments
            active = active[:, some]
            lost, false = (np.zeros((len(levels), scenes.segments), np.int16) for _ in range(2))
            lost[:, some], false[:, some], sums = _outcomes(active, angle[some], in_ref[some])
            parts.append((lost, false, sums, _events(quiet_active)))
            settings += [(threshold, labels) for threshold in thresholds]
        lost, false, sums, events = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Options(settings, lost, false, sums, events)


def _active(
    is_open: Bools, median: NDArray[np.float32], levels: NDArray[np.float32], hold: float, lookback: int
) -> Bools:
    """Where a class is active (K, frames) by its medians (frames,) and K thresholds (K, 1)."""
    on = is_open & (median > levels)
    if hold == 1:
        return on
    keep = is_open & (median > (levels.astype(float) * hold).astype(levels.dtype))
    return begun_earlier(hysteresis(on.T, keep.T), keep.T, lookback).T


def _outcomes(active: Bools, angle: Floats, in_ref: Bools) -> tuple[Bools, Bools, Floats]:
    """Lost and false (K, S), and sums (K, 6), of a class that is active so (K, S, labels), as `metrics.count`."""
    known = np.isfinite(angle)
    frames = (active & known).sum(axis=2)
    mean = (active * np.where(known, angle, 0)).sum(axis=2) / np.maximum(frames, 1)
    detected, predicted = frames > 0, active.any(axis=2)
    correct = detected & (mean <= THRESHOLD_DEG + ROUNDING_DEG)
    lost, false = in_ref & ~correct, predicted & ~in_ref
    sums = [part.sum(axis=1) for part in (predicted, detected, correct, false, mean)]
    return lost, false, np.stack([np.full(len(active), in_ref.sum()), *sums], axis=1).astype(float)


def _events(active: Bools) -> Floats:
    """How many events there are, as `event_counts.event_recall` counts them: (K, frames) -> (K,)."""
    recently = np.zeros_like(active)
    for gap in range(1, GAP_LABELS + 2):
        recently[:, gap:] |= active[:, :-gap]
    return (active & ~recently).sum(axis=1).astype(float)


@dataclasses.dataclass(frozen=True)
class Found:
    """The number of the setting of each class, the criterion, and the false events in the quiet scenes."""

    chosen: tuple[int, ...]
    value: float
    false_events: float


def best_combination(
    options: Sequence[Options], never_said: NDArray[np.int_], criterion: str, start: Sequence[int], most_false: float
) -> Found:
    """The lowest criterion with at most so many false events; the fewest of them where that cannot be kept.

    A limit is approached by a price of false events, the lowest that keeps it, and then used up.
    """
    found = _descend(options, never_said, criterion, start, 0.0)
    if found.false_events <= most_false:
        return found
    low, high = LOWEST_PRICE, HIGHEST_PRICE
    kept = _descend(options, never_said, criterion, found.chosen, high)
    for _ in range(PRICE_STEPS):
        price = float(np.sqrt(low * high))
        tried = _descend(options, never_said, criterion, found.chosen, price)
        if tried.false_events > most_false:
            low = price
            continue
        high = price
        if kept.false_events > most_false or tried.value < kept.value:
            kept = tried
    return _descend(options, never_said, criterion, kept.chosen, 0.0, most_false)


def _descend(
    options: Sequence[Options], never_said: NDArray[np.int_], criterion: str, start: Sequence[int],
    price: float, most_false: float = np.inf,
) -> Found:  # fmt: skip
    """From there, the best setting of one class after the other until none changes.

    What exceeds ``most_false`` is not taken, unless all does.
    """
    chosen = list(start)
    picked = list(zip(options, chosen, strict=True))
    lost = never_said + sum(option.lost[k].astype(int) for option, k in picked)
    false = np.sum([option.false[k] for option, k in picked], axis=0, dtype=int)
    sums = np.sum([option.sums[k] for option, k in picked], axis=0)
    sums[0] += never_said.sum()
    events = sum(float(option.false_events[k]) for option, k in picked)
    value = np.inf
    for _ in range(SWEEPS):
        before = list(chosen)
        for index, option in enumerate(options):
            k = chosen[index]
            lost, false = lost - option.lost[k], false - option.false[k]
            sums, events = sums - option.sums[k], events - option.false_events[k]
            totals = _totals(sums + option.sums, lost + option.lost, false + option.false)
            values, all_events = CRITERIA[criterion](scores_of(totals)), events + option.false_events
            allowed = all_events <= max(most_false, all_events.min())
            k = int(np.where(allowed, values + price * all_events, np.inf).argmin())
            chosen[index], value = k, float(values[k])
            lost, false = lost + option.lost[k], false + option.false[k]
            sums, events = sums + option.sums[k], all_events[k]
        if chosen == before:
            break
    return Found(tuple(chosen), value, float(events))


def _totals(sums: Floats, lost: NDArray[np.int_], false: NDArray[np.int_]) -> Floats:
    """Totals (K, 9) as `SeldCounts.totals`, of sums (K, 6) and of what is lost and false in each segment (K, S)."""
    pairs = np.minimum(lost, false).sum(axis=1)
    errors = (pairs, lost.sum(axis=1) - pairs, false.sum(axis=1) - pairs)
    return np.concatenate([sums, np.stack(errors, axis=1)], axis=1)
