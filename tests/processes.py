"""The command line as people and programs meet it, in processes of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

PATIENCE_S = 30.0  # the machine may be busy; nothing is measured
ROOT = Path(__file__).parents[1]
SMALL = ("-m", "tests.seldrt.energy_pipeline")  # the command line with a small pipeline
REAL = ("-m", "seldrt")
WITH_MICROPHONE = (  # the same with a device h3, which plays two pianos for ever
    "-c",
    "import sys; from tests.seldrt import energy_pipeline, fake_sounddevice as fake\n"
    "fake.SOUND = energy_pipeline.two_pianos(48000)\n"
    "sys.modules['sounddevice'] = fake; energy_pipeline.main()",
)


def environment(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")}
    return clean | {"PYTHONPATH": str(ROOT)} | more


def seldrt(*arguments: Any, program: tuple[str, ...] = REAL, cwd: Path = ROOT, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=120, env=environment(**env))
    return done.returncode, done.stdout, done.stderr


def start(*arguments: Any, program: tuple[str, ...] = REAL) -> subprocess.Popen[str]:
    command = [sys.executable, *program, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=environment())


def says(process: subprocess.Popen[str], word: str) -> None:
    """Waits until a line on stderr has the word in it."""
    assert process.stderr is not None
    assert any(word in line for line in iter(process.stderr.readline, ""))


def endpoint_of(process: subprocess.Popen[str]) -> str:
    """The address that a starting daemon tells."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"publishing \S+ at (\S+)", line):
            return found[1]
    raise AssertionError("no address was told")


def lacking(reason: str) -> NoReturn:
    """Skips a test for want of a program; with ``LIVE_TESTS=required`` (as in .ci/run) it fails instead."""
    (pytest.fail if os.environ.get("LIVE_TESTS") == "required" else pytest.skip)(reason)


def until(reached: Callable[[], object], what: str = "", seconds: float = PATIENCE_S) -> None:
    """Waits for something that no process tells of."""
    end_s = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end_s, f"timed out: {what}"
        time.sleep(0.01)
