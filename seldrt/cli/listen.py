"""seldrt listen: show what a daemon hears."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from seldrt.cli.shell import say, setting


@click.command()
@setting("--connect", env="CONNECT", metavar="URL", meaning="Address of the daemon.")
@click.option("--jsonl", is_flag=True, help="Every message as a JSON line on stdout.")
def listen(connect: str | None, jsonl: bool) -> None:
    """Show what a daemon hears, until stopped."""
    from seldrt.client import DEFAULT_URL, Subscriber
    from seldrt.runtime.display import show_json, show_lines, show_table

    url = connect or DEFAULT_URL
    with Subscriber(url) as subscriber, until_stopped():
        if jsonl:
            show_json(subscriber, sys.stdout)
        elif sys.stderr.isatty():
            show_table(subscriber, url)
        else:
            show_lines(subscriber, say)


@contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT and SIGTERM end what stands inside, and that is a good end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
