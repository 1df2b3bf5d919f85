"""The offline commands; whatever takes long to import is imported inside its command."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from offline.config import read_section, section
from seldrt.config import ConfigError, SeldrtError

PATH = click.Path(path_type=Path)
EXTRA = ("pyroomacoustics", "tensorboard")


class Mistake(click.ClickException):
    """A user's mistake: one line, exit status 2."""

    exit_code = 2


def explain_mistakes(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that a user can mend into one line and exit status 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SeldrtError as error:
            raise Mistake(str(error)) from None
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise Mistake(f"{error.name} is not installed: pip install 'seldrt[offline]'") from None
        except BrokenPipeError:  # the reader of stdout has gone: click ends quietly
            raise
        except OSError as error:
            told = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
            raise Mistake(" ".join(told.split())) from None

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make, learn from and measure recordings of sound events."""


@main.command()
@click.option("--events", type=PATH, required=True, help="Folder with one folder of sounds for each class.")
@click.option("--out", type=PATH, required=True, help="Dataset folder to write to.")
@click.option("--scenes", type=click.IntRange(1), required=True, help="How many; half have overlaps.")
@click.option("--format", type=click.Choice(["foa", "mic", "both"]), default="foa", show_default=True)
@click.option("--fold", type=click.IntRange(0, 9), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--audio-format", type=click.Choice(["wav", "flac"]), default="flac", show_default=True)
@click.option("--config", "config_file", type=PATH, help="TOML file with a [scenes] section.")
@click.option("--seconds", type=click.FloatRange(1), help="Length of a scene.  [default: 60]")
@click.option("--room", type=click.Choice(["mixed", "room", "open", "anechoic"]), help="[default: mixed]")
@click.option("--distractors-only", is_flag=True, default=None, help="No targets: to count false alarms.")
@click.option("--vary/--no-vary", default=None, help="Vary speed and colour of the sounds.  [default: vary]")
@click.option("--imperfections/--no-imperfections", default=None, help="Channel gain errors.  [default: on]")
@click.option(
    "--time-budget", type=click.FloatRange(0), help="Begin no scene after so many minutes; what is made stays."
)
@explain_mistakes
def synthesize(
    events: Path,
    out: Path,
    scenes: int,
    format: str,
    fold: int,
    seed: int,
    workers: int,
    audio_format: str,
    config_file: Path | None,
    time_budget: float | None,
    **overrides: Any,
) -> None:
    """Make recordings with labels from isolated sounds, in the folder layout of DCASE 2020.

    Scenes that are there already are kept, so an interrupted run can be repeated.
    """
    from rich.progress import track

    from offline import synthesis
    from offline.bank import read_bank
    from offline.config import SceneConfig
    from seldrt.config import decode

    settings = read_section(config_file, "scenes")
    settings |= {key: value for key, value in overrides.items() if value is not None}
    config = decode(settings, SceneConfig, str(config_file or "scenes"))
    synthesis.check_seed(out, fold, seed)
    bank = read_bank(events)
    job = synthesis.Job(
        bank=bank,
        out=out,
        config=config,
        class_indices=synthesis.choose_classes(bank, out),
        formats=synthesis.ARRAYS if format == "both" else (format,),
        audio_format=audio_format,
        fold=fold,
        seed=seed,
    )
    end = time.monotonic() + 60 * (math.inf if time_budget is None else time_budget)
    made = []
    with closing(synthesis.synthesize(job, scenes, workers)) as making:
        for scene in track(making, description="scenes", total=scenes):
            made.append(scene)
            if time.monotonic() >= end:
                break
    new = sum(is_new for _, is_new in made)
    click.echo(f"{out}: fold {fold}, {new} scenes of {config.seconds:g} s made, {len(made) - new} were there")


@main.command()
@click.option(
    "--data",
    type=PATH,
    required=True,
    help="Dataset folder with foa_dev and metadata_dev.",
)
@click.option("--out", type=PATH, required=True, help="Feature store to write to.")
@click.option("--preset", default="compact", show_default=True, help="Features: compact or paper.")
@click.option("--config", "config_file", type=PATH, help="TOML file with a [features] section.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@explain_mistakes
def extract(data: Path, out: Path, preset: str, config_file: Path | None, workers: int) -> None:
    """Compute the features and frame targets of a dataset, for training."""
    from rich.progress import Progress

    from offline import extract as extraction
    from seldrt import features
    from seldrt.config import FeatureConfig

    config = section(FeatureConfig, features.PRESETS, preset, config_file, "features")
    with Progress() as progress:
        bar = progress.add_task("features")
        extraction.extract(data, out, config, workers, lambda done, n: progress.update(bar, completed=done, total=n))


@main.command()
@click.argument("task", type=click.Choice(["sad", "sed", "doae"]))
@click.option(
    "--store",
    "stores",
    type=PATH,
    multiple=True,
    required=True,
    help="Feature store; may be repeated.",
)
@click.option(
    "--validation",
    type=PATH,
    multiple=True,
    required=True,
    help="Feature store to choose the best weights by.",
)
@click.option("--out", type=PATH, required=True, help="Run folder.")
@click.option("--preset", default="compact", show_default=True, help="Network: compact or paper.")
@click.option("--recipe", default="compact", show_default=True, help="Training: compact or report.")
@click.option(
    "--config",
    "config_file",
    type=PATH,
    help="TOML file with [network] and [train] sections.",
)
@click.option("--epochs", type=click.IntRange(1), help="Overrides the recipe.")
@click.option("--seed", type=click.IntRange(0), help="Overrides the recipe.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or mps.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--time-budget",
    type=click.FloatRange(0),
    help="Stop after the epoch in which so many minutes have passed.",
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@click.option("--start", type=PATH, help="Checkpoint whose weights to begin with.")
@explain_mistakes
def train(
    task: str,
    stores: tuple[Path, ...],
    validation: tuple[Path, ...],
    out: Path,
    preset: str,
    recipe: str,
    config_file: Path | None,
    device: str,
    threads: int,
    time_budget: float | None,
    resume: bool,
    start: Path | None,
    **overrides: int | None,
) -> None:
    """Train one of the three networks."""
    import torch

    from offline import train as training
    from offline.config import TRAIN_PRESETS, TrainConfig
    from offline.extract import Store
    from seldrt import networks
    from seldrt.config import NetworkConfig, override
    from seldrt.inference import torch_device

    torch.set_num_threads(threads)
    shapes = {name: networks.preset(name, task) for name in networks.PRESETS}
    shape = section(NetworkConfig, shapes, preset, config_file, "network")
    settings = section(TrainConfig, TRAIN_PRESETS, recipe, config_file, "train")
    training.train(
        task,
        [Store(folder) for folder in stores],
        [Store(folder) for folder in validation],
        out,
        shape,
        override(settings, **overrides),
        str(torch_device(device)),
        None if time_budget is None else time_budget * 60,
        resume,
        start,
        lambda figures: click.echo("  ".join(f"{key} {value:.4g}" for key, value in figures.items()), err=True),
    )
    click.echo(f"{out / 'best.safetensors'}")


@main.command()
@click.argument("checkpoints", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Model to write, .safetensors.")
@click.option("--card", type=PATH, help="TOML file whose section [card] goes into the model, for `seldrt info`.")
@explain_mistakes
def merge(checkpoints: tuple[Path, ...], out: Path, card: Path | None) -> None:
    """Make one model, float16, of the checkpoints of the three tasks."""
    import torch
    from msgspec.structs import replace

    from seldrt import checkpoint, pipeline

    model = checkpoint.merged(checkpoints)
    description = pipeline.with_medians(model.description)
    told = read_section(card, "card")
    model.description = replace(description, card=description.card | told)
    checkpoint.save(model, out, torch.float16)
    click.echo(f"{out}: {', '.join(model.networks)}")


@main.command()
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


@main.command()
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


@main.command()
@click.option("--events", type=PATH, required=True, help="Bank of sounds: a folder with train and val.")
@click.option("--out", type=PATH, default="bundle", show_default=True, help="Folder to make.")
@click.option("--python", default="3.12", show_default=True, help="Version of Python there.")
@click.option("--config", type=PATH, help="TOML file with [scenes], [features], [network], [train] to use there.")
@click.option("--run", "runs", type=PATH, multiple=True, help="Folder sad, sed or doae to go on from; may be repeated.")
@click.option("--weights-only", is_flag=True, help="Of these folders, only the best weights to begin with.")
@explain_mistakes
def bundle(
    events: Path, out: Path, python: str, config: Path | None, runs: tuple[Path, ...], weights_only: bool
) -> None:
    """Pack all that synthesis, extraction and training need on a GPU machine without network."""
    from offline import bundle as bundling

    sizes = bundling.pack(events, out, python, config, runs, weights_only)
    parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.1)
    click.echo(f"{out}: {sum(sizes.values()):.1f} MiB ({parts})")
    click.echo(f"there: {bundling.COMMAND.format(out.name)}")


if __name__ == "__main__":
    main()
