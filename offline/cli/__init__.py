"""The offline commands; whatever takes long to import is imported inside its command."""

from __future__ import annotations

import click

from offline.cli.alarms import alarms
from offline.cli.data import bundle, extract, synthesize
from offline.cli.measuring import calibrate, evaluate, report
from offline.cli.stretching import stretch
from offline.cli.training import blend, merge, train
from seldrt import __version__
from seldrt.cli.shell import HELP, Group


@click.group("offline", cls=Group, context_settings=HELP)
@click.version_option(__version__, prog_name="offline")
def main() -> None:
    """Make, learn from and measure recordings of sound events."""


for command in (alarms, synthesize, stretch, extract, train, blend, merge, evaluate, calibrate, report, bundle):
    main.add_command(command)
