"""What every command needs of a command line."""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import click

from seldrt.config import EVERY_CLASS, SeldrtError, printable
from seldrt.files import NO_ROOM

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

Command = Callable[..., Any]


def say(text: str, plain: bool = True) -> None:
    """Lines for people, ``plain``: none commands a terminal. The work goes on where they cannot be written."""
    with suppress(OSError):
        click.echo("\n".join(map(printable, text.split("\n"))) if plain else text, err=True)


class Group(click.Group):
    """Commands, told where none is given. As a program: a mistake is one line (several are an indented list) and exit
    code 2, an interruption 130.

    `click.ClickException`, `SeldrtError` and `OSError` are mistakes.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **more: Any) -> Any:
        code: int | None = 2
        _write_as_utf8()
        try:
            code = super().main(*args, **more | {"standalone_mode": False})
        except (click.ClickException, SeldrtError, OSError) as error:  # click itself ends when a pipe has no reader
            lines = re.sub(r"\n(?!  )", " ", _explained(error).strip()).split("\n")
            say(f"{self.name}: " + "\n".join(lines))
        except (click.Abort, KeyboardInterrupt):
            code = 130
        finally:
            for stream in (sys.stdout, sys.stderr):
                _drop_unwritten(stream)
        sys.exit(code)


def _write_as_utf8() -> None:
    """Files and pipes get the same bytes on any system, and no terminal is asked for letters that it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # of what was to be written before
                if stream.isatty():
                    stream.reconfigure(errors="replace")
                else:
                    stream.reconfigure(encoding="utf-8", errors=stream.errors, newline="\n")


def _explained(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    if error.errno in NO_ROOM:
        return f"{error.filename or 'stdout'}: cannot be written: {reason}"
    return f"{error.filename}: {reason}" if error.filename else reason


def _drop_unwritten(stream: TextIO | None) -> None:
    """Forgets what a stream did not take; Python would fail at it once more when it ends."""
    if stream is not None:
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Number(click.FloatRange):
    """A number within bounds, which click lets NaN through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class Sensitivity(click.ParamType):
    """Sensitivities of classes by name, and of all others without one: 2,alarm=4 is {"all": 2.0, "alarm": 4.0}."""

    name = "sensitivity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        found: dict[str, float] = {}
        for part in value.split(","):
            named, equals, number = part.rpartition("=")
            name = named.strip() if equals else EVERY_CLASS
            try:
                given = float(number)
            except ValueError:
                self.fail(f"{part!r} is no number: give one like 2, or 2,alarm=4", param, ctx)
            if not name or name in found:
                why = f"the value of {name} is given twice" if name else "which class?"
                self.fail(f"{part!r}: {why}", param, ctx)
            found[name] = given
        return found


class Names(click.ParamType):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return tuple(filter(None, (name.strip() for name in value.split(","))))


class Sectors(click.ParamType):
    """Sectors of azimuths with commas between them: 20..60,150..-150."""

    name = "sectors"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[list[float], ...]:
        try:
            ends = [re.split(r"(?<!\.)\.\.(?!\.)", text) for text in value.split(",") if text]
            sectors = tuple([float(end) for end in sector] for sector in ends)
        except ValueError:
            sectors = ([],)
        if any(len(sector) != 2 for sector in sectors):
            self.fail(
                f"{value!r}: write FROM..TO in degrees, counter-clockwise, like 20..60 or 20..60,150..-150", param, ctx
            )
        return sectors


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
