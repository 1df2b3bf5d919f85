"""seldrt view: show what a daemon hears in a browser."""

from __future__ import annotations

from contextlib import closing

import click

from seldrt.cli.listen import daemon_options, subscribed, until_stopped
from seldrt.cli.shell import say

SHOWN = ("frame", "event", "status")


@click.command()
@daemon_options
@click.option("--bind", metavar="HOST:PORT", default="127.0.0.1:8600", show_default=True, help="Where the page is.")
@click.option("--insecure-bind", is_flag=True, help="Let others on the network watch.")
def view(
    connect: str | None, source: str | None, key: str | None, server_key: str | None, bind: str, insecure_bind: bool
) -> None:
    """Show what a daemon hears in a browser, until stopped."""
    from seldrt.client import DEFAULT_URL
    from seldrt.runtime.display import Patience, show_page
    from seldrt.runtime.web import Viewer

    url = connect or DEFAULT_URL
    with (
        subscribed(url, source, key, server_key, kinds=SHOWN) as subscriber,
        closing(Viewer(bind, insecure_bind)) as viewer,
        until_stopped(),
    ):
        say(f"open {viewer.url} in a browser; Ctrl-C ends it")
        show_page(subscriber, viewer, Patience(url, say))
