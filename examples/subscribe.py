"""Listen to a daemon with pyzmq and msgpack alone: python subscribe.py [tcp://127.0.0.1:5577]"""

import signal
import sys

import msgpack
import zmq

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
if hasattr(signal, "SIGPIPE"):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # when its reader goes, so does it
socket = zmq.Context().socket(zmq.SUB)
socket.maxmsgsize = 1 << 20
url = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5577"
try:
    socket.ipv6 = "[" in url
    socket.connect(url)
except zmq.ZMQError as error:
    sys.exit(f"cannot connect to {url}: {error}")
socket.subscribe(b"seld1.event.")
socket.subscribe(b"seld1.frame.")
socket.subscribe(b"seld1.status.")

expected = {}  # the next seq, by source and epoch of the frames


def tell(message):
    """The line for a message, if there is one."""
    if message["type"] == "event":
        seconds = message["t_capture_ns"] / 1e9
        place = f"{message['azimuth_deg']:+.0f} deg, {message['elevation_deg']:+.0f} deg up"
        return f"{seconds:.1f}  {message['phase']}  {message['class']}  {place}"
    if message["type"] == "frame":
        stream = message["source"], message["epoch"]  # another epoch: the daemon was started anew
        lost = message["seq"] - expected.get(stream, message["seq"])
        expected[stream] = message["seq"] + 1
        return f"lost {lost} frames: this program is too slow, or the connection broke" if lost else ""
    if message["state"] != "running":
        return f"{message['source']} {message['state']} {message['why']}"


silent = 0  # how often 3 s
while True:
    if not socket.poll(3000):  # a status comes every second
        silent += 1
        if silent == 1:
            print(f"nothing heard from {url} for 3 s: is the daemon running?", file=sys.stderr, flush=True)
        if silent % 4 == 0:  # libzmq gives up where it was refused
            socket.disconnect(url)
            socket.connect(url)
        continue
    silent = 0
    try:
        topic, body = socket.recv_multipart()
        line = tell(msgpack.unpackb(body))
    except Exception:  # whatever a stranger thought of
        continue
    if line:
        print("".join(letter if letter.isprintable() else "?" for letter in line), flush=True)
