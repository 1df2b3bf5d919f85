"""The errors summed up: by class, by a quantity, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from offline.errors import FALSE, OUTCOMES, Errors


class Dimension(msgspec.Struct, frozen=True):
    """A quantity by which segments are grouped: groups lie between edges, the lower one included."""

    title: str
    edges: tuple[float, ...]
    names: tuple[str, ...]


def _between(title: str, *edges: float) -> Dimension:
    names = (f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges)))
    return Dimension(title, (-np.inf, *edges, np.inf), (*names, f"{edges[-1]:g} and more"))


DIMENSIONS = {
    "overlap": Dimension("events at a time", (0, 2, 3, np.inf), ("1", "2", "3 and more")),
    "speed": Dimension("motion, deg/s", (-1, 2, 15, 30, np.inf), ("static", "up to 15", "15 to 30", "30 and more")),
    "snr": _between("SNR of the event, dB", 6, 12, 18, 24),
    "distance": _between("distance, m", 1, 2, 3),
    "azimuth": Dimension(
        "azimuth, deg",
        (-180, -157.5, -112.5, -67.5, -22.5, 22.5, 67.5, 112.5, 157.5, 181),
        ("180", "-135", "-90", "-45", "0", "45", "90", "135", "180"),
    ),
    "elevation": _between("elevation, deg", -30, -10, 10, 30),
}


class Group(msgspec.Struct, frozen=True):
    """Class segments that share something: how many, and what became of them."""

    dimension: str
    name: str
    outcomes: dict[str, int]
    frames: int = 0  # of the right class
    angles_deg: tuple[float, float, float] = (np.nan, np.nan, np.nan)  # mean, median, 90th percentile over them

    @property
    def segments(self) -> int:
        return sum(self.outcomes.values())


def by_class(errors: Errors, classes: Sequence[str]) -> list[Group]:
    """What became of the segments of each class that sounds."""
    groups = []
    for class_id, name in enumerate(classes):
        outcomes = Counter(s.outcome for s in errors.segments if s.class_id == class_id)
        if outcomes:
            groups.append(Group("class", name, {outcome: outcomes[outcome] for outcome in OUTCOMES}))
    return groups


def by_dimension(errors: Errors, name: str) -> list[Group]:
    """What became of the segments, and how far off the frames are, in each group of a dimension that is there."""
    dimension = DIMENSIONS[name]
    place: Callable[[dict[str, float]], str | None] = lambda of: (  # noqa: E731
        dimension.names[int(np.searchsorted(dimension.edges, of[name], side="right")) - 1] if name in of else None
    )
    segments = [(place(s.of), s.outcome) for s in errors.segments]
    frames = [(place(of), angle) for angle, of in errors.frames]
    groups = []
    for group in dict.fromkeys(dimension.names):
        outcomes = Counter(outcome for own, outcome in segments if own == group)
        angles = [angle for own, angle in frames if own == group]
        spread = (float(np.mean(angles)), *np.quantile(angles, [0.5, 0.9]).tolist()) if angles else (np.nan,) * 3
        if outcomes or angles:
            counted = {outcome: outcomes[outcome] for outcome in OUTCOMES}
            groups.append(Group(name, group, counted, len(angles), spread))
    return groups


def losses(errors: Errors) -> dict[str, int]:
    """Everything that is wrong, by reason: class segments that are lost, and false ones that confused nothing."""
    lost = Counter(s.outcome for s in errors.segments)
    false = Counter(kind for _, kind in errors.false)
    return {o: lost[o] for o in OUTCOMES if o != "found"} | {k: false[k] for k in FALSE if k != "confused"}


def confusions(errors: Errors) -> list[tuple[int, int, int]]:
    """(Class, what it was taken for, how often), the most frequent first."""
    pairs = Counter((s.class_id, s.taken_for) for s in errors.segments if s.taken_for is not None)
    return [(a, b, n) for (a, b), n in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))]
