"""The snippets in examples/, as they stand there, against a daemon in a process of its own."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import msgspec
import numpy as np
import pytest
import soundfile
import zmq

from seldrt.description import describe
from seldrt.detection import Event
from seldrt.keys import make_keys
from seldrt.models import model_path
from seldrt.runtime.demo import demo_files
from seldrt.runtime.publisher import Publisher
from tests.processes import WITH_MICROPHONE, lacking, until
from tests.seldrt.energy_pipeline import SAMPLE_RATE, two_pianos

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
Start = Callable[..., subprocess.Popen[str]]
HELD_UP = r"nothing heard from \S+ for 3 s: is the daemon running\?\n|garden is heard\n"
HEARD = [("onset", 90, 10), ("offset", 90, 10), ("onset", -90, -20), ("offset", -90, -20)]


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    """A recording of two pianos."""
    path = tmp_path / "garden.flac"
    soundfile.write(path, two_pianos(), SAMPLE_RATE)
    return path


def replay(recording: Path, *where: str) -> subprocess.Popen[str]:
    """A daemon that hears a recording, half as fast as it was."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.seldrt.energy_pipeline", "replay", str(recording), "--speed", "0.5", *where],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")},
    )


@pytest.fixture
def endless(garden: Path) -> Iterator[Start]:
    """Starts daemons that hear two pianos again and again, and end with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def begin(*where: str) -> subprocess.Popen[str]:
        started.append(replay(garden, "--loop", *where))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


class Daemon(NamedTuple):
    """Addresses for messages and for requests, and the process."""

    url: str
    control: str
    process: subprocess.Popen[str]


@pytest.fixture
def daemon(endless: Start) -> Daemon:
    """One that hears two pianos again and again."""
    process = endless("--bind", "tcp://127.0.0.1:*", "--control", "tcp://127.0.0.1:*", "--quiet")
    assert process.stderr is not None
    addresses: list[str] = []
    while len(addresses) < 2:
        line = process.stderr.readline()
        assert line, "the daemon ended"
        addresses += re.findall(r"(?:publishing \S+|answering requests) at (\S+)", line)
    return Daemon(*addresses, process)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs, which end with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a program still says when Ctrl-C ends it, of which it makes no fuss."""
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    return said


def told(process: subprocess.Popen[str], wanted: str) -> None:
    """Waits for a line on stderr that looks so; before it, only of a daemon that is held up may be told."""
    assert process.stderr is not None
    line = process.stderr.readline()
    while re.fullmatch(HELD_UP, line) and not re.fullmatch(wanted, line):
        line = process.stderr.readline()
    assert re.fullmatch(wanted, line), line


def until_ended(process: subprocess.Popen[str], daemon: subprocess.Popen[str]) -> str:
    """What a program prints until two pianos were heard and the daemon ends; then it goes on waiting for the next."""
    text = ""
    assert process.stdout is not None
    while "\ngarden ended" not in text:
        text += process.stdout.readline()
        assert process.poll() is None, "it ended before the daemon"
        if len(heard(text)) >= len(HEARD) and daemon.poll() is None:
            daemon.terminate()
            daemon.wait(20)
    more, notices = interrupted(process)
    assert not more
    assert "Traceback" not in notices
    first = HEARD.index(heard(text)[0])  # it may have missed some
    assert heard(text) == list(islice(cycle(HEARD), first, first + len(heard(text))))
    return text


def heard(text: str) -> list[tuple[str, int, int]]:
    """Phase, azimuth and elevation of the printed events, but for updates."""
    found = re.findall(r"(onset|offset)  piano  ([+-]?\d+) deg, ([+-]?\d+) deg up", text)
    return [(phase, int(azimuth), int(elevation)) for phase, azimuth, elevation in found]


def test_plain_python(daemon: Daemon, start: Start) -> None:
    assert "lost" not in until_ended(start(sys.executable, str(EXAMPLES / "subscribe.py"), daemon.url), daemon.process)


def test_a_command_for_each_event_of_a_daemon_that_comes_and_goes(tmp_path: Path, endless: Start, start: Start) -> None:
    make_keys(tmp_path, "laptop")
    url, over = f"ipc://{tmp_path}/s", tmp_path / "over"
    keys = ["--key", str(tmp_path / "laptop.key_secret"), "--server-key", str(tmp_path / "server.key")]
    say = "import os, sys, time\nprint(*sys.argv[2:], flush=True)\n"
    say += "for _ in range(6000):\n  if not os.path.exists(sys.argv[1]): time.sleep(0.1)"
    command = [sys.executable, "-c", say, str(over), "{class}", "{azimuth_deg:.0f}", "; ls"]
    process = start(
        sys.executable, str(EXAMPLES / "on_event.py"), "--connect", url, *keys, "alarm,piano,pianino", *command
    )
    assert process.stdout is not None
    for turn in range(2):
        told(process, rf"nothing heard from {url} for 3 s: is the daemon running\?\n")
        daemon = endless("--bind", url, "--curve-keys", str(tmp_path))
        told(process, "garden is heard\n")
        if turn == 0:
            told(process, r"garden reports no pianino, but alarm, .*, piano\n")
        while process.stdout.readline() != "piano -90 ; ls\n":
            assert process.poll() is None
        daemon.terminate()
        daemon.wait(20)
    over.touch()  # no command has ended before
    assert "Traceback" not in interrupted(process)[1]


def test_who_was_refused_is_told_of_the_right_daemon(tmp_path: Path, start: Start) -> None:
    """One without keys is not heard, and libzmq gives it up."""
    make_keys(tmp_path, "laptop")
    url = f"ipc://{tmp_path}/s"
    keys = ["--key", str(tmp_path / "laptop.key_secret"), "--server-key", str(tmp_path / "server.key")]
    wrong = Publisher(url)
    process = start(sys.executable, str(EXAMPLES / "on_event.py"), "--connect", url, *keys, "any", "echo", "{class}")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stderr.readline() == f"nothing heard from {url} for 3 s: is the daemon running?\n"
    wrong.close()
    right = Publisher(url, curve_keys=tmp_path)
    place = {"azimuth_deg": 0.0, "elevation_deg": 0.0, "confidence": 0.5, "track": 0, "class_id": 0, "onset_ns": 1}
    when = {"t_capture_ns": 1, "sample": 0, "event_id": 0, "phase": "onset", "duration_ms": 100}
    event = msgspec.convert({"type": "event", "source": "h3", "class": "piano", **place, **when}, Event)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()))
    reader.start()
    end_s = time.monotonic() + 60
    while reader.is_alive() and time.monotonic() < end_s:
        right.attend("h3")
        right.send(event)
        time.sleep(0.1)
    right.close()
    assert lines == ["piano\n"]


@pytest.mark.parametrize(("ends", "code"), [("exit 3", 3), ("kill -9 $$", -9)])
def test_a_command_that_fails_is_told(daemon: Daemon, start: Start, ends: str, code: int) -> None:
    command = ["sh", "-c", ends, "{class}"]
    process = start(sys.executable, str(EXAMPLES / "on_event.py"), "--connect", daemon.url, "any", *command)
    told(process, rf"\['sh', '-c', '{re.escape(ends)}', 'piano'\]: exit code {code}\n")
    assert interrupted(process)[0] == ""


class Stranger:
    """Sends whatever it likes to who has subscribed."""

    def __init__(self, url: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.bind(url)

    def meet(self, process: subprocess.Popen[str]) -> None:
        """Waits for the two subscriptions of a program."""
        for _ in range(2):
            assert self._socket.poll(30_000), process.communicate()
            self._socket.recv()

    def send(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def say(self, kind: str, **what: Any) -> None:
        source = what.get("source", "garden")
        self.send(f"seld1.{kind}.{source}.".encode(), msgpack.packb({"type": kind, "source": source} | what))

    def event(self, class_: object = "piano", **more: Any) -> None:
        place = {"azimuth_deg": 90.0, "elevation_deg": 0.0, "spread_deg": None, "confidence": 0.5}
        self.say("event", **{"class": class_, "phase": "onset", "event_id": 0} | place | more)

    def close(self) -> None:
        self._socket.close(0)


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    stranger = Stranger(f"ipc://{tmp_path}/s")
    yield stranger
    stranger.close()


NO_MAPS = [b"", b"\xc1", b"\x05", b"\x90", b"\x80", b"\x91" * 5000, b"\xdf\xff\xff\xff\xff"]
NO_NAMES = ["-rf", "@/etc/hostname", "", "\x1b[2J", "a b", "a\n", "x" * 65, 5, None, ["piano"]]


def test_who_means_no_good_can_fill_in_no_option_and_no_file_and_ends_nothing(
    tmp_path: Path, start: Start, stranger: Stranger
) -> None:
    words = ["any", "echo", "{class}", "{source}", "{azimuth_deg}", "{spread_deg}"]
    process = start(sys.executable, str(EXAMPLES / "on_event.py"), "--connect", f"ipc://{tmp_path}/s", *words)
    stranger.meet(process)
    stranger.send(b"seld1.event.x")
    stranger.send(b"seld1.event.x", b"\x80", b"\x80")
    for body in NO_MAPS:
        stranger.send(b"seld1.event.x", body)
    for name in NO_NAMES:
        stranger.event(name)
        stranger.event(source=name)
        stranger.event(azimuth_deg=str(name))
        stranger.say("status", classes=["piano", name])
        stranger.say("status", source=name, classes=["piano"])
    stranger.send(b"seld1.event.x", msgpack.packb({"type": "event", "source": "garden", "phase": "onset"}))
    stranger.event("last")
    assert process.stdout is not None
    assert process.stdout.readline() == "last garden 90.0 None\n"
    assert "\x1b" not in "".join(interrupted(process))


def test_a_class_that_cannot_come_is_told_once(tmp_path: Path, start: Start, stranger: Stranger) -> None:
    words = ["piano,pianino", "echo", "{class}"]
    process = start(sys.executable, str(EXAMPLES / "on_event.py"), "--connect", f"ipc://{tmp_path}/s", *words)
    stranger.meet(process)
    for _ in range(3):
        stranger.say("status", classes=["piano"])
    stranger.event()
    assert process.stdout is not None
    assert process.stdout.readline() == "piano\n"
    assert interrupted(process)[1].count("garden reports no pianino, but piano\n") == 1


def test_so_many_commands_run_at_a_time(tmp_path: Path, start: Start, stranger: Stranger) -> None:
    over = tmp_path / "over"
    say = f"echo {{event_id}}; for _ in $(seq 600); do [ -e {over} ] && exit; sleep 0.1; done"
    process = start(
        *(sys.executable, str(EXAMPLES / "on_event.py"), "--connect", f"ipc://{tmp_path}/s", "any", "sh", "-c", say)
    )
    stranger.meet(process)
    for number in range(60):
        stranger.event(event_id=number)
    told(process, "50 commands run: the rest is passed over\n")
    assert process.stdout is not None
    assert {process.stdout.readline() for _ in range(50)} == {f"{number}\n" for number in range(50)}
    over.touch()
    line = threading.Thread(target=lambda: lines.append(process.stdout.readline()))
    lines: list[str] = []
    line.start()
    while line.is_alive():  # there is room again
        stranger.event(event_id=99)
        time.sleep(0.1)
    assert lines == ["99\n"]


def test_a_command_that_cannot_be_run_is_told_and_the_next_is_tried(daemon: Daemon, start: Start) -> None:
    process = start(sys.executable, str(EXAMPLES / "on_event.py"), "--connect", daemon.url, "any", "no-such", "{class}")
    told(process, r"cannot run no-such: No such file or directory\n")
    assert interrupted(process)[0] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["any"], "which command?"),
        (["--key", "x", "any", "ls"], "--key and --server-key belong"),
        (["--connect", "a", "--connect", "b", "any", "ls"], "give --connect once"),
        (["any", "echo", '{"json": "{class}"}'], "an event has class, source"),
        (["any", "echo", "{klass}"], "'{klass}': KeyError('klass'); an event has class"),
    ],
)
def test_what_on_event_lacks_is_told(words: list[str], said: str) -> None:
    bad = [sys.executable, str(EXAMPLES / "on_event.py"), *words]
    assert said in subprocess.run(bad, capture_output=True, text=True, check=False, timeout=60).stderr


@pytest.mark.parametrize(
    "words", ["subscribe.py URL", "on_event.py --connect URL any ls", "subscribe.mjs URL", "cpp URL"]
)
def test_silence_is_told_once(words: str, tmp_path: Path, start: Start, request: pytest.FixtureRequest) -> None:
    url = f"ipc://{tmp_path}/s"
    name, *more = words.replace("URL", url).split()
    if name == "cpp":
        process = start(request.getfixturevalue("from_cpp"), *more)
    else:
        process = start(node() if name.endswith("mjs") else sys.executable, str(EXAMPLES / name), *more)
    assert process.stderr is not None
    assert process.stderr.readline() == f"nothing heard from {url} for 3 s: is the daemon running?\n"
    time.sleep(3.5)
    assert interrupted(process) == ("", "")


def test_asking(daemon: Daemon) -> None:
    assert "type: pong" in run(sys.executable, str(EXAMPLES / "ask.py"), "ping", daemon.control)
    assert "model_id: energy" in run(sys.executable, str(EXAMPLES / "ask.py"), "info", daemon.control)


def test_asking_with_a_key(tmp_path: Path) -> None:
    make_keys(tmp_path, "laptop")
    publisher = Publisher("tcp://127.0.0.1:*", control="tcp://127.0.0.1:*", curve_keys=str(tmp_path))
    keys = ["--key", str(tmp_path / "laptop.key_secret"), "--server-key", str(tmp_path / "server.key")]
    command = [sys.executable, str(EXAMPLES / "ask.py"), "ping", publisher.control_endpoint, *keys]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while asking.poll() is None:
        publisher.attend("h3")
        time.sleep(0.01)
    publisher.close()
    assert "type: pong" in asking.communicate()[0]


def asked(url: str) -> int:
    """The exit code of the health check."""
    command = [sys.executable, str(EXAMPLES / "ask.py"), "status", url]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--key {own}", "--key and --server-key belong together"),
        ("--server-key {server}", "--key and --server-key belong together"),
        ("--key {public} --server-key {server}", "laptop.key holds no secret key: give the file that ends with .key_s"),
        ("--key no-such --server-key {server}", "cannot connect to tcp://127.0.0.1:5578: "),
        ("--key {own} --server-key {empty}", "cannot connect to tcp://127.0.0.1:5578: "),
        ("sing", "invalid choice: 'sing'"),
    ],
)
def test_what_asking_lacks_is_told(tmp_path: Path, words: str, said: str) -> None:
    make_keys(tmp_path, "laptop")
    files = {"own": "laptop.key_secret", "server": "server.key", "public": "clients/laptop.key", "empty": "empty.key"}
    (tmp_path / "empty.key").touch()
    words = words.format(**{name: tmp_path / file for name, file in files.items()})
    bad = [sys.executable, str(EXAMPLES / "ask.py"), *words.split()]
    done = subprocess.run(bad, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ({"type": "status", "degraded": False}, 0, "type: status\ndegraded: False\n"),
        ({"type": "status", "degraded": True}, 1, "type: status\ndegraded: True\n"),
        ({"type": "error", "error": "ask again"}, 1, "type: error\nerror: ask again\n"),
        (["status"], 2, ""),
    ],
)
def test_what_is_answered_is_printed_and_the_exit_code_tells_it(
    tmp_path: Path, start: Start, answer: object, code: int, said: str
) -> None:
    """Also by one that is slow, and, with no words, at the port of the README."""
    url, plain = f"ipc://{tmp_path}/c", answer == {"type": "status", "degraded": False}
    with zmq.Context.instance().socket(zmq.REP) as daemon:
        daemon.linger = 0
        if plain:
            url = "tcp://127.0.0.1:5578"
            try:
                daemon.bind(url)
            except zmq.ZMQError:
                pytest.skip("the port is in use")
        else:
            daemon.bind(url)
        process = start(sys.executable, str(EXAMPLES / "ask.py"), *([] if plain else ["status", url]))
        assert daemon.poll(30_000)
        assert daemon.recv() == (b"info" if plain else b"status")
        time.sleep(1.0)
        daemon.send(msgpack.packb(answer))
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, said)
    assert errors == (f"{url} is no daemon of seldrt\n" if code == 2 else "")


def test_who_does_not_answer_is_told_soon(tmp_path: Path, start: Start) -> None:
    url = f"ipc://{tmp_path}/c"
    process = start(sys.executable, str(EXAMPLES / "ask.py"), "status", url)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(f"no answer from {url}; .* --control .* need --key and --server-key .*\n", errors)


def test_asking_is_a_health_check(daemon: Daemon, start: Start) -> None:
    until(lambda: asked(daemon.control) == 0)  # a busy computer may be too slow for a while
    options = ["--device", "none", "--wait", "--mic", "ambix", "--bind", "tcp://127.0.0.1:*", "--control"]
    deaf = start(sys.executable, *WITH_MICROPHONE, "run", *options, "tcp://127.0.0.1:*")
    assert deaf.stderr is not None
    found = next(filter(None, (re.search(r"answering requests at (\S+)", line) for line in deaf.stderr)))
    assert any("degraded: device" in line for line in deaf.stderr)
    assert asked(found[1]) == 1
    daemon.process.kill()
    daemon.process.wait()
    assert asked(daemon.control) == 2


@pytest.mark.parametrize("words", [["subscribe.py", "nonsense"], ["ask.py", "ping", "nonsense"]])
def test_an_address_that_is_none_is_told_in_one_line(words: list[str]) -> None:
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == {"subscribe.py": 1, "ask.py": 2}[words[0]]
    assert re.fullmatch(r"cannot connect to nonsense: Invalid argument.*\n", done.stderr)


def test_an_address_of_ipv6_is_heard(garden: Path, start: Start) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            url = f"tcp://[::1]:{free.getsockname()[1]}"
    except OSError:
        pytest.skip("there is no IPv6")
    process = start(sys.executable, "-u", str(EXAMPLES / "subscribe.py"), url)
    daemon = replay(garden, "--bind", url, "--loop", "--quiet")
    try:
        assert process.stdout is not None
        assert "piano" in process.stdout.readline()
    finally:
        daemon.kill()
        daemon.communicate()


def node() -> str:
    """The program, if it can run the examples; else the test is skipped."""
    program = shutil.which("node")
    if program is None:
        lacking("there is no node")
    if not (EXAMPLES / "node_modules").is_dir():
        pytest.skip("the packages are missing: npm install, in examples/")
    return program


def test_node(daemon: Daemon, start: Start) -> None:
    text = until_ended(start(node(), str(EXAMPLES / "subscribe.mjs"), daemon.url), daemon.process)
    assert re.match(r"20\d\d-\d\d-\d\dT", text)


@pytest.fixture(scope="module")
def from_cpp(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, built as it says. Without its libraries the tests are skipped, in .ci/run they fail."""
    source = EXAMPLES / "subscribe.cpp"
    (command,) = re.findall(r"^// (g\+\+ .*) subscribe\.cpp -o subscribe (-lzmq) &&", source.read_text(), re.MULTILINE)
    compiler, *options = command[0].split()
    includes = "\n".join(line for line in source.read_text().splitlines() if line.startswith("#include"))
    if (
        shutil.which(compiler) is None
        or subprocess.run(
            [compiler, *options, "-E", "-x", "c++", "-"], input=includes, text=True, capture_output=True, check=False
        ).returncode
    ):
        lacking("not installed: g++ libzmq3-dev libmsgpack-cxx-dev")
    program = str(tmp_path_factory.mktemp("cpp") / "subscribe")
    warnings = ["-Wall", "-Wextra", "-Werror"]
    run(compiler, *options, *warnings, str(source), "-o", program, command[1])
    return program


def test_cpp(daemon: Daemon, start: Start, from_cpp: str) -> None:
    until_ended(start(from_cpp, daemon.url), daemon.process)


@pytest.mark.parametrize("language", ["cpp", "node"])
def test_what_is_no_message_ends_neither(
    language: str, tmp_path: Path, start: Start, stranger: Stranger, request: pytest.FixtureRequest
) -> None:
    program = [node(), str(EXAMPLES / "subscribe.mjs")] if language == "node" else [request.getfixturevalue("from_cpp")]
    process = start(*program, f"ipc://{tmp_path}/s")
    stranger.meet(process)
    stranger.send(b"seld1.event.x")
    for body in NO_MAPS:
        stranger.send(b"seld1.event.x", body)
    stranger.event(azimuth_deg=None, t_capture_ns=10**18)
    stranger.event("last", t_capture_ns=10**18)
    assert process.stdout is not None
    assert "last" in process.stdout.readline()


def test_the_snippets_need_nothing_of_seldrt() -> None:
    for path in EXAMPLES.glob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).split(".")[0])
        ros = {"builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "rclpy", "std_msgs"}
        also = {"home_assistant": {"paho"}, "ros2": ros, "triangulate": {"numpy"}}
        assert names - sys.stdlib_module_names == {"msgpack", "zmq"} | also.get(path.stem, set())


def test_what_the_readme_shows_for_samples_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(from seldrt.pipeline.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    samples, _ = soundfile.read(demo_files()[0], frames=8 * 24000)
    exec(snippet, {"capture": lambda: np.array_split(samples, 100)})
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(told) > 10
    assert {class_ for _, class_, *_ in told} <= set(describe(model_path("compact")).classes)
    assert all(-180 <= float(azimuth) < 180 for *_, azimuth, _ in told)


def test_what_the_readme_shows(daemon: Daemon) -> None:
    (snippet,) = re.findall(r"```python\n(import msgpack.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = snippet.replace("tcp://127.0.0.1:5577", daemon.url)
    assert program != snippet
    process = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.kill()
    process.communicate()
    time_ns, class_, azimuth_deg, *_ = line.split()
    assert abs(time.time_ns() - int(time_ns)) < 60e9
    assert class_ == "piano"
    assert abs(abs(float(azimuth_deg)) - 90) < 3
