"""offline alarms: more alarms and telephones for a bank of sounds."""

from __future__ import annotations

from pathlib import Path

import click

from offline.cli.shell import PATH, Work


@click.command(cls=Work)
@click.option("--out", type=PATH, required=True, help="Bank of sounds: the folders of the classes are made in it.")
@click.option("--count", type=click.IntRange(1), default=45, show_default=True, help="Of each class.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def alarms(out: Path, count: int, seed: int) -> None:
    """Make alarms and ringing telephones by rule, to train with beside recordings."""
    from offline import alarms as making

    making.write(out, count, seed)
    click.echo(f"{out}: {count} sounds each of {', '.join(making.KINDS)}")
