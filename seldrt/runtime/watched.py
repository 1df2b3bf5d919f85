"""An input device that is kept open: watched while it delivers, opened anew when it no longer does.

A stream dies in many ways, and only some are told: it ends (unplugged, server dead), or it just calls back no more
(server frozen, driver stuck), or it was opened and never called back at all. PortAudio sees new devices only after
it was restarted, and any of its calls may hang as long as the audio server does. So a thread of its own makes all
these calls, and the reader of the ring never waits for them.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from seldrt.config import CaptureConfig
from seldrt.microphones import CHANNELS
from seldrt.runtime.clock import ClockFit
from seldrt.runtime.devices import (
    FIRST_CHANNELS,
    CaptureError,
    Device,
    abandon_portaudio,
    find_again,
    find_input,
    of_its_kind,
    open_input,
    portaudio,
    rate_to_ask,
    restart_portaudio,
)
from seldrt.runtime.ring import Ring

LOOK_S = 0.1
STALLED_S = 3.0  # without a callback: some servers need two seconds for their first
HANGS_S = 5.0  # in one call of PortAudio
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # between attempts
CLOSE_S = 2.0


class WatchedInput:
    """Frames of an input device in a ring, with their clock.

    `device`, `rate`, `fit` and `ring` are known once the device was found, in this order, and stay: a device that comes
    back is opened as it was.
    """

    def __init__(self, wanted: CaptureConfig) -> None:
        self.device: Device | None = None
        self.rate = wanted.device_rate
        self.fit: ClockFit | None = None
        self.ring: Ring | None = None
        self.overflows = 0  # as the driver tells
        self.openings = 0
        self._wanted, self._channels = wanted, wanted.channels or FIRST_CHANNELS
        self._error: Exception | None = None  # why nobody watches any more
        self._trouble: CaptureError | None = None  # why nothing comes
        self._attempt: CaptureError | None = None  # why it could not be opened anew
        self._stderr = -1  # a copy, while it is open
        self._tried = False  # to open it
        self._alone = True  # of its kind
        self._since_s = 0.0  # when the trouble began
        self._heard_s = 0.0  # when a stream called back last
        self._called_s: float | None = None  # when the present call of PortAudio began
        self._answered, self._listening, self._ending = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    def open(self) -> None:
        """Opens the device, or `CaptureError`; with ``wait``, goes on trying in the background instead."""
        try:
            self._stderr = os.dup(2)
        except OSError:  # there is none
            self._stderr = os.open(os.devnull, os.O_WRONLY)
        self._thread.start()
        if not self._answered.wait(2 * HANGS_S) and not self._wanted.wait:
            raise CaptureError(f"{self._wanted.device}: the audio server does not answer; is it frozen?")
        if self._error is not None:
            raise self._error

    def listen(self) -> None:
        """From now on frames come."""
        self._listening.set()

    def close(self) -> None:
        """Ends the stream after what was captured so far; a PortAudio that hangs is left behind."""
        self._ending.set()
        self._listening.set()
        if self._stderr < 0:  # not opened, or closed already
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            abandon_portaudio(self._stderr)
        os.close(self._stderr)
        self._stderr = -1

    def check(self) -> None:
        """An error where nobody watches any more: not closed, and no device will ever come back."""
        if not self._thread.is_alive():
            raise RuntimeError(f"the thread that watches the device has died: {self._error!r}") from self._error

    @property
    def away(self) -> bool:
        """Whether nothing comes until the device has been opened (anew)."""
        return self._trouble is not None

    @property
    def seeking(self) -> bool:
        """Whether it is away, and looked for in good order."""
        return self.away and self._thread.is_alive() and not self._hangs_s()

    def complaint(self) -> str:
        """What is wrong with the device, in one line; "" while it delivers."""
        trouble, attempt, hangs_s = self._trouble, self._attempt, self._hangs_s()
        texts = []
        if trouble is not None:
            texts.append(f"{trouble}; trying to reopen it for {time.monotonic() - self._since_s:.0f} s")
        if attempt is not None and str(attempt) != str(trouble):
            texts.append(f"last: {attempt}")
        if hangs_s:
            texts.append(f"PortAudio has not answered for {hangs_s:.0f} s: is the audio server frozen?")
        return "; ".join(texts)

    def _hangs_s(self) -> float:
        called_s = self._called_s
        waited_s = 0.0 if called_s is None else time.monotonic() - called_s
        return waited_s if waited_s > HANGS_S else 0.0

    def _captured(self, frames: NDArray[Any], overflow: bool) -> None:
        """The audio callback: copies and notes, nothing else."""
        now_ns = time.monotonic_ns()
        assert self.fit is not None
        assert self.ring is not None
        if lost := self.fit.note(len(frames), now_ns):
            self.ring.skip(lost)
        self.ring.write(frames)
        self.overflows += overflow
        self._heard_s = now_ns / 1e9
        self._trouble = self._attempt = None

    def _work(self) -> None:
        """The thread."""
        try:
            self._keep()
        except Exception as error:  # the reader learns of it
            self._error = error
        finally:
            self._answered.set()

    def _keep(self) -> None:
        """Opens, watches, closes, and again."""
        if sys.platform == "win32":  # where each thread that opens needs COM, and another may have begun PortAudio
            ctypes.windll.ole32.CoInitialize(None)
        with self._calling("PortAudio"):
            pass  # the import alone: what is not installed does not come by waiting
        if self._wanted.wait:
            self._answered.set()
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            began_s = time.monotonic()
            try:
                self._deliver()
            except CaptureError as error:
                self._fail(error)
                if not self.openings and not self._wanted.wait:
                    raise
            if self._heard_s - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            self._ending.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _deliver(self) -> None:
        """One life of a stream; `CaptureError` when it cannot begin."""
        with self._calling("cannot look for it"):
            if self._tried:
                restart_portaudio()
            self._tried = True
            stream = self._open_stream()
        self.openings += 1
        self._answered.set()
        try:
            self._listening.wait()
            if not self._ending.is_set():
                with self._calling(f"{self._name}: cannot start"):
                    stream.start()
                self._watch(stream)
        except CaptureError as error:
            self._fail(error)  # now: what follows may hang
        with self._calling(f"{self._name}: cannot close"):
            stream.close()
        if self.fit is not None:
            self.fit.resume()

    def _open_stream(self) -> Any:
        count, known = max(self._channels), self.device
        device = find_input(self._wanted.device, count) if known is None else find_again(known, self._alone)
        rate = self.rate or rate_to_ask(device, count)
        block_frames = max(rate * self._wanted.block_ms // 1000, 1)
        stream = open_input(device, rate, block_frames, self._captured, self._channels)
        if self.ring is None:
            self._alone = len(of_its_kind(device)) == 1
            self.device, self.rate, self.fit = device, rate, ClockFit(rate)
            self.ring = Ring(max(round(self._wanted.ring_s * rate), 4 * block_frames), CHANNELS)
        return stream

    def _watch(self, stream: Any) -> None:
        """Returns when the stream was ended as wished, after its last frame; `CaptureError` when it died.

        How long nothing came is counted in looks: when the whole process was paused, nobody called back nor looked.
        """
        looks, heard_s = 0, self._heard_s
        while not self._ending.wait(LOOK_S):
            with portaudio(f"{self._name}: the device failed"):
                active = stream.active
            if not active:
                raise CaptureError(f"{self._name}: stopped delivering: unplugged, or the audio server is gone")
            looks, heard_s = (looks + 1 if self._heard_s == heard_s else 0), self._heard_s
            if looks * LOOK_S > STALLED_S:
                raise CaptureError(f"{self._name}: open, but no samples for {STALLED_S:.0f} s: frozen?")
        with self._calling(f"{self._name}: the device failed"):
            stream.stop()

    @property
    def _name(self) -> str:
        return self.device.name if self.device else self._wanted.device

    def _fail(self, error: CaptureError) -> None:
        self._attempt = error
        if self._trouble is None:
            self._trouble, self._since_s = error, time.monotonic()

    @contextmanager
    def _calling(self, failure: str) -> Iterator[None]:
        self._called_s = time.monotonic()
        try:
            with portaudio(failure):
                yield
        finally:
            self._called_s = None
