"""What people see of messages, also of those that mean no good."""

from __future__ import annotations

import io
import re
import time
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from rich.console import Console

from seldrt.client import Subscriber
from seldrt.detection import AnyMessage, Detection, Event, Frame, Gap, Level, Status
from seldrt.runtime.display import LiveTable, message_line, show_json, show_lines
from seldrt.runtime.patience import Patience


def status(why: str) -> Status:
    figures = dict.fromkeys(("real_time_factor", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms"))
    counts = dict.fromkeys(("uptime_s", "overruns", "lost_samples"), 0)
    what = {"source": "h3", "t_capture_ns": 1, "sample": 0, "state": "running", "model_id": "m[/x]\x1b[2J"}
    return Status(**what, **figures, **counts, degraded=True, why=why)  # type: ignore[arg-type]


def test_text_from_the_network_commands_neither_the_terminal_nor_the_table() -> None:
    hostile = status("[/red] [bold]\x1b]0;title\x07\nnext line")
    line = message_line(hostile)
    assert line is not None
    table, screen = LiveTable([]), io.StringIO()
    table.add(hostile, "ipc://x")
    Console(file=screen, width=400).print(table.render())
    for text in (line, " ".join(screen.getvalue().split())):
        assert "[/red] [bold]?]0;title??next line" in text
        assert not set(text) & {"\x1b", "\x07", "\n"}


def test_a_direction_just_right_of_the_front_is_plus_zero() -> None:
    onset = Event(
        source="h3", t_capture_ns=1, sample=0, event_id=0, phase="onset", duration_ms=0, class_="piano", class_id=0,
        track=0, azimuth_deg=-0.3, elevation_deg=-0.4, confidence=0.9, onset_ns=1,
    )  # fmt: skip
    assert "piano               az    +0°  el   +0°  confidence 0.90" in str(message_line(onset))


def test_the_lines_of_a_loss_of_an_end_and_of_what_is_over() -> None:
    def told(message: AnyMessage) -> str | None:
        line = message_line(message)
        return line and line.partition("  ")[2]

    event = Event(
        source="h3", t_capture_ns=1, sample=0, event_id=0, phase="offset", duration_ms=1500, class_="piano", class_id=0,
        track=0, azimuth_deg=90.0, elevation_deg=5.0, confidence=0.9, onset_ns=1,
    )  # fmt: skip
    made = msgspec.structs.replace(event, t_capture_ns=1_780_315_200_000_000_000)  # and not now
    assert str(message_line(made)).startswith(time.strftime("%H:%M:%S  h3  ", time.localtime(1_780_315_200)))
    piano = "piano               az   +90°  el   +5°  confidence 0.90"
    assert told(event) == f"h3  offset  {piano}  lasted 1.5 s"
    assert told(msgspec.structs.replace(event, phase="onset")) == f"h3  onset   {piano}"
    assert told(msgspec.structs.replace(event, phase="update")) is None
    assert told(Gap(source="h3", t_capture_ns=1, sample=0, lost_samples=240)) == "h3  lost    240 samples"
    well = msgspec.structs.replace(status(""), degraded=False)
    assert told(well) is None
    assert told(msgspec.structs.replace(well, state="ended", why="SIGTERM")) == "h3  ended  SIGTERM"


def test_a_trouble_that_lasts_is_one_line_until_it_comes_back() -> None:
    well = msgspec.structs.replace(status(""), degraded=False)
    script = iter([status("3 s deaf"), None, status("4 s deaf"), status("blind"), well, status("blind")])
    subscriber, lines = SimpleNamespace(receive=lambda _: next(script), url="ipc://x"), list[str]()
    with pytest.raises(StopIteration):
        show_lines(cast(Subscriber, subscriber), lines.append, Patience([], lines.append))
    assert [line.split()[-1] for line in lines] == ["deaf", "blind", "blind"]


def test_an_end_is_told_though_nothing_is_wrong() -> None:
    well = msgspec.structs.replace(status(""), degraded=False)
    script = iter([well, well, msgspec.structs.replace(well, state="ended")])
    subscriber, lines = SimpleNamespace(receive=lambda _: next(script), url="ipc://x"), list[str]()
    with pytest.raises(StopIteration):
        show_lines(cast(Subscriber, subscriber), lines.append, Patience([], lines.append))
    assert [line.split()[2] for line in lines] == ["ended"]


@pytest.mark.parametrize(("terminal", "shown"), [(True, "?2J"), (False, "\x9b2J")])
def test_json_commands_no_terminal_and_goes_into_files_as_it_is(terminal: bool, shown: str) -> None:
    """JSON escapes some control characters, and not the one that begins a command in a single byte."""
    frame = {"v": 1, "type": "frame", "source": "h3", "seq": 0, "epoch": 1, "t_capture_ns": 1, "t_pub_ns": 1}
    frame |= {"sample": 0, "frame_ms": 100, "detections": [], "unknown": "\x9b2J"}
    script = iter([(b"seld1.frame.h3.", msgspec.msgpack.encode(frame))])
    subscriber = SimpleNamespace(receive_bytes=lambda _: next(script), url="ipc://x")
    file = io.StringIO()
    file.isatty = lambda: terminal  # type: ignore[method-assign]
    with pytest.raises(StopIteration):
        show_json(cast(Subscriber, subscriber), file, Patience([], print))
    assert msgspec.json.decode(file.getvalue())["unknown"] == shown


def test_of_two_of_one_name_the_one_that_is_heard_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    place = {"track": 0, "azimuth_deg": 0.0, "elevation_deg": 0.0, "confidence": 0.5, "onset_ns": 1}
    found = Detection(class_="piano", class_id=13, **place)  # type: ignore[arg-type]
    frame = Frame(source="h3", t_capture_ns=1, sample=0, frame_ms=100, detections=[found])
    table = LiveTable([])
    table.add(frame, "ipc://gate")
    table.add(frame, "ipc://roof")
    now_s += 10
    assert table.render().row_count == 0
    table.add(frame, "ipc://gate")
    assert table.render().row_count == 1


def test_levels_stand_below_the_table_while_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    table, screen = LiveTable([]), io.StringIO()
    peaks = [-1.0, -20.4, -30.0, -120.0]
    table.add(Level(source="h3", t_capture_ns=1, sample=0, level_ms=100, rms_dbfs=peaks, peak_dbfs=peaks), "ipc://x")
    Console(file=screen, width=400).print(table.render())
    assert "h3: peaks W -1  Y -20  Z -30  X -120 dBFS" in screen.getvalue()
    now_s += 10  # another daemon is heard, this one is not
    table.add(msgspec.structs.replace(status(""), source="roof"), "ipc://y")
    Console(file=(later := io.StringIO()), width=400).print(table.render())
    assert "roof: running" in later.getvalue()
    assert "peaks" not in later.getvalue()


def test_the_table_has_room_for_so_much_of_one_daemon() -> None:
    place = {"track": 0, "azimuth_deg": 0.0, "elevation_deg": 0.0, "confidence": 0.5, "onset_ns": 1}
    found = [Detection(class_="piano", class_id=number, **place) for number in range(150)]  # type: ignore[arg-type]
    table = LiveTable([])
    table.add(Frame(source="h3", t_capture_ns=1, sample=0, frame_ms=100, detections=found), "ipc://x")
    assert table.render().row_count == 100
    for number in range(150):
        table.add(msgspec.structs.replace(status(""), source=f"s{number}"), "ipc://x")
    table.add(msgspec.structs.replace(status(""), source="other"), "ipc://y")
    screen = io.StringIO()
    Console(file=screen, width=400).print(table.render())
    told = re.findall(r"(\w+): running for", screen.getvalue())
    assert sorted(told) == sorted([*(f"s{number}" for number in range(99)), "other"])
