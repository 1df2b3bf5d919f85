"""The snippets in examples/, as they stand there, against a daemon in a process of its own."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from seldrt.keys import make_keys
from seldrt.runtime.publisher import Publisher
from tests.seldrt.energy_pipeline import SAMPLE_RATE, two_pianos

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
HEARD = [("onset", 90, 10), ("offset", 90, 10), ("onset", -90, -20), ("offset", -90, -20)]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Addresses for messages and for requests of a daemon that hears two pianos, half as fast as they were."""
    path = tmp_path / "garden.flac"
    soundfile.write(path, two_pianos(), SAMPLE_RATE)
    where = ["--bind", "tcp://127.0.0.1:*", "--control", "tcp://127.0.0.1:*", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.seldrt.energy_pipeline", "replay", str(path), "--speed", "0.5", *where],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")},
    )
    assert process.stderr is not None
    addresses: list[str] = []
    while len(addresses) < 2:
        line = process.stderr.readline()
        assert line, "the daemon ended"
        addresses += re.findall(r"(?:publishing \S+|answering requests) at (\S+)", line)
    yield addresses[0], addresses[1]
    process.kill()
    process.communicate()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def heard(text: str) -> list[tuple[str, int, int]]:
    """Phase, azimuth and elevation of the printed events, but for updates; at least those of the second piano.

    A program that starts slowly may have missed the first.
    """
    found = re.findall(r"(onset|offset)  piano  ([+-]?\d+) deg, ([+-]?\d+) deg up", text)
    assert len(found) >= 2
    return [(phase, int(azimuth), int(elevation)) for phase, azimuth, elevation in found]


def test_plain_python(daemon: tuple[str, str]) -> None:
    text = run(sys.executable, str(EXAMPLES / "subscribe.py"), daemon[0])
    assert heard(text) == HEARD[-len(heard(text)) :]
    assert text.splitlines()[-1].startswith("garden ended")
    assert "lost" not in text


def test_a_command_for_each_event(daemon: tuple[str, str]) -> None:
    say = [sys.executable, "-c", "import sys; print(*sys.argv[1:], flush=True)", "{class}", "{azimuth_deg:.0f}", "; ls"]
    text = run(sys.executable, str(EXAMPLES / "on_event.py"), "--url", daemon[0], "alarm,piano", *say)
    assert text.splitlines()[-1] == "piano -90 ; ls"
    bad = [sys.executable, str(EXAMPLES / "on_event.py"), "any"]
    assert "which command?" in subprocess.run(bad, capture_output=True, text=True, check=False, timeout=60).stderr


def test_asking(daemon: tuple[str, str]) -> None:
    assert "type: pong" in run(sys.executable, str(EXAMPLES / "ask.py"), "ping", daemon[1])
    assert "model_id: energy" in run(sys.executable, str(EXAMPLES / "ask.py"), "info", daemon[1])


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


@pytest.mark.parametrize("words", [["subscribe.py", "nonsense"], ["ask.py", "ping", "nonsense"]])
def test_an_address_that_is_none_is_told_in_one_line(words: list[str]) -> None:
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(r"cannot connect to nonsense: Invalid argument.*\n", done.stderr)


def test_node(daemon: tuple[str, str]) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    if not (EXAMPLES / "node_modules").is_dir():
        pytest.skip("the packages are missing: npm install, in examples/")
    text = run(node, str(EXAMPLES / "subscribe.mjs"), daemon[0])
    assert heard(text) == HEARD[-len(heard(text)) :]
    assert re.match(r"20\d\d-\d\d-\d\dT", text)
    assert text.splitlines()[-1].startswith("garden ended")


def test_the_snippets_need_nothing_of_seldrt() -> None:
    for path in EXAMPLES.glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)]
        foreign = {alias.name for node in imports for alias in node.names} - sys.stdlib_module_names
        assert foreign == {"msgpack", "zmq"}


def test_what_the_readme_shows(daemon: tuple[str, str]) -> None:
    (snippet,) = re.findall(r"```python\n(import msgpack.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = snippet.replace("tcp://127.0.0.1:5577", daemon[0])
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
