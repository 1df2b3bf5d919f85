"""From the estimates of the networks to tracked sources (report, sections 3.3 and 5).

Estimates are (n, classes, 5) at the label rate (10 Hz): the probability of any sound (SAD; the same for all
classes), the probability of the class (SED), and a vector x, y, z towards it (DOAE; of any length, zero where
unknown). Three stages turn them into (n, classes, 5): active 0 or 1, confidence 0..1, x, y, z. The tracker
turns those into `LabelFrame`s.

    activity_stage    medians over SAD and SED, gates
    doa_stage         see `seldrt.smoothing`
    confidence_stage  how often that is right
    Tracker           one source a class at a time, with a number from onset to offset
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy.special import expit, logit

from seldrt.config import EVERY_CLASS, ConfigError, PipelineConfig, PostprocessConfig, decode
from seldrt.findings import GAP_LABELS, ActiveSource, LabelFrame
from seldrt.medians import running_median_numpy
from seldrt.smoothing import doa_stage, spread_deg
from seldrt.spatial import azimuth_elevation, within
from seldrt.stream import Array, Chain, Map, Scan, Stage, Windowed

QUICK: dict[str, Any] = {"sed_median": False, "sed_lookback_labels": 0, "doa_window_labels": 1}  # waits for nothing


def median_labels(mean_event_labels: Sequence[float], share: float = 0.25, longest: int = 9) -> tuple[int, ...]:
    """Median filter lengths, one a class, from the mean duration of an event of each class.

    Durations are in label frames (100 ms). The length is the odd number nearest to ``share`` of the duration,
    within 1..``longest``. The report sets the length from the average duration per class (section 5) and does
    not say how. Raises `ConfigError` for a duration that is negative or not finite.
    """
    wanted = np.asarray(mean_event_labels, dtype=float) * share
    if not (np.isfinite(wanted) & (wanted >= 0)).all():
        raise ConfigError(f"mean_event_labels: {tuple(mean_event_labels)} must be finite and not negative")
    return tuple(int(length) for length in np.clip(2 * np.floor(wanted / 2) + 1, 1, longest))


def adjusted(
    calibrated: PostprocessConfig, classes: Sequence[str], wanted: PipelineConfig, changes: Mapping[str, Any]
) -> PostprocessConfig:
    """What a model was calibrated with, for its ``classes``, as a user wants it.

    ``changes`` are settings that replace those of the model. A class with a sensitivity of s is active at 1 / s of the
    odds that its threshold asks for. Raises `ConfigError` for an unknown class and for what cannot be a setting.
    """
    quick = QUICK if wanted.quick else {}
    config = decode(msgspec.to_builtins(calibrated) | quick | changes, PostprocessConfig, "[postprocess]")
    sensitivity = wanted.sensitivity
    if not sensitivity:
        return config
    check_classes(sensitivity.keys() - {EVERY_CLASS}, classes)
    odds = np.array([sensitivity.get(name, sensitivity.get(EVERY_CLASS, 1.0)) for name in classes])
    thresholds = per_class(config.sed_thresholds, len(classes), "sed_thresholds")
    return replace(config, sed_thresholds=tuple((thresholds / (thresholds + odds * (1 - thresholds))).tolist()))


def check_classes(names: Iterable[str], classes: Sequence[str]) -> None:
    """`ConfigError` for a name that is none of the classes of the model."""
    for name in names:
        if name not in classes:
            raise ConfigError(f"the model has no class {name!r}; it has {', '.join(classes)}")


def postprocess_stage(config: PostprocessConfig, classes: Sequence[str]) -> Chain:
    """Estimates (n, classes, 5) -> active, confidence, x, y, z: what sounds, how sure that is, where it is."""
    return Chain(activity_stage(config, classes), doa_stage(config), confidence_stage(config, classes))


def confidence_stage(config: PostprocessConfig, classes: Sequence[str]) -> Stage:
    """Active, confidence, x, y, z (n, classes, 5) -> the same with the confidence that is told.

    Its log-odds are those of before times ``confidence_slopes`` plus ``confidence_offsets``, which `offline calibrate`
    chooses so that a confidence is right as often as it says (Platt 1999).
    """
    slopes = per_class(config.confidence_slopes, len(classes), "confidence_slopes")
    offsets = per_class(config.confidence_offsets, len(classes), "confidence_offsets")
    if (slopes == 1).all() and (offsets == 0).all():
        return Map(lambda x: x)

    def tell(x: Array) -> Array:
        y = x.copy()
        y[..., 1] = corrected(x[..., 1], slopes, offsets)
        return y

    return Map(tell)


def corrected(confidence: Array, slopes: Array, offsets: Array) -> Array:
    """Confidences whose log-odds are ``slopes`` times those of before plus ``offsets``."""
    result: Array = expit(slopes * log_odds(confidence) + offsets)
    return result


def log_odds(probability: Array) -> Array:
    """Of probabilities, as if none were nearer to 0 or 1 than a millionth."""
    result: Array = logit(np.clip(np.asarray(probability, float), 1e-6, 1 - 1e-6))
    return result


def activity_stage(config: PostprocessConfig, classes: Sequence[str]) -> Stage:
    """Estimates (n, classes, 5) -> active, confidence, x, y, z (n, classes, 5).

    A class is active where the median of the SAD exceeds its threshold and the median of the SED the class's
    own. For odd lengths and any threshold that equals the majority of the single decisions, and it leaves a
    confidence: the median of the SED. Before and after the stream there is silence. The medians are centred;
    every class waits for the longest of them (not at all with ``sed_median`` off). Once active, a class stays so above
    ``sed_hold`` times its threshold, as long as the gate is open; and what was so just before it became active, for up
    to ``sed_lookback_labels``, belongs to it, for which every class waits, too.

    Raises `ConfigError` for a number of values that fits neither one class nor all.
    """
    sed_lengths = per_class(config.sed_median_labels, len(classes), "sed_median_labels")
    sed_thresholds = per_class(config.sed_thresholds, len(classes), "sed_thresholds")
    thresholds = np.stack([np.full(len(classes), config.sad_threshold), sed_thresholds], axis=-1)
    lengths = np.stack([np.full(len(classes), config.sad_median_labels), sed_lengths], axis=-1)
    if not config.sed_median:
        lengths = np.ones_like(lengths)
    half, back = int(lengths.max()) // 2, config.sed_lookback_labels
    lower = thresholds * [1.0, config.sed_hold]

    def decide(x: Array) -> Array:
        """The first channel: above the thresholds for staying active, and once more for those of becoming so."""
        y = x[half : len(x) - half].copy()
        medians = _running_medians(x[..., :2], lengths)
        y[..., 0] = sum((medians > level.astype(x.dtype)).all(axis=-1) for level in (thresholds, lower))
        y[..., 1] = medians[..., 1]
        return y

    def hold_on(before: NDArray[np.bool_], x: Array) -> tuple[NDArray[np.bool_], Array]:
        active = hysteresis(x[..., 0] > 1, x[..., 0] > 0, before)
        y = x.copy()
        y[..., 0] = np.where(active, 2, x[..., 0] > 0)
        return active[-1], y

    def look_back(x: Array) -> Array:
        y = x[: len(x) - back].copy()
        y[..., 0] = begun_earlier(x[..., 0] > 1, x[..., 0] > 0, back)[: len(y)]
        return y

    decision = Windowed(decide, half, half) if half else Map(decide)
    beginning = Windowed(look_back, 0, back) if back else Map(look_back)
    return Chain(decision, Scan(hold_on, lambda: np.zeros(len(classes), bool)), beginning)


def hysteresis(
    on: NDArray[np.bool_], keep: NDArray[np.bool_], before: NDArray[np.bool_] | bool = False
) -> NDArray[np.bool_]:
    """Active (n, ...) from the first ``on`` for as long as ``keep`` lasts; ``before`` (...) it was active or not."""
    index = np.arange(1, len(on) + 1).reshape(-1, *[1] * (on.ndim - 1))
    latest_on = np.maximum.accumulate(np.where(on, index, 0), axis=0)
    latest_end = np.maximum.accumulate(np.where(keep | on, 0, index), axis=0)
    active: NDArray[np.bool_] = (latest_on > latest_end) | (np.asarray(before) & (latest_end == 0))
    return active


def begun_earlier(active: NDArray[np.bool_], keep: NDArray[np.bool_], labels: int) -> NDArray[np.bool_]:
    """Active (n, ...) also in up to ``labels`` frames of ``keep`` that lead up to it without a gap."""
    for _ in range(labels):
        active = active | np.concatenate([active[1:] & keep[:-1], np.zeros_like(active[:1])])
    return active


def _running_medians(x: Array, lengths: NDArray[np.integer[Any]]) -> Array:
    """Centred medians along axis 0, where the longest window is complete: (n, ...) -> (n - longest + 1, ...).

    ``lengths`` are odd and have the shape of one frame: each sequence has its own.
    """
    half = int(lengths.max()) // 2
    y = x[half : len(x) - half].copy()
    for length in np.unique(lengths[lengths > 1]):
        chosen, inset = lengths == length, half - length // 2
        y[:, chosen] = running_median_numpy(x[inset : len(x) - inset, chosen], length)
    return y


class Tracker:
    """Active, confidence, x, y, z (n, classes, 5) -> n `LabelFrame`s with numbered sources, ordered by class.

    A class has one source at a time. Its track number runs from onset to offset, counts from 0 in the order
    of onsets and is never used again before the stream ends. A gap of one silent label frame does not end a
    track: nothing is reported in the gap, and afterwards the number and the onset are the old ones. `flush`
    ends the stream. Where ``only`` (classes,) is given, nothing is said of the classes for which it is False, and
    nothing of what sounds in the sectors to ``ignore``, see `seldrt.spatial.within`.
    """

    def __init__(
        self,
        samples_per_label: int,
        only: NDArray[np.bool_] | None = None,
        ignore: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._samples_per_label, self._only = samples_per_label, True if only is None else only
        self._ignore = tuple(ignore)
        self._reset()

    def _reset(self) -> None:
        self._index = 0
        self._next_track = 0
        self._open: dict[int, tuple[int, int, int]] = {}  # class: track, onset index, last active index

    def push(self, x: Array) -> list[LabelFrame]:
        """One `LabelFrame` for each of the n label frames."""
        azimuth, elevation = azimuth_elevation(x[..., 2:])
        active = (x[..., 0] > 0) & self._only & ~within(azimuth, self._ignore)
        rows = zip(active, x[..., 1], azimuth, elevation, spread_deg(x[..., 2:]), strict=True)
        return [self._label_frame(*row) for row in rows]

    def flush(self) -> list[LabelFrame]:
        """Nothing is left to say; the tracker is as new afterwards."""
        self._reset()
        return []

    def _label_frame(
        self, active: Array, confidence: Array, azimuth: Array, elevation: Array, spread: Array
    ) -> LabelFrame:
        sources = []
        for class_id in np.flatnonzero(active).tolist():
            track, onset = self._continued(class_id)
            source = ActiveSource(
                class_id=class_id,
                track=track,
                azimuth_deg=float(azimuth[class_id]),
                elevation_deg=float(elevation[class_id]),
                confidence=float(np.clip(confidence[class_id], 0, 1)),
                spread_deg=None if np.isnan(spread[class_id]) else float(spread[class_id]),
                onset_sample=onset * self._samples_per_label,
            )
            sources.append(source)
        frame = LabelFrame(index=self._index, sample=self._index * self._samples_per_label, sources=sources)
        self._index += 1
        return frame

    def _continued(self, class_id: int) -> tuple[int, int]:
        """Track and onset index of a class that is active now."""
        track, onset, last = self._open.get(class_id, (-1, -1, -1))
        if track < 0 or self._index - last > 1 + GAP_LABELS:
            track, onset = self._next_track, self._index
            self._next_track += 1
        self._open[class_id] = (track, onset, self._index)
        return track, onset


def per_class(values: Sequence[float], classes: int, name: str) -> Array:
    """The value of each class, of one for all or one for each; `ConfigError` for any other number of them."""
    if len(values) not in (1, classes):
        raise ConfigError(f"{name}: {len(values)} values for {classes} classes; give one, or one a class")
    return np.broadcast_to(np.asarray(values), classes)
