"""The commands: seldrt run | replay | listen | keys | ..., one module each; what they share is in `shell`, `chain`.

A flag beats an environment variable (SELDRT_...), which beats the TOML file of --config, which beats the default.
Lines for people go to stderr; what a program may want to read goes to stdout. A mistake of the user is one line and
exit code 2. Every heavy import stands inside its command, so that --help is quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from seldrt import __version__
from seldrt.cli.devices import devices
from seldrt.cli.doctor import doctor
from seldrt.cli.info import info
from seldrt.cli.keys import keys
from seldrt.cli.listen import listen
from seldrt.cli.replay import replay
from seldrt.cli.run import run
from seldrt.cli.schema import schema
from seldrt.cli.service import service
from seldrt.cli.shell import HELP, Group, say
from seldrt.cli.view import view


@click.group("seldrt", cls=Group, context_settings=HELP)
@click.version_option(__version__, prog_name="seldrt")
def cli() -> None:
    """Which sounds, from which direction, and when: detected live with a 4-channel microphone."""


for command in (run, replay, listen, view, keys, schema, devices, doctor, service, info):
    cli.add_command(command)


def unknown_settings(names: Iterable[str]) -> list[str]:
    """Which names of environment variables look like settings, and are none."""
    members = list(cli.commands.values())
    for command in members:
        members += command.commands.values() if isinstance(command, click.Group) else []
    known = {option.envvar for command in members for option in command.params}
    return sorted(name for name in names if name.startswith("SELDRT_") and name not in known)


def main() -> None:
    """Runs the command line."""
    for name in unknown_settings(os.environ):
        say(f"seldrt: note: the environment variable {name} is no setting, see --help of the commands")
    cli()
