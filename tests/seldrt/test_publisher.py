"""Publisher and subscriber over real sockets; received bytes are read with plain msgpack."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from seldrt.detection import Frame, Gap, WireError
from seldrt.runtime.publisher import MOST_SUBSCRIBED_BYTES, Publisher
from tests.seldrt.test_wire_fuzz import GREETING, READY

WAIT_MS = 10_000


def frame(sample: int = 0) -> Frame:
    return Frame(source="h3", t_capture_ns=1, sample=sample, frame_ms=100, detections=[])


def gap() -> Gap:
    return Gap(source="h3", t_capture_ns=1, sample=0, lost_samples=5)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher("tcp://127.0.0.1:*")
    yield publisher
    publisher.close()


def subscribe(context: zmq.Context, publisher: Publisher, prefix: str) -> zmq.Socket:
    """A plain SUB socket whose subscription has arrived."""
    sub = context.socket(zmq.SUB)
    sub.subscribe(prefix)
    sub.connect(publisher.endpoint)
    assert publisher._socket.poll(WAIT_MS)
    return sub


def receive(sub: zmq.Socket) -> tuple[bytes, dict[str, Any]]:
    assert sub.poll(WAIT_MS)
    address, payload = sub.recv_multipart()
    return address, msgpack.unpackb(payload)


def test_messages_are_numbered_by_type_and_share_an_epoch(publisher: Publisher, context: zmq.Context) -> None:
    sub = subscribe(context, publisher, "seld1.")
    before_ns = time.time_ns()
    for message in (frame(), gap(), frame(), frame(), gap()):
        publisher.send(message)
    got = [receive(sub) for _ in range(5)]
    assert [(address, plain["seq"]) for address, plain in got] == [
        (b"seld1.frame.h3.", 0),
        (b"seld1.gap.h3.", 0),
        (b"seld1.frame.h3.", 1),
        (b"seld1.frame.h3.", 2),
        (b"seld1.gap.h3.", 1),
    ]
    assert len({plain["epoch"] for _, plain in got}) == 1
    assert all(before_ns <= plain["t_pub_ns"] <= time.time_ns() for _, plain in got)


BUSY = """
import subprocess, sys, time
from seldrt.detection import Frame
from seldrt.runtime.publisher import Publisher
publisher = Publisher("tcp://127.0.0.1:*", control="tcp://127.0.0.1:*")
subprocess.run([sys.executable, "-c", sys.argv[1], publisher.endpoint, publisher.control_endpoint], check=True)
time.sleep(4.5)  # two heartbeats
publisher.attend("h3")
publisher.send(Frame(source="h3", t_capture_ns=1, sample=0, frame_ms=100, detections=[]))
publisher.attend("h3")
time.sleep(0.5)
print("alive")
"""
CLIENTS = """
import sys, time, zmq
context = zmq.Context()
one, other = context.socket(zmq.SUB), context.socket(zmq.DEALER)
for socket, url in zip((one, other), sys.argv[1:]):
    socket.linger, socket.sndhwm = 300, 0
    socket.heartbeat_ivl = 100
    socket.connect(url)
for number in range(50):
    one.subscribe(str(number))
    other.send(b"ping")
time.sleep(0.5)
"""


def test_clients_that_come_and_go_while_nobody_looks_end_nothing() -> None:
    """libzmq aborts where a heartbeat comes due for one that has gone and whose messages nobody has read."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY, CLIENTS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_each_start_has_its_epoch(publisher: Publisher) -> None:
    other = Publisher("tcp://127.0.0.1:*")
    one, two = frame(), frame()
    publisher.send(one)
    other.send(two)
    other.close()
    assert one.epoch != two.epoch


def test_a_prefix_does_not_match_a_longer_name(publisher: Publisher, context: zmq.Context) -> None:
    sub = subscribe(context, publisher, "seld1.frame.h3.")
    other = frame()
    other.source = "h3vr2"
    publisher.send(other)
    publisher.send(frame())
    assert receive(sub)[1]["source"] == "h3"


def test_every_new_subscriber_of_the_status_is_noticed(publisher: Publisher, context: zmq.Context) -> None:
    assert not publisher.attend("h3")
    subscribers = []
    for prefix in ("seld1.status.h3.", "seld1.status.h3.", "seld1.", ""):
        subscribers.append(subscribe(context, publisher, prefix))
        assert publisher.attend("h3")
        assert not publisher.attend("h3")
    subscribers.append(subscribe(context, publisher, "seld1.frame.h3."))
    assert not publisher.attend("h3")
    subscribers[-1].subscribe("seld1.status.")
    subscribers[-1].subscribe("seld1.gap.")
    time.sleep(0.2)  # both are there, and one turn reads both
    assert publisher.attend("h3")


@pytest.mark.parametrize(
    "url",
    ["", "5577", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://127.0.0.1:1", "tcp://1:" + "9" * 5000],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(WireError, match=r"use tcp://HOST:PORT or ipc://PATH"):
        Publisher(url)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.7", "[::]", "eth0", "example.org", "localhost.example"])
def test_an_address_that_others_can_reach_is_refused_with_the_remedy(host: str) -> None:
    with pytest.raises(WireError, match="--insecure-bind"):
        Publisher(f"tcp://{host}:5577")


def test_insecure_bind_allows_it() -> None:
    publisher = Publisher("tcp://0.0.0.0:*", insecure_bind=True)
    assert publisher.endpoint.startswith("tcp://0.0.0.0:")
    publisher.close()


def test_a_taken_port_is_refused(publisher: Publisher) -> None:
    with pytest.raises(WireError, match="in use"):
        Publisher(publisher.endpoint)


def test_other_threads_make_their_files_as_ever_while_a_port_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A umask is that of the whole process, so only a socket file is worth it."""
    masks: list[int] = []
    monkeypatch.setattr("os.umask", masks.append)
    Publisher("tcp://127.0.0.1:*").close()
    assert not masks


def test_an_ipc_socket_is_private_and_never_stolen(tmp_path: Path) -> None:
    path = tmp_path / "seldrt.sock"
    publisher = Publisher(f"ipc://{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(WireError, match="in use"):
        Publisher(f"ipc://{path}")
    publisher.close()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left_over:  # by a daemon that was killed
        left_over.bind(str(path))
    Publisher(f"ipc://{path}").close()


def test_files_that_are_made_after_an_ipc_socket_are_as_ever(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Publisher(f"ipc://{tmp_path}/s").close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_file_in_the_way_of_an_ipc_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(WireError, match="a file of that name exists"):
        Publisher(f"ipc://{path}")
    assert path.read_text() == "years of work"


def test_a_name_that_libzmq_reads_in_part_deletes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    for control in ("", f"ipc://{path}\0"):
        with pytest.raises(WireError, match="use tcp://HOST:PORT or ipc://PATH"):
            Publisher(f"ipc://{tmp_path}/s" if control else f"ipc://{path}\0", control=control)
    assert path.read_text() == "years of work"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="No such file"):
        Publisher(f"ipc://{tmp_path}/no/seldrt.sock")


def test_a_link_that_leads_nowhere_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(WireError, match="a file of that name exists"):
        Publisher(f"ipc://{path}")
    assert path.is_symlink()


def test_a_system_without_ipc_is_told_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zmq, "has", lambda transport: transport != "ipc")
    with pytest.raises(WireError, match=r"s: this system has no ipc; use tcp://127\.0\.0\.1:PORT"):
        Publisher(f"ipc://{tmp_path}/s")


def test_the_control_socket_obeys_the_rules_for_addresses(publisher: Publisher) -> None:
    with pytest.raises(WireError, match=r"refused to bind tcp://0\.0\.0\.0:5578"):
        Publisher("tcp://127.0.0.1:*", control="tcp://0.0.0.0:5578")
    with pytest.raises(WireError, match="in use; stop the other daemon or choose another --control"):
        Publisher("tcp://127.0.0.1:*", control=publisher.endpoint)
    assert publisher.control_endpoint == ""


def test_who_subscribes_to_too_much_is_cut_off_and_the_others_come_back(
    publisher: Publisher, context: zmq.Context
) -> None:
    honest, greedy = (subscribe(context, publisher, "seld1.frame.") for _ in range(2))
    publisher.attend("h3")
    for number in range(MOST_SUBSCRIBED_BYTES // 1000 + 2):
        greedy.subscribe(f"{number:01000}")
    end_s = time.monotonic() + WAIT_MS / 1000
    while not publisher.restarts:
        assert time.monotonic() < end_s
        publisher.attend("h3")
    greedy.close(0)
    while not honest.poll(20):
        assert time.monotonic() < end_s
        publisher.attend("h3")
        publisher.send(frame())
    assert receive(honest)[1]["seq"] > 0
    assert publisher.restarts == 1
    publisher.attend("h3")
    for _ in range(3):  # who comes and goes is not counted for ever
        subscribe(context, publisher, "x" * 200).close(0)
        while publisher._subscribed_bytes > 100 or publisher._socket.poll(50):
            assert time.monotonic() < end_s
            publisher.attend("h3")
    assert publisher._subscribed_bytes == len(b"\x01seld1.frame.")


@pytest.mark.skipif(sys.platform != "linux", reason="names without a file exist on Linux only")
def test_who_subscribes_to_too_much_is_cut_off_from_a_socket_that_everybody_here_can_reach(
    context: zmq.Context,
) -> None:
    with closing(Publisher(f"ipc://@seldrt-{os.getpid()}")) as publisher:
        greedy = subscribe(context, publisher, "seld1.frame.")
        for number in range(MOST_SUBSCRIBED_BYTES // 1000 + 2):
            greedy.subscribe(f"{number:01000}")
        end_s = time.monotonic() + WAIT_MS / 1000
        while not publisher.restarts:
            assert time.monotonic() < end_s
            publisher.attend("h3")
        while zmq.XPUB not in publisher._bound:  # it comes back at the same name
            assert time.monotonic() < end_s
            publisher.attend("h3")
        greedy.close(0)


def test_what_two_subscribe_to_is_forgotten_when_both_are_gone(publisher: Publisher, context: zmq.Context) -> None:
    both = []
    for _ in range(2):
        both.append(subscribe(context, publisher, "seld1."))
        publisher.attend("h3")
    for left, sub in ((1, both[0]), (0, both[1])):
        sub.close(0)
        assert publisher._socket.poll(WAIT_MS)
        publisher.attend("h3")
        assert publisher._subscribed_bytes == left * len(b"\x01seld1.")


def test_ending_what_was_never_subscribed_to_buys_nothing(publisher: Publisher) -> None:
    host, port = publisher.endpoint.removeprefix("tcp://").split(":")
    topics = [b"%0199d" % number for number in range(400)]
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(GREETING + READY)
        greeted = b""
        while b"Socket-Type" not in greeted:
            greeted += plain.recv(1000)
        end_s = time.monotonic() + WAIT_MS / 1000
        for number, topic in enumerate(topics, 1):
            for first in (0, 1):
                plain.sendall(bytes([0, 200, first]) + topic)
            while publisher._subscribed_bytes < number * 200:
                assert time.monotonic() < end_s
                publisher.attend("h3")
    while publisher._subscribed_bytes:  # all that it had is forgotten when it goes
        assert time.monotonic() < end_s
        publisher.attend("h3")
    assert not publisher._topics
