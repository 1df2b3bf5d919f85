"""What every offline command needs of a command line."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from seldrt.cli.shell import Command, say
from seldrt.config import ConfigError, SeldrtError

PATH = click.Path(path_type=Path)
EXTRA = ("pyroomacoustics", "tensorboard", "matplotlib", "onnx", "onnxscript", "torch")


class Mistake(click.ClickException):
    """A user's mistake: one line, exit status 2."""

    exit_code = 2


def explain_mistakes(repeat: str = "begins anew") -> Callable[[Command], Command]:
    """Turn the errors that a user can mend into one line and exit status 2.

    And Ctrl-C into one that says what a ``repeat`` of the command does, and 130.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
            except KeyboardInterrupt:
                say(f"stopped: the same command {repeat}")
                sys.exit(130)
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

    return decorate


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
