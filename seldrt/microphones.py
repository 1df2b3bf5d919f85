"""Microphone profiles: what the four channels of a device are, and the way to AmbiX.

Every profile is a 4 x 4 matrix without memory, so any cut of the stream gives the same samples. Capsules and
components are named in the order of the device's channels: the order is where most mistakes hide.

A-format is taken as four ideal cardioids at one point on the tetrahedron FLU FRD BLD BRU (front-left-up ...). Real
capsules stand apart, so above roughly c / (2 pi r) (4.4 kHz for r = 12.5 mm) directions blur; a device that converts
by itself (Zoom H3-VR) does it better.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seldrt.config import ConfigError

Matrix = tuple[tuple[float, float, float, float], ...]

CHANNELS = 4


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a device delivers: ``foa = matrix @ channels`` with foa in the order W, Y, Z, X (SN3D)."""

    name: str
    channels: str  # what each channel is, in order
    matrix: Matrix

    def to_foa(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """AmbiX samples (n, 4) float32 of device samples (n, 4).

        Sums in a fixed order: a matrix product may round differently when a block has another size.
        """
        x = np.asarray(samples, dtype=np.float32)
        foa = np.zeros_like(x)
        for row, gains in enumerate(self.matrix):
            for column, gain in enumerate(gains):
                if gain:
                    foa[:, row] += np.float32(gain) * x[:, column]
        return foa


# FuMa: W carries 1/sqrt(2), order W X Y Z. N3D = SN3D * sqrt(2n + 1).
_2, _3 = math.sqrt(2.0), math.sqrt(3.0)
_AMBIX: Matrix = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
_FUMA: Matrix = ((_2, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0))
_N3D: Matrix = ((1, 0, 0, 0), (0, 1 / _3, 0, 0), (0, 0, 1 / _3, 0), (0, 0, 0, 1 / _3))
# Cardioids 0.5 + 0.5 cos at azimuth +-45, +-135 and elevation +-35.26 degrees: W = sum / 2, Y Z X = sqrt(3) / 2 * ...
_A, _B = 0.5, _3 / 2
_TETRAHEDRON: Matrix = ((_A, _A, _A, _A), (_B, -_B, _B, -_B), (_B, -_B, -_B, _B), (_B, _B, -_B, -_B))

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="ambix", channels="W Y Z X, SN3D", matrix=_AMBIX),
        Profile(name="fuma", channels="W X Y Z, W at -3 dB", matrix=_FUMA),
        Profile(name="n3d", channels="W Y Z X, N3D", matrix=_N3D),
        Profile(name="tetrahedron", channels="FLU FRD BLD BRU cardioids (A-format)", matrix=_TETRAHEDRON),
        Profile(name="zoom-h3vr", channels="W Y Z X, SN3D (set the recorder to AmbiX)", matrix=_AMBIX),
    )
}


def profile(name: str) -> Profile:
    """The profile of that name; `ConfigError` lists the known ones."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ConfigError(f"unknown microphone {name!r}; known: {', '.join(PROFILES)}") from None
