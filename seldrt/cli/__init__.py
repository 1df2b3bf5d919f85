"""The commands: seldrt run | replay | listen | keys | ..., one module each; what they share is in `shell`, `chain`.

A flag beats an environment variable (SELDRT_...), which beats the TOML file of --config, which beats the default.
Lines for people go to stderr; what a program may want to read goes to stdout. A mistake of the user is one line and
exit code 2. Every heavy import stands inside its command, so that --help is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from typing import TextIO

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
from seldrt.cli.shell import say
from seldrt.cli.view import view
from seldrt.config import SeldrtError

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(invoke_without_command=True, context_settings=HELP)
@click.version_option(__version__, prog_name="seldrt")
@click.pass_context
def cli(context: click.Context) -> None:
    """What sounds, where from, and when: from a 4-channel microphone, as it happens."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


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
    """Runs the command line; the exit code is 2 for a mistake, told in one line."""
    code: int | None
    for name in unknown_settings(os.environ):
        say(f"seldrt: note: the environment variable {name} is no setting, see --help of the commands")
    try:
        code = cli.main(standalone_mode=False)
    except (click.ClickException, SeldrtError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        say("seldrt: " + " ".join(text.splitlines()))
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except OSError as error:  # click itself ends where the reader of a pipe has gone
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"seldrt: {error.filename or 'stdout'}: cannot be written: {error.strerror}")
        code = 2
    finally:
        for stream in (sys.stdout, sys.stderr):
            drop_unwritten(stream)
    sys.exit(code)


def drop_unwritten(stream: TextIO | None) -> None:
    """Forgets what a stream did not take; Python would fail at it once more when it ends."""
    if stream is not None:
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
