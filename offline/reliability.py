"""How often a confidence is right, and how exact a direction is by its spread: measured; and confidences made honest.

SED learnt by soft F is surer of itself than it is right, and of some classes more than of others. So the log-odds of a
confidence get a slope and an offset for each class (Platt 1999) that make it, over the scenes, the share of label
frames in which the class really sounds, wherever it is. What is reported, where and when, stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from offline.estimates import Estimates, Rows
from offline.metrics import THRESHOLD_DEG, nearest_angle_deg
from seldrt.config import LABEL_RATE_HZ, PostprocessConfig
from seldrt.postprocess import corrected, log_odds, per_class, postprocess_stage
from seldrt.smoothing import spread_deg
from seldrt.stream import run

BINS = 10
SPREADS_DEG = (1.0, 2.0, 3.0, 4.0, 6.0, 9.0)
SLOPES = (0.2, 5.0)  # a confidence stays one: it rises with that of the network
PRIOR_S = 3.0  # so many seconds have to speak against a slope of 1 and an offset of 0: few events prove little

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Said(NamedTuple):
    """Label frames (n,) in which a class is reported: its number, confidence and spread, and the angle to the truth.

    ``error_deg`` is infinite where the class does not sound.
    """

    class_id: NDArray[np.int64]
    confidence: Floats
    spread_deg: Floats
    error_deg: Floats

    @property
    def right(self) -> Bools:
        """Whether the class sounds, wherever it is."""
        return np.isfinite(self.error_deg)


class Sure(msgspec.Struct, frozen=True):
    """Label frames with a confidence within a tenth: how many, their mean confidence, and the share that is right."""

    frames: int
    confidence: float
    right: float


class Exact(msgspec.Struct, frozen=True):
    """Label frames of the right class by spread: how many, mean spread, median error, and the share beyond 20 deg."""

    frames: int
    spread_deg: float
    median_deg: float
    far: float


def what_is_said(
    scenes: Iterable[tuple[Estimates, Rows]], postprocess: PostprocessConfig, numbers: Sequence[int]
) -> Said:
    """What the daemon says of estimates with their label rows, in which the classes have these ``numbers``."""
    parts = [(np.zeros(0, int), *np.zeros((3, 0)))]
    for estimates, rows in scenes:
        y = run(postprocess_stage(postprocess, [""] * len(numbers)), estimates)
        if y is None:
            continue
        error_deg = nearest_angle_deg(rows, y[..., 2:], numbers)
        said = np.nonzero(y[..., 0] > 0)
        parts.append((said[1], y[said][:, 1], spread_deg(y[said][:, 2:]), error_deg[said]))
    return Said(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def reliability(said: Said) -> list[Sure]:
    """What confidences are worth: a row for each tenth in which there are any."""
    tenth = np.minimum((said.confidence * BINS).astype(int), BINS - 1)
    groups = [tenth == k for k in np.unique(tenth)]
    means = [(float(said.confidence[group].mean()), float(said.right[group].mean())) for group in groups]
    return [Sure(int(group.sum()), *mean) for group, mean in zip(groups, means, strict=True)]


def exactness(said: Said) -> list[Exact]:
    """What spreads are worth: a row for each step of `SPREADS_DEG` in which there are any, of the right class."""
    known = said.right & ~np.isnan(said.spread_deg)
    step = np.where(known, np.searchsorted(SPREADS_DEG, said.spread_deg, side="right"), -1)
    rows = []
    for k in np.unique(step[step >= 0]):
        spread, error = said.spread_deg[step == k], said.error_deg[step == k]
        far = float((error > THRESHOLD_DEG).mean())
        rows.append(Exact(len(error), float(spread.mean()), float(np.median(error)), far))
    return rows


def expected_error(bins: Sequence[Sure]) -> float:
    """By how much confidences are off on average (expected calibration error, Guo et al. 2017); 0 of nothing."""
    frames = sum(one.frames for one in bins)
    return sum(one.frames * abs(one.confidence - one.right) for one in bins) / max(frames, 1)


class Calibrated(NamedTuple):
    """Settings with honest confidences, and by how much these are off in the scenes, and were as SED has them."""

    postprocess: PostprocessConfig
    off: float
    off_before: float


def calibrated(
    scenes: Sequence[tuple[Estimates, Rows]], postprocess: PostprocessConfig, numbers: Sequence[int]
) -> Calibrated:
    """The settings with slopes and offsets for which confidences are right as often as they say in these scenes.

    Classes that never sound in them, or are never said, keep what they have.
    """
    plain = replace(postprocess, confidence_slopes=(1.0,), confidence_offsets=(0.0,), doa_smoothing=False)
    said = what_is_said(scenes, plain, numbers)
    sounding = np.isin(numbers, np.concatenate([rows[:, 1] for _, rows in scenes]))
    slopes = np.array(per_class(postprocess.confidence_slopes, len(numbers), "confidence_slopes"), float)
    offsets = np.array(per_class(postprocess.confidence_offsets, len(numbers), "confidence_offsets"), float)
    for k in set(np.flatnonzero(sounding).tolist()) & set(said.class_id.tolist()):
        own = said.class_id == k
        slopes[k], offsets[k] = _fitted(said.confidence[own], said.right[own])
    told = corrected(said.confidence, slopes[said.class_id], offsets[said.class_id])
    off, off_before = (expected_error(reliability(each)) for each in (said._replace(confidence=told), said))
    fitted = replace(postprocess, confidence_slopes=tuple(slopes.tolist()), confidence_offsets=tuple(offsets.tolist()))
    return Calibrated(fitted, off, off_before)


def _fitted(confidence: Floats, right: Bools) -> tuple[float, float]:
    """Slope and offset of one class, by logistic regression."""
    x = log_odds(confidence)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, offset = parameters
        y = slope * x + offset
        wrong = expit(y) - right  # the gradient of the log loss with respect to y
        value = (np.logaddexp(0, y) - right * y).sum() / LABEL_RATE_HZ + PRIOR_S / 2 * ((slope - 1) ** 2 + offset**2)
        slopes = np.array([wrong @ x, wrong.sum()]) / LABEL_RATE_HZ + PRIOR_S * np.array([slope - 1, offset])
        return value, slopes

    found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[SLOPES, (None, None)])
    slope, offset = (round(float(value), 4) for value in found.x)
    return slope, offset
