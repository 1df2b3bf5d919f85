"""examples/home_assistant.py between daemons and a real MQTT broker; what Home Assistant would read is the oracle.

Without mosquitto these tests are skipped; with ``LIVE_TESTS=required`` (as in .ci/run) they fail instead.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from paho.mqtt import client as mqtt

from seldrt.keys import make_keys
from tests import test_examples
from tests.processes import lacking, until
from tests.test_examples import EXAMPLES, NO_MAPS, Start, interrupted, replay

garden, start = test_examples.garden, test_examples.start
PIANO, CONFIG = "seldrt/garden/piano", "homeassistant/binary_sensor/seldrt_garden/piano/config"
AVAILABILITY = "seldrt/garden/availability"
SCRIPT = str(EXAMPLES / "home_assistant.py")


class Broker:
    """A mosquitto of its own that keeps nothing when it ends; "hall" is let in with the password "let mé in"."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            lacking("not installed: mosquitto (Debian: apt-get install mosquitto)")
        self._program, self._config = program, folder / "mosquitto.conf"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.password = folder / "password.txt"
        self.password.write_text("let mé in\n", encoding="utf-8-sig")  # as editors of Windows save it
        users = folder / "users"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "hall", "let mé in"], check=True)
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", f"password_file {users}"]
        self._config.write_text("\n".join([*lines, f"user {getpass.getuser()}"]) + "\n")
        self.start()

    @property
    def options(self) -> list[str]:
        """How a program gets at it."""
        where = ["--broker", "127.0.0.1", "--port", str(self.port)]
        return [*where, "--user", "hall", "--password-file", str(self.password)]

    def start(self) -> None:
        self._process = subprocess.Popen([self._program, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        until(self._answers, "the broker does not come up")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the broker ended"
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0


class Reader:
    """Reads all that the broker has and gets, as Home Assistant would."""

    def __init__(self, broker: Broker) -> None:
        self.read: list[tuple[str, str]] = []  # topics and payloads
        self.retained: set[str] = set()  # topics of what was there before
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set("hall", "let mé in")
        self._client.on_connect = lambda *event: self._client.subscribe("#")
        self._client.on_message = self._note
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def _note(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.retain:
            self.retained.add(message.topic)
        self.read.append((message.topic, message.payload.decode()))

    def payloads(self, topic: str) -> list[str]:
        return [payload for of, payload in self.read if of == topic]

    def has(self, topic: str, payload: str) -> bool:
        """Whether this is the last word."""
        return self.payloads(topic)[-1:] == [payload]

    def until(self, topic: str, payload: str) -> None:
        until(lambda: self.has(topic, payload), f"{topic} {payload}, but: {self.read}")

    def attributes(self) -> dict[str, Any]:
        return json.loads(self.payloads(f"{PIANO}/attributes")[-1])

    def where(self) -> list[str]:
        """The piano, in words."""
        return [json.loads(payload)["where"] for payload in self.payloads(f"{PIANO}/attributes")]

    @property
    def bridge(self) -> str:
        """What the last will of the program is about."""
        return next((topic for topic, _ in self.read if topic.startswith("seldrt/bridge/")), "")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Actor:
    """Says what a daemon would say, but to order."""

    def __init__(self, url: str, reader: Reader) -> None:
        self._socket, self._reader, self.epoch = zmq.Context.instance().socket(zmq.PUB), reader, 1
        self._socket.bind(url)

    def say(self, kind: str, source: Any = "garden", **more: Any) -> None:
        well = {"degraded": False, "why": ""} if kind == "status" else {}
        message = {"v": 1, "type": kind, "source": source, "epoch": self.epoch, **well, **more}
        self.send(f"seld1.{kind}.".encode(), msgpack.packb(message))

    def send(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def event(
        self, phase: str, event_id: int, azimuth_deg: float = 90.0, elevation_deg: float = 0.0, **more: Any
    ) -> None:
        place = {
            "azimuth_deg": azimuth_deg,
            "elevation_deg": elevation_deg,
            "confidence": 0.5,
            "onset_ns": event_id * 10**9,
        }
        self.say("event", phase=phase, event_id=event_id, **{"class": "piano"} | place | more)

    def until(self, topic: str, payload: str, **more: Any) -> None:
        """Lives on until the reader has read it."""

        def reached() -> bool:
            self.say("status", state="running", **more)
            return self._reader.has(topic, payload)

        until(reached, f"{topic} {payload}, but: {self._reader.read}")

    def close(self) -> None:
        self._socket.close(0)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def reader(broker: Broker) -> Iterator[Reader]:
    reader = Reader(broker)
    yield reader
    reader.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


@pytest.fixture
def actor(url: str, reader: Reader) -> Iterator[Actor]:
    actor = Actor(url, reader)
    yield actor
    actor.close()


def begin(start: Start, url: str, broker: Broker, reader: Reader, *more: str) -> subprocess.Popen[str]:
    """The program, when it is there."""
    program = start(sys.executable, SCRIPT, "--connect", url, *broker.options, *more)
    until(lambda: reader.has(reader.bridge, "online") or program.poll() is not None, "it does not begin")
    assert program.poll() is None, program.communicate()[1]
    return program


def test_what_a_daemon_hears(
    tmp_path: Path, garden: Path, start: Start, url: str, broker: Broker, reader: Reader
) -> None:
    make_keys(tmp_path, "laptop")
    keys = ["--key", str(tmp_path / "laptop.key_secret"), "--server-key", str(tmp_path / "server.key")]
    program = begin(start, url, broker, reader, *keys, "--classes", "piano,alarm")
    daemon = replay(garden, "--bind", url, "--curve-keys", str(tmp_path), "--quiet")
    reader.until(f"{PIANO}/state", "ON")
    first = reader.attributes()
    daemon.communicate(timeout=60)
    reader.until(AVAILABILITY, "offline")  # it said that it has ended
    assert reader.payloads(f"{PIANO}/state")[-4:] == ["ON", "OFF", "ON", "OFF"]
    assert reader.payloads(f"{PIANO}/state")[:-4] in ([], ["OFF"])  # it may have sounded before all was known
    assert reader.payloads("seldrt/garden/alarm/state") == ["OFF"]
    assert reader.payloads(AVAILABILITY) == ["online", "offline"]
    assert (first["where"], round(first["azimuth_deg"]), round(first["elevation_deg"])) == ("left", 90, 10)
    assert 0 < first["confidence"] <= 1
    assert abs(datetime.fromisoformat(first["since"]).timestamp() - time.time()) < 60
    second = reader.attributes()
    assert (second["where"], round(second["azimuth_deg"]), round(second["elevation_deg"])) == ("right", -90, -20)
    assert second["since"] > first["since"]
    assert second["since"].endswith("+00:00")

    late = Reader(broker)
    late.until(reader.bridge, "online")
    until(lambda: late.retained == {topic for topic, _ in reader.read}, "all is retained")
    assert json.loads(late.payloads(CONFIG)[0]) == {
        "name": "piano",
        "unique_id": "seldrt_garden.piano",
        "device_class": "sound",
        "state_topic": f"{PIANO}/state",
        "json_attributes_topic": f"{PIANO}/attributes",
        "availability": [{"topic": reader.bridge}, {"topic": AVAILABILITY}],
        "availability_mode": "all",
        "device": {"identifiers": ["seldrt_garden"], "name": "garden", "manufacturer": "seldrt", "model": "microphone"},
        "origin": {"name": "seldrt"},
    }
    late.close()
    assert "Traceback" not in interrupted(program)[1]
    reader.until(reader.bridge, "offline")


def test_a_daemon_that_dies_and_a_program_that_dies(
    garden: Path, start: Start, url: str, broker: Broker, reader: Reader
) -> None:
    program = begin(start, url, broker, reader, "--classes", "piano")
    daemon = replay(garden, "--bind", url, "--quiet")
    reader.until(f"{PIANO}/state", "ON")
    daemon.kill()
    daemon.communicate()
    reader.until(AVAILABILITY, "offline")
    before = len(reader.read) - 1
    daemon = replay(garden, "--bind", url, "--quiet")
    reader.until(AVAILABILITY, "online")
    reader.until(f"{PIANO}/state", "ON")
    states = [(topic, payload) for topic, payload in reader.read[before:] if not topic.endswith("attributes")]
    assert states == [
        (AVAILABILITY, "offline"),
        (f"{PIANO}/state", "OFF"),
        (AVAILABILITY, "online"),
        (f"{PIANO}/state", "ON"),
    ]

    program.kill()
    reader.until(reader.bridge, "offline")
    daemon.kill()
    daemon.communicate()
    assert reader.has(f"{PIANO}/state", "ON")
    assert reader.has(AVAILABILITY, "online")
    before = len(reader.read)
    program = begin(
        start, url, broker, reader, "--classes", "piano"
    )  # what it said before is not to be believed, as no daemon is heard
    after = reader.read[before:]
    assert after[-1] == (reader.bridge, "online")
    assert sorted(after[:-1]) == sorted([(AVAILABILITY, "offline"), (CONFIG, reader.payloads(CONFIG)[0])])
    program.kill()
    reader.until(reader.bridge, "offline")
    begin(start, url, broker, reader, "--classes", "alarm")
    assert reader.has(CONFIG, "")  # removed


def test_the_sensors_are_those_of_the_classes_that_may_be_reported(
    start: Start, url: str, broker: Broker, reader: Reader, actor: Actor
) -> None:
    """Before anything sounds, so that automations can name them; a misspelt one is told and never made."""
    program = begin(start, url, broker, reader)
    actor.until(f"{PIANO}/state", "OFF", classes=["piano", "alarm"])
    actor.until("seldrt/garden/alarm/state", "OFF", classes=["piano", "alarm"])
    program.kill()
    program = begin(start, url, broker, reader, "--classes", "alarm,dorbell")
    actor.until(CONFIG, "", classes=["piano", "alarm"])
    actor.until(AVAILABILITY, "online", classes=["piano", "alarm"])
    assert not any("dorbell" in topic for topic, _ in reader.read)
    assert "garden reports no dorbell, but piano, alarm\n" in interrupted(program)[1]


def test_a_broker_that_is_started_anew(start: Start, url: str, broker: Broker, reader: Reader, actor: Actor) -> None:
    program = begin(start, url, broker, reader)
    actor.until(AVAILABILITY, "online")
    actor.event("onset", 0)
    actor.until(f"{PIANO}/state", "ON")
    known = dict(reader.read)
    broker.kill()
    assert program.stderr is not None
    assert program.stderr.readline() == f"the broker 127.0.0.1:{broker.port}: connection lost\n"
    actor.event("offset", 0)
    broker.start()
    late = Reader(broker)
    until(lambda: actor.say("status", state="running") or late.has(reader.bridge, "online"), "it does not come back")
    assert dict(late.read) == known | {f"{PIANO}/state": "OFF"}
    assert late.read[-1][0] == reader.bridge
    late.close()
    assert f"the broker 127.0.0.1:{broker.port}: connected\n" in interrupted(program)[1]


def test_events_that_overlap_or_are_lost(start: Start, url: str, broker: Broker, reader: Reader, actor: Actor) -> None:
    begin(start, url, broker, reader)
    actor.until(AVAILABILITY, "online")
    actor.event("onset", 0)
    actor.event("onset", 1, -90.0)
    actor.event("update", 0, 0.0)  # attributes are those of the newest
    actor.event("offset", 0)
    actor.event("update", 1, 180.0, 30.0)
    until(lambda: len(reader.where()) == 3, "attributes")
    assert reader.where() == ["left", "right", "behind, above"]
    assert reader.payloads(f"{PIANO}/state") == ["ON"]
    actor.event("offset", 1)
    actor.until(f"{PIANO}/state", "OFF")

    actor.event("update", 2)  # its onset was missed
    actor.until(f"{PIANO}/state", "ON")
    actor.until(f"{PIANO}/state", "OFF")  # and so was its offset
    actor.event("onset", 3)
    actor.until(f"{PIANO}/state", "ON")
    actor.epoch, began_s = 2, time.monotonic()  # it was started anew
    actor.until(f"{PIANO}/state", "OFF")
    assert time.monotonic() - began_s < 4  # and not only because there are no updates
    assert reader.payloads(AVAILABILITY) == ["online"]


@pytest.mark.parametrize("late", [False, True])
def test_what_sounds_while_it_is_started_anew_goes_on(
    start: Start, url: str, broker: Broker, reader: Reader, actor: Actor, late: bool
) -> None:
    """Also when the daemon is found late."""
    program = begin(start, url, broker, reader)
    actor.until(AVAILABILITY, "online")
    actor.event("onset", 0)
    actor.until(f"{PIANO}/state", "ON")
    program.kill()
    reader.until(reader.bridge, "offline")
    start(sys.executable, SCRIPT, "--connect", url, *broker.options)
    if late:
        reader.until(AVAILABILITY, "offline")
    last_s = time.monotonic()

    def back() -> bool:
        nonlocal last_s
        actor.say("status", state="running")
        if time.monotonic() - last_s > 0.5:  # as a daemon does
            actor.event("update", 0)
            last_s = time.monotonic()
        return reader.has(reader.bridge, "online") and reader.has(AVAILABILITY, "online")

    until(back, "it does not come back")
    until(lambda: back() and time.monotonic() - last_s > 0.4, "it goes on")
    assert reader.payloads(f"{PIANO}/state")[-1] == "ON"
    assert "OFF" not in reader.payloads(f"{PIANO}/state")[1:]


def test_a_daemon_in_trouble_is_not_believed(
    start: Start, url: str, broker: Broker, reader: Reader, actor: Actor
) -> None:
    """But for trouble with its files and its clock, which fails no sensor."""
    begin(start, url, broker, reader, "--classes", "piano")
    actor.until(AVAILABILITY, "online")
    actor.until(AVAILABILITY, "offline", degraded=True, why="clips: no room left; device: h3vr is gone")
    actor.until(AVAILABILITY, "online", degraded=True, why="clips: no room left; clock: set back by 9 s")
    actor.until(AVAILABILITY, "offline", degraded=True, why="channel 2: silent")
    actor.until(AVAILABILITY, "online")


def test_another_one_beside_it_that_ends_takes_nothing_away(
    start: Start, url: str, broker: Broker, reader: Reader, actor: Actor
) -> None:
    begin(start, url, broker, reader)
    second = begin(start, url, broker, reader)
    until(lambda: reader.payloads(reader.bridge) == ["online", "online"], "the second one does not begin")
    second.kill()
    until(lambda: "offline" in reader.payloads(reader.bridge), "it leaves its will")
    actor.until(reader.bridge, "online")


def test_places_in_words_and_names_in_topics(
    start: Start, url: str, broker: Broker, reader: Reader, actor: Actor
) -> None:
    begin(start, url, broker, reader)
    actor.until(AVAILABILITY, "online")
    places = [(0, 0, "in front"), (22.4, -25, "in front"), (22.5, 26, "front left, above"), (90, 0, "left")]
    places += [(135, 0, "behind, left"), (179, 0, "behind"), (-180, -30, "behind, below"), (-135, 0, "behind, right")]
    places += [(-90, 0, "right"), (-23, 0, "front right"), (-22, 66, "overhead"), (50, -66, "below")]
    for event_id, (azimuth_deg, elevation_deg, _) in enumerate(places):
        actor.event("onset", event_id, azimuth_deg, elevation_deg)
    until(lambda: len(reader.where()) == len(places), "attributes")
    assert reader.where() == [words for *_, words in places]  # as page.js says it

    for name in ("a b", "a+b", "a/b", "a#b", "ä", "", "x" * 65, 5, None):  # no daemon is called so
        actor.event("onset", 0, source=name)
        actor.event("onset", 0, **{"class": name})
    names = ["a-b", "a_b", "-"]
    for name in names:
        actor.event("onset", 0, source=name, **{"class": name})
    until(lambda: sum("/config" in topic for topic, _ in reader.read) == len(names) + 1, "configs")
    configs = {topic: json.loads(payload) for topic, payload in reader.read if topic.endswith("/config")}
    assert {config["device"]["name"] for config in configs.values()} == {*names, "garden"}
    for key in ("unique_id", "state_topic", "json_attributes_topic"):
        assert len({config[key] for config in configs.values()}) == len(names) + 1
    for topic, config in configs.items():
        assert re.fullmatch(r"homeassistant/binary_sensor/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/config", topic)
        assert re.fullmatch(r"seldrt/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/state", config["state_topic"])
        reader.until(config["state_topic"], "ON")


def test_who_means_no_good_ends_nothing_and_fills_no_broker(
    start: Start, url: str, broker: Broker, reader: Reader, actor: Actor
) -> None:
    program = begin(start, url, broker, reader)
    actor.until(f"{PIANO}/state", "OFF", classes=["piano"])
    for body in NO_MAPS:
        actor.send(b"seld1.event.x", body)
    actor.send(b"seld1.event.x")
    numbers = {"azimuth_deg": 0.0, "elevation_deg": 0.0, "confidence": 0.5, "event_id": 0, "onset_ns": 1}
    for number in (float("nan"), float("inf"), "1", None):
        for key in numbers:
            actor.say("event", **{"class": "piano", "phase": "onset"} | numbers | {key: number})
    actor.event("onset", 0, onset_ns=10.0**300)
    actor.say("status", why=5, degraded=True)
    actor.say("status", classes=[f"d{number}" for number in range(1000)])
    actor.say("status", classes=[f"c{number}" for number in range(300)])
    for number in range(300):
        actor.event("onset", 0, **{"class": f"c{number}"})
    for number in range(30):
        actor.say("status", source=f"s{number}", state="running", classes=["piano"])
    actor.event("onset", 1)
    actor.until(f"{PIANO}/state", "ON")
    actor.until("seldrt/s18/piano/state", "OFF")
    time.sleep(2.0)  # as long as it waits for what is settled, and more
    states = [topic.split("/")[1:3] for topic, _ in reader.read if topic.endswith("/state")]
    assert {source for source, _ in states} == {"garden", *(f"s{number}" for number in range(19))}
    assert len({class_ for source, class_ in states if source == "garden"}) == 200
    assert "Traceback" not in interrupted(program)[1]


def test_silence_and_its_end_are_told(start: Start, url: str, broker: Broker, reader: Reader, actor: Actor) -> None:
    program = begin(start, url, broker, reader)
    assert program.stderr is not None
    assert program.stderr.readline() == f"nothing heard from {url} for 3 s: is the daemon running?\n"
    actor.until(AVAILABILITY, "online")
    assert interrupted(program) == ("", "garden is heard\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--password-file", "BAD"], r"the broker 127.0.0.1:\d+: Not authorized"),
        (["--password-file", "NONE"], r"cannot read the password in \S+NONE: .*No such file or directory.*"),
        (["--password-file", "BINARY"], r"cannot read the password in \S+BINARY: .*invalid start byte"),
        (["--port", "FREE"], r"cannot connect to the broker 127.0.0.1:\d+: .*Connection refused"),
        (["--broker", "no.such.invalid"], r"cannot connect to the broker no.such.invalid:\d+: .*"),
        (["--key", "NONE", "--server-key", "NONE"], r"cannot connect to \S+: .*NONE.*"),
        (["--connect", "nonsense"], r"cannot connect to nonsense: Invalid argument.*"),
    ],
)
def test_what_keeps_it_from_beginning(options: list[str], said: str, tmp_path: Path, url: str, broker: Broker) -> None:
    (tmp_path / "BAD").write_text("let me out")
    (tmp_path / "BINARY").write_bytes(b"\xff")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = [port if word == "FREE" else str(tmp_path / word) if word.isupper() else word for word in options]
    where = [] if "--connect" in options else ["--connect", url]
    command = [sys.executable, SCRIPT, *where, *broker.options, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(said + r"\n", done.stderr)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--key", "x"], "--key and --server-key belong together"),
        (["--connect", "tcp://a:1", "--connect", "tcp://b:1"], "one program hears one daemon"),
        (["--password-file", "x"], "--password-file needs --user"),
        (["--topic", "a/#"], "--topic and --discovery cannot be empty"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
