"""Microphones: what the four channels of a device are, and the way to AmbiX.

`--device` says where samples come from, `--mic` what they mean: a profile of `profiles/*.toml`, or a file of one's own
(`layout.Layout`). A device with a known name implies its profile. Capsules and components go by name, in the order of
the device's channels: the order is where most mistakes hide.

The orientation is one rotation of X, Y and Z; W has no direction.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seldrt.config import ConfigError
from seldrt.microphones.capsules import LOOKAHEAD_SAMPLES, Correction
from seldrt.microphones.layout import Layout, read_layout, read_refused, shipped
from seldrt.samples import CHANNELS
from seldrt.spatial import rotation
from seldrt.stream import Chain, Map, Scan, Stage, Windowed, run

Samples = NDArray[np.float32]
Floats = NDArray[np.floating]

DEFAULT_OF_RECORDINGS = "ambix"
# Angles of `spatial.rotation`, from the microphone to the room.
MOUNTS = {
    "upright": {},
    "upside-down": {"roll_deg": 180.0},  # hangs; its front still looks to the front
    "endfire": {"pitch_deg": 90.0},  # tipped forward: its top points to the front, its front down
}


@dataclass(frozen=True)
class Profile:
    """A microphone as it stands in the room: its channels, and the rotation (3, 3) from its own axes to the room's."""

    name: str
    layout: Layout
    to_room: Floats = field(default_factory=lambda: np.eye(3))
    why: str = "as asked for"

    def turned(self, to_room: Floats) -> Profile:
        """The same microphone in another orientation."""
        return replace(self, to_room=to_room)

    def stage(self, sample_rate: int) -> Stage:
        """Device samples (n, 4) to AmbiX (n, 4) float32 as a stage of `seldrt.stream`: equal bits for any cut.

        It waits for `LOOKAHEAD_SAMPLES` where the distance of the capsules is corrected, else for nothing.
        """
        y_z_x = [1, 2, 0]
        turn = np.eye(CHANNELS)
        turn[1:, 1:] = self.to_room[np.ix_(y_z_x, y_z_x)]
        matrix = turn @ self.layout.matrix
        matrix[np.abs(matrix) < 1e-12] = 0  # a half turn has a sine of 1e-16
        mixing = Map(lambda x: _mixed(x, matrix))
        correction = self.layout.correction(sample_rate)
        return mixing if correction is None else Chain(mixing, *_filters(correction))

    def to_foa(self, samples: NDArray[Any], sample_rate: int = 24000) -> Samples:
        """AmbiX (n, 4) of a whole signal (n, 4)."""
        whole = run(self.stage(sample_rate), samples, sample_rate)  # by the second: twice as fast as all at once
        return np.zeros((0, CHANNELS), np.float32) if whole is None else whole

    def latency_ms(self, sample_rate: int) -> float:
        """What `stage` waits for."""
        return 1000 * self.stage(sample_rate).latency / sample_rate


def profile(name: str) -> Profile:
    """The profile of that name, or of that file (``.toml``); `ConfigError` lists the known ones."""
    if name.endswith(".toml"):
        return Profile(Path(name).stem, read_layout(Path(name)))
    known = shipped()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown microphone {name!r}; {hint}known: {', '.join(known)}, or a file like my_mic.toml")
    return Profile(name, read_layout(known[name]))


def profile_of_device(device: str) -> Profile | None:
    """The profile that the name of a device implies, None for an unknown name.

    `ConfigError` when the device is known not to do.
    """
    for refused in read_refused():
        if any(names_device(name, device) for name in refused.devices):
            raise ConfigError(f"{device}: {refused.because}")
    for name in shipped():
        found = profile(name)
        if any(names_device(alias, device) for alias in found.layout.devices):
            return found
    return None


def choose_profile(mic: str, device: str) -> Profile:
    """The profile for a device: the wish ``mic`` where there is one, else what the device's name implies.

    `ConfigError` for an unknown device without a wish: a wrong guess looks like a broken model. A device that is known
    not to do is refused, unless the wish is a file that says what its channels are.
    """
    if mic.endswith(".toml"):
        return profile(mic)
    implied = profile_of_device(device)
    if mic:
        return profile(mic)
    if implied is None:
        raise ConfigError(
            f"what do the channels of {device!r} mean? It is no microphone that seldrt knows: give --mic, one of "
            f"{', '.join(shipped())}, or a file of your own (my_mic.toml)"
        )
    return replace(implied, why="as the name of the device implies")


def profile_of_recording(mic: str) -> Profile:
    """The profile for a sound file: the wish ``mic`` where there is one, else AmbiX."""
    return profile(mic) if mic else replace(profile(DEFAULT_OF_RECORDINGS), why="as --mic says nothing else")


def names_device(alias: str, device: str) -> bool:
    """Whether the words of ``alias`` stand in the name of a device; case, blanks and punctuation do not count."""
    words, wanted = plain_words(device), "".join(plain_words(alias))
    return any(
        "".join(words[start:end]) == wanted for start in range(len(words)) for end in range(start + 1, len(words) + 1)
    )


def plain_words(name: str) -> list[str]:
    """The words of a name in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", name.casefold())


def orientation(mount: str, yaw_deg: float = 0.0) -> Floats:
    """The rotation (3, 3) from the microphone's axes to the room's.

    ``mount`` is one of `MOUNTS` or angles in degrees ("yaw=30,pitch=-10,roll=180", as `spatial.rotation` has them);
    ``yaw_deg`` is where its front points in the room, counter-clockwise. `ConfigError` says what can be given.
    """
    angles: dict[str, float] = dict(MOUNTS.get(mount, {}))
    if mount not in MOUNTS:
        for part in mount.split(","):
            found = re.fullmatch(r"\s*(yaw|pitch|roll)\s*=\s*([-+]?\d{1,4}(?:\.\d{0,9})?)\s*", part)
            if not found or f"{found[1]}_deg" in angles:
                names = ", ".join(MOUNTS)
                raise ConfigError(f"mount {mount!r}: give {names}, or degrees like yaw=30,pitch=-10,roll=180")
            angles[f"{found[1]}_deg"] = float(found[2])
    matrix: Floats = rotation(yaw_deg) @ rotation(**angles)
    return matrix


def _mixed(x: NDArray[Any], matrix: Floats) -> Samples:
    """``x @ matrix.T``, summed in a fixed order: a matrix product may round differently for another size of block."""
    x = np.asarray(x, dtype=np.float32)
    y = np.zeros_like(x)
    for row, gains in enumerate(matrix):
        for column, gain in enumerate(gains):
            if gain:
                y[:, row] += np.float32(gain) * x[:, column]
    return y


def _filters(correction: Correction) -> list[Stage]:
    taps = correction.taps[[0, 1, 1, 1]]

    def convolved(x: NDArray[Any]) -> Samples:
        count = len(x) - 2 * LOOKAHEAD_SAMPLES
        rows = np.ascontiguousarray(x.T, dtype=float)
        y = np.zeros((CHANNELS, count))
        for lag, weights in enumerate(taps.T[::-1, :, None]):  # one order of sums, whatever the size of the block
            y += weights * rows[:, lag : lag + count]
        return np.ascontiguousarray(y.T, dtype=np.float32)

    window = Windowed(convolved, past=LOOKAHEAD_SAMPLES, future=LOOKAHEAD_SAMPLES)
    if not correction.pole:
        return [window]

    def integrated(state: Floats, x: NDArray[Any]) -> tuple[Floats, Floats]:
        from scipy.signal import lfilter

        tail, state = lfilter([1.0], [1.0, -correction.pole], x[:, 1:].astype(float), axis=0, zi=state)
        return state, np.column_stack([x[:, 0], tail])

    return [Scan(integrated, lambda: np.zeros((1, CHANNELS - 1))), window]
