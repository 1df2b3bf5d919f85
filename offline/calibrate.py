"""Thresholds of a model, chosen on validation scenes that no network was trained on.

The networks run once; what follows them is cheap and is tried with many settings. First the gate and one threshold
for all classes, then the threshold of each class in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from offline.dataset import Recording, read_audio, read_metadata
from offline.evaluate import prediction_rows
from offline.metrics import Scores, SeldCounts, count
from seldrt.checkpoint import Checkpoint
from seldrt.config import ConfigError, PostprocessConfig
from seldrt.features import features_stage
from seldrt.inference import Estimator
from seldrt.postprocess import Tracker, postprocess_stage
from seldrt.stream import Chain, run

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SAD_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
SAD_MEDIANS = (3, 7)

Progress = Callable[[str, Scores], None]


class Trials:
    """Estimates of some recordings, and what the metrics make of them under any post-processing."""

    def __init__(self, model: Checkpoint, recordings: Sequence[Recording], classes: Sequence[str]) -> None:
        description = model.description
        self._spoken, self._wanted = description.classes, list(classes)
        self._label = description.features.samples_per_label
        chain = Chain(features_stage(description.features), Estimator(model, "cpu").stage(0.0))
        self._pairs: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        for recording in recordings:
            if recording.metadata is None:
                raise ConfigError(f"{recording.name}: has no labels to calibrate by")
            samples = read_audio(recording.audio, description.features.sample_rate)
            estimates = run(chain, samples, 50 * self._label)
            if estimates is not None:
                self._pairs.append((estimates, read_metadata(recording.metadata)))

    def scores(self, postprocess: PostprocessConfig) -> Scores:
        """The metrics over all recordings."""
        total = SeldCounts.zero(len(self._wanted))
        for estimates, reference in self._pairs:
            smoothed = run(postprocess_stage(postprocess, self._spoken), estimates)
            frames = Tracker(self._label).push(smoothed) if smoothed is not None else []
            total += count(reference, prediction_rows(frames, self._spoken, self._wanted), len(self._wanted))
        return total.scores()


def calibrate(trials: Trials, start: PostprocessConfig, classes: int, progress: Progress) -> PostprocessConfig:
    """The settings with the lowest SELD score, never worse than ``start``.

    DOA smoothing is left as it is (and off while searching).
    """
    if len(start.sed_thresholds) == 1:
        start = replace(start, sed_thresholds=start.sed_thresholds * classes)
    best = replace(start, doa_smoothing=False)
    lowest = trials.scores(best)
    progress("as it was", lowest)

    def attempt(what: str, candidate: PostprocessConfig) -> None:
        nonlocal best, lowest
        scores = trials.scores(candidate)
        if scores.seld < lowest.seld:
            best, lowest = candidate, scores
            progress(what, scores)

    for threshold in THRESHOLDS:
        attempt(f"all classes above {threshold}", replace(best, sed_thresholds=(threshold,) * classes))
    for length in SAD_MEDIANS:
        for threshold in SAD_THRESHOLDS:
            candidate = replace(best, sad_threshold=threshold, sad_median_labels=length)
            attempt(f"gate at {threshold}, median {length}", candidate)
    for class_id in range(classes):
        for threshold in THRESHOLDS:
            thresholds = list(best.sed_thresholds)
            thresholds[class_id] = threshold
            attempt(f"class {class_id} above {threshold}", replace(best, sed_thresholds=tuple(thresholds)))
    return min(start, replace(best, doa_smoothing=start.doa_smoothing), key=lambda one: trials.scores(one).seld)
