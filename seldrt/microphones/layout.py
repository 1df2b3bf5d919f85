"""What the four channels of a device are, as a TOML file says it; `profiles/` holds those that ship."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from seldrt.config import Section, load_toml
from seldrt.microphones.capsules import Correction, Floats, coincident_gains, condition, design_correction, modes
from seldrt.samples import CHANNELS
from seldrt.spatial import unit_vector

COMPONENTS = ("W", "Y", "Z", "X")  # of AmbiX, in order
# What a component of each convention is multiplied with to be SN3D: W, and Y, Z, X. FuMa: W at -3 dB.
_TO_SN3D = {"sn3d": (1.0, 1.0), "n3d": (1.0, 3**-0.5), "fuma": (2**0.5, 1.0)}
# Corners of the cube by letters in any order: F or B, L or R, U or D.
_CORNERS = {
    "".join(letters): np.array([x, y, z]) / 3**0.5
    for (front, x), (left, y), (up, z) in product((("F", 1), ("B", -1)), (("L", 1), ("R", -1)), (("U", 1), ("D", -1)))
    for letters in permutations((front, left, up))
}
_MAX_RADIUS_MM, _MAX_CONDITION = 60.0, 10.0
_PATTERNS = (0.3, 0.75)


class Capsules(Section, frozen=True):
    """Four capsules around one point: an A-format."""

    directions_deg: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)  # corners (FLU, ...) need none
    pattern: float | None = None  # a of a + (1 - a) cos; None = 0.5, a cardioid (open), or pressure (on a sphere)
    baffle: Literal["open", "rigid-sphere"] = "open"
    radius_mm: float | None = None  # from the centre to the capsules; None = not known, no correction

    def __post_init__(self) -> None:
        for name, (azimuth, elevation) in self.directions_deg.items():
            if not (-360 <= azimuth <= 360 and -90 <= elevation <= 90):
                raise ValueError(f"{name} looks to {[azimuth, elevation]}: give [azimuth, elevation] in degrees")
        low, high = _PATTERNS
        if self.pattern is not None and not low <= self.pattern <= high:
            raise ValueError(
                f"pattern is {self.pattern}: use {low} (hypercardioid) to {high} (wide cardioid); 0.5 is a cardioid"
            )
        if self.radius_mm is not None and not 1 <= self.radius_mm <= _MAX_RADIUS_MM:
            raise ValueError(f"radius_mm is {self.radius_mm}: use 1 to {_MAX_RADIUS_MM:g}, or leave it out")
        if self.baffle == "rigid-sphere" and (self.pattern is not None or self.radius_mm is None):
            raise ValueError("baffle 'rigid-sphere' needs radius_mm, and no pattern: its capsules measure pressure")


class Layout(Section, frozen=True):
    """What a microphone's channels are: components of a B-format, or capsules of an A-format."""

    about: str
    channels: tuple[str, ...]  # in the order of the device: W Y Z X, or the names of the capsules
    convention: Literal["sn3d", "n3d", "fuma"] | None = None  # gains of a B-format
    capsules: Capsules | None = None
    devices: tuple[str, ...] = ()  # names that operating systems show for it
    caution: str = ""  # said at the start

    def __post_init__(self) -> None:
        if (self.convention is None) == (self.capsules is None):
            raise ValueError("give either convention (B-format: 'sn3d', 'n3d', 'fuma') or a section [capsules]")
        if len(self.channels) != CHANNELS or len(set(self.channels)) != CHANNELS:
            raise ValueError(f"channels is {list(self.channels)}: name {CHANNELS} different channels, in their order")
        if self.capsules is None:
            if set(self.channels) != set(COMPONENTS):
                raise ValueError(f"channels is {list(self.channels)}: a B-format has W, X, Y and Z")
            return
        known = self.capsules.directions_deg
        if strange := sorted(set(known) - set(self.channels)):
            raise ValueError(f"directions_deg has {strange[0]!r}, which is none of the channels {list(self.channels)}")
        for name in self.channels:
            if name not in known and name not in _CORNERS:
                raise ValueError(f"capsule {name!r} is no corner like FLU or BRD: add it to [capsules.directions_deg]")
        if not (found := condition(self.directions)) <= _MAX_CONDITION:
            raise ValueError(
                f"the capsules lie (nearly) in one plane (condition {found:.3g}, at most {_MAX_CONDITION:g}): such an "
                "array cannot tell the two sides of the plane; seldrt needs a tetrahedron"
            )

    @property
    def directions(self) -> Floats:
        """Unit vectors (4, 3) that the capsules look to, in the order of the channels."""
        assert self.capsules is not None
        known = self.capsules.directions_deg
        return np.stack([unit_vector(*known[c]) if c in known else _CORNERS[c] for c in self.channels])

    @property
    def matrix(self) -> Floats:
        """From the channels to W, Y, Z, X (4, 4); exact for capsules at one point, else a `correction` follows."""
        if self.capsules is None:
            assert self.convention is not None
            w, xyz = _TO_SN3D[self.convention]
            gains = {name: w if name == "W" else xyz for name in COMPONENTS}
            return np.array([[gains[row] * (row == column) for column in self.channels] for row in COMPONENTS])
        matrix = modes(self.directions)
        if self.capsules.radius_mm is None:
            w, xyz = coincident_gains(self._pattern)
            matrix = matrix * np.array([w, xyz, xyz, xyz])[:, None]
        return matrix[[0, 2, 3, 1]]

    def correction(self, sample_rate: int) -> Correction | None:
        """The filters for the distance of the capsules, where it is known."""
        if self.capsules is None or self.capsules.radius_mm is None:
            return None
        pattern = None if self.capsules.baffle == "rigid-sphere" else self._pattern
        return design_correction(self.directions, self.capsules.radius_mm / 1000, pattern, sample_rate)

    @property
    def _pattern(self) -> float:
        assert self.capsules is not None
        return 0.5 if self.capsules.pattern is None else self.capsules.pattern


class Refused(Section, frozen=True):
    """Devices that are known not to do."""

    devices: tuple[str, ...]
    because: str


class RefusedDevices(Section, frozen=True):
    """The file of those devices."""

    refused: tuple[Refused, ...]


_PROFILES = Path(__file__).parent / "profiles"


def shipped() -> dict[str, Path]:
    """The files of the profiles that ship, by name."""
    return {path.stem: path for path in sorted(_PROFILES.glob("*.toml"))}


def read_layout(path: Path) -> Layout:
    """One strictly read file; `ConfigError` names file, key, value and remedy."""
    return load_toml(path, Layout)


def read_refused() -> tuple[Refused, ...]:
    """Devices that the project knows it cannot use."""
    return load_toml(Path(__file__).parent / "refused.toml", RefusedDevices).refused
