"""What a service manager hears of the daemon, through a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seldrt.runtime.capture import Block
from seldrt.runtime.daemon import Daemon, stream_info
from seldrt.runtime.systemd import ServiceManager
from tests.seldrt.energy_pipeline import EnergyPipeline
from tests.seldrt.test_daemon import Script


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield bound


def heard(manager: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines.append(manager.recv(4096).decode())
        except BlockingIOError:
            return lines


def listen(manager: socket.socket, monkeypatch: pytest.MonkeyPatch, source: Script) -> list[str]:
    monkeypatch.setattr("seldrt.runtime.daemon.STATUS_S", 0.0)
    pipeline = EnergyPipeline()
    Daemon(pipeline, source, stream_info(pipeline, "h3")).run()
    return heard(manager)


def test_a_service_that_hears_says_so(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = [Block(n * 480, np.zeros((480, 4), np.float32)) for n in range(3)]
    alive = "WATCHDOG=1\nSTATUS=listening"
    assert listen(manager, monkeypatch, Script(sound)) == ["READY=1", alive, alive, alive, "STOPPING=1"]


def test_a_deaf_service_is_silent_unless_it_looks_for_its_device(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seldrt.runtime.daemon.DEAF_S", 0.0)
    turn = Block(0, np.zeros((0, 4), np.float32))
    source = Script([turn, turn])
    assert listen(manager, monkeypatch, source) == ["READY=1", "STOPPING=1"]
    source.seeking = True
    source.complaints = lambda: {"device": "away"}  # type: ignore[method-assign]
    alive = "WATCHDOG=1\nSTATUS=device: away"
    assert listen(manager, monkeypatch, source) == ["READY=1", alive, alive, "STOPPING=1"]


def test_abstract_addresses_and_absent_managers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0seldrt-{tmp_path}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@seldrt-{tmp_path}")
        ServiceManager().tell("READY=1", "STATUS=fine")
        assert bound.recv(100) == b"READY=1\nSTATUS=fine"
    for gone in (str(tmp_path / "nobody"), ""):
        monkeypatch.setenv("NOTIFY_SOCKET", gone)
        ServiceManager().tell("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    ServiceManager().tell("READY=1")
