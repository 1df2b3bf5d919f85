"""A microphone as a source: the same samples for any rate, and a life after everything that happens to devices."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soxr

from seldrt.config import CaptureConfig
from seldrt.microphones import Profile, profile
from seldrt.runtime import watched
from seldrt.runtime.capture import Block
from seldrt.runtime.devices import CaptureError
from seldrt.runtime.microphone import Microphone
from tests.seldrt import fake_sounddevice

RATE = 24000
X = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE + 1234, 4)).astype(np.float32)
LONG_S = 20.0
H3 = CaptureConfig(device="h3")


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    fake_sounddevice.reset()
    yield fake_sounddevice
    fake_sounddevice.HANG.set()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience than with real devices."""
    for name, value in (("LOOK_S", 0.02), ("FIRST_PAUSE_S", 0.05), ("LONGEST_PAUSE_S", 0.1), ("STALLED_S", 0.3)):
        monkeypatch.setattr(watched, name, value)


def ambix(_: str) -> Profile:
    return profile("ambix")


class Listener:
    """Takes blocks, and checks that none goes back and that what is connected belongs together."""

    def __init__(self, microphone: Microphone) -> None:
        self.microphone = microphone
        self.end = 0
        self.gaps: list[tuple[int, int]] = []
        self.breaks = 0
        self.parts: list[np.ndarray] = []
        self._blocks = microphone.blocks(RATE)

    def take(self) -> Block | None:
        """The next block; None after the last."""
        block = next(self._blocks, None)
        if block is None:
            return None
        assert block.sample >= self.end
        if block.sample > self.end:
            self.gaps.append((self.end, block.sample - self.end))
        self.end = block.sample + len(block.samples)
        self.breaks += block.breaks_off
        self.parts.append(block.samples)
        return block

    def until(self, reached: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + LONG_S
        while not reached():
            self.take()
            assert time.monotonic() < deadline_s

    def rest(self) -> None:
        """Stops the microphone and takes what is left."""
        self.microphone.stop()
        while self.take() is not None:
            pass
        self.microphone.close()


def test_a_rate_the_device_refuses_is_told(sounddevice: ModuleType) -> None:
    with pytest.raises(CaptureError, match=r"cannot open UMC404HD.*96000 Hz: Invalid sample rate"):
        Microphone(CaptureConfig(device="UMC"), ambix)


@pytest.mark.parametrize("device_rate", [24000, 48000])
def test_a_microphone_gives_what_was_captured_and_ends_cleanly(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, device_rate: int
) -> None:
    monkeypatch.setattr(sounddevice, "MANUAL", True)
    microphone = Microphone(CaptureConfig(device="h3", device_rate=device_rate), ambix)
    listener = Listener(microphone)
    listener.take()
    listener.until(lambda: sounddevice.streams[0].active)
    for start in range(0, len(X), 1777):
        sounddevice.streams[0].deliver(X[start : start + 1777])
        listener.take()
    listener.rest()
    expected = X if device_rate == RATE else soxr.resample(X, device_rate, RATE)
    np.testing.assert_array_equal(np.concatenate(listener.parts), expected)
    assert (listener.gaps, microphone.overruns, len(sounddevice.streams)) == ([], 0, 1)


def test_a_reader_that_sleeps_loses_whole_blocks_at_known_indices(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.arange(1, 20 * 24000 + 1, dtype=np.float32)[:, None].repeat(4, axis=1) / 2**19
    monkeypatch.setattr(sounddevice, "SOUND", ramp)
    monkeypatch.setattr(sounddevice, "SPEED", 5.0)
    microphone = Microphone(CaptureConfig(device="h3", ring_s=1.0, device_rate=24000), ambix)
    gaps, end = 0, 0
    for block in microphone.blocks(RATE):
        assert block.sample >= end
        gaps += block.sample > end
        np.testing.assert_array_equal(block.samples[:, 0], ramp[block.sample :][: len(block.samples), 0])
        end = block.sample + len(block.samples)
        if not gaps and end > 4800:
            time.sleep(0.5)  # 2.5 s of sound
        if gaps and end > 5 * 24000:
            microphone.stop()
    microphone.close()
    assert gaps == microphone.overruns >= 1


def test_overflow_flags_are_counted(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounddevice, "OVERFLOW_AT", 2)
    listener = Listener(Microphone(H3, ambix))
    listener.until(lambda: listener.microphone.overruns)
    listener.rest()
    assert listener.microphone.overruns == 1


def test_each_overflow_counts(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounddevice, "MANUAL", True)
    listener = Listener(Microphone(H3, ambix))
    listener.take()
    listener.until(lambda: sounddevice.streams[0].active)
    for overflow in (True, False, True, True, False):
        sounddevice.streams[0].deliver(X[:960], overflow)
    assert listener.microphone.overruns == 3
    listener.rest()


def test_attempts_become_rarer_up_to_a_limit_and_frequent_again_after_a_life(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who plugs a device in after a night need not wait for hours, nor after each short loss for the limit."""
    device = watched.WatchedInput(CaptureConfig(device="h3", wait=True))
    lasted_s = iter([0.0] * 8 + [60.0, 0.0])
    pauses_s: list[float] = []

    def deliver() -> None:
        device._heard_s = time.monotonic() + next(lasted_s)
        raise CaptureError("gone")

    def wait(timeout_s: float) -> None:
        pauses_s.append(timeout_s)
        if len(pauses_s) == 10:
            device._ending.set()

    monkeypatch.setattr(device, "_deliver", deliver)
    monkeypatch.setattr(device._ending, "wait", wait)
    device._keep()
    assert pauses_s == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("switch", "told_first", "told_later"),
    [
        ({}, "unplugged, or the audio server is gone", "no input device 'Zoom"),
        ({"MUTE": True}, "no samples for 0 s: frozen", ""),
        ({"FAILS": "open"}, "unplugged, or the audio server is gone", "cannot open Zoom.*Error at open"),
        ({"FAILS": "start"}, "unplugged, or the audio server is gone", "cannot start: Error at start"),
        ({"FAILS": "initialize"}, "unplugged, or the audio server is gone", "does not come up: Error at initialize"),
    ],
    ids=["unplugged", "silent", "cannot be opened", "cannot be started", "PortAudio does not come up"],
)
def test_a_device_that_fails_comes_back_and_the_clock_tells_what_was_lost(
    sounddevice: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    hasty: None,
    switch: dict[str, object],
    told_first: str,
    told_later: str,
) -> None:
    listener = Listener(Microphone(H3, ambix))
    microphone = listener.microphone
    listener.until(lambda: listener.end > RATE // 2)
    assert microphone.complaints() == {}
    with monkeypatch.context() as broken:
        for name, value in switch.items():
            broken.setattr(sounddevice, name, value)
        if "MUTE" not in switch:
            sounddevice.unplug()
        if switch:
            sounddevice.plug()
        listener.until(lambda: microphone.seeking and listener.breaks)
        assert re.search(told_first, microphone.complaints()["device"])
        away_since_s, turns = time.monotonic(), 0
        while time.monotonic() < away_since_s + 1.0:
            listener.take()
            assert not len(listener.parts[-1])
            turns += 1
        assert turns > 3  # it stays responsive
        assert re.search(told_later, microphone.complaints()["device"])
        assert not listener.gaps
    sounddevice.plug()
    listener.until(lambda: listener.gaps)
    assert abs(microphone.clock().ns(listener.end) - time.time_ns()) < 0.5e9
    listener.until(lambda: listener.end > listener.gaps[0][0] + 2 * RATE)
    assert microphone.complaints() == {}
    assert len(sounddevice.streams) >= 2
    listener.rest()
    ((_, lost),) = listener.gaps
    assert lost > RATE


@pytest.mark.parametrize("alone", [True, False])
def test_a_microphone_comes_back_at_another_place_only_where_there_was_no_other_of_its_kind(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, hasty: None, alone: bool
) -> None:
    here = {"name": "H3: USB Audio (hw:1,0)", "hostapi": 0, "max_input_channels": 4, "default_samplerate": 48000}
    there = here | {"name": "H3: USB Audio (hw:3,0)"}
    monkeypatch.setattr(sounddevice, "DEVICES", [here] if alone else [here, there])
    listener = Listener(Microphone(CaptureConfig(device="H3: USB Audio (hw:1,0)"), ambix))
    listener.until(lambda: listener.end > RATE // 2)
    monkeypatch.setattr(sounddevice, "DEVICES", [there])
    sounddevice.streams[0].active = False
    if alone:
        listener.until(lambda: listener.gaps)
        assert listener.microphone.complaints() == {}
    else:
        absent = "last: no input device 'H3: USB Audio (hw:1,0)'"
        listener.until(lambda: absent in listener.microphone.complaints().get("device", ""))
        assert len(sounddevice.streams) == 1
    listener.rest()


def test_a_stop_while_the_device_is_away_tells_what_was_lost_until_then(sounddevice: ModuleType, hasty: None) -> None:
    listener = Listener(Microphone(H3, ambix))
    listener.until(lambda: listener.end > RATE // 2)
    sounddevice.unplug()
    listener.until(lambda: listener.breaks)
    time.sleep(0.5)
    listener.rest()
    ((_, lost),) = listener.gaps
    assert RATE // 2 < lost < LONG_S * RATE
    assert not listener.microphone.seeking


def test_a_portaudio_that_hangs_holds_nobody_up(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    for name in ("HANGS_S", "CLOSE_S"):
        monkeypatch.setattr(watched, name, 0.3)
    abandoned: list[object] = []
    monkeypatch.setattr(atexit, "unregister", abandoned.append)
    listener = Listener(Microphone(H3, ambix))
    listener.until(lambda: listener.end > RATE // 2)
    sounddevice.HANG.clear()
    sounddevice.unplug()
    listener.until(lambda: "PortAudio has not answered" in listener.microphone.complaints().get("device", ""))
    assert not listener.microphone.seeking
    for _ in range(3):
        listener.take()
        assert not len(listener.parts[-1])
    listener.rest()
    assert sounddevice._exit_handler in abandoned
    sounddevice.HANG.set()


def test_a_portaudio_that_hangs_at_the_start_is_told(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    for name in ("HANGS_S", "CLOSE_S"):
        monkeypatch.setattr(watched, name, 0.2)
    thawed = threading.Event()
    monkeypatch.setattr(sounddevice, "query_devices", lambda: thawed.wait() and [])
    with pytest.raises(CaptureError, match="h3: the audio server does not answer; is it frozen"):
        Microphone(H3, ambix)
    thawed.set()


def test_who_waits_gets_a_device_that_comes_later(sounddevice: ModuleType, hasty: None) -> None:
    sounddevice.unplug()
    with pytest.raises(CaptureError, match="no input device 'h3'"):
        Microphone(H3, ambix)
    microphone = Microphone(CaptureConfig(device="h3", wait=True), ambix)
    assert microphone.name == "h3"
    listener = Listener(microphone)
    listener.until(lambda: "no input device 'h3'" in microphone.complaints().get("device", ""))
    assert microphone.seeking
    sounddevice.plug()
    listener.until(lambda: listener.end > RATE // 2)
    assert (listener.gaps, microphone.complaints()) == ([], {})
    listener.rest()


def test_who_waits_can_be_stopped_and_does_not_wait_for_a_missing_library(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    sounddevice.unplug()
    listener = Listener(Microphone(CaptureConfig(device="h3", wait=True), ambix))
    listener.take()
    listener.rest()
    assert (listener.end, listener.gaps) == (0, [])
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="pip install"):
        Microphone(CaptureConfig(device="h3", wait=True), ambix)


def test_an_error_at_the_end_does_not_keep_it_from_ending(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(Microphone(H3, ambix))
    listener.until(lambda: listener.end > 0)
    monkeypatch.setattr(sounddevice, "FAILS", "stop")
    listener.rest()


def test_a_complaint_says_why_since_when_and_what_failed_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    device = watched.WatchedInput(H3)
    assert device.complaint() == ""
    device._fail(CaptureError("unplugged"))
    now_s += 7
    device._fail(CaptureError("unplugged"))
    assert device.complaint() == "unplugged; trying to reopen it for 7 s"
    device._fail(CaptureError("busy"))
    assert device.complaint() == "unplugged; trying to reopen it for 7 s; last: busy"


def test_blocks_are_as_long_as_asked_for_and_the_last_is_heard_too(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is stopped gives what PortAudio still has, and one that is only closed throws it away."""
    monkeypatch.setattr(sounddevice, "MANUAL", True)
    monkeypatch.setattr(sounddevice.InputStream, "stop", lambda stream: stream.deliver(X[2400:4800]))
    listener = Listener(Microphone(CaptureConfig(device="h3", block_ms=20, device_rate=RATE), ambix))
    listener.take()
    listener.until(lambda: sounddevice.streams[0].active)
    assert sounddevice.streams[0]._blocksize == 480
    sounddevice.streams[0].deliver(X[:2400])
    listener.rest()
    np.testing.assert_array_equal(np.concatenate(listener.parts), X[:4800])


def test_a_watcher_that_dies_is_no_silence(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounddevice.InputStream, "start", lambda self: 1 / 0)
    listener = Listener(Microphone(H3, ambix))
    with pytest.raises(RuntimeError, match="has died: ZeroDivisionError"):
        listener.until(lambda: False)
    listener.microphone.close()


def test_a_watcher_that_dies_before_there_was_a_device_is_no_patience(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    sounddevice.unplug()
    listener = Listener(Microphone(CaptureConfig(device="h3", wait=True), ambix))
    monkeypatch.setattr(sounddevice, "query_devices", lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="has died: ZeroDivisionError"):
        listener.until(lambda: False)
    listener.microphone.close()


@pytest.mark.parametrize("wait", [False, True])
def test_what_breaks_at_the_start_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait: bool) -> None:
    """A package that cannot be imported is no audio server that does not answer, nor one to wait for."""
    (tmp_path / "sounddevice.py").write_text("raise AttributeError('no cffi here')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError, match="no cffi here"):
        Microphone(CaptureConfig(device="h3", wait=wait), ambix)


def test_a_pause_of_the_whole_program_is_no_silence_of_the_device(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it the watcher may look before PortAudio calls back: what the server kept is still to come."""
    now_s, looks = 1000.0, 0
    device = watched.WatchedInput(H3)

    def look(timeout_s: float) -> None:
        nonlocal now_s, looks
        looks += 1
        now_s += 5.0 if looks == 10 else timeout_s
        if looks < 10 or looks == 12:
            device._heard_s = now_s

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(device._ending, "wait", look)
    with pytest.raises(CaptureError, match="open, but no samples for 3 s: frozen"):
        device._watch(SimpleNamespace(active=True))
    assert looks == pytest.approx(12 + watched.STALLED_S / watched.LOOK_S, abs=2)


def test_channels_are_watched_and_what_is_no_number_is_silence(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sounddevice, "MANUAL", True)
    microphone = Microphone(CaptureConfig(device="h3", device_rate=RATE), ambix)
    listener = Listener(microphone)
    listener.take()
    listener.until(lambda: sounddevice.streams[0].active)
    bad = X[:RATE].copy()
    bad[5, 2], bad[6, 2], bad[7, 2] = np.nan, np.inf, -3e38
    sounddevice.streams[0].deliver(bad)
    listener.take()
    heard = listener.parts[-1]
    assert "no numbers" in microphone.complaints()["channel 3"]
    np.testing.assert_array_equal(heard, np.where(np.abs(bad) <= 1, bad, 0)[: len(heard)])
    dead = X[:RATE] * np.float32([1, 0, 1, 1])
    for _ in range(4):
        sounddevice.streams[0].deliver(dead)
    listener.until(lambda: listener.end == 5 * RATE)
    assert microphone.complaints() == {"channel 2": "dead: nothing but zeros"}
    listener.rest()


def test_on_windows_the_thread_that_opens_is_one_of_com(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    ole32 = SimpleNamespace(CoInitialize=lambda _: begun.append(threading.current_thread().name))
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(ole32=ole32), raising=False)
    Microphone(H3, ambix).close()
    assert begun == []
    monkeypatch.setattr(watched, "sys", SimpleNamespace(platform="win32"))
    Microphone(H3, ambix).close()
    assert begun == ["capture"]


def test_a_program_without_stderr_listens_too(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    def closed(_: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    listener = Listener(Microphone(H3, ambix))
    listener.until(lambda: listener.end > RATE // 2)
    listener.rest()
    assert not listener.microphone.seeking


def test_the_clock_is_plausible_before_anything_was_captured(sounddevice: ModuleType) -> None:
    microphone = Microphone(H3, ambix)
    assert abs(time.time_ns() - microphone.clock().ns(0)) < 60e9
    microphone.close()
