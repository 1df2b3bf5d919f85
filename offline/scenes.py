"""What sounds, when, where and how fast: drawing the plan of a synthetic scene.

A plan is drawn from (configuration, bank, seed, index) alone and never looks at samples. `rendering` turns it
into sound.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from offline.arrays import SPHERE_RADIUS_M, sphere_grid
from offline.bank import Bank, Clip
from offline.config import Range, SceneConfig
from offline.encoding import CapsuleArray
from offline.plans import NO_CLASS, Background, Colour, Event, MixedIn, Scene, Stream, Trajectory, Wind
from offline.rooms import Room, draw_open_space, draw_room, free_field
from seldrt.config import ConfigError
from seldrt.spatial import azimuth_elevation, normalized, rotation, unit_vector

DISTRACTOR = "distractor"  # as class_speed names them
BACKGROUND_DIRECTIONS = 10
BABBLE_CLIPS = 4  # that follow each other in each direction
MAX_REPEATS = 6
SHORT_CLIP_S = 1.0
LONG_GAP_PROBABILITY = 0.15
AXIS_TILT_DEG = 15.0


def plan_scene(
    config: SceneConfig, bank: Bank, class_indices: dict[str, int], seed: int, index: int, fold: int = 1
) -> Scene:
    """Draw scene `index` of a seed; even scenes have one layer of events, odd ones two.

    class_indices: the class of each class folder of the bank. What the defaults of `SceneConfig` leave out draws no
    random number, so that they mean the same scenes for ever. `ConfigError` when the configuration needs sounds that
    the bank has not.
    """
    _check_names(config, bank)
    rng = np.random.default_rng([seed, index])
    overlap = 1 + index % 2
    room, max_elevation = _draw_place(config, rng)
    draw = _EventDrawer(config, room, max_elevation, rng, bank.distractors)
    events: list[Event] = []
    if not config.distractors_only:
        for layer in range(overlap):
            events += _draw_layer(draw, bank, class_indices, layer, tuple(events))
    if bank.distractors and (config.distractors_only or rng.uniform() < config.distractor_probability):
        for _ in range(max(1, round(rng.uniform(*config.distractors_per_minute) * config.seconds / 60))):
            onset = rng.uniform(0, max(config.seconds - 2, 0))
            events.append(draw.event(_draw_clip(bank.distractors, rng), DISTRACTOR, NO_CLASS, overlap, onset))
    widest = config.gain_error_db
    errors = rng.uniform(-widest, widest, 4) if config.imperfections else np.zeros(4)
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
        capsules=_draw_capsules(config, rng),
        wind=_draw_wind(config, rng),
    )


def _check_names(config: SceneConfig, bank: Bank) -> None:
    if unknown := config.class_speed.keys() - bank.clips.keys() - {DISTRACTOR}:
        raise ConfigError(f"{bank.folder}: has no folder {min(unknown)}, which class_speed names")
    needs = {"distractors_only": config.distractors_only, "mixed_in_probability": config.mixed_in_probability > 0}
    for name, needed in needs.items():
        if needed and not bank.distractors:
            raise ConfigError(f"{bank.folder}: has no folder named distractor, which {name} needs")
    if config.babble_probability and not bank.unlabelled:
        raise ConfigError(
            f"{bank.folder}: has no folder named background or distractor, which babble_probability needs"
        )


class _EventDrawer:
    """Draws single events in one place."""

    def __init__(
        self,
        config: SceneConfig,
        room: Room,
        max_elevation_deg: float,
        rng: np.random.Generator,
        distractors: tuple[Clip, ...],
    ) -> None:
        self.config, self.room, self.max_elevation_deg, self.rng = config, room, max_elevation_deg, rng
        self.distractors = distractors

    def event(self, clip: Clip, name: str, label: int, layer: int, onset_s: float) -> Event:
        config, rng = self.config, self.rng
        colour = self._colour(name) if config.vary else Colour()
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
        start = rng.uniform(0, max(clip.seconds - once * colour.speed, 0))
        level = rng.uniform(-config.level_spread_db, config.level_spread_db)
        distance = nearest * (farthest / nearest) ** rng.uniform()
        if config.level_by_distance:
            level -= 20 * np.log10(distance / np.sqrt(config.distance_m[0] * config.distance_m[1]))
        return Event(
            label=label,
            layer=layer,
            clip=clip.path,
            clip_start_s=_round(start),
            onset_s=_round(onset_s),
            seconds=_round(seconds),
            repeats_s=tuple(repeats),
            colour=colour,
            level_db=_round(level),
            distance_m=_round(distance),
            path=path,
            mixed_in=self._mixed_in() if label != NO_CLASS else None,
        )

    def _mixed_in(self) -> MixedIn | None:
        config, rng = self.config, self.rng
        if not _happens(config.mixed_in_probability, rng):
            return None
        clip = _draw_clip(self.distractors, rng)
        return MixedIn(clip.path, _round(rng.uniform(0, clip.seconds)), _round(rng.uniform(*config.mixed_in_db)))

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

    def _colour(self, name: str) -> Colour:
        config, rng = self.config, self.rng
        if name in config.class_speed:
            speed = float(np.exp(rng.uniform(*np.log(config.class_speed[name]))))
        else:
            speed = rng.uniform(*config.speed)
        lowpass_hz = _round(rng.uniform(*config.lowpass_hz)) if rng.uniform() < config.lowpass_probability else None
        colour = Colour(
            speed=_round(speed),
            lowpass_hz=lowpass_hz,
            tilt_db_per_octave=_round(rng.uniform(-2, 2)),
            bump_hz=_round(100 * 80 ** rng.uniform()),
            bump_db=_round(rng.uniform(-6, 6)),
        )
        if _happens(config.highpass_probability, rng):
            colour = replace(colour, highpass_hz=_round(rng.uniform(*config.highpass_hz)))
        return colour


def _draw_layer(
    draw: _EventDrawer, bank: Bank, class_indices: dict[str, int], layer: int, others: tuple[Event, ...]
) -> list[Event]:
    """Events one after the other, with random gaps, over the others of the layers before."""
    config, rng = draw.config, draw.rng
    events = []
    onset = _draw_gap(config.gap_s, rng)
    while onset < config.seconds - 0.5:
        name = sorted(bank.clips)[rng.integers(len(bank.clips))]
        overlapped = [other for other in others if other.onset_s <= onset < other.onset_s + other.seconds]
        if overlapped and _happens(config.same_class_probability, rng):
            name = next(one for one, label in class_indices.items() if label == overlapped[0].label)
        event = draw.event(_draw_clip(bank.clips[name], rng), name, class_indices[name], layer, onset)
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
    babbles = _happens(config.babble_probability, rng)
    chosen: list[str] = []
    if not babbles and bank.steady and rng.uniform() < 0.8:
        chosen = [_draw_clip(bank.steady, rng).path for _ in range(rng.integers(1, 3))]
    streams = tuple(
        Stream(
            direction_deg=_angles(turned @ direction),
            clip=chosen[rng.integers(len(chosen))] if chosen else None,
            offset_s=_round(rng.uniform(0, 60)),
            level_db=_round(rng.uniform(-3, 3)),
            babble=tuple(_draw_clip(bank.unlabelled, rng).path for _ in range(BABBLE_CLIPS)) if babbles else (),
        )
        for direction in sphere_grid(BACKGROUND_DIRECTIONS)
    )
    return Background(
        streams=streams,
        snr_db=_round(rng.uniform(*config.snr_db)),
        noise_db=_round(rng.uniform(-25, -5)),
        noise_slope_db_per_octave=_round(rng.uniform(-6, -1)),
        sensor_db=_round(rng.uniform(*config.sensor_db)),
    )


def _draw_capsules(config: SceneConfig, rng: np.random.Generator) -> CapsuleArray | None:
    kind = config.microphone
    if kind == "mixed":
        kind = ("ideal", "sphere", "tetrahedron")[rng.integers(3)]
    if kind == "ideal":
        return None
    tetrahedral, pattern, delay = kind == "tetrahedron", config.pattern_error, config.delay_error_us
    return CapsuleArray(
        kind=kind,
        radius_m=_round(rng.uniform(*config.capsule_radius_m)) if tetrahedral else SPHERE_RADIUS_M,
        patterns=_four(rng, 0.5 - pattern, 0.5 + pattern) if tetrahedral else (0.5,) * 4,
        delays_us=_four(rng, -delay, delay),
        low_cuts_hz=_four(rng, *config.low_cut_hz),
    )


def _draw_wind(config: SceneConfig, rng: np.random.Generator) -> Wind | None:
    if not _happens(config.wind_probability, rng):
        return None
    return Wind(
        level_db=_round(rng.uniform(*config.wind_db)),
        corner_hz=_round(30 * 5 ** rng.uniform()),
        slope_db_per_octave=_round(rng.uniform(9, 18)),
        gust_db=_round(rng.uniform(2, 8)),
        gust_s=_round(rng.uniform(1, 4)),
    )


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """By chance; what never does draws no random number, see `plan_scene`."""
    return probability > 0 and rng.uniform() < probability


def _four(rng: np.random.Generator, low: float, high: float) -> tuple[float, ...]:
    return tuple(_round(value) for value in rng.uniform(low, high, 4))


def _room_kind(room: Room) -> int:
    """The room digit of a file name: 0 outdoors, then 1 to 3 for a short, medium and long reverberation."""
    return 0 if not room.diffuse else 1 + int(np.searchsorted([0.3, 0.6], room.rt60_s[3]))


def _angles(vector: NDArray[np.float64]) -> tuple[float, float]:
    azimuth, elevation = azimuth_elevation(normalized(vector))
    return float(azimuth), float(elevation)


def _round(value: float) -> float:
    return round(float(value), 3)
