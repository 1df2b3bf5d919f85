"""The bundled recording against its truth: which events were heard, and how far off."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from seldrt.config import LABEL_RATE_HZ, ConfigError
from seldrt.findings import GAP_LABELS, LabelFrame
from seldrt.runtime.devices import CaptureError
from seldrt.runtime.sinks import Sink
from seldrt.spatial import angle_deg, unit_vector

WORST_MEDIAN_DEG = 30.0
FEWEST_FOUND = 0.5

Direction = tuple[float, float]  # azimuth, elevation in degrees


class Span(NamedTuple):
    """One event: a class in consecutive label frames, with its directions."""

    class_id: int
    directions: dict[int, Direction]  # by label frame

    @property
    def first(self) -> int:
        return min(self.directions)


class Verdict(NamedTuple):
    """What became of one true event; no error when it was not heard."""

    truth: Span
    error_deg: float | None


def demo_files() -> tuple[Path, Path]:
    """The bundled recording and its truth (DCASE table); `CaptureError` when this installation has none."""
    folder = Path(str(resources.files("seldrt") / "demo"))
    recording, truth = folder / "demo.flac", folder / "demo.csv"
    for path in (recording, truth):
        if not path.is_file():
            raise CaptureError(f"{path}: this installation has no demonstration; give a recording")
    return recording, truth


def check_model(path: Path) -> None:
    """`ConfigError` when a model knows other classes than the demonstration has."""
    from seldrt.description import describe
    from seldrt.models import model_path

    if describe(path).classes != describe(model_path(None)).classes:
        raise ConfigError(
            f"--demo: {path} knows other classes than sound there; leave out --model, or give a recording"
        )


class Heard(Sink):
    """Collects what is heard as rows of a DCASE table."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, float, float]] = []

    def frame(self, frame: LabelFrame) -> None:
        for s in frame.sources:
            self.rows.append((frame.index, s.class_id, s.track, s.azimuth_deg, s.elevation_deg))


def read_table(path: Path) -> list[tuple[int, int, int, float, float]]:
    """Rows (frame, class, track, azimuth, elevation) of a DCASE table."""
    with path.open(newline="") as file:
        return [(int(r[0]), int(r[1]), int(r[2]), float(r[3]), float(r[4])) for r in csv.reader(file) if r]


def spans(rows: Iterable[tuple[int, int, int, float, float]]) -> list[Span]:
    """The events of a table: a class and track in consecutive label frames, in the order of their onsets."""
    found: list[Span] = []
    latest: dict[tuple[int, int], tuple[Span, int]] = {}  # of a class and track: the span and its last label frame
    for index, class_id, track, azimuth_deg, elevation_deg in sorted(rows):
        span, last = latest.get((class_id, track), (None, -1))
        if span is None or index > last + 1 + GAP_LABELS:
            span = Span(class_id, {})
            found.append(span)
        span.directions[index] = (azimuth_deg, elevation_deg)
        latest[class_id, track] = (span, index)
    return found


def compare(truth: list[Span], heard: list[Span]) -> list[Verdict]:
    """For each true event, the mean great-circle angle to the nearest heard event of its class in the same frames."""
    by_class = {e.class_id: [h for h in heard if h.class_id == e.class_id] for e in truth}
    return [Verdict(event, _error_deg(event, by_class[event.class_id])) for event in truth]


def unexplained(truth: list[Span], heard: list[Span]) -> int:
    """How many heard events overlap with no true event of their class."""
    return sum(verdict.error_deg is None for verdict in compare(heard, truth))


def passed(verdicts: list[Verdict]) -> tuple[bool, str]:
    """Whether enough was heard where it was, and the line that says so."""
    errors = [verdict.error_deg for verdict in verdicts if verdict.error_deg is not None]
    median_deg = statistics.median(errors) if errors else 180.0
    good = len(errors) >= FEWEST_FOUND * len(verdicts) and median_deg <= WORST_MEDIAN_DEG
    error = f", median error {median_deg:.0f} deg" if errors else ""
    return good, f"{'OK' if good else 'FAILED'}: {len(errors)} of {len(verdicts)} events{error}"


def verdict_table(verdicts: list[Verdict], classes: tuple[str, ...]) -> Table:
    """The true events, one a row: heard or not, and how far off."""
    table = Table(title="what was played, and was it heard?")
    for heading in ("from", "class", "azimuth", "elevation", "heard", "error"):
        table.add_column(heading, justify="left" if heading in ("class", "heard") else "right")
    for event, error_deg in verdicts:
        azimuth_deg, elevation_deg = event.directions[event.first]
        table.add_row(
            f"{event.first / LABEL_RATE_HZ:.1f} s",
            classes[event.class_id],
            f"{azimuth_deg:+z.0f}°",
            f"{elevation_deg:+z.0f}°",
            "no" if error_deg is None else "yes",
            "" if error_deg is None else f"{error_deg:.0f}°",
        )
    return table


def _error_deg(event: Span, candidates: list[Span]) -> float | None:
    errors = []
    for index, direction in event.directions.items():
        there = [unit_vector(*c.directions[index]) for c in candidates if index in c.directions]
        if there:
            errors.append(float(angle_deg(unit_vector(*direction), np.stack(there)).min()))
    return statistics.fmean(errors) if errors else None
