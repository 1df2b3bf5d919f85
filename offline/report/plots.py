"""The findings as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offline.errors import OUTCOMES, Errors
from offline.metrics import Scores
from offline.report.findings import AS_IT_IS, Findings
from offline.report.groups import DIMENSIONS, by_class, by_dimension, confusions, losses
from seldrt.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110
SHOWN = {"er_20": ("ER20", 1.0), "f_20": ("F20, %", 100.0), "le_cd": ("LE, deg", 1.0), "lr_cd": ("LR, %", 100.0)}
LEAST_SPAN = 0.1  # of the axis of F20 and of the SELD score: what is less than the intervals shall not look like much
COLOURS = ("#4c9f70", "#e0a030", "#c0504d", "#8064a2", "#4f81bd", "#7f7f7f")


def write_plots(findings: Findings, system: str, out: Path) -> None:
    """All pictures of report.md as PNG."""
    errors, classes = findings.errors[system], findings.data.classes
    pictures = {
        "table1": table1(findings),
        "classes": per_class(findings, system),
        "losses": lost(findings),
        "confusions": confusion_matrix(errors, classes),
        "outcomes": outcomes(errors),
        "directions": directions(errors),
        "latency": latency(findings),
    }
    if findings.learning:
        pictures["learning"] = learning(findings)
    for name, figure in pictures.items():
        with whole(out / f"{name}.png") as partial:
            figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure  # not pyplot: no window system, no state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).flat)


def table1(findings: Findings) -> Figure:
    """Each metric of each row, with its interval."""
    names = [f"{row.system}, {row.form}\n{row.postprocess}" for row in findings.rows]
    figure, panels = _figure(1, len(SHOWN), 14, 1.5 + 0.45 * len(names))
    at = np.arange(len(names))[::-1]
    for panel, (metric, (title, factor)) in zip(panels, SHOWN.items(), strict=True):
        for y, row in zip(at, findings.rows, strict=True):
            value = factor * getattr(row.report.overall.scores, metric)
            low, high = (row.report.overall.intervals or {}).get(metric, (value / factor, value / factor))
            # The interval need not hold the value itself: recordings differ in length.
            reach = [[max(value - factor * low, 0)], [max(factor * high - value, 0)]]
            panel.errorbar(value, y, xerr=reach, fmt="o", color=COLOURS[4], capsize=3)
        panel.set_title(title)
        panel.set_yticks(at, names if panel is panels[0] else [""] * len(names), fontsize=8)
        panel.set_ylim(-0.5, len(names) - 0.5)
        panel.grid(axis="x", alpha=0.3)
    return figure


def per_class(findings: Findings, system: str) -> Figure:
    """F20 and LE of each class."""
    own: dict[str, Scores] = {c.name: c.scores for c in findings.best(system).classes if c.scores}
    figure, panels = _figure(1, 2, 12, 1.5 + 0.3 * len(own))
    at = np.arange(len(own))[::-1]
    for panel, metric in zip(panels, ("f_20", "le_cd"), strict=True):
        title, factor = SHOWN[metric]
        panel.barh(at, [factor * getattr(scores, metric) for scores in own.values()], color=COLOURS[4])
        panel.set_title(title)
        panel.set_yticks(at, list(own) if metric == "f_20" else [""] * len(own))
        panel.grid(axis="x", alpha=0.3)
    return figure


def lost(findings: Findings) -> Figure:
    """All that is wrong, by reason, for each system."""
    figure, (panel,) = _figure(1, 1, 11, 1.8 + 0.6 * len(findings.errors))
    for y, errors in enumerate(reversed(findings.errors.values())):
        left = 0
        for colour, (reason, n) in zip((*COLOURS[1:], COLOURS[0], "black"), losses(errors).items(), strict=False):
            panel.barh(y, n, left=left, color=colour, label=reason if y == 0 else None)
            left += n
    panel.set_yticks(range(len(findings.errors)), list(reversed(findings.errors)))
    panel.set_xlabel("class segments that are lost or false")
    figure.legend(loc="outside lower center", ncols=7)
    return figure


def confusion_matrix(errors: Errors, classes: Sequence[str]) -> Figure:
    """How many class segments of a row were taken for the column; the diagonal is what was heard."""
    table = np.zeros((len(classes), len(classes)))
    for a, b, n in confusions(errors):
        table[a, b] = n
    for group in by_class(errors, classes):
        i = list(classes).index(group.name)
        table[i, i] = group.outcomes["found"] + group.outcomes["wrong place"]
    side = 2.5 + 0.45 * len(classes)
    figure, (panel,) = _figure(1, 1, side, side)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(table > 0):
        panel.text(
            j, i, f"{table[i, j]:.0f}", ha="center", va="center", color="white" if share[i, j] > 0.6 else "black"
        )
    panel.set_xticks(range(len(classes)), classes, rotation=90)
    panel.set_yticks(range(len(classes)), classes)
    panel.set_xlabel("taken for")
    return figure


def outcomes(errors: Errors) -> Figure:
    """What became of the class segments in the groups of each dimension."""
    figure, panels = _figure(2, 3, 14, 7)
    for panel, (name, dimension) in zip(panels, DIMENSIONS.items(), strict=True):
        groups = by_dimension(errors, name)
        bottom = np.zeros(len(groups))
        for colour, outcome in zip(COLOURS, OUTCOMES, strict=True):
            share = np.array([100 * group.outcomes[outcome] / max(group.segments, 1) for group in groups])
            panel.bar([group.name for group in groups], share, bottom=bottom, color=colour, label=outcome)
            bottom = bottom + share
        panel.set_title(f"{dimension.title}: % of segments", fontsize=10)
        panel.tick_params(axis="x", labelsize=8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(OUTCOMES))
    return figure


def directions(errors: Errors) -> Figure:
    """How far off the directions of the right class are, in the groups of each dimension."""
    figure, panels = _figure(2, 3, 14, 7)
    for panel, (name, dimension) in zip(panels, DIMENSIONS.items(), strict=True):
        groups = [group for group in by_dimension(errors, name) if group.frames]
        for colour, index, label in ((COLOURS[4], 1, "median"), (COLOURS[1], 0, "mean"), (COLOURS[5], 2, "90 %")):
            values = [group.angles_deg[index] for group in groups]
            panel.plot([group.name for group in groups], values, "o-", color=colour, label=label)
        panel.set_title(f"{dimension.title}: error, deg", fontsize=10)
        panel.set_ylim(bottom=0)
        panel.tick_params(axis="x", labelsize=8)
        panel.grid(axis="y", alpha=0.3)
    panels[0].legend()
    return figure


def latency(findings: Findings) -> Figure:
    """F20 and the SELD score over the latency: each system as it is, and with other windows."""
    figure, panels = _figure(1, 2, 13, 5)
    for panel, (metric, title, factor) in zip(
        panels, (("f_20", "F20, %", 100), ("seld", "SELD score", 1)), strict=True
    ):
        for i, system in enumerate(findings.systems):
            colour = COLOURS[(4 + i) % len(COLOURS)]
            for varied, style in (("longest median", "s-"), ("DOA window", "^--"), (AS_IT_IS, "*")):
                own = sorted((p for p in findings.latency if (p.system, p.varied) == (system, varied)),
                             key=lambda p: p.latency_s)  # fmt: skip
                size = 14 if style == "*" else 5
                values = [factor * getattr(p.scores, metric) for p in own]
                panel.plot([p.latency_s for p in own], values, style, color=colour,
                           alpha=1 if style == "*" else 0.6, markersize=size, label=f"{system}: {varied}")  # fmt: skip
        low, high = panel.get_ylim()
        panel.set_ylim(
            min(low, (low + high - LEAST_SPAN * factor) / 2), max(high, (low + high + LEAST_SPAN * factor) / 2)
        )
        panel.set_xlabel("latency, s")
        panel.set_title(title)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    return figure


def learning(findings: Findings) -> Figure:
    """Loss in training and validation, and the score, of each run, epoch by epoch."""
    figure, panels = _figure(1, 2, 13, 5)
    for i, (run, log) in enumerate(findings.learning.items()):
        epochs, colour = [line["epoch"] for line in log], f"C{i}"
        panels[0].plot(epochs, [line.get("loss", np.nan) for line in log], "--", color=colour)
        panels[0].plot(epochs, [line.get("val_loss", np.nan) for line in log], "-", color=colour, label=run)
        panels[1].plot(epochs, [_score(line) for line in log], "-", color=colour, label=run)
    panels[0].set_title("loss: training (dashed), validation")
    panels[1].set_title("score of validation: mean of micro and macro F; DOAE: 1 - mean error / 180 deg")
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return figure


def _score(line: dict[str, float]) -> float:
    if "f_micro" in line:
        return (line["f_micro"] + line["f_macro"]) / 2
    return 1 - line.get("mean_error_deg", np.nan) / 180
