"""Run a command whenever something is heard; {class}, {azimuth_deg:.0f} and the other keys of an event are filled in.

python on_event.py alarm,ringing_phone notify-send "{class}" "at {azimuth_deg:.0f} degrees, left is positive"
python on_event.py any mosquitto_pub -t heard -m "{class} {confidence:.2f}"
python on_event.py any curl -d '{{"what": "{class}", "azimuth": {azimuth_deg}}}' http://192.0.2.1/heard

It goes on when the daemon ends, and hears it again when it is back. Commands run beside each other and none waits,
but while 50 run, what is heard is passed over. Whoever sends there can fill in names and numbers, and nothing else.
"""

import argparse
import re
import signal
import subprocess
import sys

import msgpack
import zmq
from zmq.auth import load_certificate

MOST_COMMANDS = 50  # at a time
MOST_NAMES, MOST_TOLD = 1000, 20  # only who means no good has more in a message, or more microphones

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--connect", dest="url", metavar="URL", action="append", help="one daemon [tcp://127.0.0.1:5577]")
parser.add_argument("--key", metavar="FILE", help="your secret key, where the daemon asks for keys")
parser.add_argument("--server-key", metavar="FILE", help="the daemon's public key")
parser.add_argument("--phase", default="onset", choices=["onset", "update", "offset"])
parser.add_argument("classes", help="names, as `seldrt info` has them, with commas between them; or: any")
parser.add_argument("command", nargs=argparse.REMAINDER, help="program and arguments")
wanted = parser.parse_args()
if not wanted.command:
    parser.error("which command?")
if len(urls := wanted.url or ["tcp://127.0.0.1:5577"]) > 1:
    parser.error("one program hears one daemon: give --connect once, and start it once for each")
(wanted.url,) = urls
if bool(wanted.key) != bool(wanted.server_key):
    parser.error("--key and --server-key belong together")

SAMPLE = {"class": "alarm", "source": "garden", "phase": "onset", "event_id": 0, "track": 0, "class_id": 0}
SAMPLE |= {"azimuth_deg": 90.0, "elevation_deg": 0.0, "spread_deg": 2.0, "confidence": 0.9, "duration_ms": 100}
SAMPLE |= dict.fromkeys(("v", "seq", "epoch", "t_capture_ns", "t_pub_ns", "onset_ns", "sample"), 1) | {"type": "event"}
for word in wanted.command:
    try:
        word.format_map(SAMPLE)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        parser.error(f"{word!r}: {error!r}; an event has {', '.join(SAMPLE)}, and {{{{ and }}}} are braces themselves")


def read(parts):
    """The message, if it is one. A name begins with neither - nor @: commands would take it for an option or a file."""
    try:
        _, body = parts
        message = msgpack.unpackb(body)
        texts = ["source", "type"] + ["class", "phase"] * (message["type"] == "event")
        names = [message[key] for key in texts] + list(message.get("classes") or [])
        numbers = [message.get(key) for key in SAMPLE.keys() - {"source", "type", "class", "phase"}]
    except Exception:  # whatever a stranger thought of
        return None
    named = all(isinstance(name, str) and re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", name) for name in names)
    counted = all(number is None or isinstance(number, (int, float)) for number in numbers)
    return message if named and counted and len(names) <= MOST_NAMES else None


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
classes = wanted.classes.split(",")
told = set()  # which daemons know no such class
running, full = [], False  # commands that have not ended

silent = 0  # how often 3 s
while True:
    for command in [each for each in running if each.poll() is not None]:
        running.remove(command)
        if command.returncode:
            print(f"{command.args}: exit code {command.returncode}", file=sys.stderr, flush=True)
    if not socket.poll(3000):
        silent += 1
        if silent == 1:
            print(f"nothing heard from {wanted.url} for 3 s: is the daemon running?", file=sys.stderr, flush=True)
        if silent % 4 == 0:  # libzmq gives up where it was refused
            socket.disconnect(wanted.url)
            socket.connect(wanted.url)
        continue
    message = read(socket.recv_multipart())
    if message is None:
        continue
    if silent:
        print(f"{message['source']} is heard", file=sys.stderr, flush=True)
    silent = 0
    known = ["any", *(message.get("classes") or classes)]  # a status has those that may be reported
    strange = set(classes).difference(known)
    if strange and message["source"] not in told and len(told) < MOST_TOLD:
        told.add(message["source"])
        names = " and no ".join(sorted(strange))
        print(f"{message['source']} reports no {names}, but {', '.join(known[1:])}", file=sys.stderr, flush=True)
    if message["type"] != "event" or message["phase"] != wanted.phase:
        continue
    if "any" in classes or message["class"] in classes:
        if len(running) == MOST_COMMANDS:
            if not full:
                print(f"{MOST_COMMANDS} commands run: the rest is passed over", file=sys.stderr, flush=True)
            full = True
            continue
        full = False
        try:
            # Each word is filled in by itself, and no shell reads it: what is heard cannot become a command.
            running.append(subprocess.Popen([word.format_map(message) for word in wanted.command]))
        except (LookupError, AttributeError, TypeError, ValueError, OSError) as error:
            why = getattr(error, "strerror", None) or repr(error)
            print(f"cannot run {wanted.command[0]}: {why}", file=sys.stderr, flush=True)
