"""A stand-in for the package sounddevice: three input devices, one of which plays the array ``SOUND`` in a thread.

What can happen to a device happens when the test says so: `unplug`, `plug`, and the switches below.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

RATE = 48000
SOUND = np.zeros((0, 4), np.float32)  # what is captured; noise follows
OVERFLOW_AT = -1  # block that comes with an overflow flag
MUTE = False  # streams are active and do not call back
MANUAL = False  # no thread: the test calls `deliver`
FAILS = ""  # method that raises
SPEED = 1.0  # times real time
HANG = threading.Event()  # cleared: closing a stream hangs
HANG.set()

DEVICES = [
    {"name": "Zoom H3-VR: USB Audio (hw:1,0)", "hostapi": 0, "max_input_channels": 4, "default_samplerate": RATE},
    {"name": "Built-in Microphone", "hostapi": 0, "max_input_channels": 2, "default_samplerate": 44100.0},
    {"name": "Loudspeakers", "hostapi": 0, "max_input_channels": 0, "default_samplerate": 48000.0},
    {"name": "UMC404HD: USB Audio (hw:2,0)", "hostapi": 0, "max_input_channels": 4, "default_samplerate": 96000.0},
]
_NOISE = (np.random.default_rng(0).standard_normal((RATE, 4)) / 1000).astype(np.float32)
_plugged = True
_known: list[dict[str, Any]] | None = None  # what PortAudio saw when it was started
streams: list[InputStream] = []


class PortAudioError(Exception):
    pass


def unplug() -> None:
    """All input devices go, and with them their streams."""
    global _plugged
    _plugged = False
    for stream in streams:
        stream.active = False


def plug() -> None:
    global _plugged
    _plugged = True


def reset() -> None:
    """As new."""
    global _known
    plug()
    _known = None
    streams.clear()


def _initialize() -> None:
    global _known
    _fail("initialize")
    _known = DEVICES if _plugged else DEVICES[2:3]


def _terminate() -> None:
    global _known
    if _known is None:
        raise PortAudioError("Error terminating PortAudio: PortAudio not initialized [PaErrorCode -10000]")
    for stream in streams:
        stream.close()
    _known = None


def _fail(method: str) -> None:
    if method == FAILS:
        raise PortAudioError(f"Error at {method}: Unanticipated host error [PaErrorCode -9999]")


def _exit_handler() -> None: ...


def query_devices() -> list[dict[str, Any]]:
    if _known is None:
        _initialize()
    return DEVICES if _known is None else _known


def query_hostapis() -> list[dict[str, Any]]:
    return [{"name": "ALSA"}]


def check_input_settings(device: int, channels: int, dtype: str, samplerate: int) -> None:
    if samplerate not in (44100, RATE) or channels > DEVICES[device]["max_input_channels"]:
        raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")


class InputStream:
    def __init__(
        self, device: int, channels: int, samplerate: int, blocksize: int, dtype: str, callback: Callable[..., None]
    ) -> None:
        _fail("open")
        if not _plugged:
            raise PortAudioError("Error opening InputStream: Unanticipated host error [PaErrorCode -9999]")
        if samplerate not in (RATE, 24000):
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        assert (channels, dtype) == (4, "float32")
        self._blocksize, self._rate, self._callback = blocksize, samplerate, callback
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._stopped = False
        self.active = False
        streams.append(self)

    def start(self) -> None:
        _fail("start")
        self.active = True
        if not MANUAL:
            self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        if self._thread.ident is not None:
            self._thread.join()
        self.active = False
        _fail("stop")

    def close(self) -> None:
        HANG.wait()
        self._stopped = True
        if self._thread.ident is not None:
            self._thread.join()
        self.active = False

    def deliver(self, frames: np.ndarray, overflow: bool = False) -> None:
        self._callback(frames, len(frames), None, SimpleNamespace(input_overflow=overflow))

    def _play(self) -> None:
        buffer = np.zeros((self._blocksize, 4), np.float32)
        begin_s = time.monotonic()
        block = 0
        while not self._stopped and self.active:
            buffer[:] = _NOISE[: self._blocksize] if len(SOUND) <= block * self._blocksize else 0
            sound = SOUND[block * self._blocksize :][: self._blocksize]
            buffer[: len(sound)] = sound
            if not MUTE:
                self.deliver(buffer, block == OVERFLOW_AT)
            block += 1
            time.sleep(max(0.0, begin_s + block * self._blocksize / self._rate / SPEED - time.monotonic()))
