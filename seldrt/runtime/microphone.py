"""A microphone as a source: what a watched device delivers, converted, dated, and checked channel by channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seldrt.config import LABEL_RATE_HZ, CaptureConfig
from seldrt.detection import Clock
from seldrt.microphones import CHANNELS, Profile
from seldrt.runtime.capture import TURN_S, Block, Resampler
from seldrt.runtime.channels import ChannelCheck
from seldrt.runtime.clock import WallClock
from seldrt.runtime.watched import WatchedInput
from seldrt.samples import is_sound


class Keeper(Protocol):
    """What records the sound of a device; see `seldrt.runtime.recorder`."""

    def keep(self, first: int, frames: NDArray[np.float32], rate: int, captured_ns: int) -> None: ...

    def complaints(self) -> dict[str, str]: ...


class Microphone:
    """A live input device; four of its channels are what ``profile_of`` makes of its name.

    The device is given by a number, a name, or a part of a name that fits one input only. `CaptureError` when there is
    no such device, it is ambiguous, has too few channels or cannot be opened, unless the settings say to wait for it;
    and in any case when PortAudio is missing.

    A device that goes away later ends nothing: `complaints` says so, and when it is back the index of the samples has
    gone on with the clock.
    """

    live, waits = True, False

    def __init__(self, wanted: CaptureConfig, profile_of: Callable[[str], Profile]) -> None:
        self._block_ms = wanted.block_ms
        self._wall = WallClock()
        self._check: ChannelCheck | None = None
        self.keeper: Keeper | None = None  # gets all that is heard, as the device gave it
        self._stopped = False
        self._rate = wanted.device_rate or 1
        self._input = WatchedInput(wanted)
        try:
            self._input.open()
            self.name = self._input.device.name if self._input.device else wanted.device
            self.profile = profile_of(self.name)
        except BaseException:
            self.close()
            raise

    @property
    def device_rate(self) -> int:
        """Hz; 0 when the device has not been there yet."""
        return self._input.rate

    @property
    def overruns(self) -> int:
        ring = self._input.ring
        return self._input.overflows + (ring.overruns if ring else 0)

    @property
    def seeking(self) -> bool:
        return self._input.seeking

    def complaints(self) -> dict[str, str]:
        found = self.keeper.complaints() if self.keeper else {}
        if device := self._input.complaint():
            return found | {"device": device}
        return found | (self._check.complaints() if self._check else {})

    def blocks(self, sample_rate: int) -> Iterator[Block]:
        self._rate = sample_rate
        self._input.listen()
        nothing = np.zeros((0, CHANNELS), np.float32)
        while (ring := self._input.ring) is None:
            if self._stopped:
                return
            self._input.check()
            time.sleep(TURN_S)
            yield Block(0, nothing)
        rate = self._input.rate
        turn_frames = max(rate * self._block_ms // 1000, 1)
        self._check = check = ChannelCheck(CHANNELS, rate)
        resampler: Resampler | None = None  # of a stretch without loss
        expected = sample = 0
        while True:
            stopping, away = self._stopped, self._input.away  # before the look into the ring: it may hold the rest
            if stopping:
                self._input.close()
            else:
                self._input.check()
            ring.wait(1 if stopping else turn_frames, 0.0 if stopping else TURN_S)
            first, frames = ring.read(rate // 2)
            over = not len(frames) and (stopping or away)
            if resampler is not None and (first > expected or over):
                rest = resampler.push(nothing, last=True)
                yield Block(sample, rest, breaks_off=True)
                sample, resampler = sample + len(rest), None
            if over and stopping:
                break
            if len(frames) and resampler is None:  # from a whole label frame on, so that what is kept replays the same
                skipped = min(-first % (rate // LABEL_RATE_HZ), len(frames))
                first, frames = first + skipped, frames[skipped:]
                expected = first
            if len(frames):
                if resampler is None:
                    resampler = Resampler(rate, sample_rate, self.profile)
                    sample = max(first * sample_rate // rate, sample)
                check.push(frames)
                expected = first + len(frames)
                frames[~is_sound(frames)] = 0.0
                if self.keeper is not None:
                    self.keeper.keep(first, frames, rate, self._captured_ns(first))
                samples = resampler.push(frames)
                yield Block(sample, samples)
                sample += len(samples)
            else:
                yield Block(sample, nothing)
        if away and self._input.fit:  # what has been lost until now will never be told by a sample that comes after it
            now = self._input.fit.frame_at(time.monotonic_ns()) * sample_rate // rate
            yield Block(max(now, sample), nothing)

    def clock(self) -> Clock:
        fit = self._input.fit
        if fit is None or fit.origin_ns is None:
            return Clock(time.time_ns(), self._rate)
        return Clock(fit.origin_ns + self._wall.offset_ns(), self._rate)

    def arrived_ns(self, sample: int) -> int:
        return self.clock().ns(sample)

    def _captured_ns(self, frame: int) -> int:
        """UNIX time of a frame of the device."""
        return self.clock().origin_ns + frame * 1_000_000_000 // self._input.rate

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._input.close()
