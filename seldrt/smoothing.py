"""Directions on the sphere, smoothed along a motion at a possible speed (report, section 5)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from seldrt.config import LABEL_RATE_HZ, PostprocessConfig
from seldrt.findings import GAP_LABELS
from seldrt.spatial import normalized
from seldrt.stream import Array, Map, Stage, Windowed

OUTLIER = np.radians(20.0)  # a direction this far off loses most of its weight; the metrics call it wrong, too
STILL = np.zeros(1)  # the speeds of what does not move
LEAST_LABELS = 3
PRIOR_LABELS, PRIOR_DEG = 2.0, 3.0  # an event that has just begun says little of how exact its directions are
SHORTEST = 0.01  # length of a vector, so that it has a direction

Floats = NDArray[np.float64]


def doa_stage(config: PostprocessConfig) -> Stage:
    """Active, confidence, x, y, z (n, classes, 5) -> the same with smoothed vectors where active.

    In a centred window of ``doa_window_labels`` and the ``doa_history_labels`` before it an event is taken to move
    along a great circle at any speed up to ``max_speed_deg_per_s``, or at one of ``speeds_deg_per_s`` if there are any:
    where sources have other speeds, these make it worse than none. Its direction is that of the fitted motion in the
    middle of the window. A direction counts the more, the surer the class is and the fewer others sound beside it. The
    length of a vector is the mean cosine of the angles between the motion and what was heard, see `spread_deg`.
    Latency: half the window. With ``doa_smoothing`` off directions stay as they are, and lengths say nothing.

    Source: report, section 5, which says only that known speeds correct directions that change evenly.
    """
    if not config.doa_smoothing:
        return Map(lambda x: np.concatenate([x[..., :2], SHORTEST * normalized(x[..., 2:])], -1).astype(x.dtype))
    future = config.doa_window_labels // 2
    past = future + config.doa_history_labels
    speeds = np.radians(sorted(config.speeds_deg_per_s)) / LABEL_RATE_HZ
    fastest = speeds[-1] if len(speeds) else np.radians(config.max_speed_deg_per_s) / LABEL_RATE_HZ

    def smooth(x: Array) -> Array:
        y = x[past : len(x) - future].copy()
        frame, class_id = np.nonzero(y[..., 0] > 0)
        if len(frame):
            at = frame[:, None] + np.arange(past + future + 1), class_id[:, None]
            active = x[..., 0] > 0
            trust = x[..., 1].astype(float) / np.maximum(active.sum(axis=1, keepdims=True), 1)
            weight = _same_event(active[at], past) * trust[at]
            y[frame, class_id, 2:] = _fitted_directions(x[at][..., 2:], weight, past, speeds, fastest)
        return y

    return Windowed(smooth, past, future)


def spread_deg(doa: Array) -> Floats:
    """By smoothed vectors (..., 3): how far directions lay from the motion that they are told of, RMS, degrees.

    NaN where nothing is known of that.
    """
    length = np.linalg.norm(doa.astype(float), axis=-1)
    return np.where(length < 2 * SHORTEST, np.nan, np.degrees(np.arccos(np.minimum(length, 1))))


def _same_event(active: NDArray[np.bool_], now: int) -> NDArray[np.bool_]:
    """Which of the label frames (m, w) are active with no gap longer than `GAP_LABELS` between them and ``now``."""

    def outwards(side: NDArray[np.bool_]) -> NDArray[np.bool_]:
        padded = np.concatenate([np.ones_like(side, shape=(len(side), GAP_LABELS)), side], axis=1)
        recent = sliding_window_view(padded, GAP_LABELS + 1, axis=1).any(axis=-1)
        return np.logical_and.accumulate(recent, axis=1) & side

    after = outwards(active[:, now:])
    before = outwards(active[:, now::-1])[:, :0:-1]
    return np.concatenate([before, after], axis=1)


def _fitted_directions(doa: Array, weight: Floats, now: int, speeds: Floats, fastest: float) -> Floats:
    """Vectors (m, 3) at the label frame ``now`` of m windows (m, w, 3), each of a motion along a great circle.

    ``weight`` (m, w) is 0 for what does not belong to the event; speeds are in radians a label frame. The fit
    starts at the *medoid*, the observation nearest to all others, frames near ``now`` counting more: so of two
    clusters the one around now wins, and a short excursion is outvoted. It first uses what a source at the
    medoid can reach at the fastest speed, then once more with weights that fall with the distance from the
    first motion. An event stands still unless a motion explains more of what was heard. The length of a vector is the
    mean cosine between the motion and all that was heard, and a little that is as far off as `PRIOR_DEG`; `SHORTEST`
    where less than `LEAST_LABELS` label frames were heard, for then it says nothing.
    """
    u = normalized(doa) * (weight > 0)[..., None]
    labels = np.arange(-now, u.shape[1] - now, dtype=np.float64)
    weight = weight * u.any(axis=-1)
    nearness = weight * np.exp(-2 * np.abs(labels) / max(now, 1))
    angles = _arc(np.einsum("mic,mjc->mij", u, u))
    distance = np.where(weight > 0, (angles * nearness[:, None]).sum(axis=-1), np.inf)
    medoid = np.arange(len(u)), distance.argmin(axis=-1)

    reach = OUTLIER + fastest * np.abs(labels - labels[medoid[1], None])
    within = weight * (angles[medoid] <= reach)
    fits = []
    for among in (STILL, speeds):
        track = _fitted_track(u, within, u[medoid], labels, among, fastest)
        track = _fitted_track(u, within * _credence(u, track), track[:, now], labels, among, fastest)
        fits.append((track, (weight * _credence(u, track)).sum(axis=-1)))
    (still, for_still), (moving, for_moving) = fits
    track = np.where((for_moving > for_still)[:, None, None], moving, still)
    agreement = (weight * (u * track).sum(axis=-1)).sum(axis=-1) + PRIOR_LABELS * np.cos(np.radians(PRIOR_DEG))
    length = agreement / (weight.sum(axis=-1) + PRIOR_LABELS)
    length[(weight > 0).sum(axis=-1) < LEAST_LABELS] = 0
    return track[:, now] * np.maximum(length, SHORTEST)[:, None]


def _credence(u: Floats, track: Floats) -> Floats:
    """How well observations (m, w, 3) agree with a motion: 1 on it, little beyond `OUTLIER`."""
    return np.exp(-((_arc((u * track).sum(axis=-1)) / OUTLIER) ** 2))


def _fitted_track(u: Floats, weight: Floats, base: Floats, labels: Floats, speeds: Floats, fastest: float) -> Floats:
    """Directions (m, w, 3) of the least-squares motions, fitted in the tangent planes at ``base`` (m, 3).

    Positions are offsets from ``base`` with the bearing of ``u`` and the angle as their length (the logarithm
    map), in 3-D coordinates, so that no axes have to be chosen in the plane.
    """
    base = base[:, None]
    along = (u * base).sum(axis=-1, keepdims=True)
    across = u - along * base
    sine = _length(across)
    offset = across * _ratio(np.arctan2(sine, along), sine)

    w = (weight / np.maximum(weight.sum(axis=-1, keepdims=True), 1e-12))[..., None]
    time = labels[:, None] - (w * labels[:, None]).sum(axis=1, keepdims=True)
    spread = (w * time**2).sum(axis=1, keepdims=True)
    velocity = (w * time * offset).sum(axis=1, keepdims=True) * _ratio(1.0, spread)
    speed = _length(velocity)
    nearest = np.searchsorted((speeds[:-1] + speeds[1:]) / 2, speed)
    allowed = speeds[nearest] if len(speeds) else np.minimum(speed, fastest)
    position = (w * offset).sum(axis=1, keepdims=True) + time * velocity * _ratio(allowed, speed)

    angle = _length(position)
    return np.cos(angle) * base + np.sinc(angle / np.pi) * position


def _arc(cosine: Floats) -> Floats:
    """Angles in radians; not exact below 1e-7, and need not be."""
    return np.arccos(np.clip(cosine, -1, 1))


def _length(vector: Floats) -> Floats:
    return np.sqrt((vector**2).sum(axis=-1, keepdims=True))


def _ratio(a: Floats | float, b: Floats) -> Floats:
    """a / b, or 0 where b is as good as 0."""
    return np.divide(a, b, out=np.zeros_like(b), where=b > 1e-12)
