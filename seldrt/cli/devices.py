"""seldrt devices: the sound devices that can record, and what they would be taken for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from seldrt.cli.shell import say
from seldrt.config import ConfigError

if TYPE_CHECKING:
    from seldrt.runtime.devices import Device


@click.command()
def devices() -> None:
    """List the sound devices that can record, and what they would be taken for."""
    from seldrt.runtime.devices import list_inputs

    found = list_inputs()
    if not found:
        say("no device here can record: is the microphone plugged in, and switched to work as an audio interface?")
    for device in found:
        channels = f"{device.channels} channel{'s' if device.channels > 1 else ''}"
        click.echo(f"{device.number:3d}  {device.name}, {device.host}: {channels}, {usable_as(device)}")


def usable_as(device: Device) -> str:
    """What `run` would make of a device: its profile and the rates that it takes, or why it does not do."""
    from seldrt.microphones import CHANNELS, profile_of_device
    from seldrt.runtime.devices import LOWEST_RATE_HZ, accepted_rates, rate_to_ask

    if device.channels < CHANNELS:
        return f"{device.rate} Hz   (needs {CHANNELS} channels)"
    try:
        profile = profile_of_device(device.name)
    except ConfigError as error:
        return f"{device.rate} Hz   (not usable: {str(error).removeprefix(f'{device.name}: ')})"
    asked = rate_to_ask(device)
    rates = [rate for rate in accepted_rates(device) if rate != asked]
    also = f" (also {', '.join(map(str, rates))})" if rates else ""
    low = f"   (too low: {LOWEST_RATE_HZ} Hz or more are needed)" if asked < LOWEST_RATE_HZ else ""
    return f"{asked} Hz{also}{low}; {f'profile {profile.name}' if profile else '--mic must say what its channels are'}"
