"""offline train | blend | merge: networks from features, a model from networks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from offline.cli.shell import PATH, Work, check_model_out
from offline.config import read_section, section
from seldrt.cli.shell import Number, say
from seldrt.config import MOST_VIEWS, ConfigError
from seldrt.description import TASKS, CheckpointError, describe


@click.command(cls=Work, repeat="begins as this one did")
@click.argument("task", type=click.Choice([*TASKS, "baseline"]))
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
@click.option("--preset", help="Network: compact or paper.  [default: that of --start, else compact]")
@click.option("--recipe", help="Training: compact, report, etri1 ... etri3, baseline.  [default: compact, or baseline]")
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
    type=Number(0),
    help="Stop after so many minutes, within an epoch if need be; --resume goes on.",
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder.")
@click.option("--other-stores", is_flag=True, help="With --resume: even if it was begun with other recordings.")
@click.option(
    "--start",
    help="Weights to begin with: a model, or the name of a bundled one, for any classes; its shape is taken, too. "
    "Or image weights, .pth: see docs/training.md.",
)
@click.option(
    "--teacher",
    help="A model, or the name of a bundled one, whose answers SAD or SED learns from beside the labels, "
    "[train] teacher_share of them. Overrides the recipe.",
)
@click.option("--mapped", is_flag=True, help="Read features from disk as needed: for stores larger than memory.")
def train(
    task: str,
    stores: tuple[Path, ...],
    validation: tuple[Path, ...],
    out: Path,
    preset: str | None,
    recipe: str | None,
    config_file: Path | None,
    device: str,
    threads: int,
    time_budget: float | None,
    resume: bool,
    other_stores: bool,
    start: str | None,
    mapped: bool,
    **overrides: int | str | None,
) -> None:
    """Train one of the three networks, or the baseline that answers for all.

    Under `torchrun` each process takes a batch of its own: torchrun --nproc-per-node 2 -m offline.cli train ...
    """
    import os

    import torch

    from offline import train as training
    from offline.batches import in_both, too_short
    from offline.config import TRAIN_PRESETS, TrainConfig
    from offline.extract import Store
    from offline.transfer import shape_of, weights_path
    from seldrt import networks
    from seldrt.config import NetworkConfig, named, override
    from seldrt.inference import torch_device
    from seldrt.signals import stop_on_signals

    torch.set_num_threads(threads)
    first = weights_path(start) if start else None
    shapes = {name: networks.preset(name, task) for name in networks.PRESETS}
    if first and (found := shape_of(first, task)):
        if preset:
            raise ConfigError(f"--preset {preset}: the network has the shape of --start {start}; leave one of them out")
        shapes["compact"] = found
    shape = section(NetworkConfig, shapes, preset or "compact", config_file, "network")
    recipe = recipe or ("baseline" if task == "baseline" else "compact")
    settings = override(section(TrainConfig, TRAIN_PRESETS, recipe, config_file, "train"), **overrides)
    to_learn_from, to_validate = [Store(folder) for folder in stores], [Store(folder) for folder in validation]
    both = [] if settings.folds or settings.validation_folds else in_both(to_learn_from, to_validate)
    if both:
        raise ConfigError(
            f"to learn from and to validate with: {named(both)}; give --validation a store of others, "
            "or say with folds and validation_folds in [train] which recordings are for what"
        )
    if short := too_short(to_learn_from, shape, settings.folds):
        say(f"note: shorter than a training chunk ({shape.chunk_frames} frames), so never learnt from: {named(short)}")
    interrupted: list[bool] = []
    say(f"{settings.epochs} epochs; each ends with a line here")
    with stop_on_signals(lambda: interrupted.append(True)):
        progress = training.train(
            task,
            to_learn_from,
            to_validate,
            out,
            shape,
            settings,
            device=str(torch_device(device)),
            time_budget_s=None if time_budget is None else time_budget * 60,
            resume=resume,
            start=first,
            mapped=mapped,
            report=lambda told: click.echo("  ".join(f"{key} {value:.4g}" for key, value in told.items()), err=True),
            stopped=lambda: bool(interrupted),
            other_stores=other_stores,
        )
    if os.environ.get("RANK", "0") != "0":
        return
    unfinished = progress.epoch < settings.epochs
    if unfinished:
        done = f"{progress.epoch} of {settings.epochs} epochs and {progress.step} steps are done"
        why = "stopped" if interrupted else "the time is up"
        how = "--resume goes on" if (out / training.STATE).exists() else "the same command starts over"
        click.echo(f"{why}, {done}: {how}", err=True)
    for path in sorted(out.glob("*.safetensors")):
        click.echo(path)
    if interrupted and unfinished:
        sys.exit(130)


@click.command(cls=Work)
@click.argument("before")
@click.argument("after", type=PATH)
@click.option(
    "--share", type=Number(0, 1), default=0.5, show_default=True, help="Share of AFTER: 0 is BEFORE, 1 is AFTER."
)
@click.option("--out", type=PATH, required=True, help="Checkpoint to write, .safetensors.")
def blend(before: str, after: Path, share: float, out: Path) -> None:
    """Interpolate between the weights of BEFORE and of AFTER, which was trained from it (--start BEFORE).

    The result costs no more than one of them, and forgets less of what BEFORE knew. BEFORE is a model file or the name
    of a bundled model.
    """
    from msgspec.structs import replace

    from seldrt import checkpoint
    from seldrt.models import model_path

    check_model_out(out)
    path = model_path(before)
    model = checkpoint.blended(path, after, share)
    card = dict(model.description.card)
    for task in model.networks:
        card[task] = card.get(task, {}) | {"blend": {"with": path.stem, "share": share}}
    model.description = replace(model.description, card=card)
    checkpoint.save(model, out)
    click.echo(out)


@click.command(cls=Work)
@click.argument("checkpoints", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Model to write, .safetensors.")
@click.option("--card", type=PATH, help="TOML file whose section [card] goes into the model, for `seldrt info`.")
@click.option("--weight", "weights", type=float, multiple=True, help="How much the networks of each checkpoint count "
              "in an ensemble; one for each, in their order.  [default: as they say, 1]")  # fmt: skip
@click.option("--views", type=click.IntRange(1, MOST_VIEWS), help="Rotated and mirrored copies of the sound that "
              "DOAE averages over; N copies cost N times as much.  [default: 1]")  # fmt: skip
@click.option("--focus", type=click.IntRange(0), help="Label frames whose intensity draws directions to where it "
              "crowds; 0 = none.  [default: as trained]")  # fmt: skip
@click.option("--max-gain", type=Number(0, 100), help="Limit of the automatic gain, in dB; 0 = none.  "
              "[default: as trained]")  # fmt: skip
@click.option("--max-rumble-cut", type=Number(0, 100), help="Limit of the rumble filter's cut, in dB; 0 = none.  "
              "[default: as trained]")  # fmt: skip
@click.option("--graph/--no-graph", default=True, help="The graph by which a CPU runs it, three times as fast as by "
              "PyTorch; takes half a minute.  [default: --graph]")  # fmt: skip
def merge(
    checkpoints: tuple[str, ...],
    out: Path,
    card: Path | None,
    weights: tuple[float, ...],
    views: int | None,
    focus: int | None,
    max_gain: float | None,
    max_rumble_cut: float | None,
    graph: bool,
) -> None:
    """Merge checkpoints of the three tasks, or models (bundled ones by name), into one float16 model.

    Several of one task become an ensemble, whose answers are averaged; it costs as much more. A model that was
    calibrated keeps its settings but not the figures of the calibration, unless nothing about its networks changes.
    """
    import torch
    from msgspec.structs import replace

    from seldrt import checkpoint
    from seldrt.config import PostprocessConfig, override
    from seldrt.graph import can_have_graph
    from seldrt.models import model_path
    from seldrt.postprocess import median_labels

    check_model_out(out)
    if weights and len(weights) != len(checkpoints):
        given = f"{len(weights)} times for {len(checkpoints)} checkpoints"
        raise ConfigError(f"--weight is given {given}: give one for each")
    paths = [Path(name) if Path(name).is_dir() else model_path(name) for name in checkpoints]  # a folder is told of
    twice = next((path for i, path in enumerate(paths) if path.resolve() in map(Path.resolve, paths[:i])), None)
    if twice:
        raise ConfigError(f"{twice}: is given twice; --weight makes its networks count more")
    model = checkpoint.merged(paths, weights)
    description = model.description
    if description.postprocess == PostprocessConfig():  # not calibrated
        lengths = median_labels(description.mean_event_labels)
        description = replace(description, postprocess=PostprocessConfig(sed_median_labels=lengths))
    shapes = dict(description.networks)
    shapes["doae"] = tuple(override(shape, views=views, focus_labels=focus) for shape in shapes.get("doae", ()))
    for network, shape in zip(model.networks.get("doae", ()), shapes["doae"], strict=True):
        network.config = shape
    features = override(description.features, max_gain_db=max_gain, max_rumble_cut_db=max_rumble_cut)
    networks = {task: group for task, group in shapes.items() if group}
    description = replace(description, features=features, networks=networks)
    figures = dict(description.card)
    before = describe(paths[0])
    same = (description.networks, description.features) == (before.networks, before.features)
    if not same and figures.pop("calibration", None):
        click.echo("calibrated for other networks: choose its settings with `offline calibrate`", err=True)
    model.description = replace(description, card=figures | read_section(card, "card"))
    if graph and can_have_graph(model.description):
        click.echo("making the graph, which takes up to half a minute ...", err=True)
        try:
            from offline.graph import graph_of

            model.graph = graph_of(model)
        except (CheckpointError, ModuleNotFoundError) as error:
            click.echo(f"it gets no graph, PyTorch will run it: {error}", err=True)
    checkpoint.save(model, out, torch.float16)
    told_networks = (f"{task} of {len(g)}" if len(g) > 1 else task for task, g in model.networks.items())
    click.echo(f"{out}: {', '.join(told_networks)}")
    missing = [task for task in TASKS if task not in model.networks]
    if missing and "baseline" not in model.networks:
        click.echo(f"not yet a model that listens: {' and '.join(missing)} must be merged, too", err=True)
