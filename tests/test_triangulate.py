"""examples/triangulate.py between real sockets; where the directions were computed from is the oracle."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from seldrt.detection import Detection, Frame, Status
from seldrt.keys import make_keys
from seldrt.runtime.publisher import Publisher
from tests import test_examples
from tests.test_examples import EXAMPLES, NO_MAPS, NO_NAMES, Start, Stranger, interrupted

start = test_examples.start
SCRIPT = str(EXAMPLES / "triangulate.py")
PLACES = {"roof": (0.0, 0.0, 3.5), "gate": (12.0, -4.0, 2.0), "shed": (5.0, 9.0, 1.0)}
Point = tuple[float, float, float]
WAIT_S = 40.0


def towards(place: Point, point: Point) -> tuple[float, float]:
    """Azimuth and elevation, in degrees."""
    x, y, z = (b - a for a, b in zip(place, point, strict=True))
    return math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))


class Yard:
    """Daemons that say what they would hear, at the places above; with keys, where a folder has them."""

    def __init__(self, folder: Path) -> None:
        make_keys(folder, "laptop")
        self.folder = folder
        self.keys = ["--key", str(folder / "laptop.key_secret"), "--server-key", str(folder / "server.key")]
        self._daemons = {name: Publisher("tcp://127.0.0.1:*", curve_keys=folder) for name in PLACES}

    def urls(self, *names: str) -> list[str]:
        return [word for name in names for word in ("--connect", self._daemons[name].endpoint)]

    def say(
        self,
        seen: dict[str, tuple[float, float]],
        class_: str = "piano",
        late_s: dict[str, float] | None = None,
        spread_deg: dict[str, float] | None = None,
    ) -> None:
        """A frame of each daemon, with a detection where it has a direction."""
        for name, daemon in self._daemons.items():
            daemon.attend(name)
            now_ns = time.time_ns() - round(1e9 * (late_s or {}).get(name, 0.0))
            found = []
            if name in seen:
                azimuth, elevation = seen[name]
                place = {"azimuth_deg": azimuth, "elevation_deg": elevation, "spread_deg": (spread_deg or {}).get(name)}
                found = [Detection(class_=class_, class_id=0, track=0, confidence=0.9, onset_ns=now_ns, **place)]
            daemon.send(Frame(source=name, t_capture_ns=now_ns, sample=0, frame_ms=100, detections=found))

    def tell(self, classes: list[str]) -> None:
        """A status of each daemon."""
        for name, daemon in self._daemons.items():
            daemon.attend(name)
            figures = dict.fromkeys(("real_time_factor", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms"))
            counts = dict.fromkeys(("t_capture_ns", "sample", "uptime_s", "overruns", "lost_samples"), 0)
            well = {"state": "running", "model_id": "m", "degraded": False, "why": ""}
            plain = {"type": "status", "source": name, "classes": classes, **figures, **counts, **well}
            daemon.send(msgspec.convert(plain, Status))

    def close(self) -> None:
        for daemon in self._daemons.values():
            daemon.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path / "keys")
    yield yard
    yard.close()


def until_said(
    process: subprocess.Popen[str], say: Callable[[], None], count: int = 1
) -> list[tuple[str, Point, int, str]]:
    """Class, place, by how much it was missed and by whom it was heard: what is printed while the daemons go on."""
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout.readline() for _ in range(count)))
    reader.start()
    end_s = time.monotonic() + WAIT_S
    while reader.is_alive():
        assert time.monotonic() < end_s, "nothing is said"
        assert process.poll() is None, process.communicate()[1]
        say()
        time.sleep(0.05)
    found = []
    for line in lines:
        said = re.fullmatch(r"\d\d:\d\d:\d\d  (\w+)  x (\S+)  y (\S+)  z (\S+) m  missed by (\d+) deg  (.+)\n", line)
        assert said, line
        found.append((said[1], (float(said[2]), float(said[3]), float(said[4])), int(said[5]), said[6]))
    return found


def arguments(*names: str) -> list[str]:
    return [f"{name}={','.join(map(str, PLACES[name]))}" for name in names]


@pytest.mark.parametrize("point", [(6.0, 1.0, 0.5), (-3.0, -7.0, 4.0), (5.0, 4.0, 9.0)])
def test_a_point_that_all_hear(yard: Yard, start: Start, point: Point) -> None:
    urls = yard.urls(*PLACES)
    process = start(sys.executable, SCRIPT, *urls, *yard.keys, *arguments(*PLACES))
    seen = {name: towards(place, point) for name, place in PLACES.items()}
    began_s = time.monotonic()
    *_, (class_, found, miss_deg, by) = until_said(process, lambda: yard.say(seen, late_s={"gate": 0.05}), 5)
    assert time.monotonic() - began_s > 1.9  # two lines a second
    assert (class_, miss_deg, by) == ("piano", 0, "gate roof shed")
    assert found == pytest.approx(point, abs=0.051)
    assert "Traceback" not in interrupted(process)[1]


def test_rays_that_pass_each_other_meet_half_way(yard: Yard, start: Start) -> None:
    """Straight up 2 m beside a level ray: in the middle of their common perpendicular; the nearer misses it by more."""
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *yard.keys, "roof=0,0,0", "gate=5,2,-10")
    ((_, found, miss_deg, _),) = until_said(process, lambda: yard.say({"roof": (0.0, 0.0), "gate": (90.0, 90.0)}))
    assert found == pytest.approx((5.0, 1.0, 0.0), abs=0.051)
    assert miss_deg == round(math.degrees(math.atan2(1, 5)))
    flags = ["--miss", "10", "roof=0,0,0", "gate=5,2,-10"]
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *yard.keys, *flags)
    assert process.stderr is not None
    line = threading.Thread(target=lambda: lines.append(process.stderr.readline()))
    lines: list[str] = []
    line.start()
    while line.is_alive():
        yard.say({"roof": (0.0, 0.0), "gate": (90.0, 90.0)})
        time.sleep(0.05)
    assert lines[0].endswith("  piano: no place, the directions miss each other by 11 deg  gate roof\n")
    assert interrupted(process)[0] == ""


def test_a_ray_whose_directions_are_spread_counts_less(yard: Yard, start: Start) -> None:
    """As before, but one is three times as exact: on the perpendicular nine times as near to it."""
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *yard.keys, "roof=0,0,0", "gate=5,2,-5")
    seen, spread_deg = {"roof": (0.0, 0.0), "gate": (90.0, 90.0)}, {"roof": 2.0, "gate": 6.0}
    ((_, found, *_),) = until_said(process, lambda: yard.say(seen, spread_deg=spread_deg))
    assert found == pytest.approx((5.0, 0.2, 0.0), abs=0.051)


def test_what_is_no_one_place_is_not_said(yard: Yard, start: Start) -> None:
    process = start(
        sys.executable,
        SCRIPT,
        *yard.urls("roof", "gate"),
        *yard.keys,
        "--classes",
        "piano",
        "roof=0,0,1",
        "gate=10,0,1",
    )
    good = {"roof": (45.0, 0.0), "gate": (135.0, 0.0)}
    assert until_said(process, lambda: yard.say(good))[0][1] == (5.0, 5.0, 1.0)
    for nothing in (
        {"roof": (3.0, 0.0), "gate": (-179.0, 0.0)},  # in line
        {"roof": (135.0, 0.0), "gate": (45.0, 0.0)},  # away from each other
        {"roof": (45.0, 60.0), "gate": (135.0, -60.0)},  # past each other
        {"roof": (30.0, 0.0)},
    ):
        time.sleep(1.0)  # what was heard before is too old
        for _ in range(8):
            yard.say(nothing)
            time.sleep(0.05)
    for _ in range(8):
        yard.say(good, "alarm")
        yard.say(good, late_s={"gate": 0.8})
        time.sleep(0.05)
    assert process.stderr is not None
    assert re.search("  piano: no place, the directions are nearly in line  gate roof\n$", process.stderr.readline())
    good["gate"] = (180.0 - math.degrees(math.atan2(5, 15)), 0.0)
    time.sleep(1.0)
    ((_, found, *_),) = until_said(process, lambda: yard.say(good))
    assert found == pytest.approx((2.5, 2.5, 1.0), abs=0.051)
    assert interrupted(process)[1] == ""  # once


def test_one_that_was_refused_comes_back_beside_one_that_is_heard(yard: Yard, start: Start) -> None:
    known = yard.folder / "clients" / "laptop.key"
    hidden = known.rename(yard.folder / "laptop.key")
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *yard.keys, *arguments("roof", "gate"))
    seen = {name: towards(PLACES[name], (6.0, 1.0, 0.5)) for name in ("roof", "gate")}
    for _ in range(20):  # neither is let in
        yard.say(seen)
        time.sleep(0.05)
    hidden.rename(known)
    ((_, found, *_),) = until_said(process, lambda: yard.say(seen))
    assert found == pytest.approx((6.0, 1.0, 0.5), abs=0.051)


def test_each_daemon_may_have_a_key_of_its_own(yard: Yard, start: Start, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", "laptop")
    other, gate = tmp_path / "other", yard._daemons["gate"]
    (other / "clients" / "laptop.key").write_bytes((yard.folder / "clients" / "laptop.key").read_bytes())
    gate.close()
    yard._daemons["gate"] = Publisher("tcp://127.0.0.1:*", curve_keys=other)
    keys = [*yard.keys, "--server-key", str(other / "server.key")]
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *keys, *arguments("roof", "gate"))
    seen = {name: towards(PLACES[name], (6.0, 1.0, 0.5)) for name in ("roof", "gate")}
    ((_, found, *_),) = until_said(process, lambda: yard.say(seen))
    assert found == pytest.approx((6.0, 1.0, 0.5), abs=0.051)
    keys[1] = str(other / "clients" / "laptop.key")
    done = subprocess.run(
        [sys.executable, SCRIPT, *yard.urls("roof", "gate"), *keys, *arguments("roof", "gate")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"{keys[1]} holds no secret key: give the file that ends with .key_secret\n"


def test_who_means_no_good_ends_nothing(tmp_path: Path, start: Start) -> None:
    """What it says beside numbers is passed over; a huge spread counts as the largest that there is."""
    url = f"ipc://{tmp_path}/s"
    stranger = Stranger(url)
    process = start(sys.executable, SCRIPT, "--connect", url, "roof=0,0,0", "gate=10,0,0")
    for _ in range(2):
        stranger.meet(process)
    stranger.send(b"seld1.frame.roof.")
    for body in NO_MAPS:
        stranger.send(b"seld1.frame.roof.", body)

    def frame(source: str, azimuth_deg: Any, **more: Any) -> None:
        when = {"t_capture_ns": 10**18} | {key: more.pop(key) for key in ("t_capture_ns",) if key in more}
        place = {"class": "piano", "azimuth_deg": azimuth_deg, "elevation_deg": 0.0, "spread_deg": 1e300}
        stranger.say("frame", source=source, detections=[place | more], **when)

    for value in (float("nan"), float("inf"), "1", [], {}):
        frame("roof", value)
        for key in ("elevation_deg", "spread_deg", "t_capture_ns"):
            frame("roof", 45.0, **{key: value or "x"})
    for name in NO_NAMES:
        frame("roof", 45.0, **{"class": name})
    for number in (10**19, -(2**63), 1e300):
        frame("roof", 45.0, t_capture_ns=number)
    stranger.say("frame", source="roof", t_capture_ns=10**18, detections=5)
    stranger.say("frame", source="shed", t_capture_ns=10**18, detections=[])
    stranger.send(b"seld1.frame.roof.", msgpack.packb({"type": "frame", "source": "x", "t_capture_ns": 1}))
    frame("roof", 45.0)
    frame("gate", 135.0)
    assert process.stdout is not None
    assert "  piano  x 5.0  y 5.0  z 0.0 m  missed by 0 deg  gate roof\n" in process.stdout.readline()
    stranger.close()
    assert interrupted(process) == ("", "")


def test_who_is_silent_is_named(yard: Yard, start: Start) -> None:
    process = start(sys.executable, SCRIPT, *yard.urls("roof"), *yard.keys, *arguments("roof", "shed"))
    assert process.stderr is not None
    line = threading.Thread(target=lambda: lines.append(process.stderr.readline()))
    lines: list[str] = []
    line.start()
    while line.is_alive():
        yard.say({})
        time.sleep(0.05)
    assert lines == ["nothing heard from shed for 3 s: is its daemon running, and is that its name?\n"]


def test_one_that_says_how_it_is_and_hears_nothing_is_named(yard: Yard, start: Start) -> None:
    """Frames come every 100 ms, but for a microphone that is gone."""
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *yard.keys, *arguments("roof", "gate"))
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr.readline() for _ in range(2)))
    reader.start()
    while reader.is_alive():
        yard.tell(["piano"])
        time.sleep(0.05)
    assert sorted(line.partition(" for ")[0] for line in lines) == [
        "nothing heard from gate",
        "nothing heard from roof",
    ]
    lines.clear()
    reader = threading.Thread(target=lambda: lines.extend(process.stderr.readline() for _ in range(2)))
    reader.start()
    while reader.is_alive():
        yard.say({})
        time.sleep(0.05)
    assert sorted(lines) == ["gate is heard\n", "roof is heard\n"]
    assert interrupted(process) == ("", "")


def test_a_class_that_is_not_reported_is_told_once_of_each(yard: Yard, start: Start) -> None:
    flags = ["--classes", "piano,pianino", *arguments("roof", "gate")]
    process = start(sys.executable, SCRIPT, *yard.urls("roof", "gate"), *yard.keys, *flags)
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr.readline() for _ in range(2)))
    reader.start()
    while reader.is_alive():
        yard.tell(["piano", "alarm"])
        time.sleep(0.05)
    assert sorted(lines) == [f"{name} reports no pianino, but piano, alarm\n" for name in ("gate", "roof")]
    for _ in range(8):
        yard.tell(["piano", "alarm"])
        time.sleep(0.05)
    assert interrupted(process) == ("", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("roof=0,0,0", "two microphones are needed"),
        ("roof=0,0,0 roof=1,1,1", "two microphones are needed, of different names"),
        ("roof=0,0 gate=1,1,1", "invalid microphone value: 'roof=0,0'"),
        ("roof=0,0,0 gate=1,1,1 --key x", "--key and --server-key belong together"),
        ("roof=0,0,0 gate=1,1,1 --server-key x", "--key and --server-key belong together"),
        ("roof=0,0,0 gate=1,1,1 --key x --server-key y --server-key z", "--server-key is needed once, or once for"),
        ("roof=0,0,0 gate=1,1,1 --key x --server-key y", "cannot connect to tcp://127.0.0.1:9"),
    ],
)
def test_what_is_wrong_is_told(words: str, said: str) -> None:
    bad = [sys.executable, SCRIPT, "--connect", "tcp://127.0.0.1:9", *words.split()]
    done = subprocess.run(bad, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
