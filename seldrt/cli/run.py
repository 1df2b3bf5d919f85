"""seldrt run: listen to a microphone."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import click

from seldrt.cli.chain import chain_options, prepare, serve, settings
from seldrt.cli.shell import setting
from seldrt.config import ConfigError, override


@click.command()
@setting("--device", env="DEVICE", metavar="NAME", meaning="Input device, see `seldrt devices`.")
@chain_options
def run(device: str | None, **flags: Any) -> None:
    """Listen to a microphone until stopped."""
    from seldrt.detection import safe_name
    from seldrt.microphones import profile
    from seldrt.runtime.capture import Microphone

    config = settings(flags)
    capture = override(config.capture, device=device)
    if not capture.device:
        raise ConfigError("which microphone? give --device NAME; `seldrt devices` lists them")
    mic = profile(capture.mic)
    with ExitStack() as stack:
        publisher = prepare(config.publisher, flags, stack)
        microphone = Microphone(capture.device, mic, capture.block_ms, capture.ring_s, capture.device_rate)
        stack.enter_context(closing(microphone))
        serve(config, flags, microphone, safe_name(microphone.name), publisher, stack)
