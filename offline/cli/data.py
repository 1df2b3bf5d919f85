"""offline synthesize | extract | bundle: what the networks learn from."""

from __future__ import annotations

import math
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offline.cli.shell import PATH, Work, dataset_options, progress_bar, workers_option
from offline.config import read_section, section
from seldrt.cli.shell import Number
from seldrt.config import ConfigError

if TYPE_CHECKING:
    from offline.bank import Part
    from offline.synthesis import Engine


@click.command(cls=Work, repeat="goes on, scenes that are made are kept")
@click.option("--events", type=PATH, required=True, help="Folder with one folder of sounds for each class.")
@click.option(
    "--part",
    type=click.Choice(["all", "train", "validation"]),
    default="all",
    show_default=True,
    help="Source recordings to use: about one in five, always the same by its name, is for validation.",
)
@click.option("--out", type=PATH, required=True, help="Dataset folder to write to.")
@click.option("--scenes", type=click.IntRange(1), required=True, help="How many; half have overlaps.")
@click.option("--format", type=click.Choice(["foa", "mic", "both"]), default="foa", show_default=True)
@click.option("--fold", type=click.IntRange(0, 9), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@workers_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes here, or the Ray cluster of RAY_ADDRESS (without it: Ray with --workers here).",
)
@click.option("--audio-format", type=click.Choice(["wav", "flac"]), default="flac", show_default=True)
@click.option("--config", "config_file", type=PATH, help="TOML file with a [scenes] section.")
@click.option("--seconds", type=click.FloatRange(1), help="Length of a scene.  [default: 60]")
@click.option("--room", type=click.Choice(["mixed", "room", "open", "anechoic"]), help="[default: mixed]")
@click.option("--distractors-only", is_flag=True, default=None, help="No targets: to count false alarms.")
@click.option("--vary/--no-vary", default=None, help="Vary speed and colour of the sounds.  [default: vary]")
@click.option("--imperfections/--no-imperfections", default=None, help="Channel gain errors.  [default: on]")
@click.option(
    "--time-budget", type=Number(0), help="Start no new scene after this many minutes; finished ones are kept."
)
def synthesize(
    events: Path,
    part: Part,
    out: Path,
    scenes: int,
    format: str,
    fold: int,
    seed: int,
    workers: int,
    engine: Engine,
    audio_format: str,
    config_file: Path | None,
    time_budget: float | None,
    **overrides: Any,
) -> None:
    """Make recordings with labels from isolated sounds, in the folder layout of DCASE 2020.

    Scenes that are there already are kept, so an interrupted run can be repeated.
    """
    from offline import synthesis
    from offline.bank import read_bank
    from offline.config import SceneConfig
    from seldrt.config import decode
    from seldrt.files import check_utf8

    settings = read_section(config_file, "scenes")
    settings |= {key: value for key, value in overrides.items() if value is not None}
    config = decode(settings, SceneConfig, str(config_file or "scenes"))
    if out.resolve().is_relative_to(events.resolve()):
        raise ConfigError(f"{out}: lies in the sounds of --events, where each folder is a class; give another --out")
    check_utf8(out.resolve())
    synthesis.check_seed(out, fold, seed)
    bank = read_bank(events.resolve(), part)
    job = synthesis.Job(
        bank=bank,
        out=out.resolve(),  # the same for all machines
        config=config,
        class_indices=synthesis.choose_classes(bank, out),
        formats=synthesis.ARRAYS if format == "both" else (format,),
        audio_format=audio_format,
        fold=fold,
        seed=seed,
    )
    end = time.monotonic() + 60 * (math.inf if time_budget is None else time_budget)
    made = []
    with progress_bar("scenes") as progress, closing(synthesis.synthesize(job, scenes, workers, engine)) as making:
        for scene in making:
            made.append(scene)
            progress(len(made), scenes)
            if time.monotonic() >= end:
                break
    new = sum(is_new for _, is_new in made)
    manifest = synthesis.write_fold_manifest(job)
    click.echo(f"{out}: fold {fold}, {new} scenes of {config.seconds:g} s made, {len(made) - new} were there")
    click.echo(", ".join(f"{name} {digest[:12]}" for name, digest in manifest.content.items()), err=True)


@click.command(cls=Work)
@dataset_options("Dataset folder with foa_dev and metadata_dev.")
@click.option("--out", type=PATH, required=True, help="Feature store to write to.")
@click.option("--preset", default="compact", show_default=True, help="Features: compact or paper.")
@click.option("--config", "config_file", type=PATH, help="TOML file with a [features] section.")
@workers_option
def extract(
    data: Path,
    array: str,
    split: str,
    folds: tuple[int, ...],
    out: Path,
    preset: str,
    config_file: Path | None,
    workers: int,
) -> None:
    """Compute the features and frame targets of a dataset, for training."""
    from offline import extract as extraction
    from seldrt import features
    from seldrt.config import FeatureConfig

    config = section(FeatureConfig, features.PRESETS, preset, config_file, "features")
    with progress_bar("features") as progress:
        stored = extraction.extract(data, out, config, workers, progress, array=array, folds=folds, split=split)
    minutes = sum(place.labels for place in stored) * config.samples_per_label / config.sample_rate / 60
    click.echo(f"{out}: {len(stored)} recordings, {minutes:.0f} minutes")


@click.command(cls=Work)
@click.option("--events", type=PATH, required=True, help="Bank of sounds: a folder with train and val.")
@click.option("--out", type=PATH, default="bundle", show_default=True, help="Folder to make.")
@click.option("--python", default="3.12", show_default=True, help="Version of Python there.")
@click.option("--config", type=PATH, help="TOML file with [scenes], [features], [network], [train] to use there.")
@click.option("--run", "runs", type=PATH, multiple=True, help="Folder sad, sed or doae to go on from; may be repeated.")
@click.option("--weights-only", is_flag=True, help="Pack only the best weights of the --run folders, to start from.")
def bundle(
    events: Path, out: Path, python: str, config: Path | None, runs: tuple[Path, ...], weights_only: bool
) -> None:
    """Pack all that synthesis, extraction and training need on a GPU machine without network."""
    from offline import bundle as bundling

    sizes = bundling.pack(events, out, python, config, runs, weights_only)
    parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.1)
    click.echo(f"{out}: {sum(sizes.values()):.1f} MiB ({parts})")
    click.echo(f"there: {bundling.COMMAND.format(out.name)}")
