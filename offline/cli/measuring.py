"""offline evaluate | calibrate: how well a model hears, and the thresholds that it hears best with."""

from __future__ import annotations

from pathlib import Path

import click

from offline.cli.shell import PATH, explain_mistakes
from seldrt.config import ConfigError


@click.command()
@click.option("--data", type=PATH, required=True, help="Dataset folder.")
@click.option("--split", type=click.Choice(["dev", "eval"]), default="dev", show_default=True)
@click.option("--fold", "folds", type=int, multiple=True, help="Only this fold; may be repeated.")
@click.option("--model", help="Model file, or the name of one that ships.  [default: the one that ships]")
@click.option("--predictions", type=PATH, help="CSVs to measure instead.")
@click.option("--out", type=PATH, help="Folder to write CSVs and metrics.json to.")
@click.option("--sed-median/--no-sed-median", default=None, help="[default: as the model says]")
@click.option("--doa-smoothing/--no-doa-smoothing", default=None, help="[default: as the model says]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@explain_mistakes
def evaluate(
    data: Path,
    split: str,
    folds: tuple[int, ...],
    model: str | None,
    predictions: Path | None,
    out: Path | None,
    workers: int,
    **overrides: bool | None,
) -> None:
    """Run a model over a dataset as the daemon would; measure what it says by the metrics of DCASE 2020."""
    import numpy as np
    from msgspec.structs import replace
    from rich.console import Console
    from rich.progress import Progress

    from offline import dataset
    from offline import evaluate as evaluation

    changes = {key: value for key, value in overrides.items() if value is not None}
    if predictions and (model or changes):
        raise ConfigError("--predictions are measured as they are: leave out --model and the post-processing")
    folder = predictions or out
    if not folder:
        raise ConfigError("--out is missing: the folder for what the model says (or give --predictions)")
    recordings = dataset.list_recordings(data, "foa", folds or None, split)
    classes = tuple(dataset.read_classes(data))
    if not predictions:
        from seldrt import checkpoint, pipeline

        path = pipeline.model_path(model)
        postprocess = replace(checkpoint.describe(path).postprocess, **changes)
        job = evaluation.Job(path, classes, folder, postprocess)
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("recordings")
            evaluation.predict(job, recordings, workers, lambda done, n: progress.update(bar, completed=done, total=n))
    report = evaluation.measure(recordings, folder, classes, np.random.default_rng(0))
    if out:
        evaluation.write_report(report, out / "metrics.json")
    Console().print(evaluation.tables(report))


@click.command()
@click.argument("model", type=PATH)
@click.option("--data", type=PATH, required=True, help="Validation scenes: no training sounds.")
@click.option("--out", type=PATH, required=True, help="Model to write, .safetensors.")
@explain_mistakes
def calibrate(model: Path, data: Path, out: Path) -> None:
    """Choose the thresholds of a model on validation scenes, and write them into a copy of it."""
    import torch
    from msgspec.structs import replace

    from offline import calibrate as calibration
    from offline.dataset import list_recordings, read_classes
    from seldrt import checkpoint

    torch.set_num_threads(1)
    loaded = checkpoint.load(model)
    trials = calibration.Trials(loaded, list_recordings(data), read_classes(data))
    chosen = calibration.calibrate(
        trials,
        loaded.description.postprocess,
        len(loaded.description.classes),
        lambda what, scores: click.echo(f"{what}: SELD score {scores.seld:.4f}", err=True),
    )
    loaded.description = replace(loaded.description, postprocess=chosen)
    checkpoint.save(loaded, out, torch.float16)
    click.echo(f"{out}")
