"""Say where something is that several microphones hear, in metres.

pip install pyzmq msgpack numpy
python triangulate.py --connect tcp://10.0.0.5:5577 --connect tcp://10.0.0.6:5577 roof=0,0,3.5 gate=12,-4,2

NAME=X,Y,Z is a daemon (`seldrt run --source NAME`) and where its microphone is. X and Y are those that azimuths count
from: 0 degrees points along X, +90 along Y; so all microphones have to look along X, or to be told how they do not
(`seldrt run --yaw`, `seldrt doctor --orientation`). Clocks have to agree to a tenth of a second or so (NTP).

What two or more hear as the same class at the same time is where their directions come nearest to each other. While
these are nearly in line, point away from each other, or miss each other by more than --miss degrees, because they are
of different things, nothing is said but once, on stderr.
"""

import argparse
import math
import re
import signal
import sys
import time

import msgpack
import numpy as np
import zmq
from zmq.auth import load_certificate

TOGETHER_S = 0.5  # what is older is another moment
SAID_S = 0.5  # between two lines about a class
IN_LINE_DEG = 10
SILENT_S, ANEW_S = 3, 12
MOST = 1000  # classes; only who means no good has more


def read(parts):
    """The message, if it is one of a microphone that is known, with numbers that can be computed with."""
    try:
        _, body = parts
        message = msgpack.unpackb(body)
        found = message.get("detections", [])
        names = [message["type"], *(message.get("classes") or []), *(one["class"] for one in found)]
        numbers = [message["t_capture_ns"], *(one.get("spread_deg") or 0 for one in found)]
        numbers += [one[key] for one in found for key in ("azimuth_deg", "elevation_deg")]
        time.localtime(message["t_capture_ns"] / 1e9)
        fits = all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in names) and all(map(math.isfinite, numbers))
        return message if fits and message["source"] in places and len(names) <= MOST else None
    except Exception:  # whatever a stranger thought of
        return None


def microphone(text):
    name, _, place = text.partition("=")
    x, y, z = map(float, place.split(","))
    return name, np.array([x, y, z])


def unit(azimuth_deg, elevation_deg):
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


def meet(places, directions, spreads_deg):
    """The point that is nearest to all rays, and by how many degrees the worst of them misses it; None if none is.

    A ray counts the less, the more its directions were spread.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # what of a vector is not along each ray
    if np.linalg.eigvalsh(across.sum(0))[0] < 1 - math.cos(math.radians(IN_LINE_DEG)):
        return None
    across /= np.maximum(spreads_deg, 1)[:, None, None] ** 2
    point = np.linalg.solve(across.sum(0), (across @ places[:, :, None]).sum(0)).ravel()
    towards = point - places
    along = (towards * directions).sum(1) / np.linalg.norm(towards, axis=1).clip(1e-9)
    return point, math.degrees(math.acos(along.min().clip(-1, 1)))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--connect", dest="url", metavar="URL", action="append", required=True, help="of a daemon; may be repeated"
)
parser.add_argument("--key", metavar="FILE", help="your secret key, where the daemons ask for keys")
parser.add_argument(
    "--server-key", action="append", metavar="FILE", help="the daemon's public key; or one for each --connect"
)
parser.add_argument("--classes", default="", help="names, as `seldrt info` has them, with commas; else all")
parser.add_argument("--miss", type=float, default=20.0, metavar="DEG", help="at most [%(default)g]")
parser.add_argument("microphones", nargs="+", type=microphone, metavar="NAME=X,Y,Z")
wanted = parser.parse_args()
if bool(wanted.key) != bool(wanted.server_key):
    parser.error("--key and --server-key belong together")
if wanted.key and len(wanted.server_key) not in (1, len(wanted.url)):
    parser.error("--server-key is needed once, or once for each --connect")
places = dict(wanted.microphones)
if len(places) < 2:
    parser.error("two microphones are needed, of different names")
classes = [name for name in wanted.classes.split(",") if name]

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
context, poller = zmq.Context(), zmq.Poller()
urls = {}  # by socket
try:
    for number, url in enumerate(wanted.url):
        socket = context.socket(zmq.SUB)
        socket.maxmsgsize = 1 << 20
        if wanted.key:
            public, secret = load_certificate(wanted.key)
            if not secret:
                sys.exit(f"{wanted.key} holds no secret key: give the file that ends with .key_secret")
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.curve_serverkey = load_certificate(wanted.server_key[number % len(wanted.server_key)])[0]
        socket.ipv6 = "[" in url
        socket.connect(url)
        for name in places:
            socket.subscribe(f"seld1.frame.{name}.")
            socket.subscribe(f"seld1.status.{name}.")
        poller.register(socket, zmq.POLLIN)
        urls[socket] = url
except (zmq.ZMQError, OSError, ValueError, IndexError) as error:
    sys.exit(f"cannot connect to {url}: {error}")

began = time.monotonic()
heard, tried = dict.fromkeys(places, began), dict.fromkeys(urls, began)  # when a frame came; one comes every 100 ms
silent, hinted, told = set(), set(), set()
directions = {}  # by class and microphone: time of the sound, unit vector, spread in degrees
said_ns = {}  # by class
while True:
    ready, messages = dict(poller.poll(500)), []
    now = time.monotonic()
    for socket, url in urls.items():
        if socket in ready:
            tried[socket] = now
            if not (message := read(socket.recv_multipart())):
                continue
            if message["type"] == "frame":
                heard[message["source"]] = now
            messages.append(message)
        elif now - tried[socket] > ANEW_S:  # libzmq gives up where it was refused
            tried[socket] = now
            socket.disconnect(url)
            socket.connect(url)
    for name, last in heard.items():
        if (now - last > SILENT_S) != (name in silent):
            silent ^= {name}
            said = f"nothing heard from {name} for {SILENT_S} s: is its daemon running, and is that its name?"
            print(said if name in silent else f"{name} is heard", file=sys.stderr, flush=True)
    for message in messages:
        known = message.get("classes") or classes  # a status has those that may be reported
        if (strange := set(classes).difference(known)) and message["source"] not in told:
            told.add(message["source"])
            names = " and no ".join(sorted(strange))
            print(f"{message['source']} reports no {names}, but {', '.join(known)}", file=sys.stderr, flush=True)
    for source, time_ns, found in [
        (message["source"], message["t_capture_ns"], found)
        for message in messages
        for found in message.get("detections", [])
    ]:
        class_ = found["class"]
        if (classes and class_ not in classes) or (class_ not in directions and len(directions) == MOST):
            continue
        of_class = directions.setdefault(class_, {})
        spread_deg = min(found.get("spread_deg") or 4, 90)  # where it is not told, an ordinary one
        of_class[source] = time_ns, unit(found["azimuth_deg"], found["elevation_deg"]), spread_deg
        names = sorted(name for name, (when_ns, *_) in of_class.items() if abs(time_ns - when_ns) < TOGETHER_S * 1e9)
        if len(names) < 2 or abs(time_ns - said_ns.get(class_, 0)) < SAID_S * 1e9:
            continue
        rays = [(places[name], *of_class[name][1:]) for name in names]
        met = meet(*map(np.array, zip(*rays, strict=True)))
        by, clock = " ".join(names), time.strftime("%H:%M:%S", time.localtime(time_ns / 1e9))
        if met and met[1] <= wanted.miss:
            place = "  ".join(f"{axis} {metres:.1f}" for axis, metres in zip("xyz", met[0], strict=True))
            print(f"{clock}  {class_}  {place} m  missed by {met[1]:.0f} deg  {by}", flush=True)
            said_ns[class_] = time_ns
        elif class_ not in hinted:
            why = f"miss each other by {met[1]:.0f} deg" if met else "are nearly in line"
            print(f"{clock}  {class_}: no place, the directions {why}  {by}", file=sys.stderr, flush=True)
            hinted.add(class_)
