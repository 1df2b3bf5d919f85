"""seldrt replay: listen to recordings as if they came from a microphone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seldrt.cli.chain import Flags, chain_options, prepare, settings
from seldrt.cli.listener import Listener
from seldrt.cli.shell import Number, say
from seldrt.config import ConfigError, DaemonConfig

if TYPE_CHECKING:
    from seldrt.runtime.recording import Recording

STOPPED = 130  # exit code of what somebody ended before it was at its end


@click.command()
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--demo", is_flag=True, help="The bundled recording, compared with its truth.")
@click.option("--fast", is_flag=True, help="As fast as the computer goes.")
@click.option("--speed", type=Number(0.01, 1000), metavar="X", help="X times real time.")
@click.option("--start", metavar="TIME", help="When it began, for --csv, --jsonl, --clips; `file`: as each file says.")
@chain_options
def replay(
    files: tuple[str, ...], demo: bool, fast: bool, speed: float | None, start: str | None, **flags: Any
) -> None:
    """Listen to 4-channel recordings, one after the other, as if they came from a microphone now."""
    from seldrt.microphones import orientation, profile_of_recording
    from seldrt.runtime.recording import Recording

    if demo and files:
        raise ConfigError(f"what to replay, --demo or {files[0]}? give one of them")
    if not demo and not files:
        raise ConfigError("what to replay? give a recording, or --demo")
    if fast and speed:
        raise ConfigError("--fast and --speed exclude each other")
    config = settings(flags)
    if demo and (start is not None or config.pipeline.only):
        raise ConfigError("--demo is compared with all that sounds in it: leave out --only and --start")
    capture = config.capture
    mic = profile_of_recording(capture.mic).turned(orientation(capture.mount, capture.yaw_deg))
    recordings, truth = [Path(file) for file in files], None
    if demo:
        from seldrt.models import model_path
        from seldrt.runtime import demo as demonstration

        recording, truth = demonstration.demo_files()
        recordings = [recording]
        if config.pipeline.model:
            demonstration.check_model(model_path(config.pipeline.model))
        flags["no_publish"] |= flags["bind"] is None

    def opened(path: Path) -> Recording:
        return Recording(path, mic, None if fast else speed or 1.0, capture.block_ms, () if demo else capture.channels)

    with ExitStack() as stack:
        check(recordings, opened)
        begun = beginnings(recordings, start, config, flags)
        publisher = prepare(config, flags, stack, recordings)
        listener = stack.enter_context(closing(Listener(config, flags, publisher)))
        if truth is not None:
            source = stack.enter_context(closing(opened(*recordings)))
            sys.exit(0 if demonstrate(truth, listener, source) else 1)
        sys.exit(play(recordings, begun, opened, listener))


def check(recordings: Sequence[Path], opened: Callable[[Path], Recording]) -> None:
    """Refuses recordings that cannot be played, all of them at once."""
    from seldrt.runtime.devices import CaptureError

    refused: list[CaptureError] = []
    for path in recordings:
        try:
            opened(path).close()
        except CaptureError as error:
            refused.append(error)
    for earlier in refused[:-1]:
        say(f"seldrt: {earlier}")
    if refused:
        raise refused[-1]


def beginnings(recordings: Sequence[Path], start: str | None, config: DaemonConfig, flags: Flags) -> list[int | None]:
    """UNIX times at which the recordings began, None where nobody asks.

    `ConfigError` or `CaptureError` for times that nobody knows, and recordings that the files could not keep apart.
    """
    from seldrt.detection import safe_name
    from seldrt.runtime.origination import IN_FILE, start_ns

    source, files = config.publisher.source, flags["csv"] or flags["jsonl"] or config.clips.dir
    if start is not None and not files:
        raise ConfigError(f"--start {start}: is for --csv, --jsonl and --clips; give one of them")
    if len(recordings) > 1:
        if flags["dcase"]:
            raise ConfigError(f"--dcase {flags['dcase']}: such a table is of one recording; replay them one by one")
        if start not in (None, IN_FILE):
            raise ConfigError(f"--start {start}: is of one recording; give --start file, or replay them one by one")
        if files and start is None and source:
            raise ConfigError(f"source {source}: the files could not tell the recordings apart; add --start file")
    if files and not source:
        names: dict[str, Path] = {}
        for path in recordings:
            other = names.setdefault(safe_name(path.stem), path)
            if other is not path:
                with_times = "rename one, or tell them apart by time: --start file --source NAME"
                raise ConfigError(f"{other}, {path}: have one name in the files; {with_times}")
    return [None if start is None else start_ns(start, path) for path in recordings]


def play(
    recordings: Sequence[Path],
    begun: Sequence[int | None],
    opened: Callable[[Path], Recording],
    listener: Listener,
) -> int:
    """The recordings one after the other, with the times at which they began; the exit code."""
    from seldrt.detection import safe_name
    from seldrt.runtime.devices import CaptureError

    damaged = 0
    for number, (path, begun_ns) in enumerate(zip(recordings, begun, strict=True), 1):
        if len(recordings) > 1:
            say(f"{number} of {len(recordings)}: {path}")
        try:
            with closing(opened(path)) as source:
                listener.listen(source, safe_name(path.stem), begun_ns=begun_ns)
        except CaptureError as error:  # the others may be whole
            if len(recordings) == 1:
                raise
            say(f"seldrt: {error}")
            damaged += 1
            continue
        if not is_whole(source):
            return STOPPED
        if source.stopped and number < len(recordings):
            say(f"stopped: {len(recordings) - number} recordings were not begun")
            return STOPPED
    if damaged:
        say(f"seldrt: {damaged} of {len(recordings)} recordings were not heard to their end")
    return 2 if damaged else 0


def is_whole(source: Recording) -> bool:
    """Whether the recording was played to its end; says so if not."""
    if source.played_s < source.length_s:
        say(f"stopped at {source.played_s:.1f} s of {source.length_s:.1f} s: the outputs hold that much")
        return False
    return True


def demonstrate(truth: Path, listener: Listener, source: Recording) -> bool:
    """Replays the bundled recording and compares with its truth; whether enough was heard where it was."""
    from rich.console import Console

    from seldrt.runtime import demo

    heard = demo.Heard()
    stream = listener.listen(source, "demo", [heard])
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
