"""seldrt listen: show what a daemon hears."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from seldrt.cli.shell import options, say, setting
from seldrt.config import ConfigError

if TYPE_CHECKING:
    from seldrt.client import Subscriber


def _one(_ctx: click.Context, _param: click.Parameter, urls: tuple[str, ...]) -> str | None:
    if len(urls) > 1:
        raise click.BadParameter(f"is given {len(urls)} times; one is heard: run the command once for each daemon")
    return urls[0] if urls else None


daemon_options = options(  # which daemon is heard, see `subscribed`
    setting("--connect", env="CONNECT", metavar="URL", multiple=True, callback=_one, meaning="Address of the daemon."),
    click.option("--source", metavar="NAME", help="Only this microphone."),
    setting("--key", env="KEY", metavar="FILE", meaning="Your secret key, where the daemon asks for keys."),
    setting("--server-key", env="SERVER_KEY", metavar="FILE", meaning="The daemon's public key."),
)


@click.command()
@daemon_options
@click.option("--class", "classes", metavar="CLASS", multiple=True, help="Of the events, only these; with --source.")
@click.option("--jsonl", is_flag=True, help="Every message as a JSON line.")
def listen(
    connect: str | None,
    source: str | None,
    classes: tuple[str, ...],
    key: str | None,
    server_key: str | None,
    jsonl: bool,
) -> None:
    """Show what a daemon hears, until stopped: a live table; into a file or a pipe, a line for each event."""
    from seldrt.client import DEFAULT_URL
    from seldrt.runtime.display import Patience, show_json, show_lines, show_table

    url, only = connect or DEFAULT_URL, source or ""
    with subscribed(url, source, key, server_key, classes=classes) as subscriber, until_stopped():
        if jsonl:
            show_json(subscriber, sys.stdout, Patience(url, say, only))
        elif sys.stdout.isatty() and sys.stderr.isatty():
            show_table(subscriber, url, only)
        else:
            show_lines(subscriber, click.echo, Patience(url, say, only))  # ends when the reader leaves


def subscribed(url: str, source: str | None, key: str | None, server_key: str | None, **more: Any) -> Subscriber:
    """A subscriber of what `daemon_options` name."""
    from seldrt.client import Subscriber

    if bool(key) != bool(server_key):
        raise ConfigError("--key and --server-key belong together: your secret key, and the daemon's public one")
    keys = (key, server_key) if key and server_key else None
    return Subscriber(url, source=source or "", keys=keys, **more)


@contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT and SIGTERM end what stands inside, and that is a good end; also where a shell made SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
