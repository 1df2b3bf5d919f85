"""What `run` and `replay` share: the options, the settings they make, and listening with them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from seldrt.cli.info import latency_lines, model_option
from seldrt.cli.shell import options, say, setting
from seldrt.config import DaemonConfig, PublisherConfig, load_toml, override

if TYPE_CHECKING:
    from seldrt.detection import StreamInfo
    from seldrt.runtime.capture import Source
    from seldrt.runtime.publisher import Publisher
    from seldrt.runtime.sinks import Sink

Flags = dict[str, Any]

COMPUTE = click.Choice(["cpu", "cuda", "mps"])
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
