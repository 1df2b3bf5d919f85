"""What every offline command needs of a command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from seldrt.config import SeldrtError

PATH = click.Path(path_type=Path)
EXTRA = ("pyroomacoustics", "tensorboard", "matplotlib", "onnx", "onnxscript", "torch")


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


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that shows how many are done, of how many: on stderr, while the block lasts and somebody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
