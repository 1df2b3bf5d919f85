"""examples/ros2.py between daemons and a real ROS 2: what another node hears is the oracle.

ROS has a Python of its own, ``ROS_PYTHON`` (python3), with rclpy, pyzmq and msgpack. Without it these tests are
skipped; with ``LIVE_TESTS=required`` (as in .ci/run) they fail instead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.spatial.transform import Rotation

from seldrt.spatial import angle_deg, unit_vector
from tests import test_examples
from tests.processes import lacking, until
from tests.test_examples import EXAMPLES, HEARD, NO_MAPS, NO_NAMES, Start, Stranger, replay

garden, start, stranger = test_examples.garden, test_examples.start, test_examples.stranger
ROS_PYTHON = os.environ.get("ROS_PYTHON", "python3")
OK, WARN, ERROR, STALE = range(4)  # the levels of diagnostic_msgs/DiagnosticStatus

NODE = """
import json, rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String

def tell(**what):
    print(json.dumps(what), flush=True)

def pose(heard):
    place, turn, stamp = heard.pose.position, heard.pose.orientation, heard.header.stamp
    tell(pose=[place.x, place.y, place.z], turn=[turn.x, turn.y, turn.z, turn.w], frame=heard.header.frame_id,
         ns=stamp.sec * 1_000_000_000 + stamp.nanosec)

def diagnosis(heard):
    for status in heard.status:
        values = {each.key: each.value for each in status.values}
        tell(diagnosis=[status.level[0], status.message], name=status.name, hardware=status.hardware_id, values=values)

rclpy.init()
node = rclpy.create_node("robot")
node.create_subscription(PoseStamped, "/seldrt/garden/piano", pose, 100)
node.create_subscription(String, "/seldrt/events", lambda heard: tell(event=json.loads(heard.data)), 100)
node.create_subscription(DiagnosticArray, "/diagnostics", diagnosis, 100)
node.create_timer(0.2, lambda: tell(topics=[name for name, _ in node.get_topic_names_and_types()]))
rclpy.spin(node)
"""


class Robot:
    """A node of ROS, and what it has heard."""

    def __init__(self, start: Start) -> None:
        self.poses: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.diagnoses: list[dict[str, Any]] = []
        self.topics: list[str] = []
        self._process = start(ROS_PYTHON, "-c", NODE)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "pose" in told:
                self.poses.append(told)
            elif "event" in told:
                self.events.append(told["event"])
            elif "diagnosis" in told:
                self.diagnoses.append(told)
            else:
                self.topics = told["topics"]

    def until(self, reached: Callable[[], object]) -> None:
        def there() -> object:
            assert self._process.poll() is None, self._process.communicate()
            return reached()

        until(there, f"{self.poses[-1:]} {self.events[-1:]} {self.diagnoses[-1:]} {self.topics}", 60)

    def diagnosed(self, level: int, message: str) -> bool:
        return bool(self.diagnoses) and self.diagnoses[-1]["diagnosis"] == [level, message]


@pytest.fixture
def robot(monkeypatch: pytest.MonkeyPatch, start: Start) -> Robot:
    """It shares its ROS with what this test starts, and with nobody else."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    needed = [ROS_PYTHON, "-c", "import diagnostic_msgs, geometry_msgs, msgpack, rclpy, zmq"]
    if subprocess.run(needed, capture_output=True, check=False).returncode:
        lacking(f"{ROS_PYTHON} has no rclpy, diagnostic_msgs, geometry_msgs, msgpack or zmq")
    return Robot(start)


def bridge(start: Start, *options: str) -> subprocess.Popen[str]:
    return start(ROS_PYTHON, str(EXAMPLES / "ros2.py"), *options)


def test_a_robot_hears_what_sounds_where_and_how_the_daemon_is(
    tmp_path: Path, garden: Path, start: Start, robot: Robot
) -> None:
    url = f"ipc://{tmp_path}/s"
    process = bridge(start, "--connect", url, "--frame", "head", "--ros-args", "--log-level", "warn")
    robot.until(lambda: robot.diagnosed(STALE, f"nothing heard from {url} for 3 s: is the daemon running?"))
    assert robot.diagnoses[-1]["hardware"] == ""

    began_ns = time.time_ns()
    daemon = replay(garden, "--bind", url, "--loop", "--quiet")
    try:
        robot.until(lambda: {event["phase"] for event in robot.events} >= {"onset", "update", "offset"})
        robot.until(lambda: robot.poses and robot.diagnosed(OK, "running"))
    finally:
        daemon.terminate()
        daemon.communicate()
    robot.until(lambda: robot.diagnosed(ERROR, "ended"))
    last = robot.diagnoses[-1]
    assert (last["hardware"], last["values"]["lost_samples"]) == ("garden", "0")
    assert {each["name"] for each in robot.diagnoses} == {f"seldrt: {url}"}
    assert float(last["values"]["uptime_s"]) > 0
    first = robot.events[0]
    assert (first["class"], first["source"], first["v"]) == ("piano", "garden", 1)

    places = [unit_vector(azimuth, elevation) for _, azimuth, elevation in HEARD]
    for found in robot.poses:
        assert min(float(angle_deg(found["pose"], place)) for place in places) < 3.0
        forward, left, up = Rotation.from_quat(found["turn"]).as_matrix().T
        assert forward == pytest.approx(found["pose"])
        assert left[2] == pytest.approx(0.0)  # it stays level
        assert up[2] > 0
        assert found["frame"] == "head"
        assert began_ns < found["ns"] < time.time_ns()

    process.terminate()
    process.send_signal(signal.SIGINT)  # who is impatient
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in said) == (0, False)
    assert "is the daemon running?" in said


def test_what_is_no_message_ends_nothing_and_names_become_those_of_ros(
    tmp_path: Path, start: Start, robot: Robot, stranger: Stranger
) -> None:
    process = bridge(start, "--connect", f"ipc://{tmp_path}/s")
    stranger.meet(process)
    robot.until(lambda: "/seldrt/events" in robot.topics)
    for kind in (b"event", b"frame", b"status"):
        stranger.send(b"seld1.%s.x" % kind)
        for body in NO_MAPS:
            stranger.send(b"seld1.%s.x" % kind, body)
    status = {"degraded": True, "why": "device: unplugged", "state": "running", "classes": ["piano"], "t_capture_ns": 1}
    sound = {"class": "piano", "azimuth_deg": -90.0, "elevation_deg": 0.0}
    for name in NO_NAMES:
        stranger.say("frame", detections=[sound | {"class": name}], t_capture_ns=1)
        stranger.say("status", **status | {"classes": ["piano", name]})
    for place in (float("nan"), "left", None):
        stranger.say("frame", detections=[sound | {"azimuth_deg": place}], t_capture_ns=1)
    for when in (-1, 1 << 62, 0.5, "now"):
        stranger.say("frame", detections=[sound], t_capture_ns=when)
    robot.until(lambda: stranger.say("status", source="2-nd", **status) or "/seldrt/n2_nd/piano" in robot.topics)
    robot.until(lambda: stranger.say("status", **status) or robot.diagnosed(WARN, "device: unplugged"))
    assert not robot.poses

    robot.until(lambda: stranger.say("frame", detections=[sound], t_capture_ns=1_500_000_000) or robot.poses)
    found = robot.poses[0]
    assert (found["ns"], found["frame"]) == (1_500_000_000, "garden")
    assert found["pose"] == pytest.approx([0.0, -1.0, 0.0])
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--connect", "nowhere"], "cannot connect to nowhere"),
        (["--ros-args", "--log-level", "loud"], "Couldn't parse log level: '--log-level loud'"),
        (["--ros-args", "--nonsense"], "--nonsense"),
        (["--key", "a"], "--key and --server-key belong together"),
        (["--connect", "tcp://127.0.0.1:1", "--connect", "tcp://127.0.0.1:2"], "one program hears one daemon"),
    ],
)
def test_what_the_bridge_lacks_is_told(start: Start, robot: Robot, options: list[str], said: str) -> None:
    process = bridge(start, *options)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert said in errors
    assert "Traceback" not in errors
