"""What a synthetic scene is, down to every number that its rendering needs.

Plans are written beside the scenes as JSON. Fields with a default came later and are left out where they have it, so
that an older plan stays the same to the byte.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline.encoding import CapsuleArray
from offline.rooms import Room
from seldrt.spatial import unit_vector

NO_CLASS = -1


class Trajectory(msgspec.Struct, frozen=True):
    """A circle on the sphere at a constant angular speed: the start turns about an axis.

    start_deg, axis_deg: (azimuth, elevation). turn_deg_per_s: about the axis, positive counter-clockwise.
    speed_deg_per_s: how fast the direction itself moves along its circle; 0 when it stands still.
    """

    start_deg: tuple[float, float]
    axis_deg: tuple[float, float] = (0.0, 90.0)
    turn_deg_per_s: float = 0.0
    speed_deg_per_s: float = 0.0

    def doa(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """Unit vectors (..., 3) at times (...,) since the start, seconds."""
        angle = np.radians(self.turn_deg_per_s * np.asarray(time_s, dtype=float))[..., None]
        start, axis = unit_vector(*self.start_deg), unit_vector(*self.axis_deg)
        along = axis * (axis @ start)
        return along + (start - along) * np.cos(angle) + np.cross(axis, start) * np.sin(angle)


class Colour(msgspec.Struct, frozen=True):
    """How a dry clip is varied: its speed, a low-pass, a tilt of its spectrum, a bump in it and a high-pass."""

    speed: float = 1.0
    lowpass_hz: float | None = None
    tilt_db_per_octave: float = 0.0
    bump_hz: float = 1000.0
    bump_db: float = 0.0
    highpass_hz: float | msgspec.UnsetType = msgspec.UNSET


class MixedIn(msgspec.Struct, frozen=True):
    """A clip under an event, from the same place and as long: level_db re the event."""

    clip: str
    offset_s: float
    level_db: float


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sound: a clip (or its repeats) from a moving or still direction.

    label: class index, or NO_CLASS for a distractor. layer: the track of its labels. clip_start_s: where the
    clip is cut. onset_s: in the scene. seconds: at most so long. repeats_s: when, after the onset, the clip
    sounds again. level_db: while active, at the array.
    """

    label: int
    layer: int
    clip: str
    clip_start_s: float
    onset_s: float
    seconds: float
    repeats_s: tuple[float, ...]
    colour: Colour
    level_db: float
    distance_m: float
    path: Trajectory
    mixed_in: MixedIn | None = None


class Stream(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the background from one (azimuth, elevation): looped clips, or none, and coloured noise.

    clip: one that sounds all the time. babble: clips that sound one after the other instead.
    """

    direction_deg: tuple[float, float]
    clip: str | None
    offset_s: float
    level_db: float
    babble: tuple[str, ...] = ()

    @property
    def clips(self) -> tuple[str, ...]:
        """What sounds in turn."""
        return self.babble or ((self.clip,) if self.clip else ())


class Background(msgspec.Struct, frozen=True):
    """A diffuse bed of streams; levels in dB: noise re the clips, sensor noise re the background."""

    streams: tuple[Stream, ...]
    snr_db: float
    noise_db: float
    noise_slope_db_per_octave: float
    sensor_db: float


class Wind(msgspec.Struct, frozen=True):
    """Wind in the microphone, unlike in any two channels: level_db re the events; above corner_hz it falls.

    gust_db: how much its level varies (standard deviation). gust_s: between two levels drawn by chance.
    """

    level_db: float
    corner_hz: float
    slope_db_per_octave: float
    gust_db: float
    gust_s: float


class Scene(msgspec.Struct, frozen=True, omit_defaults=True):
    """The plan of one recording; channel_gains_db holds the four microphones' errors.

    capsules: what FOA is encoded from; None for ideal FOA. The format mic knows them not.
    """

    name: str
    seed: tuple[int, int]
    seconds: float
    overlap: int
    room: Room
    events: tuple[Event, ...]
    background: Background
    peak_dbfs: float
    channel_gains_db: tuple[float, ...]
    capsules: CapsuleArray | None = None
    wind: Wind | None = None


def plan_folder(base: Path) -> Path:
    """Where the plans of the scenes of a dataset lie."""
    return base / "manifests"


def read_plan(base: Path, name: str) -> Scene | None:
    """The plan of a synthetic scene; None where there is none that this program knows."""
    try:
        return msgspec.json.decode((plan_folder(base) / f"{name}.json").read_bytes(), type=Scene)
    except (OSError, msgspec.DecodeError):
        return None
