"""What every command needs of a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from seldrt.config import EVERY_CLASS

Command = Callable[..., Any]


def say(line: str) -> None:
    """A line for people; the work goes on where it cannot be written."""
    with suppress(OSError):
        click.echo(line, err=True)


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
                self.fail(f"{part!r}: {'which class?' if not name else f'{name} is there twice'}", param, ctx)
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
