"""offline evaluate | calibrate | report: how well a model hears, and the thresholds that it hears best with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offline.cli.shell import PATH, Work, array_options, check_model_out, dataset_options, progress_bar, workers_option
from seldrt.cli.shell import Number, Sensitivity, say
from seldrt.config import ConfigError, PipelineConfig, override

if TYPE_CHECKING:
    from offline.estimates import Estimates, Job

cache_option = click.option("--cache", type=PATH, help="Folder that keeps the networks' outputs for the next run.")
REPEAT = "starts over, except for what is in --cache"


@click.command(cls=Work, repeat=REPEAT)
@dataset_options()
@click.option("--model", help="Model file, or the name of a bundled one.  [default: compact]")
@click.option("--predictions", type=PATH, help="Folder of prediction CSVs to measure instead of running a model.")
@click.option("--out", type=PATH, help="Folder to write CSVs and metrics.json to.")
@click.option("--sed-median/--no-sed-median", default=None, help="[default: as the model says]")
@click.option("--doa-smoothing/--no-doa-smoothing", default=None, help="[default: as the model says]")
@click.option("--sensitivity", type=Sensitivity(), metavar="X,CLASS=X,...", help="As `seldrt run` has it.")
@click.option("--quick", is_flag=True, help="As `seldrt run` has it.")
@cache_option
@workers_option
def evaluate(
    data: Path,
    array: str,
    split: str,
    folds: tuple[int, ...],
    model: str | None,
    predictions: Path | None,
    out: Path | None,
    sensitivity: dict[str, float] | None,
    quick: bool,
    cache: Path | None,
    workers: int,
    **overrides: bool | None,
) -> None:
    """Run a model over a dataset as the daemon would; measure what it says by the metrics of DCASE 2020."""
    import numpy as np
    from msgspec.structs import replace
    from rich.console import Console

    from offline import dataset
    from offline import evaluate as evaluation
    from offline.report import terminal

    changes = {key: value for key, value in overrides.items() if value is not None}
    if predictions and (model or changes or sensitivity or quick):
        raise ConfigError("--predictions are measured as they are: leave out --model and the post-processing")
    folder = predictions or out
    if not folder:
        raise ConfigError("--out is missing: the folder for what the model says (or give --predictions)")
    if out:
        dataset.check_apart(out)
    recordings = dataset.list_recordings(data, array, folds, split)
    classes = tuple(dataset.read_classes(data))
    card: dict[str, Any] = {}
    name, postprocess = "", None
    if not predictions:
        from offline.estimates import Job, class_numbers, rows_of
        from seldrt.description import describe
        from seldrt.files import check_writable
        from seldrt.models import model_path
        from seldrt.postprocess import adjusted

        path = model_path(model)
        name = path.stem
        description = describe(path)
        card = description.card
        class_numbers(description.classes, classes)  # before the work, not after it
        wanted = override(PipelineConfig(quick=quick), sensitivity=sensitivity)
        postprocess = adjusted(description.postprocess, description.classes, wanted, changes)
        check_writable(folder / "metrics.json")
        said = _estimates(Job(path, tuple(recordings)), cache, workers)
        for recording, estimates in zip(recordings, said, strict=True):
            rows = rows_of(estimates, postprocess, description.classes, classes)
            dataset.write_metadata(folder / f"{recording.name}.csv", rows)
    report = evaluation.measure(recordings, folder, classes, np.random.default_rng(0))
    report = replace(report, model=name, postprocess=postprocess)
    if out:
        evaluation.write_report(report, out / "metrics.json")
    to_people = Console()
    to_people.width = to_people.width if to_people.is_terminal else 140  # a file or a pipe cuts nothing off
    to_people.print(terminal.tables(report))
    if report.data == card.get("calibration", {}).get("data"):
        say("note: the thresholds of this model were chosen on these very scenes: expect less of others")


@click.command(cls=Work, repeat=REPEAT)
@click.argument("model")
@array_options("Validation scenes: no training sounds.")
@click.option("--quiet", type=PATH, multiple=True, help="Scenes without anything to report; may be repeated.")
@click.option(
    "--max-false-per-minute",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="Most false events allowed in --quiet.",
)
@click.option("--criterion", type=click.Choice(["seld", "f_20"]), default="seld", show_default=True)
@click.option(
    "--lookback",
    type=click.IntRange(0),
    help="Label frames (100 ms) by which an onset may be moved earlier; adds latency.  [default: as in the model]",
)
@click.option(
    "--longest-median",
    type=click.IntRange(1),
    help="Longest median filter, in label frames; adds latency.  [default: as in the model]",
)
@cache_option
@workers_option
@click.option("--out", type=PATH, required=True, help="Model to write, .safetensors.")
def calibrate(
    model: str,
    data: Path,
    array: str,
    quiet: tuple[Path, ...],
    max_false_per_minute: float,
    criterion: str,
    lookback: int | None,
    longest_median: int | None,
    cache: Path | None,
    workers: int,
    out: Path,
) -> None:
    """Choose gate, thresholds and medians of a model on validation scenes, and write them into a copy of it.

    Takes what scores best on --data with at most --max-false-per-minute false events in --quiet.
    """
    import torch
    from msgspec.structs import replace

    from offline import calibrate as calibration
    from offline import reliability
    from offline.dataset import content_digest, list_quiet, list_recordings, read_classes
    from offline.estimates import Job
    from seldrt import checkpoint
    from seldrt.models import model_path

    torch.set_num_threads(1)
    check_model_out(out)
    path = model_path(model)
    loaded = checkpoint.load(path)
    description = loaded.description
    scenes, noise = list_recordings(data, array), list_quiet(quiet, array)
    classes = read_classes(data)
    calibration.check_scenes(description, classes, scenes)  # before the work, not after it
    start = calibration.waiting(description.postprocess, lookback, longest_median)
    pairs = [zip(g, _estimates(Job(path, tuple(g)), cache, workers), strict=True) for g in (scenes, noise)]
    trials = calibration.Trials(description, classes, *map(list, pairs))
    click.echo(f"as it was: {trials.heard(description.postprocess)}", err=True)
    limits = (max_false_per_minute, criterion)
    chosen = calibration.calibrate(trials, start, *limits, lambda told: click.echo(told, err=True))
    heard = trials.heard(chosen)
    click.echo(f"calibrated: {heard}", err=True)
    chosen, off, off_before = reliability.calibrated([*trials.scenes, *trials.quiet], chosen, trials.numbers)
    told = f"in these scenes confidences are off by {100 * off:.1f} % on average"
    click.echo(f"{told}, before they were corrected by {100 * off_before:.1f} %", err=True)
    if heard.false_per_minute > max_false_per_minute:
        click.echo(f"no setting has as few as {max_false_per_minute:g} false events a minute: more such scenes to "
                   "train with would help", err=True)  # fmt: skip
    if trials.absent:
        click.echo(f"not in these scenes, so left as they were: {', '.join(trials.absent)}", err=True)
    if heard.never_found:
        click.echo(f"with these thresholds never found: {', '.join(heard.never_found)}; make more scenes with them to "
                   "calibrate by (offline synthesize), or train with more recordings of them", err=True)  # fmt: skip
    card = {"scenes": len(scenes), "data": content_digest(scenes), "criterion": criterion}
    card |= {"confidence_error": round(off, 4)}
    card |= {name: round(getattr(heard.scores, name), 4) for name in ("er_20", "f_20", "le_cd", "lr_cd", "seld")}
    if noise:
        card |= {"quiet_scenes": len(noise), "quiet_data": content_digest(noise)}
        card |= {"max_false_per_minute": max_false_per_minute, "false_per_minute": round(heard.false_per_minute, 2)}
    loaded.description = replace(description, postprocess=chosen, card=description.card | {"calibration": card})
    checkpoint.save(loaded, out, torch.float16)
    click.echo(out)


@click.command(cls=Work, repeat="goes on, what the networks said is kept")
@dataset_options()
@click.option("--model", "models", multiple=True, help="Model file or bundled name; may be repeated; the "
              "first is the report's subject.  [default: compact]")  # fmt: skip
@click.option("--baseline", help="Model to compare with.")
@click.option("--quiet", type=PATH, multiple=True, help="Scenes without anything to report; may be repeated.")
@click.option("--run", "runs", type=PATH, multiple=True, help="Folder of a training, for its curve; may be repeated.")
@workers_option
@click.option("--cache", type=PATH, help="Folder for what the networks say.  [default: OUT/estimates]")
@click.option("--out", type=PATH, required=True, help="Folder to write.")
def report(
    data: Path,
    array: str,
    split: str,
    folds: tuple[int, ...],
    models: tuple[str, ...],
    baseline: str | None,
    quiet: tuple[Path, ...],
    runs: tuple[Path, ...],
    workers: int,
    cache: Path | None,
    out: Path,
) -> None:
    """Write a full report on how well models hear: Table 1, errors, curves, as Markdown, PNG and CSV.

    What the networks say is kept, so that a report that was stopped goes on, and the next one is quick.
    """
    import matplotlib  # noqa: F401  # before the work, not after it

    from offline.dataset import check_apart
    from offline.report import findings, plots, tables

    check_apart(out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; give a folder")
    found = findings.gather(
        findings.read_data(data, array, folds, split),
        findings.Wanted(models=models or (None,), baseline=baseline, quiet=quiet, runs=runs),
        lambda job: _estimates(job, cache or out / "estimates", workers),
        lambda told: click.echo(told, err=True),
    )
    tables.write_tables(found, found.subject, out)
    plots.write_plots(found, found.subject, out)
    click.echo(out / "report.md")


def _estimates(job: Job, cache: Path | None, workers: int) -> list[Estimates]:
    """What the networks say, with a bar on stderr."""
    from offline.estimates import estimates_of

    with progress_bar(f"{job.model.stem}: recordings") as progress:
        return estimates_of(job, cache, workers, progress)
