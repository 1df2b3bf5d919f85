"""Recordings through the streaming pipeline of the daemon -> metadata CSVs -> metrics.

The metrics are always computed from the CSVs, in whole degrees as the task asks for, so that one's own
detections and those of any other system are measured alike.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.dataset import (
    Recording,
    content_digest,
    read_metadata,
    within,
    write_metadata,
)
from offline.encoding import foa_blocks
from offline.event_counts import EventCounts, event_recall
from offline.files import open_audio, write_file
from offline.metrics import (
    MetricsError,
    Scores,
    SeldCounts,
    bootstrap_interval,
    count,
)
from offline.workers import ShowProgress, results, silent
from seldrt.config import LABEL_RATE_HZ, ConfigError, PostprocessConfig, named
from seldrt.findings import LabelFrame
from seldrt.spatial import wrap_azimuth

if TYPE_CHECKING:
    from seldrt.pipeline import Networks, Pipeline

BLOCK_LABELS = 50  # label frames that share one computation: faster than live, equal but for rounding


# Predicting


class Job(msgspec.Struct, frozen=True):
    """What a worker needs: a model, how to post-process (None: as the model says), where to write."""

    model: Path
    classes: tuple[str, ...]  # of the dataset, in its order
    out: Path
    postprocess: PostprocessConfig | None = None


def predict(job: Job, recordings: Sequence[Recording], workers: int = 1, progress: ShowProgress = silent) -> None:
    """Write one CSV a recording into ``job.out``, with as many processes as ``workers`` of one thread each.

    Raises `ConfigError` for recordings or classes that do not fit the model, `CheckpointError` for a model
    that cannot be read.
    """
    for done, _ in enumerate(results(_predict_one, job, recordings, workers), 1):
        progress(done, len(recordings))


def _predict_one(job: Job, recording: Recording) -> None:
    pipeline = _pipeline(job)
    frames = predicted_frames(pipeline, recording)
    write_metadata(job.out / f"{recording.name}.csv", prediction_rows(frames, pipeline.classes, job.classes))


def _pipeline(job: Job) -> Pipeline:
    from seldrt.pipeline import Pipeline

    return Pipeline(_networks(job.model, job.model.stat().st_mtime_ns), job.model.stem, job.postprocess, BLOCK_LABELS)


@functools.lru_cache(maxsize=1)
def _networks(model: Path, written_ns: int) -> Networks:
    """Those in a file that was ``written_ns``, once."""
    from seldrt.pipeline import open_networks

    return open_networks(model, labels_at_once=BLOCK_LABELS)


def predicted_frames(pipeline: Pipeline, recording: Recording) -> list[LabelFrame]:
    """All label frames of one recording; `ConfigError` when it does not fit the model."""
    blocks = foa_blocks(recording, pipeline.sample_rate)
    return [frame for block in blocks for frame in pipeline.push(block)] + pipeline.flush()


def prediction_rows(frames: Sequence[LabelFrame], spoken: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Label rows (n, 5) of a metadata CSV, in whole degrees, with the class numbers of ``wanted``.

    ``spoken`` are the names of the classes that the frames count by; `ConfigError` when the dataset lacks
    one.
    """
    number = class_numbers(spoken, wanted)
    rows = [
        (
            frame.index,
            number[source.class_id],
            source.track,
            wrap_azimuth(round(source.azimuth_deg)),
            round(source.elevation_deg),
        )
        for frame in frames
        for source in frame.sources
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def class_numbers(spoken: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """For each name that is spoken its number among those wanted; `ConfigError` when one is not among them."""
    unknown = [name for name in spoken if name not in wanted]
    if unknown:
        raise ConfigError(
            f"the dataset lacks classes of the model: {named(unknown)} (it has {named(wanted)}); give a model for "
            "these, or make scenes with a classes.json of the model's classes in their folder beforehand (see "
            "docs/datasets.md); do not change it once labels are made, which number the classes by it"
        )
    return [list(wanted).index(name) for name in spoken]


# Measuring


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
