"""What every command needs of a command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def say(line: str) -> None:
    """A line for people."""
    click.echo(line, err=True)


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def setting(*names: str, env: str, meaning: str, **more: Any) -> Callable[[Command], Command]:
    """A flag that an environment variable can also give; None leaves it to the file, or to its default."""
    return click.option(*names, envvar=f"SELDRT_{env}", show_envvar=True, help=meaning, **more)
