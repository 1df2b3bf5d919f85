"""Tell Home Assistant, or whatever else reads from an MQTT broker (openHAB, Node-RED), what sounds and where.

pip install pyzmq msgpack "paho-mqtt>=2"
python home_assistant.py --broker homeassistant.local --user seldrt --password-file password.txt
python home_assistant.py --classes alarm,crying_baby

Each microphone becomes a device, and each class a binary sensor of it. The topics, all retained:

  seldrt/SOURCE/CLASS/state       ON from the onset of an event to its offset, else OFF
  seldrt/SOURCE/CLASS/attributes  JSON of the onset, and anew when `where` changes: azimuth_deg (+90 is left),
                                  elevation_deg, confidence, where (in words), since (UTC)
  seldrt/SOURCE/availability      online; offline when the daemon has ended, says nothing for 3 s, or is in trouble:
                                  its microphone is gone, a channel is dead, the computer is too slow
  seldrt/bridge/ID                online; offline when this program has ended

It outlives the daemon and the broker, and goes on when they are back. One is enough for a daemon: another one beside it
with other --classes takes its sensors away. Who wants a device to be gone for good deletes its retained messages.
Microphones at one broker need different names (`seldrt run --source`), or programs with different --topic.
"""

import argparse
import json
import math
import platform
import queue
import re
import signal
import sys
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import zmq
from paho.mqtt import client as mqtt
from zmq.auth import load_certificate

SILENT_S, ANEW_S = 3, 12  # a status comes every second
HARMLESS = ["clips", "clock", "csv", "jsonl", "recording"]  # what it hears is as it should be
SETTLED_S = 1.5  # what sounds when a daemon is first heard is known by then: a sensor that was ON stays so
MOST_SOURCES, MOST_CLASSES = 20, 200  # that become devices and sensors of them
MOST_NAMES = 1000  # in a message; only who means no good has more
LOST_S = 5  # what sounds is told of twice a second; longer than the above, so that OFF never comes before offline
AROUND = ["in front", "front left", "left", "behind, left", "behind", "behind, right", "right", "front right"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--connect", dest="url", metavar="URL", action="append", help="one daemon [tcp://127.0.0.1:5577]")
parser.add_argument("--key", metavar="FILE", help="your secret key, where the daemon asks for keys")
parser.add_argument("--server-key", metavar="FILE", help="the daemon's public key")
parser.add_argument("--classes", default="", help="names, as `seldrt info` has them, with commas; else all")
parser.add_argument("--broker", metavar="HOST", default="localhost")
parser.add_argument("--port", type=int, default=1883, help="of the broker; with --tls often 8883")
parser.add_argument("--user", help="your name at the broker")
parser.add_argument("--password-file", metavar="FILE", help="holds your password at the broker")
parser.add_argument(
    "--tls", action="store_true", help="SSL_CERT_FILE in the environment names an authority of your own"
)
parser.add_argument("--topic", default="seldrt", help="what topics begin with")
parser.add_argument("--discovery", metavar="TOPIC", default="homeassistant", help="Home Assistant's discovery prefix")
wanted = parser.parse_args()
if len(urls := wanted.url or ["tcp://127.0.0.1:5577"]) > 1:
    parser.error("one program hears one daemon: give --connect once, and start it once for each")
(wanted.url,) = urls
if bool(wanted.key) != bool(wanted.server_key):
    parser.error("--key and --server-key belong together")
if wanted.password_file and not wanted.user:
    parser.error("--password-file needs --user")
if not all(re.fullmatch("[^+#]+", text) for text in (wanted.topic, wanted.discovery)):
    parser.error("--topic and --discovery cannot be empty, and have neither + nor #")


def read(parts):
    """The message, with an event's `since`, if it is one that can be used."""
    try:
        _, body = parts
        message = msgpack.unpackb(body)
        names = [message["source"], message["type"], *(message.get("classes") or [])]
        numbers = [message["epoch"]]
        if message["type"] == "event":
            names += [message["class"], message["phase"]]
            numbers += [message[key] for key in ("event_id", "azimuth_deg", "elevation_deg", "confidence")]
            since = datetime.fromtimestamp(message["onset_ns"] / 1e9, UTC)
            message["since"] = since.isoformat(timespec="milliseconds")
        if message["type"] == "status":
            hears(message)
        fits = all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in names) and all(map(math.isfinite, numbers))
        return message if fits and len(names) <= MOST_NAMES else None
    except Exception:  # whatever a stranger thought of
        return None


def safe(name):
    """The name for topics and ids. One that has to change gets a checksum, so that no two become the same."""
    allowed = re.sub("[^A-Za-z0-9_-]+", "_", name)
    return name if name == allowed else f"{allowed}_{zlib.crc32(name.encode()):08x}"


def topic(*names):
    return "/".join([wanted.topic, *map(safe, names)])


def words(azimuth_deg, elevation_deg):
    if abs(elevation_deg) > 65:
        return "overhead" if elevation_deg > 0 else "below"
    around = AROUND[int(azimuth_deg / 45 + 8.5) % 8]
    return around if abs(elevation_deg) <= 25 else f"{around}, {'above' if elevation_deg > 0 else 'below'}"


def tell(topic, payload):
    """Publishes what is new; without a connection it is lost, and told anew with the next."""
    if told.get(topic) != payload:
        told[topic] = payload
        client.publish(topic, payload, retain=True)


def remember(client, userdata, message):
    """A sensor of an earlier run, which may have ended in the middle of an event or had other classes.

    Or the last will of another one beside this, which has ended.
    """
    if message.topic == bridge:
        if message.payload == b"offline":
            told.pop(bridge, None)
    elif json.dumps(bridge).encode() in message.payload:
        config = json.loads(message.payload)
        class_ = config["name"].replace(" ", "_")
        if not classes or class_ in classes:
            sounding.setdefault(config["device"]["name"], {})[class_] = {}
        else:
            client.publish(message.topic, "", retain=True)  # removes it


def connected(client, userdata, flags, reason, properties):
    client.subscribe(bridge)
    answers.put(reason if reason.is_failure else "connected")


def hears(status):
    """Whether a daemon that is in trouble still hears as it should: its `why` is "what: text; what: text"."""
    found = re.findall(r"(?:^|; )(\w+)(?: \d+)?: ", status["why"])
    return not status["degraded"] or (bool(found) and set(found) <= set(HARMLESS))


def sensor(source, class_):
    """The events of a class that sound there, when they were last told by number; None of one class too many."""
    sensors = sounding[source]
    return sensors.setdefault(class_, {}) if len(sensors) < MOST_CLASSES else sensors.get(class_)


def describe(source, class_):
    """The sensor in Home Assistant: https://www.home-assistant.io/integrations/binary_sensor.mqtt"""
    device = safe(f"{wanted.topic}_{source}")
    config = {
        "name": class_.replace("_", " "),
        "unique_id": f"{device}.{safe(class_)}",
        "device_class": "sound",
        "state_topic": topic(source, class_, "state"),
        "json_attributes_topic": topic(source, class_, "attributes"),
        "availability": [{"topic": bridge}, {"topic": topic(source, "availability")}],
        "availability_mode": "all",
        "device": {"identifiers": [device], "name": source, "manufacturer": "seldrt", "model": "microphone"},
        "origin": {"name": "seldrt"},
    }
    tell(f"{wanted.discovery}/binary_sensor/{device}/{safe(class_)}/config", json.dumps(config))


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
socket = zmq.Context().socket(zmq.SUB)
socket.maxmsgsize = 1 << 20
try:
    if wanted.key:
        public, secret = load_certificate(wanted.key)
        if not secret:
            sys.exit(f"{wanted.key} holds no secret key: give the file that ends with .key_secret")
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.curve_serverkey = load_certificate(wanted.server_key)[0]
    socket.ipv6 = "[" in wanted.url
    socket.connect(wanted.url)
except (zmq.ZMQError, OSError, ValueError, IndexError) as error:
    sys.exit(f"cannot connect to {wanted.url}: {error}")
socket.subscribe(b"seld1.event.")
socket.subscribe(b"seld1.status.")  # once a second, so that silence means something

classes = [name for name in wanted.classes.split(",") if name]
broker, bridge = f"the broker {wanted.broker}:{wanted.port}", topic("bridge", f"{platform.node()} {wanted.url}")
told, answers = {}, queue.Queue()  # what the broker keeps, by topic; how the connection to it is
heard, first, epochs, attributes, deaf, odd = {}, {}, {}, {}, {}, set()
sounding = {}  # by source, class and event: when it was last told
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.will_set(bridge, "offline", retain=True)
client.reconnect_delay_set(max_delay=10)
client.on_connect = connected
client.on_disconnect = lambda *event: answers.put("connection lost")
client.on_message, client.on_unsubscribe = remember, lambda *event: answers.put("all is known")
try:
    password = wanted.password_file and Path(wanted.password_file).read_text(encoding="utf-8-sig").rstrip("\r\n")
except (OSError, ValueError) as error:
    sys.exit(f"cannot read the password in {wanted.password_file}: {error}")
client.username_pw_set(wanted.user, password)
try:
    if wanted.tls:
        client.tls_set()
    client.connect(wanted.broker, wanted.port, keepalive=10)
    client.loop_start()
    if (answer := answers.get(timeout=10)) != "connected":
        sys.exit(f"{broker}: {answer}")
    client.subscribe(f"{wanted.discovery}/binary_sensor/+/+/config")
    client.unsubscribe(f"{wanted.discovery}/binary_sensor/+/+/config")
    answers.get(timeout=10)  # by then all that was retained has come
except (OSError, ValueError) as error:
    sys.exit(f"cannot connect to {broker}: {error}")
except queue.Empty:
    sys.exit(f"{broker}: no answer")

silent, began = False, time.monotonic()
last = tried = began
while True:
    message = read(socket.recv_multipart()) if socket.poll(500) else None
    now = time.monotonic()
    if message and (message["source"] in first or len(first) < MOST_SOURCES):
        source, running = message["source"], message.get("state", "running") == "running"
        if silent:
            print(f"{source} is heard", file=sys.stderr, flush=True)
        silent, last = False, now
        first.setdefault(source, now)
        if not running or message["epoch"] != epochs.get(source):  # offsets of what sounded may have been missed
            sounding[source] = {class_: {} for class_ in sounding.get(source, [])}
        epochs[source], heard[source] = message["epoch"], now if running else float("-inf")
        if message["type"] == "status":
            deaf[source] = not hears(message)
            known = message.get("classes") or classes  # that may be reported; older daemons do not tell
            if (strange := set(classes).difference(known)) and source not in odd:
                odd.add(source)
                names = " and no ".join(sorted(strange))
                print(f"{source} reports no {names}, but {', '.join(known)}", file=sys.stderr, flush=True)
            for class_ in set(known).intersection(classes or known):
                sensor(source, class_)
        if message["type"] == "event" and message["class"] in (classes or [message["class"]]):
            events = sensor(source, message["class"])
            if events is None:
                pass
            elif message["phase"] == "offset":
                events.pop(message["event_id"], None)
            else:
                events[message["event_id"]] = now
                place = words(message["azimuth_deg"], message["elevation_deg"])
                new = {key: message[key] for key in ("azimuth_deg", "elevation_deg", "confidence")}
                old = attributes.get((source, message["class"]), {})
                said = {"where": place, "since": message["since"]}
                if message["event_id"] == max(events) and said != {key: old.get(key) for key in said}:
                    attributes[source, message["class"]] = new | said
    elif now - last > SILENT_S:
        if not silent:
            print(f"nothing heard from {wanted.url} for 3 s: is the daemon running?", file=sys.stderr, flush=True)
            silent, tried = True, now
        if now - tried > ANEW_S:  # libzmq gives up where it was refused
            tried = now
            socket.disconnect(wanted.url)
            socket.connect(wanted.url)
    while not answers.empty():
        print(f"{broker}: {answers.get()}", file=sys.stderr, flush=True)
        told.clear()  # a broker that was started anew may have forgotten all
    if now - began < SETTLED_S:
        continue
    for source, sensors in sounding.items():
        for class_ in sensors:
            describe(source, class_)
        if source in first and now - first[source] < SETTLED_S:
            continue
        alive = now - heard.get(source, float("-inf")) < SILENT_S and not deaf.get(source)
        if not alive:
            tell(topic(source, "availability"), "offline")
        for class_, events in sensors.items() if source in first else []:
            if (source, class_) in attributes:
                tell(topic(source, class_, "attributes"), json.dumps(attributes[source, class_]))
            for event_id in [each for each, when in events.items() if now - when >= LOST_S]:
                del events[event_id]  # its offset was lost
            tell(topic(source, class_, "state"), "ON" if events else "OFF")
        if alive:  # only now can the states be believed
            tell(topic(source, "availability"), "online")
    tell(bridge, "online")
