"""Bad company: what slow, dying, late and malicious clients do to a real daemon and to its other clients."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import msgpack
import numpy as np
import pytest
import soundfile
import zmq

from seldrt.client import Subscriber, ask
from seldrt.detection import Status
from seldrt.keys import make_keys
from seldrt.replies import Info, Pong, json_schema
from seldrt.runtime.publisher import Publisher
from tests.seldrt.energy_pipeline import SAMPLE_RATE, noise

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
GREETING = bytes.fromhex("ff00000000000000017f") + b"\x03\x00NULL" + bytes(48)  # of ZMTP 3.0, RFC 23
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
CURVE_GREETING = GREETING.replace(b"NULL\x00", b"CURVE")


class Running(NamedTuple):
    """A daemon in a process of its own, in the midst of a long recording."""

    process: subprocess.Popen[str]
    endpoint: str
    control: str
    keys: tuple[Path, Path] | None


@pytest.fixture(params=["open", "with keys"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    sound = np.concatenate([np.zeros((12000, 4), np.float32), noise(0.7, 90, 10)])
    soundfile.write(tmp_path / "garden.flac", np.tile(sound, (60, 1)), SAMPLE_RATE)
    where = ["--bind", "tcp://127.0.0.1:*", "--control", "tcp://127.0.0.1:*"]
    keys = None
    if request.param == "with keys":
        make_keys(tmp_path / "keys", "laptop")
        where += ["--curve-keys", str(tmp_path / "keys")]
        keys = (tmp_path / "keys" / "laptop.key_secret", tmp_path / "keys" / "server.key")
    process = subprocess.Popen(
        [*(sys.executable, "-m", "tests.seldrt.energy_pipeline", "replay"), str(tmp_path / "garden.flac")]
        + [*where, "--levels", "--quiet"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")},
    )
    assert process.stderr is not None
    addresses: list[str] = []
    while len(addresses) < 2:
        line = process.stderr.readline()
        assert line, "the daemon ended"
        addresses += re.findall(r"(?:publishing \S+|answering requests) at (\S+)", line)
    yield Running(process, *addresses, keys)
    process.kill()
    process.communicate()


def ends_well(daemon: Running) -> None:
    """It still answers, publishes without a loss, has not grown, and ends in order."""
    assert isinstance(ask("ping", daemon.control, WAIT_S, daemon.keys), Pong)
    with Subscriber(daemon.endpoint, timeout_s=WAIT_S, keys=daemon.keys) as subscriber:
        for _ in range(10):
            assert subscriber.receive() is not None
        daemon.process.send_signal(signal.SIGTERM)
        last = None
        while not (isinstance(last, Status) and last.state != "running"):
            last = subscriber.receive()
            assert last is not None
        assert (last.state, last.lost_samples, subscriber.lost, subscriber.malformed) == ("ended", 0, 0, 0)
    assert daemon.process.stderr is not None
    told = daemon.process.stderr.read()
    assert daemon.process.wait(WAIT_S) == 130  # of a recording that was stopped
    assert "Traceback" not in told


def raw(address: str, chunks: list[bytes]) -> None:
    """Bytes straight to the port."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as plain:
        for chunk in chunks:
            try:
                plain.sendall(chunk)
            except OSError:  # it hung up
                return


def random_bytes(rng: np.random.Generator, longest: int) -> bytes:
    return rng.bytes(int(rng.integers(longest + 1)))


def resident_bytes(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


without_keys = pytest.mark.parametrize("daemon", ["open"], indirect=True)  # with keys it would be the same
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured as Linux tells it")


def test_garbage_on_every_socket_does_no_harm(daemon: Running, context: zmq.Context) -> None:
    rng = np.random.default_rng(1)
    for address in (daemon.endpoint, daemon.control):
        for _ in range(40):
            raw(address, [random_bytes(rng, 300)])
            raw(address, [GREETING, random_bytes(rng, 300)])
            raw(address, [GREETING, READY, random_bytes(rng, 3000)])
            raw(address, [CURVE_GREETING, b"\x04\xc8\x05HELLO" + random_bytes(rng, 400)])
        raw(address, [GREETING, READY, b"\x02" + (2**62).to_bytes(8, "big") + bytes(4096)])  # "a huge frame follows"
    clients = []
    for kind, address in (
        *((kind, daemon.endpoint) for kind in (zmq.XSUB, zmq.SUB, zmq.DEALER, zmq.REQ, zmq.PUSH)),
        *((kind, daemon.control) for kind in (zmq.DEALER, zmq.ROUTER, zmq.XSUB, zmq.PAIR)),
    ):
        client = context.socket(kind)
        client.setsockopt(zmq.LINGER, 0)
        client.connect(address)
        clients.append(client)
        for _ in range(200):
            parts = [random_bytes(rng, 2000 if rng.random() < 0.1 else 20) for _ in range(rng.integers(1, 5))]
            with_luck = parts if rng.random() < 0.5 else [rng.choice([b"\x01seld1.", b"ping", b"info"]), *parts[1:]]
            try:
                client.send_multipart(with_luck, zmq.NOBLOCK)
            except zmq.ZMQError:  # not such a socket, or not connected
                break
    time.sleep(1.0)
    context.destroy(0)
    ends_well(daemon)


@without_keys
def test_requests_are_answered_or_refused(daemon: Running, context: zmq.Context) -> None:
    info = ask("info", daemon.control, WAIT_S)
    assert isinstance(info, Info)
    assert (info.source, info.model_id, info.mic, info.frame_ms) == ("garden", "energy", "ambix", 100)
    assert info.latency_ms == sum(stage.latency_ms for stage in info.waits_for) == 200.0
    assert "piano" in info.classes
    status = ask("status", daemon.control, WAIT_S)
    assert isinstance(status, Status)
    assert (status.state, status.epoch) == ("running", info.epoch)
    validator = jsonschema.Draft202012Validator(json_schema())
    for kind, request, answered in (
        (zmq.REQ, [b"ping"], "pong"),
        (zmq.DEALER, [b"ping"], "pong"),
        (zmq.DEALER, [b"", b"status"], "status"),
        (zmq.DEALER, [b"info"], "info"),
        (zmq.REQ, [b"sing"], "error"),
        (zmq.REQ, [b"ping", b"ping"], "error"),
        (zmq.REQ, [b""], "error"),
        (zmq.DEALER, [b""], "error"),
        (zmq.REQ, [b"\xff\xfe"], "error"),
    ):
        with context.socket(kind) as client:
            client.linger = 0
            client.connect(daemon.control)
            client.send_multipart(request)
            assert client.poll(WAIT_S * 1000)
            plain = msgpack.unpackb(client.recv_multipart()[-1])
            assert plain["type"] == answered
            assert not list(validator.iter_errors(plain))
    ends_well(daemon)


@without_keys
def test_all_that_a_daemon_says_keeps_to_the_schema(daemon: Running) -> None:
    printed = subprocess.run([sys.executable, "-m", "seldrt", "schema"], cwd=ROOT, capture_output=True, check=True)
    validator = jsonschema.Draft202012Validator(json.loads(printed.stdout))
    seen = set()
    with Subscriber(daemon.endpoint) as subscriber:
        end_s = time.monotonic() + WAIT_S
        while not seen >= {"frame", "onset", "update", "offset", "status", "level"}:
            assert time.monotonic() < end_s
            received = subscriber.receive_bytes(WAIT_S)
            assert received is not None
            plain = msgpack.unpackb(received[1])
            assert not list(validator.iter_errors(plain)), plain
            seen.add(plain.get("phase", plain["type"]))
            if plain["type"] == "level":
                assert plain["sample"] % plain["level_ms"] == 0
                assert len(plain["rms_dbfs"]) == len(plain["peak_dbfs"]) == 4
    ends_well(daemon)


@linux
@without_keys
def test_a_flood_of_subscriptions_and_requests_waits_at_its_sender(daemon: Running) -> None:
    before = resident_bytes(daemon.process.pid)
    program = (
        "import sys, time, zmq\n"
        "context = zmq.Context(); sub, ask = context.socket(zmq.XSUB), context.socket(zmq.DEALER)\n"
        "sub.connect(sys.argv[1]); ask.connect(sys.argv[2]); end_s, number = time.monotonic() + 3, 0\n"
        "while time.monotonic() < end_s:\n"
        "    number += 1\n"
        "    for socket, bytes_ in ((sub, b'\\x01%d' % number + b'x' * 300), (ask, b'status')):\n"
        "        try: socket.send(bytes_, zmq.NOBLOCK)\n"
        "        except zmq.Again: pass\n"
        "context.destroy(0); print(number)"
    )
    flood = subprocess.Popen([sys.executable, "-c", program, daemon.endpoint, daemon.control], stdout=subprocess.PIPE)
    with Subscriber(daemon.endpoint, kinds=["frame"], timeout_s=WAIT_S) as subscriber:
        for _ in range(20):  # also if all are cut off in the meantime
            assert subscriber.receive() is not None
    sent = int(flood.communicate(timeout=WAIT_S)[0])
    assert sent > 1000
    assert resident_bytes(daemon.process.pid) - before < 50e6  # without the limits: some hundred MB
    ends_well(daemon)


def large_status(sample: int) -> Status:
    """Large, so that the buffers of the operating system are soon full."""
    figures = dict.fromkeys(("real_time_factor", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms"))
    counts = dict.fromkeys(("uptime_s", "overruns", "lost_samples"), 0)
    what = {"source": "h3", "t_capture_ns": 1, "sample": sample, "state": "running", "model_id": "m"}
    return Status(**what, **figures, **counts, degraded=True, why="x" * 3000)


READER = """
import sys, zmq, msgpack
context = zmq.Context(); sub = context.socket(zmq.SUB); sub.subscribe("seld1.")
for option, value in ((zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)): sub.setsockopt(option, value)
sub.connect(sys.argv[1]); sub.recv_multipart(); print("hears", flush=True)
for line in sys.stdin:
    print(msgpack.unpackb(sub.recv_multipart()[1])["seq"] if sub.poll(100) else -1, flush=True)
"""


def until(condition: Callable[[], bool], turn: Callable[[], Any]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s
        turn()


@linux
def test_fifty_subscribers_one_stuck_one_dying_one_late(context: zmq.Context) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    stuck, dying = (
        subprocess.Popen(
            [sys.executable, "-c", READER, publisher.endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    readers = [context.socket(zmq.SUB) for _ in range(47)]
    got: list[list[int]] = [[] for _ in range(48)]
    next_sample = 0

    def send(count: int) -> None:
        nonlocal next_sample
        for _ in range(count):
            publisher.send(large_status(next_sample))
            next_sample += 1

    def read() -> None:
        for numbers, reader in zip(got, readers, strict=False):
            while reader.poll(0):
                numbers.append(msgpack.unpackb(reader.recv_multipart()[1])["sample"])

    def settle() -> None:
        until(lambda: all(n and n[-1] == next_sample - 1 for n in got[: len(readers)]), read)

    try:
        for reader in readers:
            reader.subscribe("seld1.status.")
            reader.connect(publisher.endpoint)
        notices = [0]

        def greet() -> None:
            if publisher._socket.poll(100):
                notices[0] += publisher._socket.recv()[:1] == b"\x01"

        until(lambda: notices[0] == 49, greet)
        send(1)
        for process in (stuck, dying):
            assert process.stdout is not None
            assert process.stdout.readline() == "hears\n"
        stuck.send_signal(signal.SIGSTOP)
        settle()
        start = next_sample
        for turn in range(25):
            if turn == 10:
                dying.kill()
            if turn == 18:
                late = context.socket(zmq.SUB)
                late.subscribe("seld1.status.")
                late.connect(publisher.endpoint)
                until(lambda: notices[0] == 50, greet)
                readers.append(late)
                late_from = next_sample
            send(40)
            settle()
        assert [numbers for numbers in got[:47] if numbers != list(range(next_sample))] == []
        assert got[47] == list(range(late_from, next_sample))

        for reader in readers:
            reader.close(0)
        before = resident_bytes("self")
        send(30_000)  # 90 MB for the stuck one alone
        assert resident_bytes("self") - before < 30e6
        stuck.send_signal(signal.SIGCONT)
        assert stuck.stdin is not None
        assert stuck.stdout is not None
        numbers = [0]
        while numbers[-1] < next_sample - 1:  # it hears again, and sees what it missed
            print(file=stuck.stdin, flush=True)
            number = int(stuck.stdout.readline())
            numbers += [number] if number > 0 else []
            if number < 0:
                send(1)
        assert numbers == sorted(set(numbers))
        assert len(numbers) < next_sample - start
    finally:
        for process in (stuck, dying):
            process.kill()
            process.communicate()
        publisher.close()
