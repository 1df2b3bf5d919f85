"""offline stretch: slower and faster recordings, with their directions."""

from __future__ import annotations

from pathlib import Path

import click

from offline.cli.shell import PATH, Work, array_options, progress_bar, workers_option


@click.command(cls=Work, repeat="goes on, recordings that are made are kept")
@array_options()
@click.option("--out", type=PATH, required=True, help="Dataset folder to write to.")
@click.option("--rate", type=float, required=True, help="How many times as fast, such as 0.9 or 1.1.")
@workers_option
def stretch(data: Path, array: str, out: Path, rate: float, workers: int) -> None:
    """Make every recording slower or faster at the same pitch, to train with beside the originals.

    Directions stay: the phases of all channels are turned alike.
    """
    from offline import stretch as stretching

    with progress_bar("recordings") as progress:
        stretching.stretch(data, out, rate, array, workers, progress)
    click.echo(out)
