"""The daemon as a whole: what it says, what it does with losses and failures, and how it ends."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgpack
import numpy as np
import pytest
import soundfile
import zmq
from msgspec.structs import replace

from seldrt.config import CaptureConfig
from seldrt.detection import Clock
from seldrt.findings import ActiveSource, EventChange, LabelFrame
from seldrt.microphones import profile
from seldrt.runtime.background import BackgroundWorker, LineWriter
from seldrt.runtime.capture import Block
from seldrt.runtime.clock import ClockWatch
from seldrt.runtime.daemon import Daemon, stream_info
from seldrt.runtime.health import Health
from seldrt.runtime.microphone import Microphone
from seldrt.runtime.outputs import OutputError, TextFile, check_outputs
from seldrt.runtime.publisher import Publisher
from seldrt.runtime.recording import Recording
from seldrt.runtime.sinks import DcaseCsv, EventLines, EventTable, MessageSink, Sink
from seldrt.signals import SAME_WISH_S
from tests.disk import full_disk, hold_files
from tests.processes import ROOT, SMALL, endpoint_of, says, start
from tests.seldrt import fake_sounddevice
from tests.seldrt.energy_pipeline import LABEL, SAMPLE_RATE, EnergyPipeline, noise, two_pianos

WAIT_MS = 20_000


class Collected(Sink):
    def __init__(self) -> None:
        self.frames: list[LabelFrame] = []
        self.changes: list[EventChange] = []
        self.gaps: list[tuple[int, int]] = []
        self.finished = False

    def frame(self, frame: LabelFrame) -> None:
        self.frames.append(frame)

    def event(self, change: EventChange) -> None:
        self.changes.append(change)

    def gap(self, sample: int, lost_samples: int) -> None:
        self.gaps.append((sample, lost_samples))

    def finish(self) -> None:
        self.finished = True


class Script:
    """A source that gives these blocks."""

    overruns, waits = 0, False
    seeking = False

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        yield from self._blocks

    def complaints(self) -> dict[str, str]:
        return {}

    def clock(self) -> Clock:
        return Clock(1_700_000_000_000_000_000, SAMPLE_RATE)

    def arrived_ns(self, sample: int) -> int:
        return time.time_ns() - 5_000_000

    def stop(self) -> None:
        self._blocks = []


def listen(source: Any, model: str | None = None, publisher: Publisher | None = None) -> Collected:
    collected, pipeline = Collected(), EnergyPipeline(model)
    Daemon(pipeline, source, stream_info(pipeline, "h3"), [collected], publisher).run()
    return collected


def blocks_of(x: np.ndarray, size: int = 480, first: int = 0) -> list[Block]:
    return [Block(first + i, x[i : i + size]) for i in range(0, len(x), size)]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "garden.wav"
    soundfile.write(path, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    return path


def test_no_sample_goes_unheard() -> None:
    collected = listen(Script(blocks_of(noise(0.55, 90, 0))))
    assert [frame.sample for frame in collected.frames] == [i * LABEL for i in range(6)]
    assert all(frame.sources for frame in collected.frames)
    assert [c.phase for c in collected.changes] == ["onset", "update", "offset"]
    assert collected.finished


def test_nothing_in_nothing_out() -> None:
    collected = listen(Script([Block(0, np.zeros((0, 4), np.float32))]))
    assert not collected.frames
    assert collected.finished


@pytest.mark.parametrize("cut", [4800, 5000])
@pytest.mark.parametrize("lost", [1, 100, 2400, 30_011])
def test_a_loss_is_told_and_what_follows_keeps_its_index(cut: int, lost: int) -> None:
    before, after = noise(cut / SAMPLE_RATE, 90, 0), noise(1.0, -90, 0)
    collected = listen(Script(blocks_of(before) + blocks_of(after, first=cut + lost)))
    resumed = -(-(cut + lost) // LABEL) * LABEL
    assert collected.gaps == [(cut, resumed - cut)]
    last = -(-(cut + lost + len(after)) // LABEL)
    heard = [i * LABEL for i in range(-(-cut // LABEL))] + list(range(resumed, last * LABEL, LABEL))
    assert [frame.sample for frame in collected.frames] == heard
    assert [frame.index * LABEL for frame in collected.frames] == heard
    for frame in collected.frames[:-1]:  # nothing of one side leaks into the other
        assert [round(s.azimuth_deg) for s in frame.sources] == [90 if frame.sample < cut else -90]
    assert [(c.event_id, c.phase) for c in collected.changes if c.phase != "update"] == [
        (0, "onset"),
        (0, "offset"),
        (1, "onset"),
        (1, "offset"),
    ]
    assert collected.changes[-1].source.onset_sample == resumed


def test_a_stream_that_breaks_off_ends_at_once_and_another_follows() -> None:
    """What the pipeline still holds is said when the device goes, not when it comes back."""
    before, after = noise(0.55, 90, 0), noise(0.5, -90, 0)
    away = 5 * SAMPLE_RATE + 17
    said: list[tuple[int, str]] = []

    def blocks() -> Iterator[Block]:
        yield from blocks_of(before)
        yield Block(len(before), before[:0], breaks_off=True)
        said.append((len(collected.frames), collected.changes[-1].phase))
        yield Block(len(before), before[:0])
        yield from blocks_of(after, first=len(before) + away)

    collected, pipeline, source = Collected(), EnergyPipeline(), Script([])
    source.blocks = lambda sample_rate: blocks()  # type: ignore[method-assign]
    summary = Daemon(pipeline, source, stream_info(pipeline, "h3"), [collected]).run()
    assert said == [(6, "offset")]
    resumed = -(-(len(before) + away) // LABEL) * LABEL
    assert collected.gaps == [(len(before), resumed - len(before))]
    assert collected.frames[6].sample == resumed
    assert summary.lost_samples == resumed - len(before)
    assert summary.heard_s == pytest.approx(1.05, abs=0.1)


@pytest.mark.parametrize(("cut", "gaps"), [(5000, [(5000, 3 * LABEL - 5000)]), (2 * LABEL, [])])
def test_a_stream_that_breaks_off_and_goes_on_without_a_loss_says_what_it_leaves_out(
    cut: int, gaps: list[tuple[int, int]]
) -> None:
    """The rest of a label frame, where it broke off within one."""
    x = noise(1.0, 90, 0)
    parts = [Block(0, x[:cut], breaks_off=True), *blocks_of(x[cut:], first=cut)]
    collected = listen(Script(parts))
    assert collected.gaps == gaps
    assert [frame.sample for frame in collected.frames] == [i * LABEL for i in range(10)]


def test_what_was_lost_until_the_end_is_told_though_nothing_follows() -> None:
    x = noise(0.5, 90, 0)
    collected = listen(Script([Block(0, x, breaks_off=True), Block(10 * LABEL, x[:0])]))
    assert collected.gaps == [(5 * LABEL, 5 * LABEL)]
    assert len(collected.frames) == 5


def test_a_frame_is_as_late_as_after_the_newest_sample_that_it_needed() -> None:
    x, asked, source = noise(0.55, 90, 0), list[int](), Script([])
    source.blocks = lambda sample_rate: iter(blocks_of(x))  # type: ignore[method-assign]
    source.arrived_ns = lambda sample: asked.append(sample) or time.time_ns()  # type: ignore[method-assign,func-returns-value]
    listen(source)
    latency = EnergyPipeline().latency_samples
    assert asked == [min((i + 1) * LABEL + latency, len(x)) for i in range(6)]


def test_what_is_wrong_is_told_once_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seldrt.runtime.daemon.STATUS_S", 0.0)
    wrong = [{}, {"channel 2": "dead"}, {"channel 2": "dead"}, {"channel 2": "dead", "device": "gone; trying"}, {}]

    def blocks() -> Iterator[Block]:
        for number, complaints in enumerate(wrong):
            source.complaints = lambda: complaints  # type: ignore[method-assign] # noqa: B023
            yield Block(number * 480, np.zeros((480, 4), np.float32))

    source, pipeline, lines = Script([]), EnergyPipeline(), list[str]()
    source.blocks = lambda sample_rate: blocks()  # type: ignore[method-assign]
    Daemon(pipeline, source, stream_info(pipeline, "h3"), tell=lines.append).run()
    assert lines == [
        "degraded: channel 2: dead",
        "degraded: device: gone; trying",
        "resolved: channel 2: dead",
        "resolved: device: gone",
    ]


class Slow(EnergyPipeline):
    """Takes twice as long as the sound lasts: when it has computed a second, the device has delivered two."""

    ramp = 0
    largest = 0
    one_at_a_time = threading.Lock()  # a device has one thread, here the first sound comes from another than the rest

    def push(self, samples: np.ndarray) -> list[LabelFrame]:
        self.largest = max(self.largest, len(samples))
        self.deliver(2 * len(samples))
        return super().push(samples)

    def deliver(self, count: int) -> None:
        """Frames that hold their own index, in blocks of 20 ms, until the stream is closed."""
        with self.one_at_a_time:
            if not fake_sounddevice.streams[0].active:
                return
            for start in range(self.ramp, self.ramp + count, 480):
                block = np.arange(start, min(start + 480, self.ramp + count), dtype=np.float32)
                fake_sounddevice.streams[0].deliver(block[:, None].repeat(4, axis=1) / 2**24)
            self.ramp += count


def test_too_slow_a_computer_loses_the_oldest_sound_counted_and_told_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, context: zmq.Context
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    monkeypatch.setattr(fake_sounddevice, "MANUAL", True)
    monkeypatch.setattr("seldrt.runtime.clock.LOST_MS", float("inf"))  # nothing here keeps real time
    fake_sounddevice.reset()
    ring_s, heard_parts = 2.0, []

    class Heard(Collected):
        def heard(self, sample: int, samples: np.ndarray) -> None:
            if len(samples):
                heard_parts.append((sample, len(samples)))
                assert samples[0, 0] * 2**24 == sample  # nothing is spliced: each sample lies at its index
                assert samples[-1, 0] * 2**24 == sample + len(samples) - 1
            if pipeline.ramp > 120 * SAMPLE_RATE:
                microphone.stop()

    microphone = Microphone(
        CaptureConfig(device="h3", ring_s=ring_s, device_rate=SAMPLE_RATE), lambda _: profile("ambix")
    )
    pipeline, collected = Slow(), Heard()
    monkeypatch.setattr(pipeline, "flush", lambda: [])  # a flush takes no sound, so no time either
    publisher = Publisher("tcp://127.0.0.1:*")
    subscriptions = Subscriptions(publisher, context)
    daemon = Daemon(pipeline, microphone, stream_info(pipeline, "h3"), [collected], publisher)

    def begin() -> None:
        while not fake_sounddevice.streams[0].active:
            time.sleep(0.01)
        pipeline.deliver(4800)

    threading.Thread(target=begin).start()
    summary = daemon.run()
    microphone.close()
    delivered, heard = pipeline.ramp, sum(count for _, count in heard_parts)
    jumps = sum(b[0] - a[0] - a[1] for a, b in itertools.pairwise(heard_parts))
    assert heard + jumps == delivered  # every sample was heard, or is known as lost
    assert 0.4 < jumps / delivered < 0.6
    assert len(collected.gaps) == microphone.overruns > 20
    assert jumps <= summary.lost_samples < jumps + len(collected.gaps) * LABEL
    assert pipeline.largest <= SAMPLE_RATE // 2 + LABEL
    gaps = [m for _, m in subscriptions.until_the_end() if m["type"] == "gap"]
    assert [(m["sample"], m["lost_samples"]) for m in gaps] == collected.gaps
    publisher.close()


class Subscriptions:
    """A plain SUB socket that has subscribed to everything of a publisher."""

    def __init__(self, publisher: Publisher, context: zmq.Context) -> None:
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.subscribe("seld1.")
        self.socket.connect(publisher.endpoint)
        assert publisher._socket.poll(WAIT_MS)

    def receive(self) -> tuple[bytes, dict[str, Any]]:
        assert self.socket.poll(WAIT_MS)
        address, payload = self.socket.recv_multipart()
        return address, msgpack.unpackb(payload)

    def until_the_end(self) -> list[tuple[bytes, dict[str, Any]]]:
        got = []
        while not got or got[-1][1].get("state", "running") == "running":
            got.append(self.receive())
        return got


def published(source: Any, model: str | None = None) -> list[tuple[bytes, dict[str, Any]]]:
    publisher, context = Publisher("tcp://127.0.0.1:*"), zmq.Context()
    try:
        subscriptions = Subscriptions(publisher, context)
        listen(source, model, publisher)
        return subscriptions.until_the_end()
    finally:
        context.destroy(linger=0)
        publisher.close()


def test_a_recording_is_published_frame_by_frame_with_its_events(recording: Path) -> None:
    before_ns = time.time_ns()
    got = published(Recording(recording, profile("ambix"), 2.0))
    kinds = {kind: [(a, m) for a, m in got if m["type"] == kind] for kind in ("frame", "event", "status", "gap")}
    assert not kinds["gap"]
    for messages in kinds.values():
        assert [m["seq"] for _, m in messages] == list(range(len(messages)))
    assert len({m["epoch"] for _, m in got}) == 1
    assert {a for a, _ in kinds["frame"]} == {b"seld1.frame.h3."}
    assert {a for a, _ in kinds["event"]} == {b"seld1.event.h3.piano."}

    frames = [m for _, m in kinds["frame"]]
    assert [m["sample"] for m in frames] == [i * LABEL for i in range(31)]
    origin_ns = frames[0]["t_capture_ns"] - 50_000_000
    assert before_ns <= origin_ns <= time.time_ns()
    assert [m["t_capture_ns"] - origin_ns for m in frames] == [50_000_000 + i * 100_000_000 for i in range(31)]
    assert [bool(m["detections"]) for m in frames] == [5 <= i < 12 or 18 <= i < 29 for i in range(31)]
    (left,) = frames[6]["detections"]
    assert (left["class"], round(left["azimuth_deg"]), round(left["elevation_deg"])) == ("piano", 90, 10)
    assert left["onset_ns"] - origin_ns == 500_000_000

    events = [m for _, m in kinds["event"]]
    assert [(m["event_id"], m["phase"], m["duration_ms"]) for m in events] == [
        (0, "onset", 100),
        (0, "update", 600),
        (0, "offset", 700),
        (1, "onset", 100),
        (1, "update", 600),
        (1, "update", 1100),
        (1, "offset", 1100),
    ]

    status = [m for _, m in kinds["status"]]
    assert [m["state"] for m in status] == ["running"] * (len(status) - 1) + ["ended"]
    last = got[-1][1]
    assert last["type"] == "status"
    assert last["sample"] == round(3.05 * SAMPLE_RATE)
    assert (last["model_id"], last["lost_samples"], last["overruns"]) == ("energy", 0, 0)
    assert 0 <= last["latency_p50_ms"] <= last["latency_p95_ms"] <= last["latency_p99_ms"]
    assert last["real_time_factor"] > 0


def test_a_loss_is_published_and_makes_the_status_degraded() -> None:
    x = noise(1.0, 90, 0)
    got = [m for _, m in published(Script(blocks_of(x) + blocks_of(x, first=len(x) + 4800)))]
    (gap,) = [m for m in got if m["type"] == "gap"]
    assert (gap["sample"], gap["lost_samples"]) == (24000, 4800)
    assert got[-1]["lost_samples"] == 4800
    assert got[-1]["degraded"]
    assert "lost" in got[-1]["why"]


def test_a_failing_pipeline_ends_the_daemon_and_the_subscribers_learn_why(context: zmq.Context) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    subscriptions = Subscriptions(publisher, context)
    collected, pipeline = Collected(), EnergyPipeline("broken")
    daemon = Daemon(pipeline, Script(blocks_of(noise(3.0, 0, 0))), stream_info(pipeline, "h3"), [collected], publisher)
    with pytest.raises(ArithmeticError, match="burnt down"):
        daemon.run()
    last = subscriptions.until_the_end()[-1][1]
    publisher.close()
    assert (last["state"], last["degraded"], last["why"]) == ("failed", True, "the network has burnt down")
    assert not collected.finished


def test_what_fails_without_a_word_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch, context: zmq.Context) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    subscriptions = Subscriptions(publisher, context)
    monkeypatch.setattr(EnergyPipeline, "push", Mock(side_effect=MemoryError()))
    with pytest.raises(MemoryError):
        listen(Script(blocks_of(noise(0.1, 0, 0))), publisher=publisher)
    last = subscriptions.until_the_end()[-1][1]
    publisher.close()
    assert (last["state"], last["degraded"], last["why"]) == ("failed", True, "MemoryError")


def test_blocks_that_come_fast_bring_no_more_statuses() -> None:
    began_s = time.monotonic()
    got = published(Script(blocks_of(noise(4.0, 90, 0))))
    least = 1 + 1 + 1  # the first, to a new subscriber, the last
    assert sum(m["type"] == "status" for _, m in got) <= least + time.monotonic() - began_s


class Endless(Script):
    """Silence, for ever, in real time."""

    stopped = False

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        sample = 0
        while not self.stopped:
            yield Block(sample, np.zeros((480, 4), np.float32))
            sample += 480
            time.sleep(0.02)

    def stop(self) -> None:
        self.stopped = True


def test_the_status_comes_each_second_and_to_each_new_subscriber(context: zmq.Context) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    source = Endless([])
    daemon = threading.Thread(target=listen, args=(source, None, publisher))
    daemon.start()
    try:
        for _ in range(3):
            start_s = time.monotonic()
            late = context.socket(zmq.SUB)
            late.subscribe("seld1.status.h3.")
            late.connect(publisher.endpoint)
            got = []
            for _ in range(2):
                assert late.poll(WAIT_MS)
                got.append(msgpack.unpackb(late.recv_multipart()[1]))
            assert all(m["state"] == "running" and not m["degraded"] for m in got)
            assert got[1]["uptime_s"] > got[0]["uptime_s"]
            assert time.monotonic() - start_s < 10
    finally:
        source.stop()
        daemon.join()
        publisher.close()


def test_the_figures_of_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    health = Health(SAMPLE_RATE)
    assert health.complaints(0) == {}
    assert health.latencies_ms() == (None, None, None)
    assert health.real_time_factor() is None
    health.computed(0.5, SAMPLE_RATE)
    for ms in range(1, 101):
        health.published(ms * 1_000_000)
    assert health.real_time_factor() == 0.5
    assert health.latencies_ms() == (50.5, 95.05, 99.01)
    health.computed(2.0, SAMPLE_RATE)
    health.lost(100)
    assert health.complaints(1) == {
        "loss": "samples were lost in the last 10 s",
        "overrun": "the device or the ring ran over in the last 10 s",
        "speed": "too slow: real-time factor 1.25",
    }
    now_s += 20  # all forgotten, and the device is silent
    assert health.latencies_ms() == (None, None, None)
    assert health.complaints(1) == {"sound": "no samples for 20 s"}
    assert health.complaints(1, device_away=True) == {}
    assert health.lost_samples == 100


def test_what_is_told_of_trouble_is_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a computer that has just been switched on, whose monotonic clock begins at nothing."""
    now_s = 1.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    health = Health(SAMPLE_RATE)
    assert health.complaints(0) == {}
    health.lost(100)
    health.lost(20)
    assert health.lost_samples == 120
    health.computed(0.25, SAMPLE_RATE)
    health.computed(0.5, SAMPLE_RATE)
    assert health.computed_s == 0.75
    now_s += 12
    health.computed(0.001, SAMPLE_RATE)
    now_s += 4
    health.computed(0.001, 0)  # a turn in which nothing came
    assert health.complaints(0) == {"sound": "no samples for 4 s"}
    assert health.uptime_s == 16
    health.computed(4.0, SAMPLE_RATE)
    assert list(health.complaints(0)) == ["speed"]
    assert health.complaints(0, waits=True) == {}  # a recording is never late


def test_how_fast_it_is_is_not_judged_by_hardly_any_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that went away leaves the rest of a stream to be computed, and no sound that it was for."""
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    health = Health(SAMPLE_RATE)
    health.computed(0.8, SAMPLE_RATE // 2)
    assert health.real_time_factor() == 1.6
    assert health.complaints(0) == {}
    health.computed(0.8, SAMPLE_RATE // 2)
    assert health.complaints(0) == {"speed": "too slow: real-time factor 1.6"}
    now_s += 20
    health.computed(0.95, SAMPLE_RATE)  # it just keeps up
    assert health.complaints(0) == {}
    now_s += 20
    health.computed(6.0, 0)  # that of a stream that was opened anew, say
    assert "speed" not in health.complaints(0)
    now_s += 20
    health.computed(4.0, LABEL)  # a very slow computer hears next to nothing
    assert health.complaints(0) == {}
    health.computed(2.0, LABEL)
    assert health.complaints(0) == {"speed": "too slow: real-time factor 30.0"}


def test_a_clock_that_is_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seldrt.runtime.daemon.STATUS_S", 0.0)
    time_ns, set_ns = time.time_ns, 0

    def blocks() -> Iterator[Block]:
        nonlocal set_ns
        for number in range(3):
            yield Block(number * 480, np.zeros((480, 4), np.float32))
            set_ns = -5_000_000_000

    monkeypatch.setattr("seldrt.runtime.daemon.ClockWatch", lambda: ClockWatch(wall_ns=lambda: time_ns() + set_ns))
    source, pipeline, lines = Script([]), EnergyPipeline(), list[str]()
    source.blocks = lambda sample_rate: blocks()  # type: ignore[method-assign]
    Daemon(pipeline, source, stream_info(pipeline, "h3"), tell=lines.append).run()
    assert lines == ["degraded: clock: set back by 5 s: times before that are off"]


def test_without_a_status_the_figures_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    health = Health(SAMPLE_RATE)
    for _ in range(200):
        health.computed(0.1, LABEL)
        health.published(1_000_000)
        now_s += 1.0
    assert len(health._computations) == len(health._latencies_ms) == 11


def until_the_end(socket: zmq.Socket) -> list[dict[str, Any]]:
    got: list[dict[str, Any]] = []
    while not got or got[-1].get("state", "running") == "running":
        assert socket.poll(WAIT_MS)
        got.append(msgpack.unpackb(socket.recv_multipart()[1]))
    return got


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemon_in_order(
    recording: Path, tmp_path: Path, number: signal.Signals, context: zmq.Context
) -> None:
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    arguments = ["replay", str(recording), "--speed", "0.5", "--bind", "tcp://127.0.0.1:*"]
    before = signal.signal(number, signal.SIG_DFL)  # where the tests are started by `nohup`, say, it is ignored
    process = start(*arguments, "--dcase", str(table), "--jsonl", str(lines), program=SMALL)
    signal.signal(number, before)
    socket = context.socket(zmq.SUB)
    socket.subscribe("seld1.")
    socket.connect(endpoint_of(process))
    while not (first := msgpack.unpackb(socket.recv_multipart()[1])).get("detections"):
        assert socket.poll(WAIT_MS)
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` does: to the process, and to its group
    got = [first, *until_the_end(socket)]
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert got[-1]["state"] == "ended"
    frames = [m for m in got if m["type"] == "frame"]
    assert [m["seq"] for m in frames] == list(range(frames[0]["seq"], frames[0]["seq"] + len(frames)))
    assert [m["phase"] for m in got if m["type"] == "event"][-1] == "offset"
    written = {int(line.split(",")[0]) for line in table.read_text().splitlines()}
    heard = {m["sample"] // LABEL for m in frames if m["detections"]}
    assert heard <= written <= {*range(5, 12), *range(18, 29)}
    assert len(lines.read_text().splitlines()) > len(frames)
    assert not list(tmp_path.glob(".*tmp"))


def test_what_ignores_that_its_terminal_closes_goes_on_ignoring_it(recording: Path) -> None:
    """As `nohup` starts it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("replay", str(recording), "--loop", "--no-publish", program=SMALL)
    finally:
        signal.signal(signal.SIGHUP, before)
    says(process, "onset")
    process.send_signal(signal.SIGHUP)
    for _ in range(2):
        says(process, "offset")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_second_signal_ends_it_at_once(recording: Path) -> None:
    process = start("replay", str(recording), "--fast", "--model", "slow", "--no-publish", program=SMALL)
    assert process.stderr is not None
    assert any("computing for long" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):  # it wants to finish its label frame
        process.wait(SAME_WISH_S + 0.3)
    start_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    assert time.monotonic() - start_s < 10
    process.communicate()


TWICE = """
import os, signal, time
from seldrt.signals import SAME_WISH_S, stop_on_signals

def wish():
    os.kill(os.getpid(), signal.SIGTERM)

told = []
with stop_on_signals(lambda: told.append(1)):
    wish()
wish()
print(told, flush=True)
time.sleep(SAME_WISH_S)
wish()
print("goes on")
"""


def test_the_same_wish_told_twice_interrupts_nothing_that_is_being_ended() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "[1]\n")


def test_a_failure_leaves_no_table_and_a_nonzero_exit(recording: Path, tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    process = start(
        *("replay", str(recording), "--fast", "--no-publish", "--model", "broken", "--dcase", str(table)), program=SMALL
    )
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the network has burnt down" in errors
    assert list(tmp_path.glob("*.csv*")) == list(tmp_path.glob(".*.part")) == []


def test_a_microphone_is_served_like_a_recording(tmp_path: Path, context: zmq.Context) -> None:
    program = (
        "import sys, numpy; from tests.seldrt import energy_pipeline, fake_sounddevice as fake;"
        "fake.SOUND = energy_pipeline.two_pianos(48000); sys.modules['sounddevice'] = fake; energy_pipeline.main()"
    )
    lines = tmp_path / "heard.jsonl"
    lines.write_text('{"of": "the last run"}\n')
    arguments = ["run", "--device", "h3", "--bind", f"ipc://{tmp_path}/s", "--source", "roof", "--jsonl", str(lines)]
    arguments += ["--csv", str(tmp_path / "events.csv")]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    socket = context.socket(zmq.SUB)
    socket.subscribe("seld1.")
    socket.connect(endpoint_of(process))
    got: list[dict[str, Any]] = []
    while len([m for m in got if m["type"] == "event" and m["phase"] == "offset"]) < 2:
        assert socket.poll(WAIT_MS)
        got.append(msgpack.unpackb(socket.recv_multipart()[1]))
        assert abs(time.time_ns() - got[-1]["t_capture_ns"]) < 5e9
    process.send_signal(signal.SIGTERM)
    got += until_the_end(socket)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert {m["source"] for m in got} == {"roof"}
    onsets = [(m["event_id"], round(m["azimuth_deg"])) for m in got if m.get("phase") == "onset"]
    assert onsets == [(0, 90), (1, -90)]
    assert got[-1]["lost_samples"] == 0
    assert got[-1]["state"] == "ended"
    before, *written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert before == {"of": "the last run"}
    published = [m["t_capture_ns"] for m in got if m["type"] == "frame"]
    kept = [round(line["t_capture_s"] * 1e9) for line in written if line["type"] == "frame"]
    assert all(abs(time.time_ns() - t_ns) < 60e9 for t_ns in kept)
    np.testing.assert_allclose(kept[-len(published) :], published, atol=1e6, rtol=0)
    heading, *rows = (tmp_path / "events.csv").read_text().splitlines()
    assert heading.startswith("source,onset,offset,class,")
    onsets_s = [datetime.fromisoformat(row.split(",")[1]).timestamp() for row in rows]
    told_ns = [m["onset_ns"] for m in got if m.get("phase") == "offset"]
    np.testing.assert_allclose(np.array(onsets_s), np.array(told_ns) / 1e9, atol=0.01, rtol=0)


def test_an_onset_does_not_move_with_the_clock() -> None:
    sent: list[Any] = []
    info = stream_info(EnergyPipeline(), "roof")
    now = Clock(1_000_000_000, SAMPLE_RATE)
    sink = MessageSink(info, lambda: now, sent.append)
    for index in range(2000):
        now = Clock(1_000_000_000 - index * 1000, SAMPLE_RATE)
        sources = [ActiveSource(class_id=13, track=0, azimuth_deg=0, elevation_deg=0, confidence=1, onset_sample=0)]
        short = replace(sources[0], class_id=1, track=index, onset_sample=index * LABEL + 1)
        sink.frame(LabelFrame(index=index, sample=index * LABEL, sources=[*sources, short]))
    assert {message.detections[0].onset_ns for message in sent} == {1_000_000_000}
    assert len(sink._onsets) <= 10 * len(info.classes)
    sink.event(EventChange(event_id=0, phase="offset", sample=2000 * LABEL, duration_samples=1, source=sources[0]))
    assert sent[-1].onset_ns == 1_000_000_000


def test_what_is_added_to_a_torn_file_begins_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for before, after in ((b"", b"heading\nnew\n"), (b"whole\n", b"whole\nnew\n"), (b"whole\nto", b"whole\nto\nnew\n")):
        path.write_bytes(before)
        file = TextFile(str(path), b"heading\n", add=True)
        file.write(b"new\n")
        file.close()
        assert path.read_bytes() == after


def test_a_file_that_is_moved_away_or_deleted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As logrotate does, with or without a new file in its place; meanwhile there may be nowhere to put one."""
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    path = folder / "lines"
    file = TextFile(str(path), b"heading\n", add=True)
    file.write(b"1\n")
    path.rename(folder / "lines.1")
    file.write(b"2\n")
    path.rename(folder / "lines.2")
    path.write_bytes(b"")
    file.write(b"3\n")
    path.unlink()
    file.write(b"4\n")
    folder.rename(moved)
    for _ in range(2):
        with pytest.raises(OutputError, match="lines: cannot be written: No such file or directory"):
            file.write(b"lost\n")
    folder.mkdir()
    file.write(b"5\n")
    monkeypatch.setattr("os.stat", Mock(side_effect=PermissionError(errno.EACCES, "no")))  # what is open stays open
    file.write(b"6\n")
    monkeypatch.undo()
    file.close()
    assert {name: (moved / name).read_bytes() for name in ("lines.1", "lines.2", "lines")} == {
        "lines.1": b"heading\n1\n",
        "lines.2": b"heading\n2\n",
        "lines": b"heading\n4\n",
    }
    assert path.read_bytes() == b"heading\n5\n6\n"


def test_a_table_that_is_emptied_begins_with_its_heading_again(tmp_path: Path) -> None:
    """As logrotate does with copytruncate."""
    path = tmp_path / "table"
    for add, after in ((True, b"heading\n2\n3\n"), (False, b"2\n3\n")):
        path.write_bytes(b"")
        file = TextFile(str(path), b"heading\n", add)
        assert path.read_bytes() == b"heading\n"
        file.write(b"1\n")
        os.truncate(path, 0)
        file.write(b"2\n")
        file.write(b"3\n")
        file.close()
        assert path.read_bytes() == after


def test_what_is_added_to_waits_for_room(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"):
        TextFile("/dev/full", b"heading\n")
    file = TextFile("/dev/full", b"heading\n", add=True)
    with pytest.raises(OutputError, match="No space left"):
        file.write(b"lost\n")


def test_what_failed_last_is_in_trouble_until_something_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seldrt.runtime.background.RECENT_S", 0.0)
    done: list[bool] = []

    def work(well: bool) -> None:
        done.append(well)
        if not well:
            raise OSError("no room")

    worker = BackgroundWorker(work, "work")
    for well, complaint in ((False, "no room"), (False, "no room"), (True, "")):
        worker.give(well)
        waited_s = time.monotonic() + 5
        while (worker.complaint() != complaint or not done or done[-1] != well) and time.monotonic() < waited_s:
            time.sleep(0.01)
        time.sleep(0.05)
        assert (worker.complaint(), done[-1]) == (complaint, well)
    worker.close()


def test_the_table_has_the_direction_of_when_the_class_was_surest() -> None:
    lines: list[bytes] = []
    table = EventTable(stream_info(EnergyPipeline(), "roof"), None, lines.append)
    for phase, azimuth_deg, confidence in (
        ("onset", 10, 0.6),
        ("update", 20, 0.9),
        ("update", 30, 0.8),
        ("offset", 40, 0.5),
    ):
        for event_id in (0, 1):
            source = ActiveSource(
                class_id=13, track=event_id, azimuth_deg=azimuth_deg - event_id, elevation_deg=5,
                confidence=confidence, onset_sample=0,
            )  # fmt: skip
            table.event(EventChange(event_id=event_id, phase=phase, sample=0, duration_samples=LABEL, source=source))
    assert [line.decode().split(",")[4:] for line in lines] == [
        [f"{azimuth}.0", "5.0", "0.90\n"] for azimuth in (20, 19)
    ]


def test_an_output_is_no_other_name_of_a_file_that_is_read(tmp_path: Path) -> None:
    recording, same = tmp_path / "garden.wav", tmp_path / "same.csv"
    recording.write_bytes(b"sound")
    same.hardlink_to(recording)
    for path in (recording, same):
        for dcase, others in ((str(path), []), (None, [str(path)])):
            with pytest.raises(OutputError, match="the output is the recording itself"):
                check_outputs(dcase, others, {recording: "the recording itself"})
    assert recording.read_bytes() == b"sound"


def test_outputs_that_cannot_be_are_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    there, link, new = tmp_path / "there.csv", tmp_path / "link", tmp_path / "new"
    there.write_bytes(b"before")
    link.symlink_to(there)
    (tmp_path / "loop").symlink_to("loop")
    for dcase, others, said in (
        ("-", [], "--dcase -: give the table a file name; it appears when the stream ends"),
        (None, ["-", new, "-"], "-: stdout can take one output only; give the others file names"),
        (there, [link], f"{link}: the output is also another output; choose another name"),
        (None, [new, f"{tmp_path}/../{tmp_path.name}/new"], "new: the output is also another output"),
        (None, [tmp_path], f"{tmp_path}: cannot be written: it is a folder or a device"),
        ("/dev/null", [], "/dev/null: cannot be written: it is a folder or a device"),
        (new / "x", [], "x: cannot be written: No such file or directory"),
        (None, [there / "x"], "x: cannot be written: Not a directory"),
    ):
        with pytest.raises(OutputError) as error:
            check_outputs(None if dcase is None else str(dcase), [str(each) for each in others], {})
        assert said in str(error.value)
    check_outputs(str(there), ["-", "/dev/null", str(new)], {})
    assert there.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "loop", "there.csv"]


def test_a_file_is_for_one_who_begins_it_or_for_all_who_add_to_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lines")
    taken = f"{path}: another seldrt is writing it; choose another name"
    files = [TextFile(path, add=True) for _ in range(2)]
    for number, file in enumerate(files):
        file.write(b"%d\n" % number)
    with pytest.raises(OutputError, match=taken):
        TextFile(path)
    assert Path(path).read_bytes() == b"0\n1\n"
    for file in files:
        file.close()
    alone = TextFile(path, b"heading\n")
    alone.write(b"2\n")
    for add in (False, True):
        with pytest.raises(OutputError, match=taken):
            TextFile(path, add=add)
    alone.close()
    assert Path(path).read_bytes() == b"heading\n2\n"


def test_what_found_no_room_is_added_when_there_is_some(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with full_disk(most=0):
        file = TextFile(str(path), b"heading\n", add=True)
        with pytest.raises(OutputError, match="lines: cannot be written: File too large"):
            file.write(b"1\n")
    assert path.read_bytes() == b""
    file.write(b"2\n")
    file.close()
    assert path.read_bytes() == b"heading\n1\n2\n"


def heard(**change: Any) -> ActiveSource:
    """A piano at the left."""
    plain = {"class_id": 13, "track": 0, "azimuth_deg": 90.0, "elevation_deg": 5.0, "confidence": 0.5}
    return ActiveSource(**(plain | {"onset_sample": 0} | change))


def test_a_table_with_a_clock_has_universal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the computer stands."""
    monkeypatch.setenv("TZ", "UTC-5:30")
    time.tzset()
    lines: list[bytes] = []
    clock = Clock(1_780_315_200_250_000_000, SAMPLE_RATE)  # 2026-06-01T12:00:00.25Z, by `date -d`
    table = EventTable(stream_info(EnergyPipeline(), "roof"), lambda: clock, lines.append)
    try:
        for phase, lasted in (("onset", 0), ("offset", SAMPLE_RATE * 3 // 2)):
            change = EventChange(event_id=0, phase=phase, sample=lasted, duration_samples=lasted, source=heard())
            table.event(change)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert lines == [b"roof,2026-06-01T12:00:00.250Z,2026-06-01T12:00:01.750Z,piano,90.0,5.0,0.50\n"]
    assert not table._surest  # or it would grow for as long as it listens


def test_the_lines_of_a_terminal_are_in_seconds() -> None:
    lines: list[str] = []
    sink = EventLines(stream_info(EnergyPipeline(), "roof"), lines.append)
    for phase, seconds in (("onset", 0), ("update", 1), ("offset", 2)):
        lasted = seconds * SAMPLE_RATE
        sample = 3 * SAMPLE_RATE + lasted
        sink.event(EventChange(event_id=0, phase=phase, sample=sample, duration_samples=lasted, source=heard()))
    sink.gap(6 * SAMPLE_RATE, SAMPLE_RATE // 4)
    piano = "piano               az   +90°  el   +5°  confidence 0.50"
    assert lines == [
        f"     3.0 s  onset   {piano}",
        f"     5.0 s  offset  {piano}  lasted 2.0 s",
        "     6.0 s  lost    0.25 s of sound",
    ]


def test_the_table_of_dcase_goes_from_minus_180_to_179_degrees(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    table = DcaseCsv(str(path))
    for index, azimuth_deg in enumerate((179.4, 179.6, -180.0, -179.6)):
        found = heard(azimuth_deg=azimuth_deg, elevation_deg=4.6, track=1)
        table.frame(LabelFrame(index=index, sample=index * LABEL, sources=[found]))
    table.finish()
    table.close()
    assert path.read_text().splitlines() == ["0,13,1,179,5", "1,13,1,-180,5", "2,13,1,-180,5", "3,13,1,-180,5"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_whose_name_another_program_holds_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = LabelFrame(index=0, sample=0, sources=[heard(azimuth_deg=90.0, track=1)])
    hold_files(monkeypatch, times=5)
    table = DcaseCsv(str(tmp_path / "labels.csv"))
    table.frame(frame)
    with pytest.raises(OutputError, match=r"labels\.csv: cannot be written: in use; the table is kept as ") as refusal:
        table.finish()
    table.close()
    (left,) = tmp_path.iterdir()
    assert str(refusal.value).endswith(f" {left}")
    assert left.read_text() == "0,13,1,90,5\n"
    table = DcaseCsv(str(tmp_path / "labels.csv"))
    table.frame(frame)
    table.finish()  # the third try
    assert (tmp_path / "labels.csv").read_text() == "0,13,1,90,5\n"


def test_a_terminal_that_is_held_holds_nobody_up() -> None:
    read: list[str] = []
    goes_on = threading.Event()
    writer = LineWriter(lambda line: goes_on.wait(20) and read.append(line), room=10)
    for number in range(30):
        writer.say(f"line {number}")
        time.sleep(0.01 if number == 0 else 0)  # the first is being written
    goes_on.set()
    while len(read) < 11:
        time.sleep(0.001)
    writer.say("the last line")
    writer.close()
    assert read == [
        *(f"line {number}" for number in range(11)),
        "... 19 lines left out: nobody read them",
        "the last line",
    ]
