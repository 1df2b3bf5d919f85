"""The figures of an evaluation for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from offline.evaluate import Report
from offline.metrics import METRICS, Scores

HEADINGS = dict(zip(METRICS, ("ER20", "F20 %", "LE_CD deg", "LR_CD %", "recall %", "SELD"), strict=True))


def tables(report: Report) -> Group:
    """The report for a terminal."""
    overall = Table("", "recordings", *HEADINGS.values(), title="DCASE 2020 metrics, with 95 % intervals")
    for group, measured in {"all": report.overall, **report.by_overlap}.items():
        overall.add_row(group, str(measured.recordings), *cells(measured.scores))
        if measured.intervals:
            low, high = zip(*(measured.intervals[name] for name in METRICS), strict=True)
            between = zip(cells(Scores(*low)), cells(Scores(*high)), strict=True)
            overall.add_row("", "", *(f"{a}..{b}" for a, b in between), style="dim")
    columns = ("segments", "missed", "misplaced", "false")
    classes = Table("class", *HEADINGS.values(), *columns, title="Each class alone, and what became of its segments")
    for row in report.classes:
        classes.add_row(row.name, *cells(row.scores), *map(str, (row.reference, row.missed, row.misplaced, row.false)))
    e = report.events
    heard = f"{e.found} of {e.true} events found"
    if e.found:
        heard += f", {e.located} of these within 20 degrees; {e.median_angle_deg:.1f} degrees off in the median"
    invented = f"{e.false} false event{'s' * (e.false != 1)}, {e.false_per_minute:.2f} a minute"
    return Group(overall, classes, heard, invented, f"data {report.data}")


def cells(scores: Scores | None) -> list[str]:
    """The figures as text; dashes where nothing was there to be found."""
    if scores is None:
        return ["-"] * len(METRICS)
    s = scores
    percent = [f"{100 * value:.1f}" for value in (s.f_20, s.lr_cd, s.lr_recall)]
    return [f"{s.er_20:.3f}", percent[0], f"{s.le_cd:.1f}", percent[1], percent[2], f"{s.seld:.3f}"]
