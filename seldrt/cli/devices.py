"""seldrt devices: the sound devices that can record."""

from __future__ import annotations

import click


@click.command()
def devices() -> None:
    """List the sound devices that can record."""
    from seldrt.microphones import CHANNELS
    from seldrt.runtime.devices import list_inputs

    for device in list_inputs():
        figures = f"{device.channels} channels, {device.rate} Hz"
        note = "" if device.channels >= CHANNELS else f"   (needs {CHANNELS} channels)"
        click.echo(f"{device.number:3d}  {device.name}, {device.host}: {figures}{note}")
