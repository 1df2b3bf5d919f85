"""seldrt replay: listen to recordings as if they came from a microphone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from seldrt.cli.chain import Flags, chain_options, prepare, settings
from seldrt.cli.listener import Listener
from seldrt.cli.shell import Number, say
from seldrt.config import CaptureConfig, ConfigError, DaemonConfig

if TYPE_CHECKING:
    from seldrt.runtime.recording import Recording

OVERLAP_S = 2.0  # of what one microphone recorded: names count in whole seconds
STOPPED = 130  # exit code of what somebody ended before it was at its end


@click.command()
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--demo", is_flag=True, help="Play the bundled recording and compare with its ground truth.")
@click.option("--fast", is_flag=True, help="Play as fast as the computer can.")
@click.option("--speed", type=Number(0.01, 1000), metavar="X", help="Play at X times real time.")
@click.option("--loop", is_flag=True, help="Repeat until stopped, as one stream.")
@click.option("--skip-bad", is_flag=True, help="Skip files that cannot be played or dated; the exit code is still 2.")
@click.option(
    "--start",
    metavar="TIME",
    help="When the recording began, for --csv, --jsonl, --clips; `file`: taken from each file.",
)
@chain_options
def replay(
    files: tuple[str, ...],
    demo: bool,
    fast: bool,
    speed: float | None,
    loop: bool,
    skip_bad: bool,
    start: str | None,
    **flags: Any,
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
    if loop and (len(files) > 1 or flags["dcase"]):
        raise ConfigError("--loop is of one recording, and has no end that --dcase could wait for")
    config = settings(flags)
    judged = demo and not loop
    if judged and (start is not None or config.pipeline.only or config.pipeline.ignore):
        raise ConfigError("--demo is compared with all that sounds in it: leave out --only, --ignore and --start")
    capture = CaptureConfig(block_ms=config.capture.block_ms) if demo else config.capture
    if any(getattr(config.capture, name) != getattr(capture, name) for name in ("channels", "mic", "mount", "yaw_deg")):
        say("the bundled recording is heard as it was made: settings of a microphone play no part")
    mic = profile_of_recording(capture.mic).turned(orientation(capture.mount, capture.yaw_deg))
    recordings, truth = [Path(file) for file in files], None
    if demo:
        from seldrt.models import model_path
        from seldrt.runtime import demo as demonstration

        recording, truth = demonstration.demo_files()
        recordings = [recording]
        if judged and config.pipeline.model:
            demonstration.check_model(model_path(config.pipeline.model))
        asked = config.publisher.control or config.publisher.curve_keys or config.publisher.levels
        if flags["bind"] is None and not (flags["no_publish"] or asked):
            flags["no_publish"] = True
            say("not published; with --bind tcp://127.0.0.1:5577 `seldrt listen` and `seldrt view` show it")

    pace = None if fast else speed or 1.0

    def opened(path: Path) -> Recording:
        return Recording(path, mic, pace, capture.block_ms, capture.channels, loop)

    with ExitStack() as stack:
        check_asked(recordings, start, config, flags)
        parts = playable(recordings, opened, start, skip_bad)
        if keeps_files(config, flags):
            check_apart(parts, config.publisher.source)
        publisher = prepare(config, flags, stack, recordings)
        listener = stack.enter_context(closing(Listener(config, flags, publisher)))
        if judged and truth is not None:
            source = stack.enter_context(closing(opened(*recordings)))
            sys.exit(0 if demonstrate(truth, listener, source) else 1)
        sys.exit(play(parts, opened, listener, left_out=len(recordings) - len(parts)))


class Part(NamedTuple):
    """A recording that can be played: how long it is and, where somebody asks, when it began (UNIX time)."""

    path: Path
    length_s: float
    begun_ns: int | None


def check_asked(recordings: Sequence[Path], start: str | None, config: DaemonConfig, flags: Flags) -> None:
    """`ConfigError` for files that several recordings cannot share, and times that nobody asks for."""
    from seldrt.runtime.origination import IN_FILE

    files = keeps_files(config, flags)
    if start is not None and not files:
        raise ConfigError(f"--start {start}: is for --csv, --jsonl and --clips; give one of them")
    if len(recordings) > 1:
        if flags["dcase"]:
            raise ConfigError(f"--dcase {flags['dcase']}: such a table is of one recording; replay them one by one")
        if start not in (None, IN_FILE):
            raise ConfigError(f"--start {start}: is of one recording; give --start file, or replay them one by one")
        if files and start is None and config.publisher.source:
            raise ConfigError(
                f"source {config.publisher.source}: the files could not tell the recordings apart; add --start file"
            )


def keeps_files(config: DaemonConfig, flags: Flags) -> bool:
    return bool(flags["csv"] or flags["jsonl"] or config.clips.dir)


def playable(
    recordings: Sequence[Path], opened: Callable[[Path], Recording], start: str | None, skip_bad: bool
) -> list[Part]:
    """What can be played and dated; what cannot is told, all of it at once.

    `CaptureError` of the last such recording, unless they shall be left out and others remain.
    """
    from seldrt.runtime.devices import CaptureError
    from seldrt.runtime.origination import start_ns

    parts: list[Part] = []
    refused: list[CaptureError] = []
    for path in recordings:
        try:
            with closing(opened(path)) as source:
                parts.append(Part(path, source.length_s, None if start is None else start_ns(start, path)))
        except CaptureError as error:
            refused.append(error)
    kept = skip_bad and parts
    for told in refused if kept else refused[:-1]:
        say(f"seldrt: {told}")
    if refused and not kept:
        raise refused[-1]
    return parts


def check_apart(parts: Sequence[Part], source: str) -> None:
    """`ConfigError` for recordings that files could not keep apart: by their source, or by time where they share it."""
    from seldrt.detection import safe_name

    if not source:
        names: dict[str, Path] = {}
        for path, _, _ in parts:
            other = names.setdefault(safe_name(path.stem), path)
            if other is not path:
                by_time = "add --start file --source NAME if one microphone made both"
                raise ConfigError(f"{other}, {path}: have one name in the files; rename one, or {by_time}")
        return
    in_order = sorted((part.begun_ns, part) for part in parts if part.begun_ns is not None)
    for (begun_ns, one), (next_ns, following) in pairwise(in_order):
        if begun_ns + max(one.length_s - OVERLAP_S, one.length_s / 2) * 1e9 > next_ns:
            both = f"{one.path}, {following.path}: of the same time, and one source"
            raise ConfigError(f"{both}; replay those of each microphone by themselves, with another --source")


def play(parts: Sequence[Part], opened: Callable[[Path], Recording], listener: Listener, left_out: int = 0) -> int:
    """The recordings one after the other, after some were left out; the exit code."""
    from seldrt.detection import safe_name
    from seldrt.runtime.devices import CaptureError

    damaged = left_out
    for number, (path, _, begun_ns) in enumerate(parts, 1):
        if len(parts) > 1:
            say(f"{number} of {len(parts)}: {path}")
        try:
            with closing(opened(path)) as source:
                listener.listen(source, safe_name(path.stem), begun_ns=begun_ns)
        except CaptureError as error:  # the others may be whole
            if len(parts) + left_out == 1:
                raise
            say(f"seldrt: {error}")
            damaged += 1
            continue
        whole, left = is_whole(source), len(parts) - number
        if source.stopped and left:
            say(f"stopped {'after' if whole else 'in'} {path}; {left} of {len(parts)} were not begun")
        if not whole or (source.stopped and left):
            return STOPPED
    if damaged:
        say(f"seldrt: {damaged} of {len(parts) + left_out} recordings were not heard to their end")
    return 2 if damaged else 0


def is_whole(source: Recording) -> bool:
    """Whether the recording was played to its end, if it has one; says so if not."""
    if not source.loops and source.played_s < source.length_s:
        say(f"stopped at {source.played_s:.1f} s of {source.length_s:.1f} s; outputs go as far as that")
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
    say(table.get().rstrip(), plain=False)
    say(f"heard, but not played: {demo.unexplained(played, found)}")
    good, line = demo.passed(verdicts)
    say(line)
    return good
