"""Are the channels of a microphone what they should be: alive, different, unclipped.

Told from the least, the greatest and the sum of each block alone: a few microseconds. Even a quiet room moves every
converter by a bit or two, so a channel that does not move at all is no quiet room.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seldrt.samples import LOUDEST, is_sound

PATIENCE_S = 3.0  # a fault is one when it has lasted so long
FULL_SCALE = 0.999
CLIPPED_BLOCKS = 0.1  # share of the last blocks that touch full scale


class ChannelCheck:
    """Watches blocks of ``channels`` channels, ``rate`` frames a second; faults come and go by themselves."""

    def __init__(self, channels: int, rate: int) -> None:
        self._patience = PATIENCE_S * rate
        self._pairs = np.array(list(combinations(range(channels), 2)))
        self._still = np.zeros(channels)  # frames since it moved
        self._value = np.zeros(channels)  # where it stands
        self._alike = np.zeros(len(self._pairs))  # frames since they differed
        self._opposite = np.zeros(len(self._pairs))
        self._clipped = np.zeros(channels)  # share of the last blocks
        self._no_sound = np.zeros(channels)  # frames for which it is told

    def push(self, frames: NDArray[Any]) -> None:
        """Takes a block (n, channels) as the device gave it."""
        if not len(frames):
            return
        count, low, high = len(frames), frames.min(axis=0), frames.max(axis=0)
        with np.errstate(invalid="ignore"):  # infinities of both signs have no sum
            total = frames.sum(axis=0, dtype=np.float64)
        moving = (low < high) | (low != self._value)
        self._value = low
        self._still = np.where(moving, 0, self._still + count)
        a, b = self._pairs.T
        told = moving[a] & moving[b]
        for since, same in (
            (self._alike, (low[a] == low[b]) & (high[a] == high[b]) & (total[a] == total[b])),
            (self._opposite, (low[a] == -high[b]) & (high[a] == -low[b]) & (total[a] == -total[b])),
        ):
            since += count
            since[~(same & told)] = 0
        new = min(count / self._patience, 1.0)
        self._clipped += new * ((np.maximum(high, -low) >= FULL_SCALE) - self._clipped)
        self._no_sound = np.where(is_sound(low) & is_sound(high), np.maximum(self._no_sound - count, 0), self._patience)

    def complaints(self) -> dict[str, str]:
        """What is wrong, by what it is wrong with."""
        found = {}
        for number, (still, value) in enumerate(zip(self._still, self._value, strict=True), 1):
            if still >= self._patience:
                found[f"channel {number}"] = "dead: nothing but zeros" if value == 0 else f"stuck at {value:.4f}"
            elif self._no_sound[number - 1]:
                found[f"channel {number}"] = (
                    f"gives samples that are no numbers, or beyond {LOUDEST:g} times full scale"
                )
            elif self._clipped[number - 1] > CLIPPED_BLOCKS:
                found[f"channel {number}"] = "clipped: turn the gain down"
        for (a, b), alike, opposite in zip(self._pairs + 1, self._alike, self._opposite, strict=True):
            if max(alike, opposite) >= self._patience:
                how = "the same" if alike >= opposite else "the same with opposite signs"
                found[f"channels {a} and {b}"] = f"{how}: is the device really one of 4 channels?"
        if sum(text.startswith("dead") for text in found.values()) == len(self._still):
            return {"all channels": "dead: nothing but zeros; is it muted?"}
        return found
