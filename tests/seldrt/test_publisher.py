"""Publisher and subscriber over real sockets; received bytes are read with plain msgpack."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from seldrt.client import Subscriber
from seldrt.detection import Frame, Gap, WireError
from seldrt.runtime.publisher import Publisher

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


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


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
    assert not publisher.new_subscribers("h3")
    subscribers = []
    for prefix in ("seld1.status.h3.", "seld1.status.h3.", "seld1.", ""):
        subscribers.append(subscribe(context, publisher, prefix))
        assert publisher.new_subscribers("h3")
        assert not publisher.new_subscribers("h3")
    subscribers.append(subscribe(context, publisher, "seld1.frame.h3."))
    assert not publisher.new_subscribers("h3")


def test_a_slow_subscriber_loses_messages_sees_it_and_holds_nobody_up(publisher: Publisher) -> None:
    count = 50_000
    with Subscriber(publisher.endpoint, ["seld1.frame."]) as slow:
        assert publisher._socket.poll(WAIT_MS)
        for sample in range(count):
            publisher.send(frame(sample))
        got = 0
        while slow.receive(0.5) is not None:
            got += 1
        for _ in range(50):  # room again: what comes now shows the loss
            publisher.send(frame())
            if slow.receive(0.2) is not None:
                got += 1
                break
        assert 100 <= got < count
        assert slow.lost > 0


def test_a_subscriber_survives_a_restart_and_what_is_not_ours(publisher: Publisher) -> None:
    endpoint = publisher.endpoint
    with Subscriber(endpoint) as subscriber:
        assert publisher._socket.poll(WAIT_MS)
        publisher._socket.send_multipart([b"seld1.frame.h3.", b"\xc1 not msgpack"])
        publisher._socket.send_multipart([b"seld1.frame.h3.", b"three", b"parts"])
        publisher._socket.send_multipart([b"seld1.weather.h3.", msgpack.packb({"rain": True})])
        publisher.send(frame(5))
        assert [subscriber.receive(10.0) for _ in range(3)] == [None, None, None]
        assert subscriber.malformed == 2
        first = subscriber.receive(10.0)
        assert isinstance(first, Frame)
        assert first.sample == 5
        publisher.close()
        again = Publisher(endpoint)
        deadline_s = time.monotonic() + 10.0
        while not again._socket.poll(0) and time.monotonic() < deadline_s:
            assert subscriber.receive(0.01) is None  # ZeroMQ subscribes anew while the program receives
        again.send(frame(6))
        second = subscriber.receive(10.0)
        assert isinstance(second, Frame)
        assert (second.sample, second.seq) == (6, 0)
        assert subscriber.lost == 0
        again.close()


def test_iterating_gives_messages(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        assert publisher._socket.poll(WAIT_MS)
        sent = gap()
        publisher.send(sent)
        assert next(iter(subscriber)) == sent


@pytest.mark.parametrize("url", ["", "5577", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://127.0.0.1:1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(WireError, match=r"use tcp://HOST:PORT or ipc://PATH"):
        Publisher(url)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.7", "[::]", "eth0", "example.org"])
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


def test_a_file_in_the_way_of_an_ipc_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(WireError, match="a file of that name exists"):
        Publisher(f"ipc://{path}")
    assert path.read_text() == "years of work"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="No such file"):
        Publisher(f"ipc://{tmp_path}/no/seldrt.sock")


def test_a_subscriber_refuses_what_is_no_address() -> None:
    with pytest.raises(WireError, match=r"cannot connect to 'nonsense'"):
        Subscriber("nonsense")
