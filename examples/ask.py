"""Ask a daemon that runs with --control tcp://127.0.0.1:5578: python ask.py [ping | info | status] [URL]"""

import argparse
import sys

import msgpack
import zmq
from zmq.auth import load_certificate

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("request", nargs="?", default="info", choices=["ping", "info", "status"])
parser.add_argument("url", nargs="?", default="tcp://127.0.0.1:5578")
parser.add_argument("--key", metavar="FILE", help="your secret key, where the daemon asks for keys")
parser.add_argument("--server-key", metavar="FILE", help="the daemon's public key")
wanted = parser.parse_args()
if bool(wanted.key) != bool(wanted.server_key):
    parser.error("--key and --server-key belong together")

socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
try:
    if wanted.key:
        public, secret = load_certificate(wanted.key)
        if not secret:
            sys.exit(f"{wanted.key} holds no secret key: give the file that ends with .key_secret")
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.curve_serverkey = load_certificate(wanted.server_key)[0]
    socket.connect(wanted.url)
except (zmq.ZMQError, OSError, ValueError) as error:
    sys.exit(f"cannot connect to {wanted.url}: {error}")
socket.send_string(wanted.request)
if not socket.poll(5000):
    sys.exit(
        f"no answer from {wanted.url}; requests go to the address that --control has, "
        "and need --key and --server-key where the daemon asks for keys"
    )
for key, value in msgpack.unpackb(socket.recv()).items():
    print(f"{key}: {value}")
