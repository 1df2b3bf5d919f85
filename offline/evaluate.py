"""Label rows of recordings, from a folder of CSVs or of a model (see `offline.estimates`) -> metrics.

They are in whole degrees, as the task asks for, so that one's own detections and those of any other system are
measured alike.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.dataset import Recording, content_digest, read_metadata, within
from offline.event_counts import EventCounts, event_recall
from offline.files import open_audio, write_file
from offline.metrics import MetricsError, Scores, SeldCounts, bootstrap_interval, count
from seldrt.config import LABEL_RATE_HZ, ConfigError, PostprocessConfig


class Measured(msgspec.Struct, frozen=True):
    """The metrics of some recordings, with 95 % intervals by drawing recordings (None: too few).

    There are no scores where no class ever sounds, here and below.
    """

    recordings: int
    scores: Scores | None
    intervals: dict[str, tuple[float, float]] | None


class ClassMeasured(msgspec.Struct, frozen=True):
    """One class alone; class segments by what became of them (see `SeldCounts`)."""

    name: str
    scores: Scores | None
    reference: int
    missed: int
    misplaced: int
    false: int


class EventsMeasured(msgspec.Struct, frozen=True):
    """Whole events: found at all, how far off, and invented (see `event_recall`)."""

    true: int
    found: int
    located: int  # of these not more than 20 degrees off
    false: int
    recall: float
    median_angle_deg: float
    false_per_minute: float
    minutes: float


class RecordingMeasured(msgspec.Struct, frozen=True):
    """One recording alone."""

    scores: Scores | None
    events: EventsMeasured


class Report(msgspec.Struct, frozen=True):
    """What an evaluation found; figures may be compared where ``data`` is the same (see `content_digest`)."""

    data: str
    overall: Measured
    by_overlap: dict[str, Measured]
    classes: tuple[ClassMeasured, ...]
    events: EventsMeasured
    recordings: dict[str, RecordingMeasured]
    model: str = ""  # its name and settings, where it was not a folder of CSVs that was measured
    postprocess: PostprocessConfig | None = None


def measure(
    recordings: Sequence[Recording], predictions: Path, classes: Sequence[str], rng: np.random.Generator
) -> Report:
    """Compare the CSVs of a folder with the labels of the recordings; ``classes`` are the dataset's.

    A recording in which nothing was heard has an empty CSV. Raises `ConfigError` for a CSV that is missing or
    cannot be counted, and for recordings without labels.
    """
    if not recordings:
        raise ConfigError("there is no recording to measure")
    missing = [r.name for r in recordings if not (predictions / f"{r.name}.csv").is_file()]
    if missing:
        raise ConfigError(f"{predictions}: has no {missing[0]}.csv ({len(missing)} of {len(recordings)} missing)")
    rows = {r.name: read_metadata(predictions / f"{r.name}.csv") for r in recordings}
    return compare(recordings, rows, classes, rng, content_digest(recordings))


def compare(
    recordings: Sequence[Recording],
    rows: Mapping[str, NDArray[np.int64]],
    classes: Sequence[str],
    rng: np.random.Generator,
    data: str,
) -> Report:
    """Compare the label rows of a system with the labels of the recordings, by name; raises as `measure`."""
    counts: dict[str, SeldCounts] = {}
    events: dict[str, EventCounts] = {}
    for recording in recordings:
        counts[recording.name], events[recording.name] = _count_one(recording, rows[recording.name], len(classes))
    overlaps = sorted({r.overlap for r in recordings if r.overlap is not None})
    by_overlap = {f"ov{o}": [counts[r.name] for r in recordings if r.overlap == o] for o in overlaps}
    return Report(
        data=data,
        overall=_measured(list(counts.values()), rng),
        by_overlap={name: _measured(part, rng) for name, part in by_overlap.items()},
        classes=_measured_classes(classes, sum(counts.values(), SeldCounts.zero(len(classes)))),
        events=_measured_events(sum(events.values(), EventCounts())),
        recordings={
            name: RecordingMeasured(_scores(one), _measured_events(events[name])) for name, one in counts.items()
        },
    )


def _count_one(recording: Recording, predicted: NDArray[np.int64], classes: int) -> tuple[SeldCounts, EventCounts]:
    if recording.metadata is None:
        raise ConfigError(f"{recording.name}: has no labels to measure by")
    with open_audio(recording.audio) as file:
        label_frames = file.frames * LABEL_RATE_HZ // file.samplerate
    reference, predicted = (within(rows, label_frames) for rows in (read_metadata(recording.metadata), predicted))
    try:
        seld = count(reference, predicted, classes)
        return seld, event_recall(reference, predicted, classes, label_frames)
    except MetricsError as error:
        raise ConfigError(f"{recording.name}.csv, {error}") from None


def _measured_events(events: EventCounts) -> EventsMeasured:
    return EventsMeasured(*(getattr(events, name) for name in EventsMeasured.__struct_fields__))


def _measured(counts: Sequence[SeldCounts], rng: np.random.Generator) -> Measured:
    total = functools.reduce(SeldCounts.__add__, counts)
    scores = _scores(total)
    intervals = bootstrap_interval(counts, rng) if scores and len(counts) > 1 else None
    return Measured(len(counts), scores, intervals)


def _scores(counts: SeldCounts) -> Scores | None:
    return counts.scores() if counts.reference.any() else None


def _measured_classes(classes: Sequence[str], counts: SeldCounts) -> tuple[ClassMeasured, ...]:
    per_class = zip(
        classes,
        counts.scores_per_class(),
        counts.reference.astype(int).tolist(),
        counts.missed.astype(int).tolist(),
        counts.misplaced.astype(int).tolist(),
        counts.false.astype(int).tolist(),
        strict=True,
    )
    return tuple(
        ClassMeasured(name, scores if reference else None, reference, *rest)
        for name, scores, reference, *rest in per_class
    )


def write_report(report: Report, path: Path) -> None:
    """The report as JSON."""
    write_file(path, msgspec.json.format(msgspec.json.encode(report), indent=1))
