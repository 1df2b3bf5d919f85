"""seldrt replay: listen to a recording as if it came from a microphone."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seldrt.cli.chain import Flags, chain_options, prepare, serve, settings
from seldrt.cli.shell import Number, say
from seldrt.config import ConfigError, DaemonConfig

if TYPE_CHECKING:
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.recording import Recording

STOPPED = 130  # exit code of what somebody ended before it was at its end


@click.command()
@click.argument("file", required=False, metavar="FILE")
@click.option("--demo", is_flag=True, help="The bundled recording, compared with its truth.")
@click.option("--fast", is_flag=True, help="As fast as the computer goes.")
@click.option("--speed", type=Number(0.01, 1000), metavar="X", help="X times real time.")
@chain_options
def replay(file: str | None, demo: bool, fast: bool, speed: float | None, **flags: Any) -> None:
    """Listen to a 4-channel recording, as if it came from a microphone now."""
    from seldrt.detection import safe_name
    from seldrt.microphones import orientation, profile_of_recording
    from seldrt.runtime.recording import Recording

    if demo and file:
        raise ConfigError(f"what to replay, --demo or {file}? give one of them")
    if not demo and not file:
        raise ConfigError("what to replay? give a recording, or --demo")
    if fast and speed:
        raise ConfigError("--fast and --speed exclude each other")
    config = settings(flags)
    if demo and config.pipeline.only:
        raise ConfigError("--demo is compared with all that sounds in it: leave out --only")
    capture = config.capture
    mic = profile_of_recording(capture.mic).turned(orientation(capture.mount, capture.yaw_deg))
    with ExitStack() as stack:
        recording, truth = Path(str(file)), None
        if demo:
            from seldrt.models import model_path
            from seldrt.runtime import demo as demonstration

            recording, truth = demonstration.demo_files()
            if config.pipeline.model:
                demonstration.check_model(model_path(config.pipeline.model))
            flags["no_publish"] |= flags["bind"] is None
        pace = None if fast else speed or 1.0
        source = Recording(recording, mic, pace, capture.block_ms, () if demo else capture.channels)
        stack.enter_context(closing(source))
        publisher = prepare(config, flags, stack, recording)
        if truth is None:
            serve(config, flags, source, safe_name(recording.stem), publisher, stack)
            if not is_whole(source):
                sys.exit(STOPPED)
        elif not demonstrate(truth, config, flags, source, publisher, stack):
            sys.exit(1)


def is_whole(source: Recording) -> bool:
    """Whether the recording was played to its end; says so if not."""
    if source.played_s < source.length_s:
        say(f"stopped at {source.played_s:.1f} s of {source.length_s:.1f} s: the outputs hold that much")
        return False
    return True


def demonstrate(
    truth: Path,
    config: DaemonConfig,
    flags: Flags,
    source: Recording,
    publisher: Publisher | None,
    stack: ExitStack,
) -> bool:
    """Replays the bundled recording and compares with its truth; whether enough was heard where it was."""
    from rich.console import Console

    from seldrt.runtime import demo

    heard = demo.Heard()
    stream = serve(config, flags, source, "demo", publisher, stack, [heard])
    if not is_whole(source):
        sys.exit(STOPPED)
    played, found = demo.spans(demo.read_table(truth)), demo.spans(heard.rows)
    verdicts = demo.compare(played, found)
    console = Console(stderr=True)
    with console.capture() as table:  # its own print would end the program where nobody reads
        console.print(demo.verdict_table(verdicts, stream.classes))
    say(table.get().rstrip())
    say(f"heard besides, but not played: {demo.unexplained(played, found)}")
    good, line = demo.passed(verdicts)
    say(line)
    return good
