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
@click.option(
    "--tls-cert",
    metavar="FILE.pem",
    help="Serve by https with this certificate (phones keep their screen on only then).",
)
@click.option("--tls-key", metavar="FILE.pem", help="Its private key, if it is not in the same file.")
@setting("--clips", env="CLIPS", metavar="DIR", meaning="Let viewers listen to the clips that `run --clips DIR` keeps.")
def view(
    connect: tuple[str, ...],
    source: str | None,
    key: str | None,
    server_key: tuple[str, ...],
    bind: str,
    insecure_bind: bool,
    tls_cert: str | None,
    tls_key: str | None,
    clips: str | None,
) -> None:
    """Show what daemons hear in a browser, until stopped."""
    from seldrt.runtime.display import show_page
    from seldrt.runtime.patience import Patience
    from seldrt.runtime.web import Viewer
    from seldrt.runtime.web.server import tls_context

    if tls_key and not tls_cert:
        raise ConfigError("--tls-key belongs to a certificate: give --tls-cert, too")
    tls = tls_context(tls_cert, tls_key) if tls_cert else None
    find = None
    if clips:
        from seldrt.runtime.clip_folder import find_clip

        check_folder(clips)
        find = partial(find_clip, Path(clips))
    with (
        subscribed(connect, source, key, server_key, kinds=SHOWN) as subscriber,
        closing(Viewer(bind, insecure_bind, find, tls)) as viewer,
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
