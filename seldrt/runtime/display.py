"""What people see of what daemons tell: lines, the live table of `listen`, the page."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TextIO

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seldrt.client import Subscriber, forget_oldest
from seldrt.config import printable
from seldrt.connection import Connection
from seldrt.detection import AnyMessage, Event, Frame, Gap, Level, Status, WireError, decode
from seldrt.runtime.patience import (
    LATE_S,
    MOST_NAMES,
    SILENT_S,
    Delay,
    Patience,
    lateness,
    namesakes,
    silence,
    unreported,
)
from seldrt.runtime.sinks import event_text

if TYPE_CHECKING:
    from seldrt.runtime.web import Viewer

REFRESH_S = 0.25
DRAWN_S = 0.1  # between two drawings of the table
MOST_ROWS, MOST_LETTERS, MOST_BYTES = 100, 1000, 1 << 16  # only who means no good has more to show


def message_line(message: AnyMessage) -> str | None:
    """One line for a message that is news; None for frames, levels, updates and a status without trouble."""
    clock = time.strftime("%H:%M:%S", time.localtime(message.t_capture_ns / 1e9))
    if isinstance(message, Event) and message.phase != "update":
        text = event_text(message.phase, message.class_, message, message.duration_ms / 1000)
    elif isinstance(message, Gap):
        text = f"lost    {message.lost_samples} samples"
    elif isinstance(message, Status) and (message.degraded or message.state != "running"):
        text = f"{message.state}  {_text(message.why)}"
    else:
        return None
    return f"{clock}  {message.source}  {text}"


class LiveTable:
    """All that sounds now, of all daemons or of one ``source`` and its ``classes``, and how they are."""

    def __init__(self, connections: Sequence[Connection], source: str = "", classes: Sequence[str] = ()) -> None:
        self._connections, self._source, self._classes = connections, source, classes
        self._frames: dict[str, Frame] = {}
        self._status: dict[str, Status] = {}
        self._levels: dict[str, Level] = {}
        self._heard_s: dict[tuple[str, str], float] = {}  # by source and url
        self._delays, self._late_s = defaultdict[str, Delay](Delay), dict[str, float]()  # by url

    def add(self, message: AnyMessage, url: str) -> None:
        names = [name for name, at in self._heard_s if at == url]
        if message.source not in names and len(names) >= MOST_NAMES:
            return
        self._heard_s[message.source, url] = time.monotonic()
        self._late_s[url] = self._delays[url].of(message)
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
        waits = [(connection, connection.silent_s()) for connection in self._connections]
        caption = [silence(connection, wait_s, self._source) for connection, wait_s in waits if wait_s >= SILENT_S]
        caption += [lateness(url) for url, late_s in self._late_s.items() if late_s > LATE_S]
        caption += self._health(silent_s) + namesakes(self._heard_s, now_s)
        caption += filter(None, (unreported(name, self._classes, s.classes) for name, s in self._status.items()))
        table = Table(
            title=f"seldrt {', '.join(connection.url for connection in self._connections)}",
            caption=Text("\n".join(caption) or "waiting for a status"),
            caption_justify="left",
        )
        for heading in ("source", "class", "azimuth", "elevation", "spread", "confidence", "for"):
            table.add_column(heading, justify="left" if heading in ("source", "class") else "right")
        sounding = (
            (name, frame, found)
            for name, frame in sorted(self._frames.items())
            for found in (frame.detections if silent_s[name] < SILENT_S else [])
            if not self._classes or found.class_ in self._classes
        )
        for name, frame, found in islice(sounding, MOST_ROWS):
            table.add_row(
                name,
                found.class_,
                f"{found.azimuth_deg:+z.0f}°",
                f"{found.elevation_deg:+z.0f}°",
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


def show_table(subscriber: Subscriber, source: str = "", classes: Sequence[str] = ()) -> None:
    """The live table on stderr, for ever."""
    table = LiveTable(subscriber.connections, source, classes)
    with Live(table.render(), console=Console(stderr=True), auto_refresh=False) as live:
        drawn_s = time.monotonic()
        while True:
            message = subscriber.receive(REFRESH_S)
            if message is not None:
                table.add(message, subscriber.url)
            if time.monotonic() - drawn_s >= DRAWN_S:
                live.update(table.render(), refresh=True)
                drawn_s = time.monotonic()


def show_lines(subscriber: Subscriber, write: Callable[[str], None], patience: Patience) -> None:
    """One line for each message that is news, for ever; a trouble is news once, until it changes or goes."""
    states: dict[str, tuple[str, str]] = {}  # by source
    while True:
        message = subscriber.receive(REFRESH_S)
        patience.turn(message, subscriber.url)
        if isinstance(message, Status):
            forget_oldest(states)
            without_numbers = re.sub(r"\d", "", _text(message.why))  # how long it lasts is no change
            before, states[message.source] = states.get(message.source), (message.state, without_numbers)
            if states[message.source] == before:
                continue
        line = None if message is None else message_line(message)
        if line is not None:
            write(line)


def show_json(subscriber: Subscriber, file: TextIO, patience: Patience) -> None:
    """Every message as one JSON line with all its keys, also those that this version does not know, for ever."""
    while True:
        received = subscriber.receive_bytes(REFRESH_S)
        message, line = None, ""
        try:
            if received:
                message = decode(*received)
                line = msgspec.json.encode(msgspec.msgpack.decode(received[1], type=dict)).decode()
        except (WireError, msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # not ours
            message, line = None, ""
        patience.turn(message, subscriber.url)
        if line:
            file.write((printable(line) if file.isatty() else line) + "\n")
            file.flush()


def show_page(subscriber: Subscriber, viewer: Viewer, patience: Patience) -> None:
    """Every message to all browsers that watch, for ever."""
    while True:
        message = subscriber.receive(REFRESH_S)
        patience.turn(message, subscriber.url)
        if message and len(line := msgspec.json.encode(message)) <= MOST_BYTES:
            viewer.show(line, keep=isinstance(message, Event) and message.phase != "update")


def _text(text: str) -> str:
    return printable(text)[:MOST_LETTERS]


def _health(status: Status, frame: Frame | None) -> str:
    latency = "-" if status.latency_p95_ms is None else f"{status.latency_p95_ms:.0f} ms"
    behind = "-" if frame is None else f"{(frame.t_pub_ns - frame.t_capture_ns) / 1e9 + frame.frame_ms / 2000:.1f} s"
    factor = "-" if status.real_time_factor is None else f"{status.real_time_factor:.2f}"
    return (
        f"{status.source}: {status.state} for {status.uptime_s:.0f} s, model {_text(status.model_id)}, "
        f"{behind} behind, {latency} of it computing (p95), real-time factor {factor}, "
        f"lost samples {status.lost_samples}" + (f"; {_text(status.why)}" if status.why else "")
    )


def _loudness(level: Level) -> str:
    peaks = zip("WYZX", level.peak_dbfs, strict=False)
    return "peaks " + "  ".join(f"{channel} {peak:.0f}" for channel, peak in peaks) + " dBFS"
