"""What people see: a line for each event, and the live table of `listen`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seldrt.client import Subscriber
from seldrt.detection import AnyMessage, Event, EventChange, Frame, Gap, Level, Source, Status, StreamInfo
from seldrt.runtime.sinks import Sink

if TYPE_CHECKING:
    from seldrt.runtime.web import Viewer

SILENT_S = 3.0  # without any message: something is wrong
REFRESH_S = 0.25


def event_text(phase: str, class_: str, heard: Source | Event, lasted_s: float) -> str:
    """What a line says of an event: at its offset, also how long it lasted."""
    lasted = f"  lasted {lasted_s:.1f} s" if phase == "offset" else ""
    return (
        f"{phase:<6}  {class_:<18}  az {heard.azimuth_deg:+5.0f}°  el {heard.elevation_deg:+4.0f}°"
        f"  confidence {heard.confidence:.2f}{lasted}"
    )


class EventLines(Sink):
    """A line at the onset and one at the offset of each event, with the time since the start of the stream."""

    def __init__(self, info: StreamInfo, write: Callable[[str], None]) -> None:
        self._info, self._write = info, write

    def event(self, change: EventChange) -> None:
        if change.phase == "update":
            return
        rate, source = self._info.sample_rate, change.source
        name = self._info.classes[source.class_id]
        text = event_text(change.phase, name, source, change.duration_samples / rate)
        self._write(f"{change.sample / rate:8.1f} s  {text}")

    def gap(self, sample: int, lost_samples: int) -> None:
        rate = self._info.sample_rate
        self._write(f"{sample / rate:8.1f} s  lost    {lost_samples / rate:.2f} s of sound")


def message_line(message: AnyMessage) -> str | None:
    """One line for a message that is news; None for frames, levels, updates and a status without trouble."""
    clock = time.strftime("%H:%M:%S", time.localtime(message.t_capture_ns / 1e9))
    if isinstance(message, Event) and message.phase != "update":
        text = event_text(message.phase, message.class_, message, message.duration_ms / 1000)
    elif isinstance(message, Gap):
        text = f"lost    {message.lost_samples} samples"
    elif isinstance(message, Status) and (message.degraded or message.state != "running"):
        text = f"{message.state}  {printable(message.why)}"
    else:
        return None
    return f"{clock}  {message.source}  {text}"


class LiveTable:
    """All that sounds now, of all daemons on the line or of one ``source``, and how they are."""

    def __init__(self, url: str, source: str = "") -> None:
        self._url, self._source = url, source
        self._frames: dict[str, Frame] = {}
        self._status: dict[str, Status] = {}
        self._levels: dict[str, Level] = {}
        self._began_s = time.monotonic()
        self._heard_s: dict[str, float] = {}  # the last of each daemon

    def add(self, message: AnyMessage) -> None:
        self._heard_s[message.source] = time.monotonic()
        if isinstance(message, Frame):
            self._frames[message.source] = message
        elif isinstance(message, Level):
            self._levels[message.source] = message
        elif isinstance(message, Status):
            self._status[message.source] = message
            if message.state != "running":
                self._frames.pop(message.source, None)

    def render(self, trouble: str = "") -> Table:
        """The table of now; ``trouble`` of the connection, see `Subscriber`."""
        now_s = time.monotonic()
        silent_s = {name: now_s - heard_s for name, heard_s in self._heard_s.items()}
        all_silent_s = min(silent_s.values(), default=now_s - self._began_s)
        caption = self._caption(silent_s) if all_silent_s < SILENT_S else _silent(all_silent_s, trouble, self._source)
        table = Table(title=f"seldrt {self._url}", caption=Text(caption), caption_justify="left")
        for heading in ("source", "class", "azimuth", "elevation", "confidence", "for"):
            table.add_column(heading, justify="left" if heading in ("source", "class") else "right")
        for name, frame in sorted(self._frames.items()):
            for found in frame.detections if silent_s[name] < SILENT_S else []:
                table.add_row(
                    name,
                    found.class_,
                    f"{found.azimuth_deg:+.0f}°",
                    f"{found.elevation_deg:+.0f}°",
                    f"{found.confidence:.2f}",
                    f"{(frame.t_capture_ns - found.onset_ns) / 1e9:.1f} s",
                )
        return table

    def _caption(self, silent_s: dict[str, float]) -> str:
        alive = {name for name, seconds in silent_s.items() if seconds < SILENT_S}
        lines = []
        for name, seconds in sorted(silent_s.items()):
            status = self._status.get(name)
            if name in alive:
                lines += [_health(status, self._frames.get(name))] if status else []
            elif status is None or status.state == "running":  # one that has ended is forgotten
                lines.append(f"{name}: {_silent(seconds, 'is it running?')}")
        lines += [f"{name}: {_loudness(level)}" for name, level in sorted(self._levels.items()) if name in alive]
        return "\n".join(lines) or "waiting for a status"


class Patience:
    """Says through ``tell`` that nothing comes from ``url``, of ``source``, and why; when that changes, and is over."""

    def __init__(self, url: str, tell: Callable[[str], None], source: str = "") -> None:
        self._url, self._tell, self._source = url, tell, source
        self._heard_s = self._since_s = time.monotonic()
        self._trouble = self._told = ""

    def turn(self, heard: bool, trouble: str) -> None:
        """A turn of waiting ends, with this ``trouble`` of the connection."""
        now_s = time.monotonic()
        if trouble != self._trouble:
            self._trouble, self._since_s = trouble, now_s
        if heard:
            if self._told:
                self._tell(f"{self._url} is heard")
            self._heard_s, self._told = now_s, ""
        elif now_s - self._heard_s >= SILENT_S:
            text = _silent(SILENT_S, trouble, self._source, f" from {self._url}")
            if text != self._told and (not self._told or now_s - self._since_s >= SILENT_S):  # else it may be passing
                self._tell(text)
                self._told = text


def show_table(subscriber: Subscriber, url: str, source: str = "") -> None:
    """The live table on stderr, for ever."""
    table = LiveTable(url, source)
    with Live(table.render(), console=Console(stderr=True), auto_refresh=False) as live:
        while True:
            message = subscriber.receive(REFRESH_S)
            if message is not None:
                table.add(message)
            live.update(table.render(subscriber.trouble), refresh=True)


def show_lines(subscriber: Subscriber, write: Callable[[str], None], patience: Patience) -> None:
    """One line for each message that is news, for ever; a trouble is news once, until it changes or goes."""
    states: dict[str, tuple[str, str]] = {}  # by source
    while True:
        message = subscriber.receive(REFRESH_S)
        patience.turn(message is not None, subscriber.trouble)
        if isinstance(message, Status):
            without_numbers = re.sub(r"\d", "", message.why)  # how long it lasts is no change
            before, states[message.source] = states.get(message.source), (message.state, without_numbers)
            if states[message.source] == before:
                continue
        line = None if message is None else message_line(message)
        if line is not None:
            write(line)


def show_json(subscriber: Subscriber, file: TextIO, patience: Patience) -> None:
    """Every message as one JSON line, for ever."""
    for _, line in json_messages(subscriber, patience):
        file.write(line.decode() + "\n")
        file.flush()


def show_page(subscriber: Subscriber, viewer: Viewer, patience: Patience) -> None:
    """Every message to all browsers that watch, for ever."""
    for plain, line in json_messages(subscriber, patience):
        viewer.show(line, keep=plain.get("phase") in ("onset", "offset"))


def json_messages(subscriber: Subscriber, patience: Patience) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every message with all its keys, also those that this version does not know, and as JSON; for ever."""
    while True:
        received = subscriber.receive_bytes(REFRESH_S)
        patience.turn(received is not None, subscriber.trouble)
        if received is None:
            continue
        try:
            plain = msgspec.msgpack.decode(received[1], type=dict[str, Any])
            line = msgspec.json.encode(plain)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
            continue  # not ours
        yield plain, line


def _silent(seconds: float, trouble: str, source: str = "", where: str = "") -> str:
    """What to say of so long a silence; where only one ``source`` is asked for, the name may be wrong."""
    which, named = (f" of --source {source}", ": is that its name?") if source else ("", "")
    why = f": {trouble}" if trouble else f", though it is connected{named}"
    return f"nothing heard{which}{where} for {seconds:.0f} s{why}"


def _health(status: Status, frame: Frame | None) -> str:
    latency = "-" if status.latency_p95_ms is None else f"{status.latency_p95_ms:.0f} ms"
    behind = "-" if frame is None else f"{(frame.t_pub_ns - frame.t_capture_ns) / 1e9 + frame.frame_ms / 2000:.1f} s"
    factor = "-" if status.real_time_factor is None else f"{status.real_time_factor:.2f}"
    return (
        f"{status.source}: {status.state} for {status.uptime_s:.0f} s, model {printable(status.model_id)}, "
        f"{behind} behind, {latency} of it computing (p95), real-time factor {factor}, "
        f"lost samples {status.lost_samples}" + (f"; {printable(status.why)}" if status.why else "")
    )


def _loudness(level: Level) -> str:
    peaks = zip("WYZX", level.peak_dbfs, strict=False)
    return "peaks " + "  ".join(f"{channel} {peak:.0f}" for channel, peak in peaks) + " dBFS"


def printable(text: str) -> str:
    """Text from others without what could command a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
