"""Gate, thresholds and medians of a model, chosen on validation scenes that no network was trained on.

The networks run once (`offline.estimates`); what follows them is cheap and is tried with many settings, with a limit on
the false events in quiet scenes. DOA smoothing is left as it is, and off while searching.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from offline.dataset import Recording, read_metadata, within
from offline.estimates import Estimates, Rows, class_numbers, rows_of
from offline.event_counts import LABELS_PER_MINUTE, EventCounts, event_recall
from offline.metrics import Scores, SeldCounts, count
from offline.thresholds import CRITERIA, Scenes, Strip, best_combination
from seldrt.config import ConfigError, PostprocessConfig, override
from seldrt.description import Description
from seldrt.postprocess import median_labels, per_class

# Soft F makes the networks sure of themselves: the levels lie close together near 1.
THRESHOLDS = (*(n / 20 for n in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
SAD_THRESHOLDS = (*(n / 10 for n in range(1, 10)), 0.95, 0.98, 0.99, 0.995)
SAD_MEDIANS = (3, 5, 7, 9)
HOLDS = (1.0, 0.7, 0.4)
MEDIAN_SHARES = (0.0, 0.125, 0.25)  # of the mean duration of an event of the class

Heeded = tuple[Recording, Estimates]


class Heard(msgspec.Struct, frozen=True):
    """What settings make of the scenes with labels, and of the quiet ones (NaN where there are none)."""

    scores: Scores
    recall: float  # of events
    false_per_minute: float
    never_found: tuple[str, ...]  # classes of the model that the scenes have, and of which no event was

    def __str__(self) -> str:
        s = self.scores
        text = f"SELD score {s.seld:.4f}, ER20 {s.er_20:.3f}, F20 {100 * s.f_20:.1f} %, LE {s.le_cd:.1f} deg"
        text += f", LR {100 * s.lr_cd:.1f} %, {100 * self.recall:.0f} % of events"
        quiet = f"; {self.false_per_minute:.2f} false events a minute where it is quiet"
        return text if np.isnan(self.false_per_minute) else text + quiet


def check_scenes(model: Description, classes: Sequence[str], scenes: Sequence[Recording]) -> None:
    """`ConfigError` for what cannot serve to calibrate a model, before a network has heard it.

    Scenes without labels, or in which no class of the model sounds; classes of the model that ``classes``, the names
    by which the labels count, lack.
    """
    numbers = class_numbers(model.classes, classes)
    labels = [_labels(recording) for recording in scenes]
    if not any(np.isin(rows[:, 1], numbers).any() for rows in labels):
        told = f"{scenes[0].audio.parent}: no class of the model ever sounds: nothing to choose thresholds by"
        raise ConfigError(f"{told}; quiet scenes are for --quiet")


class Trials:
    """Scenes with labels, quiet ones, and what the metrics make of them under any settings of one model.

    ``classes`` are the names by which the labels count; `check_scenes` says whether all this fits.
    """

    def __init__(
        self, model: Description, classes: Sequence[str], scenes: Sequence[Heeded], quiet: Sequence[Heeded] = ()
    ) -> None:
        self.model, self.classes = model, tuple(classes)
        self.numbers = class_numbers(model.classes, classes)
        self.scenes = [(estimates, within(_labels(recording), len(estimates))) for recording, estimates in scenes]
        self.quiet: list[tuple[Estimates, Rows]] = [(estimates, np.zeros((0, 5), np.int64)) for _, estimates in quiet]

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes of the model that never sound in the scenes with labels."""
        sounding = {number for _, rows in self.scenes for number in rows[:, 1].tolist()}
        return tuple(name for name, n in zip(self.model.classes, self.numbers, strict=True) if n not in sounding)

    def heard(self, postprocess: PostprocessConfig) -> Heard:
        """What the daemon says with these settings, measured."""
        total, events, false = SeldCounts.zero(len(self.classes)), EventCounts(), EventCounts()
        for estimates, reference in self.scenes:
            rows = rows_of(estimates, postprocess, self.model.classes, self.classes)
            total += count(reference, rows, len(self.classes))
            events += event_recall(reference, rows, len(self.classes), len(estimates))
        for estimates, nothing in self.quiet:
            rows = rows_of(estimates, postprocess, self.model.classes, self.classes)
            false += event_recall(nothing, rows, len(self.classes), len(estimates))
        missed = [name for name, n in zip(self.model.classes, self.numbers, strict=True) if not total.detected[n]]
        absent = self.absent
        never = tuple(name for name in missed if name not in absent)
        return Heard(total.scores(), events.recall, false.false_per_minute, never)


def _labels(recording: Recording) -> Rows:
    if recording.metadata is None:
        raise ConfigError(f"{recording.name}: has no labels to calibrate by")
    return read_metadata(recording.metadata)


def waiting(start: PostprocessConfig, lookback: int | None, longest_median: int | None) -> PostprocessConfig:
    """``start`` with another lookback and no longer medians, in label frames: what its latency is made of.

    Medians are odd: of an even ``longest_median`` they have one less. `ConfigError` for a lookback out of range.
    """
    settings = override(start, sed_lookback_labels=lookback)
    if longest_median is None:
        return settings
    longest = longest_median - (longest_median + 1) % 2
    return replace(
        settings,
        sad_median_labels=min(start.sad_median_labels, longest),
        sed_median_labels=tuple(min(labels, longest) for labels in start.sed_median_labels),
    )


def calibrate(
    trials: Trials,
    start: PostprocessConfig,
    max_false_per_minute: float = 1.0,
    criterion: str = "seld",
    progress: Callable[[str], None] = lambda text: None,
) -> PostprocessConfig:
    """The settings with the lowest criterion (a key of `CRITERIA`) on the scenes with labels.

    Medians become no longer than the longest of ``start``, and its lookback stays: the latency does not grow. Classes
    that never sound in these scenes keep what they have: nothing here tells how often they would be missed.

    With quiet scenes, settings that exceed the limit there do not count, unless all do: then those with the fewest
    false events. Never worse than ``start`` in this sense.
    """
    classes = len(trials.model.classes)
    own = replace(
        start,
        sed_thresholds=tuple(per_class(start.sed_thresholds, classes, "sed_thresholds").tolist()),
        sed_median_labels=tuple(per_class(start.sed_median_labels, classes, "sed_median_labels").tolist()),
    )
    longest = max(own.sad_median_labels, *own.sed_median_labels)
    absent = trials.absent
    choices = [
        [(labels, [threshold])] if name in absent else of_class
        for name, of_class, labels, threshold in zip(
            trials.model.classes,
            _choices(own, trials.model.mean_event_labels, longest),
            own.sed_median_labels,
            own.sed_thresholds,
            strict=True,
        )
    ]
    strips = [Strip(part, trials.numbers, len(trials.classes)) for part in (trials.scenes, trials.quiet)]
    lengths = {labels for of_class in choices for labels, _ in of_class}
    medians = {n: [strip.medians(1, n if own.sed_median else 1) for strip in strips] for n in lengths}
    minutes = sum(len(estimates) for estimates, _ in trials.quiet) / LABELS_PER_MINUTE
    most_false = max_false_per_minute * minutes if trials.quiet else np.inf

    best, best_settings = (np.inf, np.inf), start
    in_order = [[(threshold, labels) for labels, levels in of_class for threshold in levels] for of_class in choices]
    chosen: Sequence[int] = [
        order.index(setting)
        for order, setting in zip(in_order, zip(own.sed_thresholds, own.sed_median_labels, strict=True), strict=True)
    ]
    sad_lengths = sorted({own.sad_median_labels, *(n for n in SAD_MEDIANS if n <= longest and own.sed_median)})
    sad_thresholds = sorted({own.sad_threshold, *SAD_THRESHOLDS})
    gates = {n: [strip.medians(0, n if own.sed_median else 1)[:, 0] for strip in strips] for n in sad_lengths}
    for hold in sorted({own.sed_hold, *HOLDS}, reverse=True):
        # The gate's best median without holding on is taken to be the best with it.
        lengths_now = sad_lengths if best[1] == np.inf else [best_settings.sad_median_labels]
        for sad_labels, sad_threshold in itertools.product(lengths_now, sad_thresholds):
            open_gates = [gate > gate.dtype.type(sad_threshold) for gate in gates[sad_labels]]
            scenes = Scenes(strips, open_gates, medians)
            options = [
                scenes.options(column, of_class, hold, own.sed_lookback_labels)
                for column, of_class in enumerate(choices)
            ]
            found = best_combination(options, strips[0].never_said, criterion, chosen, most_false)
            rank = (max(0.0, found.false_events - most_false), found.value)
            if rank < best:
                best, chosen = rank, found.chosen
                picked = [order[k] for order, k in zip(in_order, chosen, strict=True)]
                best_settings = replace(
                    start,
                    sed_hold=hold,
                    sad_threshold=sad_threshold,
                    sad_median_labels=sad_labels,
                    sed_thresholds=tuple(threshold for threshold, _ in picked),
                    sed_median_labels=tuple(labels for _, labels in picked),
                )
                told = f"gate at {sad_threshold:g}, median {sad_labels}, hold {hold:g}: {criterion} {found.value:.4f}"
                progress(told + (f", {found.false_events / minutes:.2f} false a minute" if minutes else ""))

    def rank_of(settings: PostprocessConfig) -> tuple[float, float]:
        heard = trials.heard(settings)
        excess = max(0.0, heard.false_per_minute - max_false_per_minute) if trials.quiet else 0.0
        return excess, float(CRITERIA[criterion](np.array(dataclasses.astuple(heard.scores))))

    return min((start, best_settings), key=rank_of)


def _choices(
    own: PostprocessConfig, mean_event_labels: Sequence[float], longest: int
) -> list[list[tuple[int, list[float]]]]:
    """For each class the median lengths to be tried, no new one above ``longest``, each with thresholds."""
    lengths = [own.sed_median_labels]
    if own.sed_median and mean_event_labels:
        lengths += [median_labels(mean_event_labels, share, longest) for share in MEDIAN_SHARES]
    return [
        [(labels, sorted({*THRESHOLDS, threshold})) for labels in sorted(set(of_class))]
        for of_class, threshold in zip(zip(*lengths, strict=True), own.sed_thresholds, strict=True)
    ]
