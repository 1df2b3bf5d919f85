"""The commands: seldrt run | replay | listen | devices | info.

A flag beats an environment variable (SELDRT_...), which beats the TOML file of --config, which beats the default.
Lines for people go to stderr; what a program may want to read goes to stdout. A mistake of the user is one line and
exit code 2. Every heavy import stands inside its command, so that --help is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from seldrt import __version__
from seldrt.config import ConfigError, DaemonConfig, PublisherConfig, SeldrtError, load_toml, override

if TYPE_CHECKING:
    from seldrt.detection import StreamInfo
    from seldrt.runtime.capture import Source
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.sinks import Sink

Command = Callable[..., Any]
Flags = dict[str, Any]


def say(line: str) -> None:
    """A line for people."""
    click.echo(line, err=True)


def main() -> None:
    """Runs the command line; the exit code is 2 for a mistake, told in one line."""
    code: int | None
    try:
        code = cli.main(standalone_mode=False)
    except (click.ClickException, SeldrtError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        say("seldrt: " + " ".join(text.splitlines()))
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:  # the reader of stdout has gone: nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(invoke_without_command=True, context_settings=HELP)
@click.version_option(__version__, prog_name="seldrt")
@click.pass_context
def cli(context: click.Context) -> None:
    """What sounds, where from, and when: from a 4-channel microphone, as it happens."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def setting(*names: str, env: str, meaning: str, **more: Any) -> Callable[[Command], Command]:
    """A flag that an environment variable can also give; None leaves it to the file, or to its default."""
    return click.option(*names, envvar=f"SELDRT_{env}", show_envvar=True, help=meaning, **more)


COMPUTE = click.Choice(["cpu", "cuda", "mps"])

model_option = setting("--model", env="MODEL", metavar="PATH", meaning="A file, or a name that ships.")
chain_options = options(
    setting("--config", env="CONFIG", metavar="FILE", meaning="Settings in TOML, see configs/seldrt.toml."),
    model_option,
    setting("--compute", env="COMPUTE", type=COMPUTE, meaning="Where the networks compute."),
    setting("--mic", env="MIC", metavar="PROFILE", meaning="What the channels are: ambix, fuma, n3d, ..."),
    setting("--block-ms", env="BLOCK_MS", type=click.IntRange(1, 10_000), meaning="Sound per turn, in ms."),
    setting("--threads", env="THREADS", type=click.IntRange(1, 1024), meaning="Threads of the networks."),
    setting("--bind", env="BIND", metavar="URL", meaning="Publish at tcp://HOST:PORT or ipc://PATH."),
    setting("--source", env="SOURCE", metavar="NAME", meaning="Name of this microphone in the topics."),
    click.option("--insecure-bind", is_flag=True, help="Allow an address that the network can reach."),
    click.option("--no-publish", is_flag=True, help="No messages over ZeroMQ."),
    click.option("--dcase", metavar="OUT.csv", help="Write a DCASE table when the stream ends."),
    click.option("--jsonl", metavar="OUT.jsonl", help="Write JSON lines as they come; - is stdout."),
    click.option("--quiet", is_flag=True, help="No line for each event."),
)


@cli.command()
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


@cli.command()
@click.argument("file", required=False, metavar="FILE")
@click.option("--demo", is_flag=True, help="The bundled recording, compared with its truth.")
@click.option("--fast", is_flag=True, help="As fast as the computer goes.")
@click.option("--speed", type=click.FloatRange(0.01, 1000), metavar="X", help="X times real time.")
@chain_options
def replay(file: str | None, demo: bool, fast: bool, speed: float | None, **flags: Any) -> None:
    """Listen to a 4-channel recording, as if it came from a microphone now."""
    from seldrt.detection import safe_name
    from seldrt.microphones import profile
    from seldrt.runtime.capture import Recording

    if demo == bool(file):
        raise ConfigError("what to replay? give a recording, or --demo")
    if fast and speed:
        raise ConfigError("--fast and --speed exclude each other")
    config = settings(flags)
    mic = profile(config.capture.mic)
    with ExitStack() as stack:
        recording, truth = Path(str(file)), None
        if demo:
            from seldrt.runtime.demo import demo_files

            recording, truth = demo_files()
            flags["no_publish"] |= flags["bind"] is None
        source = Recording(recording, mic, None if fast else speed or 1.0, config.capture.block_ms)
        stack.enter_context(closing(source))
        publisher = prepare(config.publisher, flags, stack, recording)
        if truth is None:
            serve(config, flags, source, safe_name(recording.stem), publisher, stack)
        elif not demonstrate(truth, config, flags, source, publisher, stack):
            sys.exit(1)


@cli.command()
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


@cli.command()
def devices() -> None:
    """List the sound devices that can record."""
    from seldrt.microphones import CHANNELS
    from seldrt.runtime.devices import list_inputs

    for device in list_inputs():
        figures = f"{device.channels} channels, {device.rate} Hz"
        note = "" if device.channels >= CHANNELS else f"   (needs {CHANNELS} channels)"
        click.echo(f"{device.number:3d}  {device.name}, {device.host}: {figures}{note}")


@cli.command()
@model_option
def info(model: str | None) -> None:
    """Say what a model is, and what each stage of the chain waits for."""
    from seldrt.pipeline import load_pipeline

    pipeline = load_pipeline(model)
    for line in card_lines(pipeline.model_card):
        click.echo(line)
    click.echo(f"sample_rate: {pipeline.sample_rate} Hz\nwaits for:")
    for line in latency_lines(pipeline.latency_table):
        click.echo(line)


def settings(flags: Flags) -> DaemonConfig:
    """The file, if one is named, with the flags over it."""
    config = load_toml(flags["config"], DaemonConfig) if flags["config"] else DaemonConfig()
    publisher = override(
        config.publisher,
        bind=flags["bind"],
        insecure_bind=flags["insecure_bind"] or None,
        source=flags["source"],
    )
    pipeline = override(config.pipeline, model=flags["model"], device=flags["compute"], threads=flags["threads"])
    capture = override(config.capture, mic=flags["mic"], block_ms=flags["block_ms"])
    return replace(config, capture=capture, pipeline=pipeline, publisher=publisher)


def prepare(config: PublisherConfig, flags: Flags, stack: ExitStack, recording: Path | None = None) -> Publisher | None:
    """All that can be refused before the model is loaded: names, outputs, the address."""
    from seldrt.detection import check_name
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.sinks import check_outputs

    if config.source:
        check_name(config.source, "source name")
    check_outputs(flags["dcase"], flags["jsonl"], recording)
    if flags["no_publish"]:
        return None
    return stack.enter_context(closing(Publisher(config.bind, config.insecure_bind)))


def serve(
    config: DaemonConfig,
    flags: Flags,
    source: Source,
    default_name: str,
    publisher: Publisher | None,
    stack: ExitStack,
    more_sinks: Sequence[Sink] = (),
) -> StreamInfo:
    """Loads the model and listens until the source ends or a signal comes; the stack closes what is opened."""
    from seldrt.runtime.daemon import Daemon, stop_on_signals, stream_info
    from seldrt.runtime.display import EventLines
    from seldrt.runtime.sinks import DcaseCsv, JsonLines

    stack.enter_context(stop_on_signals(source.stop))
    from seldrt.pipeline import load_pipeline

    wanted = config.pipeline
    pipeline = load_pipeline(wanted.model or None, config.postprocess, wanted.device, wanted.threads)
    stream = stream_info(pipeline, config.publisher.source or default_name)
    sinks = list(more_sinks)
    if flags["jsonl"]:
        sinks.append(stack.enter_context(closing(JsonLines(flags["jsonl"], stream))))
    if flags["dcase"]:
        sinks.append(stack.enter_context(closing(DcaseCsv(flags["dcase"], stream.samples_per_label))))
    if not flags["quiet"]:
        sinks.append(EventLines(stream, say))
    say(f"model {pipeline.model_id}; waits for:")
    for line in latency_lines(pipeline.latency_table):
        say(line)
    if publisher is not None:
        say(f"publishing {stream.source} at {publisher.endpoint}")
    summary = Daemon(pipeline, source, stream, sinks, publisher).run()
    say(
        f"{summary.heard_s:.1f} s heard, {summary.computed_s:.1f} s computed, {summary.frames} label frames, "
        f"{summary.events} events, {summary.lost_samples} samples lost"
    )
    return stream


def demonstrate(
    truth: Path,
    config: DaemonConfig,
    flags: Flags,
    source: Source,
    publisher: Publisher | None,
    stack: ExitStack,
) -> bool:
    """Replays the bundled recording and compares with its truth; whether enough was heard where it was."""
    from rich.console import Console

    from seldrt.runtime import demo

    heard = demo.Heard()
    stream = serve(config, flags, source, "demo", publisher, stack, [heard])
    played, found = demo.spans(demo.read_table(truth)), demo.spans(heard.rows)
    verdicts = demo.compare(played, found)
    Console(stderr=True).print(demo.verdict_table(verdicts, stream.classes))
    say(f"heard besides, but not played: {demo.unexplained(played, found)}")
    good, line = demo.passed(verdicts)
    say(line)
    return good


def card_lines(card: dict[str, Any], indent: str = "") -> list[str]:
    """A model card as indented lines: what has parts comes last."""
    lines = []
    for key, value in sorted(card.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *card_lines(value, indent + "  ")]
        else:
            texts = [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]
            lines.append(f"{indent}{key}: {', '.join(texts)}")
    return lines


def latency_lines(table: Sequence[tuple[str, float]]) -> list[str]:
    """What each stage waits for, and the sum."""
    rows = [*table, ("together", sum(ms for _, ms in table))]
    return [f"  {stage:<24}{ms:8.1f} ms" for stage, ms in rows]


@contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT and SIGTERM end what stands inside, and that is a good end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
