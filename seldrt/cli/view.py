"""seldrt view: show what a daemon hears in a browser."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from seldrt.cli.listen import daemon_options, subscribed, until_stopped
from seldrt.cli.shell import say, setting
from seldrt.config import ConfigError

SHOWN = ("frame", "event", "status")


@click.command()
@daemon_options
@click.option(
    "--bind", metavar="HOST:PORT", default="127.0.0.1:8600", show_default=True, help="Address to serve the page at."
)
@click.option("--insecure-bind", is_flag=True, help="Let others on the network watch.")
@setting("--clips", env="CLIPS", metavar="DIR", meaning="Let viewers listen to the clips that `run --clips DIR` keeps.")
def view(
    connect: tuple[str, ...],
    source: str | None,
    key: str | None,
    server_key: tuple[str, ...],
    bind: str,
    insecure_bind: bool,
    clips: str | None,
) -> None:
    """Show what daemons hear in a browser, until stopped."""
    from seldrt.runtime.display import show_page
    from seldrt.runtime.patience import Patience
    from seldrt.runtime.web import Viewer

    find = None
    if clips:
        from seldrt.runtime.clip_folder import find_clip

        check_folder(clips)
        find = partial(find_clip, Path(clips))
    with (
        subscribed(connect, source, key, server_key, kinds=SHOWN) as subscriber,
        closing(Viewer(bind, insecure_bind, find)) as viewer,
        until_stopped(),
    ):
        say(f"open {' or '.join(viewer.urls)} in a browser; Ctrl-C ends it")
        show_page(subscriber, viewer, Patience(subscriber.connections, say, source or "", stand=viewer.stand))


def check_folder(name: str) -> None:
    """Refuses a folder that cannot be read; one that is not there may still come."""
    try:
        os.listdir(name)
    except FileNotFoundError:
        say(f"note: --clips {name}: no such folder yet; `seldrt run --clips` makes it")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--clips {name}: cannot be read: {reason}; give the folder of `seldrt run --clips`"
        ) from None
