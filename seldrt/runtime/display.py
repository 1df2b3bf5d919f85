"""What people see: a line for each event, and the live table of `listen`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seldrt.client import Subscriber
from seldrt.connection import Connection
from seldrt.detection import ActiveSource, AnyMessage, Event, EventChange, Frame, Gap, Level, Status, StreamInfo
from seldrt.runtime.sinks import Sink

if TYPE_CHECKING:
    from seldrt.runtime.web import Viewer

SILENT_S = 3.0  # without any message: something is wrong
REFRESH_S = 0.25


def event_text(phase: str, class_: str, heard: ActiveSource | Event, lasted_s: float) -> str:
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
    """All that sounds now, of all daemons or of one ``source``, and how they are."""

    def __init__(self, connections: Sequence[Connection], source: str = "") -> None:
        self._connections, self._source = connections, source
        self._frames: dict[str, Frame] = {}
        self._status: dict[str, Status] = {}
        self._levels: dict[str, Level] = {}
        self._heard_s: dict[tuple[str, str], float] = {}  # by source and url

    def add(self, message: AnyMessage, url: str) -> None:
        self._heard_s[message.source, url] = time.monotonic()
        if isinstance(message, Frame):
            self._frames[message.source] = message
        elif isinstance(message, Level):
            self._levels[message.source] = message
        elif isinstance(message, Status):
            self._status[message.source] = message
            if message.state != "running":
                self._frames.pop(message.source, None)

    def render(self) -> Table:
        """The table of now."""
        now_s = time.monotonic()
        silent_s: dict[str, float] = {}
        for (name, _), heard_s in self._heard_s.items():
            silent_s[name] = min(now_s - heard_s, silent_s.get(name, math.inf))
        waits = [(connection, now_s - connection.heard_s) for connection in self._connections]
        caption = [_silence(connection, wait_s, self._source) for connection, wait_s in waits if wait_s >= SILENT_S]
        caption += self._health(silent_s) + _namesakes(self._heard_s, now_s)
        table = Table(
            title=f"seldrt {', '.join(connection.url for connection in self._connections)}",
            caption=Text("\n".join(caption) or "waiting for a status"),
            caption_justify="left",
        )
        for heading in ("source", "class", "azimuth", "elevation", "spread", "confidence", "for"):
            table.add_column(heading, justify="left" if heading in ("source", "class") else "right")
        for name, frame in sorted(self._frames.items()):
            for found in frame.detections if silent_s[name] < SILENT_S else []:
                table.add_row(
                    name,
                    found.class_,
                    f"{found.azimuth_deg:+.0f}°",
                    f"{found.elevation_deg:+.0f}°",
                    "-" if found.spread_deg is None else f"{found.spread_deg:.0f}°",
                    f"{found.confidence:.2f}",
                    f"{(frame.t_capture_ns - found.onset_ns) / 1e9:.1f} s",
                )
        return table

    def _health(self, silent_s: dict[str, float]) -> list[str]:
        alive = {name for name, seconds in silent_s.items() if seconds < SILENT_S}
        lines = []
        for name, seconds in sorted(silent_s.items()) if alive else []:
            status = self._status.get(name)
            if name in alive:
                lines += [_health(status, self._frames.get(name))] if status else []
            elif status is None or status.state == "running":  # one that has ended is forgotten
                lines.append(f"{name}: nothing heard for {seconds:.0f} s: is it running?")
        return lines + [f"{name}: {_loudness(level)}" for name, level in sorted(self._levels.items()) if name in alive]


class Patience:
    """Says through ``tell`` where nothing comes from, and why, when that changes, and is over.

    Of one ``source`` and its ``classes`` only, where they are asked for. Also when daemons are called alike.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        tell: Callable[[str], None],
        source: str = "",
        classes: Sequence[str] = (),
    ) -> None:
        self._tell, self._source, self._classes = tell, source, classes
        self._unheard_of = ""
        self._silences = [_Silence(connection) for connection in connections]
        self._heard_s: dict[tuple[str, str], float] = {}  # by source and url
        self._alike: list[str] = []

    def turn(self, source: str = "", url: str = "", reported: Sequence[str] = ()) -> None:
        """A turn of waiting ends, in which a message of that ``source`` came from ``url``, or none.

        ``reported`` are the classes that there may be, if it said so.
        """
        now_s = time.monotonic()
        self._heard_s = {key: at_s for key, at_s in self._heard_s.items() if now_s - at_s < SILENT_S}
        if source:
            self._heard_s[source, url] = now_s
        for silence in self._silences:
            if news := silence.news(now_s, self._source):
                self._tell(news)
        before, self._alike = self._alike, _namesakes(self._heard_s, now_s)
        for news in set(self._alike) - set(before):
            self._tell(news)
        if reported:
            unheard_of = ", ".join(name for name in self._classes if name not in reported)
            if unheard_of != self._unheard_of and unheard_of:
                self._tell(printable(f"{source} reports no {unheard_of}, but {', '.join(reported)}"))
            self._unheard_of = unheard_of


class _Silence:
    """How long nothing has come through a connection, and what was said of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._since_s, self._trouble, self._told = connection.heard_s, connection.trouble, ""

    def news(self, now_s: float, source: str) -> str:
        """What is to be told now."""
        url, trouble = self._connection.url, self._connection.trouble
        if trouble != self._trouble:
            self._trouble, self._since_s = trouble, now_s
        if now_s - self._connection.heard_s < SILENT_S:
            told, self._told = self._told, ""
            return f"{url} is heard" if told else ""
        text = _silence(self._connection, SILENT_S, source)
        if text == self._told or (self._told and now_s - self._since_s < SILENT_S):  # it may be passing
            return ""
        self._told = text
        return text


def show_table(subscriber: Subscriber, source: str = "") -> None:
    """The live table on stderr, for ever."""
    table = LiveTable(subscriber.connections, source)
    with Live(table.render(), console=Console(stderr=True), auto_refresh=False) as live:
        while True:
            message = subscriber.receive(REFRESH_S)
            if message is not None:
                table.add(message, subscriber.url)
            live.update(table.render(), refresh=True)


def show_lines(subscriber: Subscriber, write: Callable[[str], None], patience: Patience) -> None:
    """One line for each message that is news, for ever; a trouble is news once, until it changes or goes."""
    states: dict[str, tuple[str, str]] = {}  # by source
    while True:
        message = subscriber.receive(REFRESH_S)
        reported = message.classes if isinstance(message, Status) else ()
        patience.turn(message.source if message else "", subscriber.url, reported)
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
        plain: dict[str, Any] = {}
        line, reported = b"", list[str]()
        with suppress(msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # not ours
            if received:
                plain = msgspec.msgpack.decode(received[1], type=dict[str, Any])
                line = msgspec.json.encode(plain)
                reported = [str(name) for name in plain.get("classes", ())]
        patience.turn(str(plain.get("source", "")), subscriber.url, reported)
        if line:
            yield plain, line


def _silence(connection: Connection, seconds: float, source: str) -> str:
    """What to say of so long a silence; where only one ``source`` is asked for, the name may be wrong."""
    which, named = (f" of --source {source}", ": is that its name?") if source else ("", "")
    why = f": {connection.trouble}" if connection.trouble else f", though it is connected{named}"
    return f"nothing heard{which} from {connection.url} for {seconds:.0f} s{why}"


def _namesakes(heard_s: Mapping[tuple[str, str], float], now_s: float) -> list[str]:
    """What to say of daemons with the same name, from when each (source, url) was heard."""
    urls: dict[str, list[str]] = {}
    for (source, url), at_s in heard_s.items():
        if now_s - at_s < SILENT_S:
            urls.setdefault(source, []).append(url)
    return [
        f"{' and '.join(sorted(each))} are both called {printable(source)}: start one with another --source"
        for source, each in sorted(urls.items())
        if len(each) > 1
    ]


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
