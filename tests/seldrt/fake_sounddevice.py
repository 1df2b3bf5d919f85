"""A stand-in for the package sounddevice: three input devices, one of which plays the array ``SOUND`` in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

RATE = 48000
SOUND = np.zeros((0, 4), np.float32)  # what is captured; silence follows
OVERFLOW_AT = -1  # block that comes with an overflow flag
DIES_AT = -1  # block at which the device is unplugged
FAILS = ""  # method that raises
SPEED = 1.0  # times real time

DEVICES = [
    {"name": "Zoom H3-VR: USB Audio (hw:1,0)", "hostapi": 0, "max_input_channels": 4, "default_samplerate": RATE},
    {"name": "Built-in Microphone", "hostapi": 0, "max_input_channels": 2, "default_samplerate": 44100.0},
    {"name": "Loudspeakers", "hostapi": 0, "max_input_channels": 0, "default_samplerate": 48000.0},
    {"name": "UMC404HD: USB Audio (hw:2,0)", "hostapi": 0, "max_input_channels": 4, "default_samplerate": 96000.0},
]


class PortAudioError(Exception):
    pass


def query_devices() -> list[dict[str, Any]]:
    return DEVICES


def query_hostapis() -> list[dict[str, Any]]:
    return [{"name": "ALSA"}]


class InputStream:
    def __init__(
        self, device: int, channels: int, samplerate: int, blocksize: int, dtype: str, callback: Callable[..., None]
    ) -> None:
        if samplerate not in (RATE, 24000):
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        assert (channels, dtype) == (4, "float32")
        self._blocksize, self._rate, self._callback = blocksize, samplerate, callback
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._stopped = False
        self.active = False

    def start(self) -> None:
        self._fail("start")
        self.active = True
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()
        self.active = False
        self._fail("stop")

    def _fail(self, method: str) -> None:
        if method == FAILS:
            raise PortAudioError(f"Error at {method}: Unanticipated host error [PaErrorCode -9999]")

    def close(self) -> None:
        if self.active:
            self.stop()

    def _play(self) -> None:
        buffer = np.zeros((self._blocksize, 4), np.float32)
        begin_s = time.monotonic()
        block = 0
        while not self._stopped:
            if block == DIES_AT:
                self.active = False
                return
            buffer[:] = 0
            sound = SOUND[block * self._blocksize :][: self._blocksize]
            buffer[: len(sound)] = sound
            self._callback(buffer, self._blocksize, None, SimpleNamespace(input_overflow=block == OVERFLOW_AT))
            block += 1
            time.sleep(max(0.0, begin_s + block * self._blocksize / self._rate / SPEED - time.monotonic()))
