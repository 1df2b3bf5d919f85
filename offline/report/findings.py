"""What the report says: the rows of the ETRI report's Table 1, errors, curves; measured, not yet shown.

The networks run once a model and form (see `offline.estimates`); all variants of the post-processing share that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from offline.dataset import Recording, content_digest, list_quiet, list_recordings, read_classes, read_metadata, within
from offline.errors import Errors, analyse
from offline.estimates import Estimates, Form, Job, class_numbers, rows_of
from offline.evaluate import Report, compare
from offline.event_counts import EventCounts, event_recall
from offline.metrics import Scores
from offline.plans import read_plan
from offline.reliability import Said, what_is_said
from seldrt.config import ConfigError, PostprocessConfig
from seldrt.description import Description, describe
from seldrt.models import model_path
from seldrt.pipeline import Pipeline, open_networks
from seldrt.postprocess import median_labels

NOTHING = "no post-processing"
SMOOTHING = {  # as in Table 1: medians over SAD and SED, smoothing of the directions
    NOTHING: (False, False),
    "+ DOA post-processing": (False, True),
    "+ SED post-processing": (True, False),
    "+ DOA and SED post-processing": (True, True),
}
LONGEST_MEDIANS = (1, 3, 5, 7, 9, 13, 17)  # label frames
AS_IT_IS = "as calibrated"
DOA_WINDOWS = (1, 3, 5, 7, 9, 13, 17)  # label frames
DOA_HISTORIES = (0, 4, 8, 18, 38)

Estimate = Callable[[Job], list[Estimates]]


class Dataset(msgspec.Struct, frozen=True):
    """Recordings with labels, the names of their classes, and their digest (see `content_digest`)."""

    base: Path
    recordings: tuple[Recording, ...]
    classes: tuple[str, ...]
    digest: str


class System(msgspec.Struct, frozen=True):
    """A model and what its networks say, streamed and, where that differs, offline."""

    name: str
    path: Path
    model: Description
    names: tuple[str, ...]  # of its rows in Table 1; the last is how it is meant to be used
    estimates: dict[Form, list[Estimates]]

    @property
    def postprocess(self) -> PostprocessConfig:
        return _smoothed(self.model, self.names[-1])


class Row(msgspec.Struct, frozen=True):
    """One row of Table 1."""

    system: str
    form: str
    postprocess: str
    report: Report


class Point(msgspec.Struct, frozen=True):
    """Accuracy at a latency: what was varied, to what, and the metrics."""

    system: str
    varied: str
    labels: int
    latency_s: float
    scores: Scores


class Wanted(msgspec.Struct, frozen=True):
    """What the report is to hold: models (None: the one that ships), the first of which it is about, and more."""

    models: tuple[str | None, ...]
    baseline: str | None = None
    quiet: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()


class Findings(msgspec.Struct, frozen=True):
    """All that is measured; ``systems`` and ``errors`` begin with the one that the report is about."""

    data: Dataset
    systems: dict[str, Description]
    rows: tuple[Row, ...]
    errors: dict[str, Errors]
    said: dict[str, Said]
    latency: tuple[Point, ...]
    quiet: dict[str, EventCounts]
    quiet_digest: str | None
    learning: dict[str, tuple[dict[str, Any], ...]]

    @property
    def subject(self) -> str:
        """The system that the report is about."""
        return next(iter(self.systems))

    def best(self, system: str) -> Report:
        """A system streamed, as it is calibrated (the baseline: without post-processing)."""
        return next(r.report for r in reversed(self.rows) if r.system == system and r.form.startswith("streamed"))


def gather(data: Dataset, wanted: Wanted, estimate: Estimate, progress: Callable[[str], None]) -> Findings:
    """Everything; raises `ConfigError` and `CheckpointError` for what cannot be measured, at once."""
    learning = {str(run): read_learning(run) for run in wanted.runs}
    quiet = list_quiet(wanted.quiet, data.recordings[0].array)
    paths = [model_path(model) for model in (*wanted.models, *((wanted.baseline,) if wanted.baseline else ()))]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{', '.join(map(str, paths))}: give each model once")
    systems = []
    for i, (name, path) in enumerate(zip(_names(paths), paths, strict=True)):
        names = (NOTHING,) if i == len(wanted.models) else tuple(SMOOTHING)
        systems.append(listen(name, path, names, data, estimate))
    rows: list[Row] = []
    errors, said, false, points = {}, {}, {}, []
    for system in systems:
        progress(f"{system.name}: measuring")
        own = table_rows(system, data)
        rows = own + rows if system.names == (NOTHING,) else rows + own
        errors[system.name] = find_errors(system, data)
        said[system.name] = all_that_is_said(system, data)
        if quiet:
            false[system.name] = false_events(system, quiet, estimate)
        points += latency_points(system, data) if system.names != (NOTHING,) else []
    models = {system.name: system.model for system in systems}
    digest = content_digest(quiet) if quiet else None
    return Findings(data, models, tuple(rows), errors, said, tuple(points), false, digest, learning)


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the files; with their folder where they are not unique, or only that of a training's best."""
    stems = [path.stem for path in paths]
    plain = [stem != "best" and stems.count(stem) == 1 for stem in stems]
    return [path.stem if alone else f"{path.parent.name}/{path.stem}" for path, alone in zip(paths, plain, strict=True)]


def read_data(base: Path, array: str = "foa", folds: Sequence[int] = (), split: str = "dev") -> Dataset:
    """A dataset with labels; `ConfigError` when it is none."""
    recordings = tuple(list_recordings(base, array, folds, split))
    if any(recording.metadata is None for recording in recordings):
        raise ConfigError(f"{base}: split {split} has no labels to measure by")
    if not any(len(read_metadata(recording.metadata)) for recording in recordings if recording.metadata):
        raise ConfigError(f"{base}: no class ever sounds in its labels; quiet scenes are for --quiet")
    return Dataset(base, recordings, tuple(read_classes(base)), content_digest(recordings))


def listen(name: str, path: Path, names: tuple[str, ...], data: Dataset, estimate: Estimate) -> System:
    """What the networks of a model say about the recordings, in each form that differs."""
    model = describe(path)
    class_numbers(model.classes, data.classes)
    forms: tuple[Form, ...] = ("streamed",) if model.causal else ("streamed", "offline")
    return System(name, path, model, names, {form: estimate(Job(path, data.recordings, form)) for form in forms})


def measure(system: System, form: Form, postprocess: PostprocessConfig, data: Dataset) -> Report:
    """The metrics of a system on the data, with these settings."""
    rows = {
        recording.name: rows_of(estimates, postprocess, system.model.classes, data.classes)
        for recording, estimates in zip(data.recordings, system.estimates[form], strict=True)
    }
    report = compare(data.recordings, rows, data.classes, np.random.default_rng(0), data.digest)
    return replace(report, model=system.name, postprocess=postprocess)


def table_rows(system: System, data: Dataset) -> list[Row]:
    """The rows of a system in Table 1; a causal one hears the same offline and streamed, by the streaming law."""
    shown = {"streamed": "streamed = offline"} if system.model.causal else {}
    return [
        Row(system.name, shown.get(form, form), name, measure(system, form, _smoothed(system.model, name), data))
        for form in sorted(system.estimates)
        for name in system.names
    ]


def _smoothed(model: Description, name: str) -> PostprocessConfig:
    sed_median, doa_smoothing = SMOOTHING[name]
    return replace(model.postprocess, sed_median=sed_median, doa_smoothing=doa_smoothing)


def find_errors(system: System, data: Dataset) -> Errors:
    """The error analysis of a system, streamed, as it is calibrated."""
    parts = [
        analyse(
            recording,
            rows_of(estimates, system.postprocess, system.model.classes, data.classes),
            len(data.classes),
            read_plan(data.base, recording.name),
            len(estimates),
        )
        for recording, estimates in zip(data.recordings, system.estimates["streamed"], strict=True)
    ]
    return Errors.joined(parts)


def all_that_is_said(system: System, data: Dataset) -> Said:
    """What a system says, streamed, as it is calibrated, beside the labels."""
    heard = zip(system.estimates["streamed"], data.recordings, strict=True)
    scenes = ((x, within(read_metadata(one.metadata), len(x))) for x, one in heard if one.metadata)
    numbers = class_numbers(system.model.classes, data.classes)
    return what_is_said(scenes, system.postprocess, numbers)


def false_events(system: System, recordings: Sequence[Recording], estimate: Estimate) -> EventCounts:
    """Events reported where nothing is to be heard."""
    total, classes = EventCounts(), system.model.classes
    for estimates in estimate(Job(system.path, tuple(recordings))):
        rows = rows_of(estimates, system.postprocess, classes, classes)
        total += event_recall([], rows, len(classes), len(estimates))
    return total


def latency_points(system: System, data: Dataset) -> list[Point]:
    """The model as it is, with other medians, and with other windows and histories of its directions; thresholds stay.

    Latency is what the chain waits for after a label frame has begun, without the computation.
    """
    own = system.postprocess
    variants = [(AS_IT_IS, 0, own)]
    for longest in LONGEST_MEDIANS:
        lengths = median_labels(system.model.mean_event_labels, longest=longest) or (longest,)
        sad_labels = min(own.sad_median_labels, longest)
        other = replace(own, sed_median_labels=lengths, sad_median_labels=sad_labels)
        variants.append(("longest median", longest, other))
    for window in DOA_WINDOWS:
        variants.append(("DOA window", window, replace(own, doa_window_labels=window, doa_smoothing=True)))
    for history in DOA_HISTORIES:
        variants.append(("DOA history", history, replace(own, doa_history_labels=history, doa_smoothing=True)))
    points, networks = [], open_networks(system.path)
    for varied, labels, postprocess in variants:
        scores = measure(system, "streamed", postprocess, data).overall.scores
        assert scores, "read_data refuses data without a single label"
        table = Pipeline(networks, system.name, postprocess).latency_table
        waited_s = sum(ms for _, ms in table) / 1000
        points.append(Point(system.name, varied, labels, waited_s, scores))
    return points


def read_learning(run: Path) -> tuple[dict[str, Any], ...]:
    """The log of a training run, an epoch a line; `ConfigError` when there is none, or it holds anything else."""
    path = run / "log.jsonl"
    try:
        epochs = tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        if not all(map(_is_epoch, epochs)):
            raise ValueError
        return epochs
    except OSError:
        raise ConfigError(f"{run}: has no log.jsonl; give the --out folder of a training") from None
    except ValueError:
        raise ConfigError(f"{path}: not the log of a training, an epoch a line") from None


def _is_epoch(line: Any) -> bool:
    numbers = isinstance(line, dict) and all(isinstance(value, int | float) for value in line.values())
    return numbers and "epoch" in line and ("f_micro" in line) == ("f_macro" in line)
