"""Tell ROS 2 what sounds and where: a pose for each sound, events as JSON, and diagnostics.

source /opt/ros/kilted/setup.bash; sudo apt install python3-msgpack python3-zmq
python3 ros2.py --connect tcp://127.0.0.1:5577 --frame microphone
ros2 topic echo /seldrt/SOURCE/barking_dog

  /seldrt/SOURCE/CLASS   geometry_msgs/PoseStamped, ten times a second while it sounds: one metre away in its direction
                         (the distance is not known), the x axis pointing away from the microphone
  /seldrt/events         std_msgs/String: onset, update and offset of each event as JSON; keys: docs/protocol.md
  /diagnostics           diagnostic_msgs/DiagnosticArray, once a second: OK, WARN when the daemon is in trouble, ERROR
                         when it has ended, STALE when nothing is heard of it

Poses are stamped with the time at which the sound was captured, in the frame of the microphone (x to the front, y to
the left, z up) or, where the daemon has a --mount or --yaw, of what it stands on. What ROS does not allow in names
becomes _. It outlives the daemon, and goes on when it is back. Of several on one robot, each needs a name of its own:
--ros-args -r __node:=left_ear
"""

import argparse
import json
import math
import re
import signal
import sys
import time

import msgpack
import rclpy
import zmq
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String
from zmq.auth import load_certificate

SILENT_S, ANEW_S = 3, 12  # a status comes every second
MOST_NAMES, MOST_TOPICS = 1000, 2000  # only who means no good has more
LAST_NS = 2**31 * 1_000_000_000  # the seconds of ROS have 32 bits
NUMBERS = ["uptime_s", "real_time_factor", "latency_p95_ms", "overruns", "lost_samples"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--connect", dest="url", metavar="URL", action="append", help="one daemon [tcp://127.0.0.1:5577]")
parser.add_argument("--key", metavar="FILE", help="your secret key, where the daemon asks for keys")
parser.add_argument("--server-key", metavar="FILE", help="the daemon's public key")
parser.add_argument("--frame", metavar="ID", help="frame of the poses [the name of the microphone]")
try:
    words = remove_ros_args(sys.argv)[1:]
except RuntimeError as error:  # it looks at --ros-args, too
    parser.error(str(error).partition(". Error:")[0])
wanted = parser.parse_args(words)
if len(urls := wanted.url or ["tcp://127.0.0.1:5577"]) > 1:
    parser.error("one program hears one daemon: give --connect once, and start it once for each")
(wanted.url,) = urls
if bool(wanted.key) != bool(wanted.server_key):
    parser.error("--key and --server-key belong together")


def read(parts):
    """The message, if it is one that can be used."""
    try:
        _, body = parts
        message = msgpack.unpackb(body)
        sounds = message["detections"] if message["type"] == "frame" else []
        names = [message["source"], message["type"], *(message.get("classes") or []), *(d["class"] for d in sounds)]
        numbers = [number for d in sounds for number in (d["azimuth_deg"], d["elevation_deg"])]
        json.dumps(message, allow_nan=False)
        if message["type"] == "status":
            diagnose(message)
        fits = all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in names) and all(map(math.isfinite, numbers))
        dated = 0 <= message["t_capture_ns"] < LAST_NS and isinstance(message["t_capture_ns"], int)
        return message if fits and dated and len(names) <= MOST_NAMES else None
    except Exception:  # whatever a stranger thought of
        return None


def stamp(ns):
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def diagnose(status):
    """The status of a daemon as robots have it."""
    level = DiagnosticStatus.WARN if status["degraded"] else DiagnosticStatus.OK
    if status["state"] != "running":
        level = DiagnosticStatus.ERROR
    values = [KeyValue(key=key, value=str(status.get(key))) for key in NUMBERS]
    text = str(status["why"] or status["state"])
    return DiagnosticStatus(level=level, hardware_id=status["source"], message=text, values=values)


def tell(diagnosis):
    diagnosis.name = f"{node.get_name()}: {wanted.url}"  # for ever: to who gathers them, one that is gone is stale
    array = DiagnosticArray(status=[diagnosis])
    array.header.stamp = stamp(time.time_ns())
    publisher(DiagnosticArray, "/diagnostics").publish(array)


def publisher(kind, *names):
    """That of a topic; None of one topic too many."""
    topic = "/".join([re.sub(r"^(?=\d)", "n", re.sub("[^A-Za-z0-9/~]+", "_", name)) for name in names])
    if topic not in publishers and len(publishers) < MOST_TOPICS:
        publishers[topic] = node.create_publisher(kind, topic, 10)
    return publishers.get(topic)


def pose(source, when, azimuth_deg, elevation_deg):
    """One metre away, turned by the azimuth about z and then by the elevation about y."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    found = PoseStamped()
    found.header.stamp, found.header.frame_id = when, wanted.frame or source
    found.pose.position.x = math.cos(elevation) * math.cos(azimuth)
    found.pose.position.y = math.cos(elevation) * math.sin(azimuth)
    found.pose.position.z = math.sin(elevation)
    found.pose.orientation.x = math.sin(azimuth / 2) * math.sin(elevation / 2)
    found.pose.orientation.y = -math.cos(azimuth / 2) * math.sin(elevation / 2)
    found.pose.orientation.z = math.sin(azimuth / 2) * math.cos(elevation / 2)
    found.pose.orientation.w = math.cos(azimuth / 2) * math.cos(elevation / 2)
    return found


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
for kind in ("frame", "event", "status"):
    socket.subscribe(f"seld1.{kind}.")

rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
ended = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *signals: ended.append(signals))  # at the next turn, however often
node, publishers = Node("seldrt"), {}
log = node.get_logger()
publisher(String, "~", "events")
publisher(DiagnosticArray, "/diagnostics")
source, last, tried, silent = "", time.monotonic(), 0.0, False
while not ended:
    rclpy.spin_once(node, timeout_sec=0)  # answers who asks for parameters
    message = read(socket.recv_multipart()) if socket.poll(500) else None
    now = time.monotonic()
    if message:
        if silent:
            log.info(f"{message['source']} is heard")
        source, last, silent = message["source"], now, False
        if message["type"] == "status":
            tell(diagnose(message))
            for class_ in message.get("classes") or []:  # who subscribes before it sounds hears all of it
                publisher(PoseStamped, "~", source, class_)
        if message["type"] == "event":
            publisher(String, "~", "events").publish(String(data=json.dumps(message)))
        for found in message["detections"] if message["type"] == "frame" else []:
            if poses := publisher(PoseStamped, "~", source, found["class"]):
                when = stamp(message["t_capture_ns"])
                poses.publish(pose(source, when, found["azimuth_deg"], found["elevation_deg"]))
    elif now - last > SILENT_S:
        text = f"nothing heard from {wanted.url} for 3 s: is the daemon running?"
        if not silent:
            log.warning(text)
            silent, tried = True, now
        tell(DiagnosticStatus(level=DiagnosticStatus.STALE, hardware_id=source, message=text))
        if now - tried > ANEW_S:  # libzmq gives up where it was refused
            tried = now
            socket.disconnect(wanted.url)
            socket.connect(wanted.url)
rclpy.try_shutdown()
