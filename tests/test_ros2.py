"""examples/ros2.py between daemons and a real ROS 2: what another node hears is the oracle.

Without rclpy these tests are skipped; with ``LIVE_TESTS=required`` (as in .ci/run) they fail instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.spatial.transform import Rotation

from seldrt.spatial import angle_deg, unit_vector
from tests import test_examples
from tests.test_examples import EXAMPLES, HEARD, NO_MAPS, NO_NAMES, Start, Stranger, replay

if os.environ.get("LIVE_TESTS") == "required":
    import rclpy
else:
    rclpy = pytest.importorskip(
        "rclpy", reason='not installed: pip install "ros-rclpy[fastrtps]" ros-diagnostic-msgs ...'
    )

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String

garden, start, stranger = test_examples.garden, test_examples.start, test_examples.stranger
PATIENCE_S = 60.0


class Robot:
    """A node that hears what is published, by topic."""

    def __init__(self) -> None:
        self._node = rclpy.create_node("robot")
        self.poses: list[PoseStamped] = []
        self.events: list[dict[str, Any]] = []
        self.diagnoses: list[DiagnosticStatus] = []
        for kind, topic, heard in (
            (PoseStamped, "/seldrt/garden/piano", self.poses.append),
            (String, "/seldrt/events", lambda message: self.events.append(json.loads(message.data))),
            (DiagnosticArray, "/diagnostics", lambda message: self.diagnoses.extend(message.status)),
        ):
            self._node.create_subscription(kind, topic, heard, 100)

    def topics(self) -> set[str]:
        return {name for name, _ in self._node.get_topic_names_and_types()}

    def until(self, reached: Callable[[], object]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < end_s, (self.poses[-1:], self.events[-1:], self.diagnoses[-1:])
            rclpy.spin_once(self._node, timeout_sec=0.1)

    def diagnosed(self, level: bytes, message: str) -> bool:
        return bool(self.diagnoses) and (self.diagnoses[-1].level, self.diagnoses[-1].message) == (level, message)


@pytest.fixture
def robot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Robot]:
    """It shares its ROS with what this test starts, and with nobody else."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init()
    yield Robot()
    rclpy.shutdown()


def bridge(start: Start, url: str, *options: str) -> subprocess.Popen[str]:
    return start(sys.executable, str(EXAMPLES / "ros2.py"), "--connect", url, *options)


def test_a_robot_hears_what_sounds_where_and_how_the_daemon_is(
    tmp_path: Path, garden: Path, start: Start, robot: Robot
) -> None:
    url = f"ipc://{tmp_path}/s"
    process = bridge(start, url, "--frame", "head", "--ros-args", "--log-level", "warn")
    robot.until(
        lambda: robot.diagnosed(DiagnosticStatus.STALE, f"nothing heard from {url} for 3 s: is the daemon running?")
    )
    assert robot.diagnoses[-1].name == f"seldrt: {url}"

    began_ns = time.time_ns()
    daemon = replay(garden, "--bind", url, "--loop", "--quiet")
    try:
        robot.until(lambda: {event["phase"] for event in robot.events} >= {"onset", "update", "offset"} and robot.poses)
        robot.until(lambda: robot.diagnosed(DiagnosticStatus.OK, "running"))
        robot.until(lambda: "/seldrt/garden/piano" in robot.topics())
    finally:
        daemon.terminate()
        daemon.communicate()
    robot.until(lambda: robot.diagnosed(DiagnosticStatus.ERROR, "ended"))
    values = {each.key: each.value for each in robot.diagnoses[-1].values}
    assert (robot.diagnoses[-1].name, values["lost_samples"]) == ("seldrt: garden", "0")
    assert float(values["uptime_s"]) > 0

    places = [unit_vector(azimuth, elevation) for _, azimuth, elevation in HEARD]
    for found in robot.poses:
        position, turn = found.pose.position, found.pose.orientation
        direction = [position.x, position.y, position.z]
        assert min(float(angle_deg(direction, place)) for place in places) < 3.0
        axes = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix().T
        assert axes[0] == pytest.approx(direction)
        assert axes[1][2] == pytest.approx(0.0)  # the y axis stays level, and z looks up
        assert axes[2][2] > 0
        assert found.header.frame_id == "head"
        stamp_ns = found.header.stamp.sec * 1_000_000_000 + found.header.stamp.nanosec
        assert began_ns < stamp_ns < time.time_ns()
    event = robot.events[0]
    assert (event["class"], event["source"], event["v"]) == ("piano", "garden", 1)

    process.terminate()
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in said) == (0, False)
    assert "is the daemon running?" in said


def test_what_is_no_message_ends_nothing_and_names_become_those_of_ros(
    tmp_path: Path, start: Start, robot: Robot, stranger: Stranger
) -> None:
    process = bridge(start, f"ipc://{tmp_path}/s")
    stranger.meet(process)
    robot.until(lambda: "/seldrt/events" in robot.topics())
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
    robot.until(lambda: stranger.say("status", source="2-nd", **status) or "/seldrt/n2_nd/piano" in robot.topics())
    robot.until(lambda: stranger.say("status", **status) or robot.diagnosed(DiagnosticStatus.WARN, "device: unplugged"))
    assert not robot.poses

    def heard() -> bool:
        stranger.say("frame", detections=[sound], t_capture_ns=1_500_000_000)
        return bool(robot.poses)

    robot.until(heard)
    found = robot.poses[0]
    assert (found.header.stamp.sec, found.header.stamp.nanosec, found.header.frame_id) == (1, 500_000_000, "garden")
    assert found.pose.position.y == pytest.approx(-1.0)
    assert process.poll() is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--connect", "nowhere"], "cannot connect to nowhere"),
        (["--key", "a"], "--key and --server-key belong together"),
        (["--connect", "tcp://127.0.0.1:1", "--connect", "tcp://127.0.0.1:2"], "one program hears one daemon"),
    ],
)
def test_what_the_bridge_lacks_is_told(options: list[str], said: str) -> None:
    command = [sys.executable, str(EXAMPLES / "ros2.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
