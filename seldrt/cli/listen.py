"""seldrt listen: show what a daemon hears."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from seldrt.cli.shell import Names, options, say, setting
from seldrt.config import ConfigError
from seldrt.signals import STOPPING

if TYPE_CHECKING:
    from seldrt.client import Subscriber

LINES = ("event", "gap", "status")  # that there are lines for

daemon_options = options(  # which daemons are heard, see `subscribed`
    setting("--connect", env="CONNECT", metavar="URL", multiple=True, meaning="Address of a daemon; may be repeated."),
    click.option("--source", metavar="NAME", help="Only this microphone."),
    setting("--key", env="KEY", metavar="FILE", meaning="Your secret key, where the daemon asks for keys."),
    setting(
        "--server-key",
        env="SERVER_KEY",
        metavar="FILE",
        multiple=True,
        type=click.Path(),
        meaning="The daemon's public key: one for all or one per --connect; `none` for a daemon without keys.",
    ),
)


@click.command()
@daemon_options
@click.option(
    "--class", "classes", type=Names(), multiple=True, metavar="CLASS,...", help="Show only events of these classes."
)
@click.option("--jsonl", is_flag=True, help="Every message as a JSON line.")
def listen(
    connect: tuple[str, ...],
    source: str | None,
    classes: tuple[tuple[str, ...], ...],
    key: str | None,
    server_key: tuple[str, ...],
    jsonl: bool,
) -> None:
    """Show what daemons hear, until stopped: a live table in a terminal, a line per event in a file or pipe."""
    from seldrt.runtime.display import show_json, show_lines, show_table
    from seldrt.runtime.patience import Patience

    names = tuple(name for some in classes for name in some)
    table = not jsonl and sys.stdout.isatty() and sys.stderr.isatty()
    kinds = () if jsonl or table else LINES  # on a slow link, no more than is shown
    with subscribed(connect, source, key, server_key, classes=names, kinds=kinds) as subscriber, until_stopped():
        patience = Patience(subscriber.connections, say, source or "", names)
        if jsonl:
            show_json(subscriber, sys.stdout, patience)
        elif table:
            show_table(subscriber, source or "", names)
        else:
            show_lines(subscriber, click.echo, patience)  # ends when the reader leaves


def subscribed(
    connect: Sequence[str], source: str | None, key: str | None, server_key: Sequence[str], **more: Any
) -> Subscriber:
    """A subscriber of what `daemon_options` name."""
    from seldrt.client import DEFAULT_URL, Subscriber

    if bool(key) != bool(server_key):
        raise ConfigError("--key and --server-key belong together: your secret key, and the daemon's public one")
    keys = [None if server == "none" else (key, server) for server in server_key if key]
    return Subscriber(connect or DEFAULT_URL, source=source or "", keys=keys, **more)


@contextmanager
def until_stopped() -> Iterator[None]:
    """The signals `STOPPING` end what stands inside, and that is a good end; also where a shell made SIGINT ignored."""
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
