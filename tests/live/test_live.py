"""The daemon on a real audio server, in real time: every sample, the same detections, and a life after every fault.

Devices that refuse a rate or have too few channels cannot be made here (PulseAudio converts everything); these
refusals are tested against a stand-in of PortAudio in tests/seldrt/test_devices.py and test_microphone.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest
import soundfile
import soxr
import zmq

from seldrt.runtime.clip_folder import find_clip
from seldrt.runtime.demo import demo_files
from seldrt.spatial import foa_gains, unit_vector
from tests.live.audio_server import RATE, AudioServer
from tests.processes import ROOT, endpoint_of
from tests.seldrt.energy_pipeline import two_pianos

MICROPHONE = "Zoom H3-VR"
PLAYED_S = 12
PATIENCE_S = 60.0  # the machine may be busy; nothing is measured
MODEL_RATE = 24000
LABEL = 2400


class LiveDaemon:
    """A daemon in a process of its own, and a subscriber of everything that it says."""

    def __init__(self, server: AudioServer, module: str, *options: str) -> None:
        self.said: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "run", "--device", MICROPHONE, "--bind", "tcp://127.0.0.1:*", *options],
            cwd=ROOT,
            env=server.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.subscribe("seld1.")
        self._socket.connect(endpoint_of(self.process))

    def until(self, reached: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Listens on until a message is the one."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if self._socket.poll(1000):
                self.said.append(msgpack.unpackb(self._socket.recv_multipart()[1]))
                if reached(self.said[-1]):
                    return self.said[-1]
        raise AssertionError(f"it was never said; last: {[m for m in self.said if m['type'] == 'status'][-1:]}")

    def until_over(self, player: subprocess.Popen[bytes]) -> None:
        self.until(lambda _: player.poll() is not None)
        assert player.returncode == 0

    def end(self) -> str:
        """Ends it in good order; what it wrote for people."""
        self.process.send_signal(signal.SIGTERM)
        last = self.until(lambda m: m.get("state", "running") != "running")
        _, lines = self.process.communicate(timeout=PATIENCE_S)
        assert (last["state"], self.process.returncode) == ("ended", 0)
        self.close()
        return lines

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._context.destroy(linger=0)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.said if message["type"] == kind]


class Session(NamedTuple):
    played: np.ndarray  # int16 (n, 4) at 48 kHz
    recorded: np.ndarray  # as the device gave it
    first: int  # the frame of the recording with which the played sound begins
    frames: list[dict[str, Any]]  # messages
    offsets: list[dict[str, Any]]  # of events
    status: dict[str, Any]
    clips: Path


@pytest.fixture(scope="module")
def session(audio_server: AudioServer, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One run for several tests: the demonstration, played into the microphone of a daemon that records."""
    audio_server.plug(MICROPHONE)
    folder, clips = tmp_path_factory.mktemp("recorded"), tmp_path_factory.mktemp("clips")
    sound, rate = soundfile.read(demo_files()[0], frames=PLAYED_S * MODEL_RATE, always_2d=True)
    played = np.round(soxr.resample(sound, rate, RATE) * 32767).clip(-32768, 32767).astype(np.int16)
    daemon = LiveDaemon(audio_server, "seldrt", "--record", str(folder), "--clips", str(clips), "--quiet")
    try:
        daemon.until(lambda m: m["type"] == "frame")
        daemon.until_over(audio_server.play(played, MICROPHONE))
        end = daemon.of("frame")[-1]["sample"] + 4 * MODEL_RATE  # what is on its way, and what the chain waits for
        daemon.until(lambda m: m["type"] == "frame" and m["sample"] > end)
        status = daemon.until(lambda m: m["type"] == "status")
        daemon.end()
    finally:
        daemon.close()
    (path,) = folder.glob("*.flac")
    recorded, _ = soundfile.read(path, dtype="int32", always_2d=True)
    assert not (recorded & 0xFFFF).any()  # 16 bits came through as 16 bits
    recorded = (recorded >> 16).astype(np.int16)
    first = int(np.argmax(recorded.any(axis=1))) - int(np.argmax(played.any(axis=1)))
    offsets = [m for m in daemon.of("event") if m["phase"] == "offset"]
    return Session(played, recorded, first, daemon.of("frame"), offsets, status, clips)


def test_every_sample_arrives_once_and_in_order(session: Session) -> None:
    heard = session.recorded[session.first :][: len(session.played)]
    np.testing.assert_array_equal(heard, session.played)
    assert not session.recorded[: session.first].any()
    assert not session.recorded[session.first + len(session.played) :].any()
    assert (session.status["lost_samples"], session.status["overruns"]) == (0, 0)
    assert [m["sample"] for m in session.frames] == [
        m["sample"] for m in sorted(session.frames, key=lambda m: m["seq"])
    ]


def test_the_detections_are_those_of_a_replay(session: Session, tmp_path: Path) -> None:
    """Of the same sound at the same place of the stream: 100-ms frames lie elsewhere in it otherwise."""
    moved, lines = tmp_path / "moved.wav", tmp_path / "replayed.jsonl"
    silence = np.zeros((session.first, 4), np.int16)
    after = np.zeros((3 * RATE, 4), np.int16)
    soundfile.write(moved, np.concatenate([silence, session.played, after]), RATE, subtype="PCM_16")
    options = ["--mic", "zoom-h3vr", "--fast", "--no-publish", "--quiet", "--jsonl", str(lines)]
    subprocess.run([sys.executable, "-m", "seldrt", "replay", str(moved), *options], cwd=ROOT, check=True)
    replayed = {m["sample"]: m for m in map(json.loads, lines.read_text().splitlines()) if m["type"] == "frame"}
    assert len({d["class"] for m in replayed.values() for d in m["detections"]}) >= 2
    compared = 0
    for live in session.frames:
        if live["sample"] not in replayed:
            assert not live["detections"]
            continue
        pairs = zip(live["detections"], replayed[live["sample"]]["detections"], strict=True)
        for heard, expected in pairs:
            compared += 1
            assert heard["class"] == expected["class"]
            turn_deg = (heard["azimuth_deg"] - expected["azimuth_deg"] + 180) % 360 - 180
            assert abs(turn_deg) < 1
            assert abs(heard["elevation_deg"] - expected["elevation_deg"]) < 1
            assert abs(heard["confidence"] - expected["confidence"]) < 0.01
    assert compared == sum(len(m["detections"]) for m in replayed.values()) > 20


def test_the_clip_of_an_event_is_found_by_its_message_and_holds_its_sound(session: Session) -> None:
    sound = soxr.resample(session.recorded / 32768, RATE, MODEL_RATE)
    found = {}
    for m in session.offsets:
        path = find_clip(session.clips, m["class"], m["source"], m["onset_ns"] // 1_000_000)
        assert path
        found[path] = soundfile.read(path)[0]
        onset = m["sample"] - m["duration_ms"] * MODEL_RATE // 1000
        gains = foa_gains(unit_vector(m["azimuth_deg"], m["elevation_deg"]))
        cardioid = (sound[max(onset - MODEL_RATE // 2, 0) :][: len(found[path])] * gains).sum(1) / 2
        assert len(found[path]) == pytest.approx((m["duration_ms"] / 1000 + 1) * MODEL_RATE, abs=MODEL_RATE // 2)
        assert np.corrcoef(found[path], cardioid)[0, 1] > 0.9
    assert len(found) == len(session.offsets) == len(list(session.clips.rglob("*.flac"))) >= 2


def test_a_part_of_a_name_that_fits_two_microphones_is_refused(audio_server: AudioServer) -> None:
    audio_server.plug(MICROPHONE)
    audio_server.plug("Zoom H3-VR spare")
    try:
        for name, reason in (("zoom", "fits several"), ("Soundfield", "no input device 'Soundfield'")):
            done = subprocess.run(
                [sys.executable, "-m", "seldrt", "run", "--device", name, "--no-publish"],
                cwd=ROOT,
                env=audio_server.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout) == (2, "")
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("seldrt: ")]
            assert reason in line
            assert "Zoom H3-VR spare" in line
    finally:
        audio_server.unplug("Zoom H3-VR spare")


@pytest.fixture
def daemon(audio_server: AudioServer) -> Iterator[LiveDaemon]:
    """A daemon that needs no networks, listening."""
    audio_server.plug(MICROPHONE)
    live = LiveDaemon(audio_server, "tests.seldrt.energy_pipeline", "--source", "h3")
    live.until(lambda m: m["type"] == "frame")
    yield live
    live.close()


def test_a_microphone_that_goes_and_comes_back_is_heard_again(audio_server: AudioServer, daemon: LiveDaemon) -> None:
    def unplugged() -> None:
        audio_server.unplug(MICROPHONE)

    def killed() -> None:
        audio_server.kill()

    def restarted() -> None:
        audio_server.start()
        audio_server.plug(MICROPHONE)

    sound = np.round(two_pianos(RATE) * 32767).astype(np.int16)
    for number, (strike, mend, reason) in enumerate(
        (
            (unplugged, lambda: audio_server.plug(MICROPHONE), "stopped delivering"),
            (killed, restarted, "stopped delivering"),
            (audio_server.freeze, audio_server.thaw, "no samples for"),
        )
    ):
        origin_ns = origin_of(daemon.until(lambda m: m["type"] == "frame"))
        strike()
        told = daemon.until(lambda m, reason=reason: m["type"] == "status" and reason in m["why"])
        assert (told["state"], told["degraded"]) == ("running", True)
        for _ in range(2):  # it goes on telling
            daemon.until(lambda m: m["type"] == "status" and m["degraded"])
        mend()
        gap = daemon.until(lambda m: m["type"] == "gap")
        assert gap["lost_samples"] > MODEL_RATE
        resumed = daemon.until(lambda m: m["type"] == "frame")
        assert resumed["sample"] == gap["sample"] + gap["lost_samples"]
        assert abs(origin_of(resumed) - origin_ns) < 1e9  # capture time went on with the clock
        player = audio_server.play(sound, MICROPHONE)
        for azimuth_deg in (90, -90):
            onset = daemon.until(lambda m: m["type"] == "event" and m["phase"] == "onset")
            assert round(onset["azimuth_deg"]) == azimuth_deg
        daemon.until_over(player)
        daemon.until(lambda m: m["type"] == "status" and "device" not in m["why"])
        assert len(daemon.of("gap")) == number + 1
    lines = daemon.end()
    assert lines.count("degraded: device: ") == lines.count("resolved: device: ") == 3


def origin_of(frame: dict[str, Any]) -> float:
    """When the stream began, ns, as its frames tell."""
    return frame["t_capture_ns"] - (frame["sample"] + LABEL / 2) / MODEL_RATE * 1e9


def test_a_daemon_that_was_paused_gets_what_the_server_kept(daemon: LiveDaemon) -> None:
    origin_ns = origin_of(daemon.until(lambda m: m["type"] == "frame"))
    for _ in range(3):
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        daemon.process.send_signal(signal.SIGCONT)
        paused_ns = time.time_ns()
        resumed = daemon.until(lambda m, ns=paused_ns: m["type"] == "frame" and m["t_capture_ns"] > ns + 3e9)
        assert abs(origin_of(resumed) - origin_ns) < 0.1e9
    assert "degraded: device" not in daemon.end()


def test_a_frozen_server_holds_neither_an_end_nor_a_start_up(audio_server: AudioServer, daemon: LiveDaemon) -> None:
    audio_server.freeze()
    try:
        daemon.until(lambda m: m["type"] == "status" and "has not answered" in m["why"])
        daemon.end()
        done = subprocess.run(
            [sys.executable, "-m", "seldrt", "run", "--device", MICROPHONE, "--no-publish"],
            cwd=ROOT,
            env=audio_server.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 2
        assert "the audio server does not answer" in done.stderr
    finally:
        audio_server.thaw()
