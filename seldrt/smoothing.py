"""Directions on the sphere, smoothed along a motion at one of the possible speeds (report, section 5)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from seldrt.config import ConfigError, PostprocessConfig
from seldrt.detection import GAP_LABELS
from seldrt.spatial import normalized
from seldrt.stream import Array, Map, Stage, Windowed

OUTLIER = np.radians(20.0)  # a direction this far off loses most of its weight; the metrics call it wrong, too

Floats = NDArray[np.float64]


def doa_stage(config: PostprocessConfig, label_rate_hz: float = 10.0) -> Stage:
    """Active, confidence, x, y, z (n, classes, 5) -> the same with smoothed unit vectors where active.

    In a centred window of ``doa_window_labels`` an event is taken to move along a great circle at one of
    ``speeds_deg_per_s`` (at any speed up to ``max_speed_deg_per_s`` when there are none); its direction is
    that of the fitted motion in the middle. Latency: half the window. With ``doa_smoothing`` off nothing
    changes.

    Source: report, section 5, which says only that known speeds correct directions that change evenly. Raises
    `ConfigError` for an even window or a negative speed.
    """
    if not config.doa_smoothing:
        return Map(lambda x: x)
    if config.doa_window_labels < 1 or config.doa_window_labels % 2 == 0:
        raise ConfigError(f"doa_window_labels: {config.doa_window_labels}: must be odd and at least 1")
    half = config.doa_window_labels // 2
    if min(*config.speeds_deg_per_s, config.max_speed_deg_per_s, 0.0) < 0:
        raise ConfigError("speeds_deg_per_s and max_speed_deg_per_s: a speed must not be negative")
    speeds = np.radians(sorted(config.speeds_deg_per_s)) / label_rate_hz
    fastest = speeds[-1] if len(speeds) else np.radians(config.max_speed_deg_per_s) / label_rate_hz

    def smooth(x: Array) -> Array:
        y = x[half : len(x) - half].copy()
        frame, class_id = np.nonzero(y[..., 0] > 0)
        if len(frame):
            windows = x[frame[:, None] + np.arange(2 * half + 1), class_id[:, None]]
            weight = _same_event(windows[..., 0] > 0)
            y[frame, class_id, 2:] = _fitted_directions(windows[..., 2:], weight, speeds, fastest)
        return y

    return Windowed(smooth, half, half)


def _same_event(active: NDArray[np.bool_]) -> Floats:
    """Weights (m, w): 1 for active frames that no gap longer than `GAP_LABELS` parts from the middle one."""
    half = active.shape[1] // 2

    def outwards(side: NDArray[np.bool_]) -> NDArray[np.bool_]:
        padded = np.concatenate([np.ones_like(side, shape=(len(side), GAP_LABELS)), side], axis=1)
        recent = sliding_window_view(padded, GAP_LABELS + 1, axis=1).any(axis=-1)
        return np.logical_and.accumulate(recent, axis=1) & side

    after = outwards(active[:, half:])
    before = outwards(active[:, half::-1])[:, :0:-1]
    return np.concatenate([before, after], axis=1).astype(float)


def _fitted_directions(doa: Array, weight: Floats, speeds: Floats, fastest: float) -> Floats:
    """Directions (m, 3) in the middle of m windows (m, w, 3), each fitted by a motion along a great circle.

    ``weight`` (m, w) is 0 for what does not belong to the event; speeds are in radians a label frame. The fit
    starts at the *medoid*, the observation nearest to all others, frames near the middle counting more: so of
    two clusters the one around the middle wins, and a short excursion is outvoted. It first uses what a
    source at the medoid can reach at the fastest speed, then once more with weights that fall with the
    distance from the first motion.
    """
    u = normalized(doa) * (weight > 0)[..., None]
    weight = weight * u.any(axis=-1)
    half = u.shape[1] // 2
    labels = np.arange(-half, half + 1.0)
    nearness = weight * (1 - np.abs(labels) / (half + 1))
    angles = _arc(np.einsum("mic,mjc->mij", u, u))
    distance = np.where(weight > 0, (angles * nearness[:, None]).sum(axis=-1), np.inf)
    medoid = np.arange(len(u)), distance.argmin(axis=-1)

    reach = OUTLIER + fastest * np.abs(labels - labels[medoid[1], None])
    within = weight * (angles[medoid] <= reach)
    track = _fitted_track(u, within, u[medoid], labels, speeds, fastest)
    residual = _arc((u * track).sum(axis=-1))
    trusted = within * np.exp(-((residual / OUTLIER) ** 2))
    return _fitted_track(u, trusted, track[:, half], labels, speeds, fastest)[:, half]


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
