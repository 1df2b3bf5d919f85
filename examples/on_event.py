"""Run a command whenever something is heard; {class}, {azimuth_deg:.0f} and the other keys of an event are filled in.

python on_event.py alarm,ringing_phone notify-send "{class}" "at {azimuth_deg:.0f} degrees, left is positive"
python on_event.py any mosquitto_pub -t heard -m "{class} {confidence:.2f}"
"""

import argparse
import subprocess
import sys

import msgpack
import zmq

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--url", default="tcp://127.0.0.1:5577")
parser.add_argument("--phase", default="onset", choices=["onset", "update", "offset"])
parser.add_argument("classes", help="names with commas between them, or: any")
parser.add_argument("command", nargs=argparse.REMAINDER, help="program and arguments")
wanted = parser.parse_args()
if not wanted.command:
    parser.error("which command?")

socket = zmq.Context().socket(zmq.SUB)
try:
    socket.connect(wanted.url)
except zmq.ZMQError as error:
    sys.exit(f"cannot connect to {wanted.url}: {error}")
socket.subscribe(b"seld1.event.")
socket.subscribe(b"seld1.status.")
classes = wanted.classes.split(",")

while True:
    message = msgpack.unpackb(socket.recv_multipart()[1])
    if message["type"] == "status" and message["state"] != "running":
        break
    if message.get("phase") == wanted.phase and ("any" in classes or message["class"] in classes):
        try:
            # Each word is filled in by itself, and no shell reads it: what is heard cannot become a command.
            subprocess.run([word.format_map(message) for word in wanted.command], check=False)
        except (KeyError, ValueError, OSError) as error:
            sys.exit(f"cannot run {wanted.command}: {error}")
