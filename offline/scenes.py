"""What sounds, when, where and how fast: the plan of a synthetic scene.

A plan is drawn from (configuration, bank, seed, index) alone and never looks at samples. `synthesis` turns it
into sound.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline.arrays import sphere_grid
from offline.bank import Bank, Clip
from offline.config import Range, SceneConfig
from offline.rooms import Room, draw_open_space, draw_room, free_field
from seldrt.config import ConfigError
from seldrt.spatial import azimuth_elevation, normalized, rotation, unit_vector

BACKGROUND_DIRECTIONS = 10
MAX_REPEATS = 6
SHORT_CLIP_S = 1.0
LONG_GAP_PROBABILITY = 0.15
AXIS_TILT_DEG = 15.0
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
    """How a dry clip is varied: its speed, a low-pass, a tilt of its spectrum and a bump in it."""

    speed: float = 1.0
    lowpass_hz: float | None = None
    tilt_db_per_octave: float = 0.0
    bump_hz: float = 1000.0
    bump_db: float = 0.0


class Event(msgspec.Struct, frozen=True):
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


class Stream(msgspec.Struct, frozen=True):
    """A part of the background from one (azimuth, elevation): a looped clip, or none, and coloured noise."""

    direction_deg: tuple[float, float]
    clip: str | None
    offset_s: float
    level_db: float


class Background(msgspec.Struct, frozen=True):
    """A diffuse bed of streams; levels in dB: noise re the clips, sensor noise re the background."""

    streams: tuple[Stream, ...]
    snr_db: float
    noise_db: float
    noise_slope_db_per_octave: float
    sensor_db: float


class Scene(msgspec.Struct, frozen=True):
    """The plan of one recording; channel_gains_db holds the four microphones' errors."""

    name: str
    seed: tuple[int, int]
    seconds: float
    overlap: int
    room: Room
    events: tuple[Event, ...]
    background: Background
    peak_dbfs: float
    channel_gains_db: tuple[float, ...]


def plan_scene(
    config: SceneConfig, bank: Bank, class_indices: dict[str, int], seed: int, index: int, fold: int = 1
) -> Scene:
    """Draw scene `index` of a seed; even scenes have one layer of events, odd ones two.

    class_indices: the class of each class folder of the bank. `ConfigError` when the bank has no distractors
    and the configuration wants nothing else.
    """
    if config.distractors_only and not bank.distractors:
        raise ConfigError(f"{bank.folder}: has no folder named distractor, which distractors_only needs")
    rng = np.random.default_rng([seed, index])
    overlap = 1 + index % 2
    room, max_elevation = _draw_place(config, rng)
    draw = _EventDrawer(config, room, max_elevation, rng)
    events: list[Event] = []
    if not config.distractors_only:
        for layer in range(overlap):
            events += _draw_layer(draw, bank, class_indices, layer)
    if bank.distractors and (config.distractors_only or rng.uniform() < config.distractor_probability):
        for _ in range(max(1, round(rng.uniform(*config.distractors_per_minute) * config.seconds / 60))):
            onset = rng.uniform(0, max(config.seconds - 2, 0))
            events.append(draw.event(_draw_clip(bank.distractors, rng), NO_CLASS, overlap, onset))
    errors = rng.uniform(-0.5, 0.5, 4) if config.imperfections else np.zeros(4)
    return Scene(
        name=f"fold{fold}_room{_room_kind(room)}_mix{index + 1:03d}_ov{overlap}",
        seed=(seed, index),
        seconds=config.seconds,
        overlap=overlap,
        room=room,
        events=tuple(sorted(events, key=lambda event: event.onset_s)),
        background=_draw_background(config, bank, rng),
        peak_dbfs=_round(rng.uniform(*config.peak_dbfs)),
        channel_gains_db=tuple(_round(error) for error in errors),
    )


class _EventDrawer:
    """Draws single events in one place."""

    def __init__(self, config: SceneConfig, room: Room, max_elevation_deg: float, rng: np.random.Generator) -> None:
        self.config, self.room, self.max_elevation_deg, self.rng = config, room, max_elevation_deg, rng

    def event(self, clip: Clip, label: int, layer: int, onset_s: float) -> Event:
        config, rng = self.config, self.rng
        colour = self._colour() if config.vary else Colour()
        available = min(config.max_event_s, config.seconds - onset_s)
        once = min(clip.seconds / colour.speed, available)
        repeats = []
        if clip.seconds < SHORT_CLIP_S and rng.uniform() < config.repeat_probability:
            again = once
            for _ in range(rng.integers(1, MAX_REPEATS)):
                again += rng.uniform(0.05, 0.5)
                if again + once > available:
                    break
                repeats.append(_round(again))
                again += once
        seconds = once + (repeats[-1] if repeats else 0)
        path = self._path(seconds)
        reach = self.room.reach_m(path.doa(np.linspace(0, seconds, 100))).min()
        nearest = min(config.distance_m[0], reach)
        farthest = max(min(config.distance_m[1], reach), nearest)
        return Event(
            label=label,
            layer=layer,
            clip=clip.path,
            clip_start_s=_round(rng.uniform(0, max(clip.seconds - once * colour.speed, 0))),
            onset_s=_round(onset_s),
            seconds=_round(seconds),
            repeats_s=tuple(repeats),
            colour=colour,
            level_db=_round(rng.uniform(-config.level_spread_db, config.level_spread_db)),
            distance_m=_round(nearest * (farthest / nearest) ** rng.uniform()),
            path=path,
        )

    def _path(self, seconds: float) -> Trajectory:
        config, rng, highest = self.config, self.rng, self.max_elevation_deg
        moves = rng.uniform() < config.moving_probability
        if not moves or seconds <= config.moving_min_s or not config.speeds_deg_per_s:
            return Trajectory((_round(rng.uniform(-180, 180)), _round(rng.uniform(-highest, highest))))
        speed = float(rng.choice(config.speeds_deg_per_s)) * float(rng.choice([-1, 1]))
        tilt = rng.uniform(0, min(AXIS_TILT_DEG, highest))
        latitude = rng.uniform(tilt - highest, highest - tilt)
        # A circle of latitude about z, then tilted: it stays within +-(latitude + tilt) of the horizon.
        tilted = rotation(yaw_deg=rng.uniform(-180, 180), pitch_deg=tilt)
        start = _angles(tilted @ unit_vector(rng.uniform(-180, 180), latitude))
        turn = speed / np.cos(np.radians(latitude))
        return Trajectory(start, _angles(tilted @ [0.0, 0.0, 1.0]), float(turn), abs(speed))

    def _colour(self) -> Colour:
        rng = self.rng
        return Colour(
            speed=_round(rng.uniform(0.9, 1.1)),
            lowpass_hz=_round(rng.uniform(4000, 11000)) if rng.uniform() < 0.3 else None,
            tilt_db_per_octave=_round(rng.uniform(-2, 2)),
            bump_hz=_round(100 * 80 ** rng.uniform()),
            bump_db=_round(rng.uniform(-6, 6)),
        )


def _draw_layer(draw: _EventDrawer, bank: Bank, class_indices: dict[str, int], layer: int) -> list[Event]:
    """Events one after the other, with random gaps."""
    config, rng = draw.config, draw.rng
    events = []
    onset = _draw_gap(config.gap_s, rng)
    while onset < config.seconds - 0.5:
        name = sorted(bank.clips)[rng.integers(len(bank.clips))]
        event = draw.event(_draw_clip(bank.clips[name], rng), class_indices[name], layer, onset)
        events.append(event)
        onset += event.seconds + _draw_gap(config.gap_s, rng)
    return events


def _draw_gap(gap_s: Range, rng: np.random.Generator) -> float:
    longer = 2.5 if rng.uniform() < LONG_GAP_PROBABILITY else 1.0
    return longer * rng.uniform(*gap_s)


def _draw_clip(clips: tuple[Clip, ...], rng: np.random.Generator) -> Clip:
    """A clip, by source recording first: one with many clips is not heard more often than another."""
    groups = sorted({clip.group for clip in clips})
    group = groups[rng.integers(len(groups))]
    members = [clip for clip in clips if clip.group == group]
    return members[rng.integers(len(members))]


def _draw_place(config: SceneConfig, rng: np.random.Generator) -> tuple[Room, float]:
    """A room or an open space, and the largest elevation of a source in it."""
    kind = config.room
    if kind == "mixed":
        kind = "open" if rng.uniform() < config.open_probability else "room"
    if kind == "room":
        return draw_room(rng, config.rt60_s), config.max_elevation_deg
    return (draw_open_space(rng) if kind == "open" else free_field()), config.open_max_elevation_deg


def _draw_background(config: SceneConfig, bank: Bank, rng: np.random.Generator) -> Background:
    turned = rotation(*rng.uniform(-180, 180, 3))
    chosen: list[str] = []
    if bank.steady and rng.uniform() < 0.8:
        chosen = [_draw_clip(bank.steady, rng).path for _ in range(rng.integers(1, 3))]
    streams = tuple(
        Stream(
            direction_deg=_angles(turned @ direction),
            clip=chosen[rng.integers(len(chosen))] if chosen else None,
            offset_s=_round(rng.uniform(0, 60)),
            level_db=_round(rng.uniform(-3, 3)),
        )
        for direction in sphere_grid(BACKGROUND_DIRECTIONS)
    )
    return Background(
        streams=streams,
        snr_db=_round(rng.uniform(*config.snr_db)),
        noise_db=_round(rng.uniform(-25, -5)),
        noise_slope_db_per_octave=_round(rng.uniform(-6, -1)),
        sensor_db=_round(rng.uniform(-30, -8)),
    )


def _room_kind(room: Room) -> int:
    """The room digit of a file name: 0 outdoors, then 1 to 3 for a short, medium and long reverberation."""
    return 0 if not room.diffuse else 1 + int(np.searchsorted([0.3, 0.6], room.rt60_s[3]))


def _angles(vector: NDArray[np.float64]) -> tuple[float, float]:
    azimuth, elevation = azimuth_elevation(normalized(vector))
    return float(azimuth), float(elevation)


def _round(value: float) -> float:
    return round(float(value), 3)
