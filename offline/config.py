"""Configuration of the offline rooms; one frozen section for each module that takes one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from seldrt.config import ConfigError, Section, decode, load_toml, require, require_range
from seldrt.config.reading import SectionT

Range = tuple[float, float]

DAY_S = 86400.0
SCENE_LIMITS = {  # of the numbers of `SceneConfig`, and of both ends of its ranges; probabilities lie in 0..1
    "seconds": (1, DAY_S),
    "rt60_s": (0.01, 10),
    "distance_m": (0.5, 1000),
    "max_elevation_deg": (0, 85),
    "open_max_elevation_deg": (0, 85),
    "gap_s": (0, DAY_S),
    "max_event_s": (0.1, DAY_S),
    "moving_min_s": (0, DAY_S),
    "speeds_deg_per_s": (0, 360),
    "snr_db": (-100, 100),
    "level_spread_db": (0, 100),
    "wind_db": (-100, 100),
    "peak_dbfs": (-90, 0),
    "distractors_per_minute": (0, 600),
    "mixed_in_db": (-100, 100),
    "speed": (0.25, 4),
    "lowpass_hz": (500, 20000),
    "highpass_hz": (20, 1000),
    "gain_error_db": (0, 12),
    "sensor_db": (-100, 100),
    "capsule_radius_m": (0.002, 0.05),
    "pattern_error": (0, 0.25),
    "delay_error_us": (0, 100),
    "low_cut_hz": (0, 500),
}


class SceneConfig(Section, frozen=True):
    """What synthetic scenes are made of; the defaults follow the DCASE 2020 data."""

    seconds: float = 60.0  # of a scene
    room: Literal["mixed", "room", "open", "anechoic"] = "mixed"
    open_probability: float = 0.15  # of a scene outdoors, when room is mixed
    rt60_s: Range = (0.15, 1.0)
    distance_m: Range = (0.8, 5.0)
    max_elevation_deg: float = 45.0
    open_max_elevation_deg: float = 70.0
    gap_s: Range = (0.3, 3.5)  # silence between the events of a layer
    max_event_s: float = 12.0  # longer clips are cut
    repeat_probability: float = 0.3  # of a clip shorter than 1 s to sound several times in one event
    moving_probability: float = 0.5
    moving_min_s: float = 3.0  # shorter events stay where they are
    speeds_deg_per_s: tuple[float, ...] = (10.0, 20.0, 40.0)
    snr_db: Range = (6.0, 30.0)  # mean level of the active events over the background
    level_spread_db: float = 6.0  # events lie within +- this much of each other's level
    level_by_distance: bool = False  # near events are louder than far ones, 6 dB a doubling
    same_class_probability: float = 0.0  # of an overlapping event to be of the class that it overlaps
    wind_probability: float = 0.0  # of a scene to have wind in the microphone
    wind_db: Range = (-10.0, 20.0)  # re the mean level of the active events
    peak_dbfs: Range = (-30.0, -1.0)
    distractor_probability: float = 0.5
    distractors_per_minute: Range = (1.0, 4.0)
    distractors_only: bool = False  # no target at all: to count false alarms
    mixed_in_probability: float = 0.0  # of an event to carry a distractor under it, from the same place
    mixed_in_db: Range = (-25.0, -10.0)  # re the event
    babble_probability: float = 0.0  # of a background of many unlabelled sounds at once
    vary: bool = True  # speed, bandwidth and colour of the dry clips
    speed: Range = (0.9, 1.1)  # of these
    class_speed: dict[str, Range] = msgspec.field(default_factory=dict)  # of some, instead
    lowpass_probability: float = 0.3  # of a clip to lose what lies above a frequency from lowpass_hz
    lowpass_hz: Range = (4000.0, 11000.0)
    highpass_probability: float = 0.0  # of a clip to lose what lies below a frequency from highpass_hz
    highpass_hz: Range = (150.0, 500.0)
    imperfections: bool = True  # channel gains off by up to gain_error_db
    gain_error_db: float = 0.5
    sensor_db: Range = (-30.0, -8.0)  # the channels' own noise re the background
    microphone: Literal["ideal", "sphere", "tetrahedron", "mixed"] = "ideal"  # what FOA is made from
    capsule_radius_m: Range = (0.008, 0.02)  # of a tetrahedron of open cardioids
    pattern_error: float = 0.0  # capsules are a + (1 - a) cos with a = 0.5 +- this
    delay_error_us: float = 0.0  # of each capsule, +-
    low_cut_hz: Range = (0.0, 0.0)  # each capsule's own first-order high-pass; 0 is none

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        values |= {f"speed of {name}": speed for name, speed in self.class_speed.items()}
        for name, value in values.items():
            limits = SCENE_LIMITS.get(name.split()[0], (0, 1) if name.endswith("_probability") else None)
            if not limits:  # no number
                continue
            low, high = limits
            numbers = value if isinstance(value, tuple) else (value,)
            said = ", ".join(f"{number:g}" for number in numbers)
            if not all(low <= number <= high for number in numbers):
                raise ValueError(f"{name} is {said}: it must lie in {low:g}..{high:g}")
            if name != "speeds_deg_per_s" and list(numbers) != sorted(numbers):
                raise ValueError(f"{name} is {said}: it must have its smaller value first")


class TrainConfig(Section, frozen=True):
    """How a network is trained; the defaults are the report's where it says, ours where it does not."""

    folds: tuple[int, ...] = ()  # of the stores to train with; () = all
    validation_folds: tuple[int, ...] = ()  # of the stores to choose the best weights by; () = all
    epochs: int = 300
    steps_per_epoch: int = 200
    batch_size: int = 16
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5  # at the end of each cosine cycle
    cycle_epochs: int = 10  # the first cycle of the warm restarts
    cycle_factor: int = 2  # each cycle is this much longer than the one before
    optimizer: Literal["ranger", "adam"] = "ranger"  # RAdam with Lookahead, or plain Adam
    snapshots: bool = False  # keep the weights of the end of each cycle, for an ensemble
    gradient_norm: float = 1.0
    chunk_hop_labels: int = 1  # training chunks begin at multiples of this; 1 = anywhere
    balanced: float = 0.0  # probability of a chunk to be chosen for a class drawn by chance, however rare
    soft_f_per_class: bool = False  # counts of the soft F loss per class instead of over everything
    cross_entropy_weight: float = 0.0  # beside the soft F loss
    teacher: str = ""  # a model whose answers SAD or SED learns from beside the labels: a path, or one that ships
    teacher_share: float = 0.5  # of its answers in what the cross-entropy asks for
    untaught: tuple[str, ...] = ()  # classes that it knows too little of: of them, and while they sound, labels tell
    silence_weight: float = 0.0  # of label frames without any target in the loss of SED; 0 = the temporal mask
    doa_weight: float = 5.0  # of the directions beside the classes in the loss of the baseline
    squared_distance: bool = True  # of vectors (DOAE); false = the distance itself, which does not end between sources
    rotations: bool = False  # 16 ambisonic rotations and reflections
    colour_db: float = 0.0  # random level and frequency response, up to +- this
    mask_bands: int = 0  # widest hidden stripe of mel bands
    mask_frames: int = 0  # longest hidden stripe of frames
    restyle_probability: float = 0.0  # of a chunk to lean towards the levels of another one, band by band
    mix_probability: float = 0.0  # of a chunk to get another one laid over it (SAD and SED)
    weather_probability: float = 0.0  # of a chunk to lose its lows, and of one to get wind or hum: `offline.weather`
    bf16: bool = True  # where the GPU or CPU computes with it
    seed: int = 1

    def __post_init__(self) -> None:
        counts = ("epochs", "steps_per_epoch", "batch_size", "cycle_epochs", "cycle_factor", "chunk_hop_labels")
        require(self, counts, lambda n: n >= 1, "must be at least 1")
        sizes = ("learning_rate", "final_learning_rate", "cross_entropy_weight", "doa_weight", "colour_db", "seed")
        masks = ("mask_bands", "mask_frames")
        require(self, (*sizes, *masks), lambda x: 0 <= x < math.inf, "must be finite and not negative")
        shares = ("teacher_share", "silence_weight", "balanced")
        chances = ("restyle_probability", "mix_probability", "weather_probability")
        require_range(self, (*shares, *chances), 0, 1)
        require(self, ("gradient_norm",), lambda norm: norm > 0, "must be above 0")
        if self.teacher and not self.cross_entropy_weight:
            raise ValueError("teacher needs a cross_entropy_weight above 0: that is how it speaks")
        if self.untaught and not self.teacher:
            raise ValueError(f"untaught is {', '.join(self.untaught)}, but there is no teacher")


# Ranger and SGDR, chunks of 200 frames (the network preset paper) that overlap by 50; 300 epochs, which the report says
# of DOAE alone. Ours: the batch, so that an epoch is one pass over 400 minutes, and cycles that end with epoch 300.
_ETRI = TrainConfig(steps_per_epoch=975, chunk_hop_labels=15, cycle_epochs=20)
_WHOLE = replace(_ETRI, folds=(1, 2, 3, 4, 5, 6), validation_folds=(1,))  # which it has learnt: no measure any more

TRAIN_PRESETS = {
    "report": TrainConfig(),
    "etri1": replace(_ETRI, folds=(3, 4, 5, 6), validation_folds=(2,)),
    "etri2": _WHOLE,
    "etri3": replace(_WHOLE, snapshots=True),
    # What trains the small networks from a small bank: see the training log in docs/.
    "compact": TrainConfig(
        steps_per_epoch=150,
        cycle_epochs=6,
        epochs=42,  # three cycles
        soft_f_per_class=True,
        cross_entropy_weight=1.0,
        rotations=True,
        colour_db=6.0,
        mask_bands=10,
        mask_frames=30,
        silence_weight=0.5,
        mix_probability=0.3,
        weather_probability=0.4,
    ),
    # The baseline as published: Adam at one rate, no augmentation. For less computation than it had: smaller steps, and
    # more weight on the classes, which it is slow to learn (published: 256 sequences a step, a weight of about 5).
    "baseline": TrainConfig(
        epochs=250,
        steps_per_epoch=188,  # a pass over 300 minutes
        batch_size=16,
        doa_weight=1.0,
        optimizer="adam",
        final_learning_rate=1e-3,
        gradient_norm=10.0,
        bf16=False,
    ),
}


class Sections(Section, frozen=True):
    """What a file for the offline commands may hold; each command reads its own."""

    scenes: dict[str, Any] = msgspec.field(default_factory=dict)
    features: dict[str, Any] = msgspec.field(default_factory=dict)
    network: dict[str, Any] = msgspec.field(default_factory=dict)
    train: dict[str, Any] = msgspec.field(default_factory=dict)
    card: dict[str, Any] = msgspec.field(default_factory=dict)


def section(
    kind: type[SectionT], presets: Mapping[str, SectionT], preset: str, path: Path | None, name: str
) -> SectionT:
    """A preset with what one section of a TOML file changes in it; `ConfigError` for an unknown name or key."""
    if preset not in presets:
        raise ConfigError(f"{name} preset {preset!r} is unknown; choose one of {', '.join(presets)}")
    return decode(msgspec.to_builtins(presets[preset]) | read_section(path, name), kind, f"{path}, [{name}]")


def read_section(path: Path | None, name: str) -> dict[str, Any]:
    """One of the `Sections` of a TOML file, empty when absent; `ConfigError` when the file holds anything else."""
    values: dict[str, Any] = getattr(load_toml(path, Sections), name) if path else {}
    return values
