"""Ask a daemon that runs with --control tcp://127.0.0.1:5578: python ask.py [ping | info | status] [URL]

`ask.py status` is a health check for monitoring systems. The exit code is 0 when all is well, 1 when the daemon answers
but is degraded or cannot say yet, and 2 when nobody answers.
"""

import argparse
import signal
import sys
from typing import NoReturn

import msgpack
import zmq
from zmq.auth import load_certificate


def fail(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(2)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("request", nargs="?", default="info", choices=["ping", "info", "status"])
parser.add_argument("url", nargs="?", default="tcp://127.0.0.1:5578")
parser.add_argument("--key", metavar="FILE", help="your secret key, where the daemon asks for keys")
parser.add_argument("--server-key", metavar="FILE", help="the daemon's public key")
wanted = parser.parse_args()
if hasattr(signal, "SIGPIPE"):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # when its reader goes, so does it
if bool(wanted.key) != bool(wanted.server_key):
    parser.error("--key and --server-key belong together")

socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
socket.maxmsgsize = 1 << 20
try:
    if wanted.key:
        public, secret = load_certificate(wanted.key)
        if not secret:
            fail(f"{wanted.key} holds no secret key: give the file that ends with .key_secret")
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.curve_serverkey = load_certificate(wanted.server_key)[0]
    socket.ipv6 = "[" in wanted.url
    socket.connect(wanted.url)
except (zmq.ZMQError, OSError, ValueError, IndexError) as error:
    fail(f"cannot connect to {wanted.url}: {error}")
socket.send_string(wanted.request)
if not socket.poll(5000):
    fail(
        f"no answer from {wanted.url}; requests go to the address that --control has, "
        "and need --key and --server-key where the daemon asks for keys"
    )
try:
    answer = dict(msgpack.unpackb(socket.recv()))
except Exception:  # whatever a stranger thought of
    fail(f"{wanted.url} is no daemon of seldrt")
for key, value in answer.items():
    print("".join(letter if letter.isprintable() else "?" for letter in f"{key}: {value}"))
sys.exit(1 if answer.get("degraded") or answer.get("type") == "error" else 0)
