"""What a sample of sound is: a number, full scale is 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = 4  # of first-order ambisonics, and of the microphones that give it
LOUDEST = 1000.0  # of full scale: what is beyond it is no sound
UNKNOWN = 2**63 - 1  # frames, says libsndfile of a FLAC that was never ended: the computer went off


def is_sound(samples: NDArray[Any]) -> NDArray[np.bool_]:
    """Which float samples are numbers that a microphone could give."""
    found: NDArray[np.bool_] = np.abs(samples) <= LOUDEST
    return found


def fault(samples: NDArray[Any], first: int, rate: int) -> str:
    """Where the first of samples (n, channels) is that is none, and why; "" if all are. ``first`` is their number."""
    sound = is_sound(samples)
    if sound.all():
        return ""
    row, channel = np.argwhere(~sound)[0].tolist()
    value = samples[row, channel]
    what = f"a sample of {value:g}: full scale is 1" if np.isfinite(value) else "a sample that is no number"
    return f"at {(first + row) / rate:.3f} s, channel {channel + 1}, {what}"
