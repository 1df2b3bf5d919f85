"""The findings as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from offline.errors import FALSE, OUTCOMES
from offline.evaluate import Measured
from offline.files import write_file
from offline.metrics import METRICS, THRESHOLD_DEG, Scores
from offline.reliability import exactness, expected_error, reliability
from offline.report.findings import AS_IT_IS, Findings, Row
from offline.report.groups import DIMENSIONS, Group, by_class, by_dimension, confusions, losses
from offline.report.terminal import HEADINGS, cells

MOST_CONFUSIONS = 15
Cells = Sequence[object]


def write_tables(findings: Findings, system: str, out: Path) -> None:
    """Every table as a CSV file, and report.md with what matters of them beside the pictures of `plots`."""
    for name, (header, rows) in csv_tables(findings, system).items():
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        write_file(out / f"{name}.csv", file.getvalue().encode())
    write_file(out / "report.md", markdown(findings, system).encode())


def csv_tables(findings: Findings, system: str) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Header and rows of every table, by the name of its file."""
    best, errors, names = findings.best(system), findings.errors[system], findings.data.classes
    spans = [f"{metric}_{end}" for metric in METRICS for end in ("low", "high")]
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {
        "table1": (["system", "output", "post-processing", *METRICS, *spans], [_table1(row) for row in findings.rows]),
        "classes": (
            ["class", *METRICS, "segments", *OUTCOMES],
            [
                [group.name, *_values(measured.scores), group.segments, *group.outcomes.values()]
                for group in by_class(errors, names)
                for measured in best.classes
                if measured.name == group.name and measured.scores
            ],
        ),
        "losses": (
            ["system", "reason", "class_segments"],
            [[name, *item] for name, of in findings.errors.items() for item in losses(of).items()],
        ),
        "errors": (
            ["by", "group", "segments", *OUTCOMES, "frames", "mean_deg", "median_deg", "p90_deg"],
            [
                [group.dimension, group.name, group.segments, *group.outcomes.values(), group.frames]
                + [round(angle, 2) for angle in group.angles_deg]
                for dimension in DIMENSIONS
                for group in by_dimension(errors, dimension)
            ],
        ),
        "confusions": (
            ["class", "taken_for", "class_segments"],
            [[names[a], names[b], n] for a, b, n in confusions(errors)],
        ),
        "confidence": (
            ["system", "frames", "confidence", "right"],
            [
                [name, one.frames, _short(one.confidence), _short(one.right)]
                for name, said in findings.said.items()
                for one in reliability(said)
            ],
        ),
        "spread": (
            ["system", "frames", "spread_deg", "median_deg", "far"],
            [
                [name, one.frames, *map(_short, (one.spread_deg, one.median_deg, one.far))]
                for name, said in findings.said.items()
                for one in exactness(said)
            ],
        ),
        "recordings": (
            ["recording", *METRICS, "events", "found", "located", "false", "recall", "median_deg", "false_per_minute"],
            [
                [name, *_values(one.scores)]
                + [one.events.true, one.events.found, one.events.located, one.events.false]
                + [_short(v) for v in (one.events.recall, one.events.median_angle_deg, one.events.false_per_minute)]
                for name, one in best.recordings.items()
            ],
        ),
        "latency": (
            ["system", "varied", "label_frames", "latency_s", *METRICS],
            [[p.system, p.varied, p.labels, _short(p.latency_s), *_values(p.scores)] for p in findings.latency],
        ),
    }
    if findings.learning:
        keys = list(dict.fromkeys(key for log in findings.learning.values() for line in log for key in line))
        lines = [[run, *(line.get(key, "") for key in keys)] for run, log in findings.learning.items() for line in log]
        tables["learning"] = (["run", *keys], lines)
    return tables


def _table1(row: Row) -> list[Any]:
    measured = row.report.overall
    ends = [_short(end) for name in METRICS for end in (measured.intervals or {}).get(name, ("", ""))]
    return [row.system, row.form, row.postprocess, *_values(measured.scores), *ends]


def _values(scores: Scores | None) -> list[Any]:
    return [_short(getattr(scores, name)) if scores else "" for name in METRICS]


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


# Markdown


def markdown(findings: Findings, system: str) -> str:
    """The report for readers."""
    data, errors = findings.data, findings.errors[system]
    minutes, sure = findings.best(system).events.minutes, reliability(findings.said[system])
    parts = [
        f"# How well {system} hears",
        f"{len(data.recordings)} recordings, {minutes:.0f} minutes; data `{data.digest}`. Figures of other days may be "
        "compared where this number is the same. Metrics of DCASE 2020 Task 3, with 95 % intervals by drawing "
        "recordings. LR is the published LR_CD, an F-score; recall is what its name promises.",
        *(
            ["**The thresholds of this model were chosen on these very scenes: expect less of others.**"]
            if findings.systems[system].card.get("calibration", {}).get("data") == data.digest
            else []
        ),
        "## Table 1",
        _table(
            ["system", "output", "post-processing", *HEADINGS.values()],
            [[row.system, row.form, row.postprocess, *_with_interval(row.report.overall)] for row in findings.rows],
        ),
        "*streamed*: as the daemon hears. *offline*: networks that are not causal see each label frame in the middle "
        "of a chunk. A causal model says the same both ways, by the streaming law: so it is printed once.",
        "![Table 1](table1.png)",
        "## Events",
        _table(
            ["system", "found", "recall %", "within 20 deg", "median error deg", "half are found within s",
             "90 % within s", "false a minute", "false a minute where it is quiet"],
            [_events(findings, name) for name in findings.systems],
        ),
        _quiet_note(findings),
        "## What is lost, and why",
        _table(
            ["reason", *findings.errors, "what it means"],
            [_loss(findings, reason, meaning) for reason, meaning in (OUTCOMES | FALSE).items()
             if reason not in ("found", "confused")],
        ),
        "Class segments: a class in one second. The percentages are shares of all that is wrong.",
        "![What is lost](losses.png)",
        "### By class",
        _table(
            ["class", "F20 %", "LE deg", "recall %", "segments", *(f"{name} %" for name in OUTCOMES)],
            [_class(findings, system, group) for group in by_class(errors, data.classes)],
        ),
        "![Classes](classes.png)",
        "### What is taken for what",
        _table(
            ["class", "taken for", "class segments"],
            [[data.classes[a], data.classes[b], n] for a, b, n in confusions(errors)[:MOST_CONFUSIONS]],
        ),
        "![Confusions](confusions.png)",
        *_by_dimensions(findings, system),
        "## What a confidence and a spread are worth",
        "Of the label frames in which a class is reported with such a confidence, so many have that class, wherever it "
        f"is. On average a confidence is off by {100 * expected_error(sure):.1f} % (expected "
        "calibration error).",
        _table(
            ["confidence", "label frames", "right %"],
            [[f"{one.confidence:.2f}", one.frames, f"{100 * one.right:.0f}"] for one in sure],
        ),
        "Where the class is right: how far off directions are, by the spread of those of the last two seconds.",
        _table(
            ["spread deg", "label frames", "median error deg", f"more than {THRESHOLD_DEG:.0f} deg %"],
            [
                [f"{one.spread_deg:.1f}", one.frames, f"{one.median_deg:.1f}", f"{100 * one.far:.0f}"]
                for one in exactness(findings.said[system])
            ],
        ),
        "## Accuracy against latency",
        "Latency is what is waited for, from the beginning of a label frame, without the computation. The windows of "
        "the post-processing are varied on one model, with its thresholds; how far networks look ahead is trained, so "
        "that curve needs several models (`--model` may be repeated).",
        _table(
            ["system", "varied", "label frames", "latency s", *HEADINGS.values()],
            [
                [p.system, p.varied, "" if p.varied == AS_IT_IS else p.labels, f"{p.latency_s:.2f}", *cells(p.scores)]
                for p in findings.latency
            ],
        ),
        "![Latency](latency.png)",
    ]  # fmt: skip
    if findings.learning:
        parts += ["## Learning", "![Learning](learning.png)"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: Sequence[str], rows: Iterable[Cells]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _with_interval(measured: Measured) -> list[str]:
    told = cells(measured.scores)
    if not measured.intervals:
        return told
    low, high = zip(*(measured.intervals[name] for name in METRICS), strict=True)
    ends = zip(told, cells(Scores(*low)), cells(Scores(*high)), strict=True)
    return [f"{value} ({a}..{b})" for value, a, b in ends]


def _events(findings: Findings, system: str) -> list[str]:
    events, delays = findings.best(system).events, sorted(findings.errors[system].delays_s)
    within = [f"{delays[int(share * (len(delays) - 1))]:.1f}" if delays else "-" for share in (0.5, 0.9)]
    quiet = f"{findings.quiet[system].false_per_minute:.2f}" if system in findings.quiet else "-"
    found = [f"{events.found} of {events.true}", f"{100 * events.recall:.0f}"]
    found += [f"{events.located}", f"{events.median_angle_deg:.1f}"]
    return [system, *found, *within, f"{events.false_per_minute:.2f}", quiet]


def _quiet_note(findings: Findings) -> str:
    told = "An event is found when one label frame has its class; it is false when none of its frames has a true one."
    minutes = next(iter(findings.quiet.values())).minutes if findings.quiet else 0
    quiet = f" Quiet: {minutes:.0f} minutes in which nothing is to be heard; data `{findings.quiet_digest}`."
    return told + (quiet if findings.quiet else "")


def _loss(findings: Findings, reason: str, meaning: str) -> list[str]:
    shares = []
    for errors in findings.errors.values():
        counted = losses(errors)
        shares.append(f"{counted[reason]} ({100 * counted[reason] / max(sum(counted.values()), 1):.0f} %)")
    return [reason, *shares, meaning]


def _class(findings: Findings, system: str, group: Group) -> list[str]:
    measured = next(one for one in findings.best(system).classes if one.name == group.name)
    scores = measured.scores
    told = [f"{100 * scores.f_20:.1f}", f"{scores.le_cd:.1f}", f"{100 * scores.lr_recall:.0f}"] if scores else ["-"] * 3
    return [group.name, *told, str(group.segments), *_shares(group)]


def _shares(group: Group) -> list[str]:
    return [f"{100 * n / max(group.segments, 1):.0f}" for n in group.outcomes.values()]


def _by_dimensions(findings: Findings, system: str) -> list[str]:
    parts = ["## Where it goes wrong", "![Outcomes](outcomes.png)", "![Directions](directions.png)"]
    for name, dimension in DIMENSIONS.items():
        groups = by_dimension(findings.errors[system], name)
        rows = [
            [group.name, group.segments, *_shares(group), *(f"{angle:.1f}" for angle in group.angles_deg)]
            for group in groups
        ]
        header = [dimension.title, "segments", *(f"{outcome} %" for outcome in OUTCOMES)]
        parts += [_table([*header, "mean deg", "median deg", "90 % within deg"], rows)] if rows else []
    return parts
