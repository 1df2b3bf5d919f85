"""What every offline command needs of a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from seldrt.cli.shell import Command, options, say
from seldrt.config import ConfigError

PATH = click.Path(path_type=Path)
EXTRA = ("pyroomacoustics", "tensorboard", "matplotlib", "onnx", "onnxscript", "torch")

workers_option = click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")


class Work(click.Command):
    """A command that takes its time: when it is interrupted, it says what a ``repeat`` of it does."""

    def __init__(self, *args: Any, repeat: str = "starts over", **more: Any) -> None:
        super().__init__(*args, **more)
        self.repeat = repeat

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say(f"stopped: running the same command again {self.repeat}")
            raise click.Abort from None
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise ConfigError(f"{error.name} is not installed: pip install 'seldrt[offline]'") from None


def array_options(meaning: str = "Dataset folder.") -> Callable[[Command], Command]:
    """Which dataset (``meaning`` is the help of --data), in which of the formats of its recordings."""
    return options(
        click.option("--data", type=PATH, required=True, help=meaning),
        click.option("--format", "array", type=click.Choice(["foa", "mic"]), default="foa", show_default=True),
    )


def dataset_options(meaning: str = "Dataset folder.") -> Callable[[Command], Command]:
    """The same, and which split and folds of it."""
    return options(
        array_options(meaning),
        click.option("--split", type=click.Choice(["dev", "eval"]), default="dev", show_default=True),
        click.option("--fold", "folds", type=click.IntRange(0), multiple=True, help="Only this fold; may be repeated."),
    )


def check_model_out(out: Path) -> None:
    """Before long work: `ConfigError` for a file that is there and no model, `OSError` when none can be written."""
    from seldrt.description import CheckpointError, describe
    from seldrt.files import check_writable

    check_writable(out)
    try:
        if out.exists():
            describe(out)
    except CheckpointError:
        raise ConfigError(f"{out} is there and no model that can be read: give another --out, or remove it") from None


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that shows how many are done, of how many: on stderr, while the block lasts and somebody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
