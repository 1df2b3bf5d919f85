"""The subscriber, against real publishers over real sockets."""

from __future__ import annotations

import _thread
import errno
import math
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from seldrt import connection
from seldrt.client import Subscriber, ask, subscriptions
from seldrt.config import ConfigError
from seldrt.detection import AnyMessage, Event, Frame, Gap, WireError
from seldrt.keys import make_keys
from seldrt.replies import Info, Pong, Refusal
from seldrt.runtime.publisher import Publisher

WAIT_S = 20.0
QUIET_S = 0.3


def frame(sample: int = 0, source: str = "h3") -> Frame:
    return Frame(source=source, t_capture_ns=1, sample=sample, frame_ms=100, detections=[])


def gap(source: str = "h3") -> Gap:
    return Gap(source=source, t_capture_ns=1, sample=0, lost_samples=5)


def event(class_: str, source: str = "h3") -> Event:
    place = {"track": 0, "azimuth_deg": 0.0, "elevation_deg": 0.0, "confidence": 0.5, "onset_ns": 1}
    when = {"t_capture_ns": 1, "sample": 0, "event_id": 0, "phase": "onset", "duration_ms": 100}
    return Event(source=source, class_=class_, class_id=0, **place, **when)  # type: ignore[arg-type]


def expect_subscribers(publisher: Publisher, count: int = 1) -> None:
    """Waits until so many subscriptions have arrived."""
    end_s = time.monotonic() + WAIT_S
    while count:
        assert time.monotonic() < end_s
        if publisher._gate is not None:
            publisher._gate.attend()
        if publisher._socket.poll(10):
            count -= publisher._socket.recv()[:1] == b"\x01"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher("tcp://127.0.0.1:*")
    yield publisher
    publisher.close()


@pytest.fixture
def other() -> Iterator[Publisher]:
    other = Publisher("tcp://127.0.0.1:*")
    yield other
    other.close()


def takes(subscriber: Subscriber, count: int) -> Iterator[AnyMessage]:
    for _ in range(count):
        message = subscriber.receive(WAIT_S)
        assert message is not None, subscriber.problem
        yield message


def told(subscriber: Subscriber, count: int) -> list[AnyMessage]:
    return list(takes(subscriber, count))


def test_messages_come_in_order_with_nothing_lost(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        expect_subscribers(publisher)
        sent: list[AnyMessage] = [frame(1), gap(), event("piano"), frame(2)]
        for message in sent:
            publisher.send(message)
        assert told(subscriber, 4) == sent
        assert (subscriber.lost, subscriber.malformed, subscriber.restarts) == (0, 0, 0)
        assert subscriber.receive(0.0) is None


def test_several_daemons_are_heard_by_turns_and_counted_apart(publisher: Publisher, other: Publisher) -> None:
    """Also when they have the same name and one of them sends much more than is read."""
    with Subscriber([publisher.endpoint, other.endpoint]) as subscriber:
        expect_subscribers(publisher)
        expect_subscribers(other)
        for sample in range(50):
            publisher.send(frame(sample))
        other.send(frame(100))
        assert all(connection.socket.poll(WAIT_S * 1000) for connection in subscriber.connections)
        first = [(subscriber.url, message.sample) for message in takes(subscriber, 2)]
        assert dict(first) == {publisher.endpoint: 0, other.endpoint: 100}
        other._seq[Frame] += 3  # as if they had been dropped
        other.send(frame(104))
        seen = {(message.sample, subscriber.url, subscriber.missed) for message in takes(subscriber, 50)}
        assert (104, other.endpoint, 3) in seen
        assert (49, publisher.endpoint, 0) in seen
        assert (subscriber.lost, subscriber.restarts, subscriber.trouble) == (3, 0, "")


def test_the_newest_of_each_of_several_daemons(publisher: Publisher, other: Publisher) -> None:
    with Subscriber([publisher.endpoint, other.endpoint], latest_only=True) as subscriber:
        expect_subscribers(publisher)
        expect_subscribers(other)
        for sample in range(10):
            publisher.send(frame(sample))
            other.send(frame(100 + sample))
        assert all(connection.socket.poll(WAIT_S * 1000) for connection in subscriber.connections)
        time.sleep(QUIET_S)  # all of it is there
        got = [(subscriber.url, message.sample) for message in takes(subscriber, 2)]
        assert dict(got) == {publisher.endpoint: 9, other.endpoint: 109}


def test_a_slow_reader_hears_the_newest_of_all_daemons_by_turns(publisher: Publisher, other: Publisher) -> None:
    with Subscriber([publisher.endpoint, other.endpoint], latest_only=True) as subscriber:
        expect_subscribers(publisher)
        expect_subscribers(other)
        heard = []
        for sample in range(12):  # both send more than once until the next is taken
            for each in (publisher, other, publisher, other):
                each.send(frame(sample))
            time.sleep(0.05)
            if subscriber.receive(WAIT_S) is not None:
                heard.append(subscriber.url)
        assert abs(heard.count(publisher.endpoint) - heard.count(other.endpoint)) <= 2


def test_who_sends_ever_new_topics_does_not_fill_the_memory(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seldrt.client.MOST_TOPICS", 10)
    with Subscriber(publisher.endpoint, latest_only=True) as subscriber:
        expect_subscribers(publisher)
        for number in range(50):
            publisher.send(frame(number, f"source{number}"))
        time.sleep(QUIET_S)
        kept = {message.source for message in takes(subscriber, 10)}
        assert kept == {f"source{number}" for number in range(40, 50)}
        assert subscriber.receive(0) is None


def test_who_sends_more_than_a_message_can_be_is_cut_off_and_may_come_again(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        expect_subscribers(publisher)
        publisher._socket.send_multipart([b"seld1.frame.h3.", b"x" * (2 << 20)])
        end_s, notice = time.monotonic() + WAIT_S, b""
        while notice[:1] != b"\x01" and time.monotonic() < end_s:  # it subscribes anew
            assert subscriber.receive(0.01) is None
            notice = publisher._socket.recv() if publisher._socket.poll(0) else b""
        publisher.send(frame(7))
        assert told(subscriber, 1)[0].sample == 7
        assert subscriber.malformed == 0


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells of its timers")
def test_a_computer_that_has_died_is_missed_at_both_ends(publisher: Publisher) -> None:
    """It ends no connection: the operating system asks, in 3 s at most, whether it is still there."""
    with Subscriber(publisher.endpoint):
        expect_subscribers(publisher)
        time.sleep(0.5)  # all that was sent has come
        port = f"{int(publisher.endpoint.rpartition(':')[2]):04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        timers = [row[5].split(":") for row in rows if port in (row[1][-4:], row[2][-4:]) and row[3] == "01"]
        assert len(timers) == 2
        for kind, ticks in timers:
            assert kind == "02"  # keepalive
            assert int(ticks, 16) <= 3 * os.sysconf("SC_CLK_TCK")


def test_a_daemon_is_heard_by_ipv6() -> None:
    try:
        publisher = Publisher("tcp://[::1]:*")
    except WireError:
        pytest.skip("there is no IPv6")
    with Subscriber(publisher.endpoint) as subscriber:
        expect_subscribers(publisher)
        publisher.send(frame(7))
        assert told(subscriber, 1)[0].sample == 7
    publisher.close()


def test_a_wait_lasts_as_long_as_it_should_and_none_is_none(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        for wait_s in (0.2, 0.8):
            began_s = time.monotonic()
            assert subscriber.receive(wait_s) is None
            assert time.monotonic() - began_s >= wait_s
        began_s = time.monotonic()
        assert [subscriber.receive(0.0) for _ in range(20)] == [None] * 20
        assert time.monotonic() - began_s < 5


def test_what_waits_to_be_received_is_no_silence(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        expect_subscribers(publisher)
        (connection,) = subscriber.connections
        time.sleep(0.05)
        assert connection.silent_s() >= 0.05
        publisher.send(frame())
        assert connection.socket.poll(WAIT_S * 1000)
        assert connection.silent_s() == 0
        told(subscriber, 1)
        assert 0 < connection.silent_s() < WAIT_S


def test_an_iteration_ends_when_nothing_comes_in_time(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, timeout_s=QUIET_S) as subscriber:
        expect_subscribers(publisher)
        publisher.send(frame(1))
        publisher.send(frame(2))
        assert [message.sample for message in subscriber] == [1, 2]


def test_a_signal_that_comes_just_before_a_wait_ends_it(publisher: Publisher) -> None:
    """`interrupt_main` raises its flag without waking the wait, as a signal in that moment does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a shell ignores
    try:
        with Subscriber(publisher.endpoint) as subscriber:
            threading.Timer(0.2, _thread.interrupt_main).start()
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                subscriber.receive(20)
            assert time.monotonic() - began < 10
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_what_is_chosen_comes(publisher: Publisher) -> None:
    choices = {
        "all": ({}, 6),
        "frames": ({"kinds": ["frame"]}, 2),
        "one source": ({"source": "h3"}, 4),
        "a class": ({"kinds": ["event"], "source": "h3", "classes": ["piano"]}, 1),
        "a class of any source": ({"kinds": ["event"], "classes": ["piano"]}, 2),
        "a class of any source, and all else": ({"classes": ["piano"]}, 5),
        "a class and all frames": ({"kinds": ["event", "frame"], "source": "h3", "classes": ["piano"]}, 2),
    }
    sent = [frame(), frame(source="h3vr"), event("piano"), event("piano_forte"), event("piano", "h3vr"), gap()]
    for choice, expected in choices.values():
        with Subscriber(publisher.endpoint, **choice) as subscriber:  # type: ignore[arg-type]
            expect_subscribers(publisher, len(subscriptions(**choice)))  # type: ignore[arg-type]
            for message in sent:
                publisher.send(message)
            got = told(subscriber, expected)
            assert subscriber.receive_bytes(QUIET_S) is None
            assert all(any(message == other for other in sent) for message in got)
            assert subscriber.lost == 0


def test_events_of_classes_that_nobody_asked_for_are_no_loss(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, kinds=["event"], classes=["piano"]) as subscriber:
        expect_subscribers(publisher)
        for name in ("piano", "alarm", "piano"):
            publisher.send(event(name))
        assert [message.seq for message in told(subscriber, 2)] == [0, 2]
        assert (subscriber.lost, subscriber.missed) == (0, 0)


def test_a_choice_that_makes_no_sense_is_refused() -> None:
    for choice, match in (
        ({"kinds": ["events"]}, "'events' is unknown: use frame, event"),
        ({"timeout_s": -1.0}, "timeout_s is -1.0: give seconds"),
        ({"timeout_s": math.nan}, "timeout_s is nan"),
        ({"keys": "ab"}, "keys are pairs of files"),
        ({"keys": ("a",)}, "keys are pairs of files"),
        ({"keys": [("a", "b", "c")]}, "keys are pairs of files"),
        ({"kinds": "event"}, "'event' is one name: give a list"),
        ({"classes": "piano", "source": "h3"}, "'piano' is one name: give a list"),
        ({"kinds": ["frame"], "source": "h3", "classes": ["piano"]}, "add 'event'"),
        ({"source": "a.b"}, "source name"),
        ({"source": "h3", "classes": ["a b"]}, "class name"),
    ):
        with pytest.raises(ConfigError, match=match):
            Subscriber(**choice)  # type: ignore[arg-type]
    with pytest.raises(WireError, match=r"cannot connect to 'nonsense'"):
        Subscriber(["ipc:///tmp/x", "nonsense"])
    for url, match in (
        ("tcp://127.0.0.1:0", "cannot connect to 'tcp://127.0.0.1:0': which port"),
        ("tcp://127.0.0.1:65536", "cannot connect to 'tcp://127.0.0.1:65536': a port is 1 to 65535"),
        ("tcp://127.0.0.1:" + "9" * 5000, "a port is 1 to 65535"),
        ("tcp://127.0.0.1", "cannot connect to 'tcp://127.0.0.1': .*; use tcp://HOST:PORT or ipc://PATH"),
    ):
        with pytest.raises(WireError, match=match):
            Subscriber(url)
    Subscriber(["tcp://127.0.0.1:65535", "ipc:///tmp/no-such/x:0"]).close()
    for urls, keys, match in (
        ([], None, "not none"),
        (["ipc:///tmp/x"] * 2, None, "Give each address once, not ipc:///tmp/x, ipc:///tmp/x"),
        (["ipc:///tmp/x", "ipc:///tmp/y", "ipc:///tmp/z"], [("a", "b")] * 2, "2 keys for 3 daemons"),
    ):
        with pytest.raises(ConfigError, match=match):
            Subscriber(urls, keys=keys)


def test_a_loss_is_counted_once_for_each_kind_and_source(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        expect_subscribers(publisher)
        publisher.send(frame(0))
        publisher.send(gap())
        publisher._seq[Frame] += 3  # as if they had been dropped
        publisher.send(frame(4))
        publisher.send(gap())
        publisher.send(frame(5))
        missed = []
        for _ in range(5):
            assert subscriber.receive(WAIT_S) is not None
            missed.append(subscriber.missed)
        assert missed == [0, 0, 3, 0, 0]
        assert subscriber.lost == 3


def test_a_slow_reader_loses_messages_and_counts_them(publisher: Publisher) -> None:
    count = 50_000
    with Subscriber(publisher.endpoint, kinds=["frame"]) as slow:
        expect_subscribers(publisher)
        for sample in range(count):
            publisher.send(frame(sample))
        got: list[AnyMessage] = []
        while (message := slow.receive(0.5)) is not None:
            got.append(message)
        while not got or got[-1].seq < count:  # room again: what comes now shows the loss
            publisher.send(frame())
            if (message := slow.receive(0.2)) is not None:
                got.append(message)
        assert 100 <= len(got) < count
        assert [m.seq for m in got] == sorted({m.seq for m in got})
        assert slow.lost == got[-1].seq + 1 - len(got)


def test_the_newest_of_each_topic_when_only_that_is_wanted(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, latest_only=True) as subscriber:
        expect_subscribers(publisher)
        for sample in range(50):
            publisher.send(frame(sample))
        publisher.send(event("piano"))
        publisher.send(event("alarm"))
        publisher._seq[Frame] += 2
        publisher.send(frame(99))
        assert subscriber.connections[0].socket.poll(WAIT_S * 1000)
        time.sleep(QUIET_S)  # all of it is there
        got = told(subscriber, 3)
        assert [type(message) for message in got] == [Event, Event, Frame]
        assert got[-1].sample == 99
        assert (subscriber.missed, subscriber.lost) == (2, 2)
        assert subscriber.receive(0.0) is None


def test_a_restart_of_the_daemon_is_not_a_loss(publisher: Publisher) -> None:
    endpoint = publisher.endpoint
    with Subscriber(endpoint) as subscriber:
        expect_subscribers(publisher)
        publisher._seq[Frame] = 7
        publisher.send(frame(1))
        told(subscriber, 1)
        publisher.close()
        again = Publisher(endpoint)
        try:
            end_s = time.monotonic() + WAIT_S
            while not again._socket.poll(0) and time.monotonic() < end_s:
                assert subscriber.receive(0.01) is None  # ZeroMQ subscribes anew while the program receives
            again._seq[Frame] = 20
            again.send(frame(2))
            assert told(subscriber, 1)[0].sample == 2
            assert (subscriber.lost, subscriber.restarts) == (0, 1)
        finally:
            again.close()


def test_what_cannot_be_read_is_passed_over_and_told(publisher: Publisher) -> None:
    topic = b"seld1.frame.h3."
    nonsense = [
        [topic, b"\xc1 not msgpack"],
        [topic, b"three", b"parts"],
        [topic],
        [topic, msgpack.packb({"type": "frame"})],
        [topic, b"\x82\xa4type\xa5frame\xa1x" + b"\x91" * 100_000],
        [topic, b"\x82\xa4type\xa2\xff\xfe"],
    ]
    with Subscriber(publisher.endpoint) as subscriber:
        expect_subscribers(publisher)
        for parts in nonsense:
            publisher._socket.send_multipart(parts)
        publisher._socket.send_multipart([b"seld1.weather.h3.", msgpack.packb({"rain": True})])  # of the future
        publisher.send(frame(5))
        assert told(subscriber, 1)[0].sample == 5
        assert subscriber.malformed == len(nonsense)
        assert "malformed message on b'seld1.frame.h3.'" in subscriber.problem


def test_questions_are_answered_in_types_and_silence_is_told(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/control"
    program = (
        "import sys; from seldrt.runtime.publisher import Publisher\n"
        f"publisher = Publisher('ipc://{tmp_path}/bind', control={url!r})\n"
        "print('ready', flush=True)\n"
        "while True: publisher.attend('h3'); publisher._control._socket.poll(100)"
    )
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        pong = ask("ping", url)
        assert isinstance(pong, Pong)
        assert abs(time.time_ns() - pong.t_pub_ns) < 60e9
        refusal = ask("info", url)  # no model is loaded yet
        assert isinstance(refusal, Refusal)
        assert refusal.error == "not known yet: ask again"
    finally:
        daemon.kill()
        daemon.communicate()
    with pytest.raises(
        WireError, match=r"no answer from .* in 0.3 s: no daemon answers there: is it running, .* \(requests go"
    ):
        ask("ping", url, timeout_s=QUIET_S)
    with pytest.raises(ConfigError, match="'sing' is unknown: use ping, info, status"):
        ask("sing", url)


def test_the_client_is_light() -> None:
    check = "import sys, seldrt.client; print([m for m in ('torch', 'numpy', 'scipy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    make_keys(folder, "laptop")
    make_keys(tmp_path / "stranger", "laptop")
    return folder


def test_with_keys_only_known_clients_of_the_right_daemon_get_anything(keys: Path, tmp_path: Path) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", curve_keys=keys)
    own, server = keys / "laptop.key_secret", keys / "server.key"
    stranger = tmp_path / "stranger"
    subscribers = {
        "known": Subscriber(publisher.endpoint, keys=(own, server)),
        "no key": Subscriber(publisher.endpoint),
        "unknown key": Subscriber(publisher.endpoint, keys=(stranger / "laptop.key_secret", server)),
        "of another daemon": Subscriber(publisher.endpoint, keys=(own, stranger / "server.key")),
    }
    try:
        got = set()
        end_s = time.monotonic() + WAIT_S
        while not got and time.monotonic() < end_s:
            publisher.attend("h3")
            publisher.send(frame())
            got = {name for name, s in subscribers.items() if s.receive_bytes(0.02) is not None}
        for _ in range(50):  # as long again, and more
            publisher.attend("h3")
            publisher.send(frame())
            got |= {name for name, s in subscribers.items() if s.receive_bytes(0.01) is not None}
        assert got == {"known"}
        assert {name: subscriber.trouble for name, subscriber in subscribers.items()} == {
            "known": "",
            "no key": "only clients with a key may connect there, or it is not the address of --bind",
            "unknown key": f"the daemon there does not know the key {stranger}/laptop.key_secret",
            "of another daemon": (
                f"the daemon there has another key than {stranger}/server.key or none, "
                "or it is not the address of --bind"
            ),
        }
    finally:
        for subscriber in subscribers.values():
            subscriber.close()
        publisher.close()


def test_daemons_may_have_keys_of_their_own(keys: Path, tmp_path: Path) -> None:
    own, stranger = keys / "laptop.key_secret", tmp_path / "stranger"
    publishers = [Publisher("tcp://127.0.0.1:*", curve_keys=folder) for folder in (keys, stranger)]
    urls = [publisher.endpoint for publisher in publishers]
    pairs = [(own, keys / "server.key"), (stranger / "laptop.key_secret", stranger / "server.key")]
    try:
        with Subscriber(urls, keys=pairs) as each, Subscriber(urls, keys=pairs[0]) as one:
            heard: dict[Subscriber, set[str]] = {each: set(), one: set()}
            end_s = time.monotonic() + WAIT_S
            while time.monotonic() < end_s and (heard[each] != set(urls) or "server.key" not in one.trouble):
                for publisher in publishers:
                    publisher.attend("h3")
                    publisher.send(frame())
                for subscriber, found in heard.items():
                    if subscriber.receive(0.02) is not None:
                        found.add(subscriber.url)
            assert heard == {each: set(urls), one: {urls[0]}}
            assert each.trouble == ""
            assert one.trouble == (
                f"{urls[1]}: the daemon there has another key than {keys}/server.key or none, "
                "or it is not the address of --bind"
            )
    finally:
        for publisher in publishers:
            publisher.close()


def test_some_daemons_may_have_no_keys(keys: Path) -> None:
    publishers = [Publisher("tcp://127.0.0.1:*", curve_keys=folder) for folder in (keys, None)]
    urls = [publisher.endpoint for publisher in publishers]
    heard: set[str] = set()
    with Subscriber(urls, keys=[(keys / "laptop.key_secret", keys / "server.key"), None]) as subscriber:
        end_s = time.monotonic() + WAIT_S
        while heard != set(urls) and time.monotonic() < end_s:
            for publisher in publishers:
                publisher.attend("h3")
                publisher.send(frame())
            if subscriber.receive(0.02) is not None:
                heard.add(subscriber.url)
    assert heard == set(urls)
    for publisher in publishers:
        publisher.close()


def test_a_key_that_is_added_counts_at_once_and_one_that_is_deleted_no_more(keys: Path, tmp_path: Path) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", curve_keys=keys)

    def hears() -> bool:
        with Subscriber(publisher.endpoint, keys=(keys / "phone.key_secret", keys / "server.key")) as subscriber:
            for _ in range(40):
                publisher.attend("h3")
                publisher.send(frame())
                if subscriber.receive_bytes(0.02) is not None:
                    return True
        return False

    try:
        make_keys(keys, "phone")
        assert hears()
        (keys / "clients" / "phone.key").rename(tmp_path / "phone.key")
        (keys / "clients" / "half.key").write_text("curve\n")  # being written: the others are as before
        publisher.attend("h3")
        (keys / "clients" / "half.key").unlink()
        assert not hears()
    finally:
        publisher.close()


def test_who_was_allowed_gets_in_while_the_keys_cannot_be_read(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", curve_keys=keys)

    def unreadable(_: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    try:
        for _ in range(2):
            with Subscriber(publisher.endpoint, keys=(keys / "laptop.key_secret", keys / "server.key")) as subscriber:
                assert hears_at_last(subscriber, publisher)
            monkeypatch.setattr("seldrt.runtime.sockets.load_allowed", unreadable)
    finally:
        publisher.close()


def hears_at_last(subscriber: Subscriber, publisher: Publisher) -> bool:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        publisher.attend("h3")
        publisher.send(frame())
        if subscriber.receive(0.02) is not None:
            return True
    return False


def test_who_was_refused_gets_in_when_its_key_has_come(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seldrt.connection.ANEW_S", 0.2)
    own = tmp_path / "stranger" / "laptop.key_secret"
    publisher = Publisher("tcp://127.0.0.1:*", curve_keys=keys)
    try:
        with Subscriber(publisher.endpoint, keys=(own, keys / "server.key")) as subscriber:
            end_s = time.monotonic() + WAIT_S
            while "does not know the key" not in subscriber.trouble and time.monotonic() < end_s:
                publisher.attend("h3")
                assert subscriber.receive(0.01) is None
            own.parent.joinpath("clients", "laptop.key").rename(keys / "clients" / "second.key")
            assert hears_at_last(subscriber, publisher)
            assert subscriber.trouble == ""
    finally:
        publisher.close()


@pytest.mark.parametrize("asks_first", [True, False])
def test_who_was_refused_gets_in_when_the_right_daemon_has_come(
    keys: Path, asks_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong one asks for keys where there are none, or the other way round; the right one binds the same port."""
    monkeypatch.setattr("seldrt.connection.ANEW_S", 0.2)
    wrong, right = (keys, None) if asks_first else (None, keys)
    publisher = Publisher("tcp://127.0.0.1:*", curve_keys=wrong)
    pair = None if asks_first else (keys / "laptop.key_secret", keys / "server.key")
    with Subscriber(publisher.endpoint, keys=pair) as subscriber:
        end_s = time.monotonic() + WAIT_S
        while subscriber.trouble.startswith("no daemon") and time.monotonic() < end_s:
            publisher.attend("h3")
            assert subscriber.receive(0.01) is None
        assert subscriber.trouble.endswith("not the address of --bind")
        publisher.close()
        publisher = Publisher(publisher.endpoint, curve_keys=right)
        assert hears_at_last(subscriber, publisher)
        publisher.close()


def test_why_nothing_comes_is_known(tmp_path: Path, context: zmq.Context) -> None:
    url = f"ipc://{tmp_path}/s"
    absent = "no daemon answers there: is it running, and is the address right?"
    with Subscriber(url) as subscriber:
        assert subscriber.receive(QUIET_S) is None
        assert subscriber.trouble == absent
        publisher = Publisher(url)
        expect_subscribers(publisher)
        end_s = time.monotonic() + WAIT_S
        while subscriber.trouble and time.monotonic() < end_s:
            assert subscriber.receive(0.01) is None
        assert subscriber.trouble == ""
        publisher.close()
        while not subscriber.trouble and time.monotonic() < end_s:
            assert subscriber.receive(0.01) is None
        assert subscriber.trouble == absent
    other = context.socket(zmq.REP)  # answers, but is no publisher: libzmq gives up at once
    other.bind(f"ipc://{tmp_path}/r")
    with Subscriber(f"ipc://{tmp_path}/r") as subscriber:
        end_s = time.monotonic() + WAIT_S
        while subscriber.trouble == absent and time.monotonic() < end_s:
            assert subscriber.receive(0.01) is None
        assert subscriber.trouble == "only clients with a key may connect there, or it is not the address of --bind"


@pytest.mark.parametrize("with_keys", [False, True])
def test_who_takes_a_connection_and_says_nothing_is_told_of_as_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_keys: bool
) -> None:
    options = [option for option in connection.OPTIONS if option[0] != zmq.HANDSHAKE_IVL]
    monkeypatch.setattr(connection, "OPTIONS", (*options, (zmq.HANDSHAKE_IVL, 1800)))
    monkeypatch.setattr(connection, "SLOW_S", 0.8)
    make_keys(tmp_path, "laptop")
    keys = (tmp_path / "laptop.key_secret", tmp_path / "server.key") if with_keys else None
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Subscriber(f"tcp://127.0.0.1:{port}", keys=keys) as subscriber:
            end_s = time.monotonic() + WAIT_S
            while subscriber.trouble in ("", connection.ABSENT) and time.monotonic() < end_s:
                assert subscriber.receive(0.1) is None
            assert subscriber.trouble == connection.MUTE
            assert subscriber.receive(2.5) is None  # it tries again
            assert subscriber.trouble == connection.MUTE


STALLED = """
import sys, time
from seldrt.client import Subscriber
with Subscriber(sys.argv[1]) as subscriber:
    assert subscriber.receive(10)
    print("stalls", flush=True)
    time.sleep(9)
    count = 0
    while subscriber.receive(1.0):
        count += 1
    print(count > 100)
"""


def test_a_program_that_does_not_read_for_long_loses_messages_and_nothing_more() -> None:
    """Of a daemon that ends meanwhile; libzmq aborts where a heartbeat comes due then."""
    publisher = Publisher("tcp://127.0.0.1:*")
    command = [sys.executable, "-c", STALLED, publisher.endpoint]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not select.select([program.stdout], [], [], 0.002)[0]:  # until it stalls, or has ended
        publisher.attend("h3")
        publisher.send(Frame(source="h3", t_capture_ns=1, sample=0, frame_ms=100, detections=[]))
    for _ in range(1000):
        publisher.send(Frame(source="h3", t_capture_ns=1, sample=0, frame_ms=100, detections=[]))
        time.sleep(0.001)
    publisher.close()
    out, errors = program.communicate(timeout=60)
    assert (program.returncode, out.split()) == (0, ["stalls", "True"]), errors


def test_an_attempt_that_is_not_answered_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may only be slow, and libzmq makes the next one."""
    monkeypatch.setattr("seldrt.connection.ANEW_S", 0.0)
    again: list[str] = []
    monkeypatch.setattr(zmq.Socket, "disconnect", lambda _, url: again.append(url))
    with Subscriber(f"ipc://{tmp_path}/nowhere") as subscriber:
        for _ in range(30):
            assert subscriber.receive(0.02) is None
    assert again == []


def test_the_control_socket_asks_for_keys_too(keys: Path) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", control="tcp://127.0.0.1:*", curve_keys=keys)
    publisher.introduce(
        Info(
            source="h3",
            version="1",
            classes=["piano"],
            model_id="m",
            mic="ambix",
            sample_rate=24000,
            frame_ms=100,
            latency_ms=0.0,
            waits_for=[],
        )
    )
    from threading import Event as Flag
    from threading import Thread

    over = Flag()

    def serve() -> None:
        while not over.is_set():
            publisher.attend("h3")
            over.wait(0.01)

    thread = Thread(target=serve)
    thread.start()
    try:
        own = (keys / "laptop.key_secret", keys / "server.key")
        info = ask("info", publisher.control_endpoint, keys=own)
        assert isinstance(info, Info)
        assert info.classes == ["piano"]
        with pytest.raises(WireError, match="no answer"):
            ask("info", publisher.control_endpoint, timeout_s=1.0)
    finally:
        over.set()
        thread.join()
        publisher.close()


def test_with_keys_an_address_that_others_reach_may_be_bound(keys: Path) -> None:
    publisher = Publisher("tcp://0.0.0.0:*", control="tcp://0.0.0.0:*", curve_keys=keys)
    port = publisher.endpoint.rpartition(":")[2]
    with Subscriber(f"tcp://127.0.0.1:{port}", keys=(keys / "laptop.key_secret", keys / "server.key")) as subscriber:
        expect_subscribers(publisher)
        publisher.send(frame(3))
        assert told(subscriber, 1)[0].sample == 3
    publisher.close()


def test_no_socket_of_zmq_is_left_when_a_subscriber_cannot_be_made() -> None:
    for _ in range(3):
        with pytest.raises(WireError):
            Subscriber("tcp://")
    with zmq.Context() as context:
        assert context.get(zmq.SOCKET_LIMIT) > 0


def test_what_the_protocol_shows_is_typed() -> None:
    protocol = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    (snippet,) = re.findall(r"```python\n(from seldrt.client.*?)```", protocol, re.DOTALL)
    check = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "-c", snippet]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
