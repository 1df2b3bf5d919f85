"""A tiny bank of sounds, and a scene with one event of it, for the tests of synthesis."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from offline.arrays import SAMPLE_RATE
from offline.plans import Colour, Event, Scene, Trajectory

CLASSES = {"hum": 0, "knock": 1, "noise": 2}
QUIET = {"imperfections": False, "vary": False, "distractor_probability": 0.0}


def write_bank(base: Path) -> Path:
    """Noises of several lengths, one steady distractor, and an index that groups two clips."""
    rng = np.random.default_rng(0)
    lengths = {"hum": (4.0, 6.0), "knock": (0.3, 0.5), "noise": (1.5, 5.0), "distractor": (2.0, 6.0)}
    for name, seconds in lengths.items():
        (base / "events" / name).mkdir(parents=True)
        for i, length in enumerate(seconds):
            sound = 0.3 * rng.standard_normal(round(length * SAMPLE_RATE)).clip(-3, 3)
            soundfile.write(base / "events" / name / f"{name}_{i}.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    with (base / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "group"), ("hum_0", "fridge"), ("hum_1", "fridge")])
    return base / "events"


def make_event(path: Trajectory, clip: str = "noise/noise_1.wav", seconds: float = 5.0, **changes: object) -> Event:
    """An event of the class noise that begins after a second, two metres away."""
    still = Event(
        label=2,
        layer=0,
        clip=clip,
        clip_start_s=0.0,
        onset_s=1.0,
        seconds=seconds,
        repeats_s=(),
        colour=Colour(),
        level_db=0.0,
        distance_m=2.0,
        path=path,
    )
    return msgspec.structs.replace(still, **changes)


def one_event(plan: Scene, event: Event) -> Scene:
    """The scene with that event alone."""
    return msgspec.structs.replace(plan, events=(event,))
