"""seldrt keys: who may listen to a daemon."""

from __future__ import annotations

from pathlib import Path

import click

from seldrt.cli.shell import Group, say, setting

folder_option = setting(
    *("--dir", "folder"),
    env="CURVE_KEYS",
    metavar="DIR",
    default="seldrt-keys",
    show_default=True,
    meaning="Folder of keys, for `seldrt run --curve-keys DIR`.",
)


@click.group(cls=Group)
def keys() -> None:
    """Manage the keys of clients that may listen to a daemon."""


@keys.command()
@click.argument("name")
@folder_option
@click.option("--overwrite", is_flag=True, help="Replace a key of that name.")
def new(name: str, folder: str, overwrite: bool) -> None:
    """Make the keys of the client NAME, and those of the daemon where it has none.

    The name `server` makes the daemon's keys only. To revoke a client, delete clients/NAME.key in the folder: its next
    connection is refused.
    """
    from seldrt.keys import CLIENTS, SERVER, make_keys

    place = Path(folder)
    for path in make_keys(place, name, overwrite):
        click.echo(path)
    say(f"the daemon: seldrt run --bind tcp://0.0.0.0:5577 --curve-keys {place}")
    if name == SERVER:
        say(f"every client needs {place / SERVER}.key")
        return
    say(f"the client gets {name}.key_secret and {SERVER}.key; its right to listen is {place / CLIENTS / name}.key")
    say(f"there: seldrt listen --connect tcp://HOST:5577 --key {name}.key_secret --server-key {SERVER}.key")


@keys.command("list")
@folder_option
def list_(folder: str) -> None:
    """List the clients that may listen."""
    from seldrt.keys import load_allowed, load_server

    load_server(Path(folder))
    allowed, damaged = load_allowed(Path(folder))
    for name, key in allowed.items():
        click.echo(f"{name}  {key.decode('ascii')}")
    for told in damaged:
        say(f"key file ignored: {told}")
