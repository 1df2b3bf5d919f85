"""Ask a daemon that runs with --control tcp://127.0.0.1:5578: python ask.py [ping | info | status] [URL]"""

import sys

import msgpack
import zmq

request, url = (*sys.argv[1:], *("info", "tcp://127.0.0.1:5578")[len(sys.argv) - 1 :])
socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
socket.connect(url)
socket.send_string(request)
if not socket.poll(5000):
    sys.exit(f"no answer from {url}")
for key, value in msgpack.unpackb(socket.recv()).items():
    print(f"{key}: {value}")
