"""A bank of isolated sounds: a folder of class folders of mono clips.

Class folders named `distractor` or `background` hold sounds that are never a class. An `index.csv` in the
folder or up to two levels above, with columns `id` (file stem) and `group`, tells which clips come from one
source recording; without it every clip stands for itself.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from offline.arrays import SAMPLE_RATE
from seldrt.config import DCASE2020_CLASSES, ConfigError
from seldrt.detection import check_name

AUDIO_SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".aif", ".aiff")
NOT_CLASSES = ("distractor", "background")
DCASE2020_ALIASES = {
    "baby": "crying_baby",
    "crying_baby": "crying_baby",
    "dog": "barking_dog",
    "engine": "running_engine",
    "fire": "burning_fire",
    "knock": "knocking_on_door",
    "knocking": "knocking_on_door",
    "phone": "ringing_phone",
}
STEADY_SECONDS = 5.0
STEADY_SPREAD_DB = 3.0
TRIM_DB = 60.0


class Clip(msgspec.Struct, frozen=True):
    """One isolated sound; path is relative to the bank."""

    path: str
    group: str
    seconds: float


class Bank(msgspec.Struct, frozen=True):
    """What a folder of sounds holds; steady are the unlabelled clips that can serve as background."""

    folder: str
    clips: dict[str, tuple[Clip, ...]]  # by class name
    distractors: tuple[Clip, ...]
    steady: tuple[Clip, ...]


def read_bank(folder: Path) -> Bank:
    """Index a folder of class folders.

    `ConfigError` when there is no class in it, a sound that cannot be used, or a class that cannot stand in a topic.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give one that holds a folder of sounds for each class")
    groups = _read_groups(folder)
    found: dict[str, tuple[Clip, ...]] = {}
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        clips = tuple(_clip(path, folder, groups) for path in sorted(class_folder.iterdir()) if _is_audio(path))
        if clips:
            found[check_name(class_folder.name, f"{folder}: class folder")] = clips
    distractors = found.get("distractor", ())
    candidates = found.get("background", ()) + distractors
    clips_by_class = {name: clips for name, clips in found.items() if name not in NOT_CLASSES}
    if not clips_by_class:
        raise ConfigError(f"{folder}: no class folder with sounds ({', '.join(AUDIO_SUFFIXES)}) in it")
    steady = tuple(clip for clip in candidates if clip.seconds >= STEADY_SECONDS and _is_steady(folder / clip.path))
    return Bank(str(folder), clips_by_class, distractors, steady)


def class_order(names: list[str]) -> tuple[dict[str, int], list[str]]:
    """Class index by folder name, and the class names: in DCASE 2020 order if it is those 14, else sorted."""
    renamed = {name: DCASE2020_ALIASES.get(name, name) for name in names}
    if sorted(renamed.values()) == sorted(DCASE2020_CLASSES):
        return {name: DCASE2020_CLASSES.index(renamed[name]) for name in names}, list(DCASE2020_CLASSES)
    return {name: i for i, name in enumerate(sorted(names))}, sorted(names)


@lru_cache(maxsize=512)
def read_clip(path: Path) -> NDArray[np.float32]:
    """A clip (samples,) at 24 kHz, mono, peak 1, without the silence (60 dB under its peak) around it."""
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ConfigError(f"{path}: not a readable sound file ({error})") from None
    mono = audio.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    mono = mono[slice(*active_region(mono))]
    mono = mono / max(float(np.max(np.abs(mono), initial=0)), 1e-9)
    mono.flags.writeable = False
    return mono


def active_region(audio: NDArray[np.floating], block: int = SAMPLE_RATE // 100) -> tuple[int, int]:
    """Where the blocks (10 ms) that are at most 60 dB under the loudest begin and end, in samples."""
    level = _block_levels_db(audio, block)
    loud = np.flatnonzero(level >= level.max(initial=-np.inf) - TRIM_DB)
    if len(loud) == 0:
        return 0, len(audio)
    return int(loud[0]) * block, min(int(loud[-1] + 1) * block, len(audio))


def _block_levels_db(audio: NDArray[np.floating], block: int) -> NDArray[np.floating]:
    padded = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    return 10 * np.log10(np.mean(np.square(padded, dtype=float), axis=1) + 1e-12)


def _is_steady(path: Path) -> bool:
    """Whether the level of 100 ms blocks varies little."""
    level = _block_levels_db(read_clip(path), SAMPLE_RATE // 10)[:-1]
    low, high = np.percentile(level, [5, 95])
    return bool(high - low < 2 * STEADY_SPREAD_DB)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def _clip(path: Path, folder: Path, groups: dict[str, str]) -> Clip:
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"{path}: not a readable sound file ({error})") from None
    if not info.frames:
        raise ConfigError(f"{path}: holds no sound; remove it")
    return Clip(path.relative_to(folder).as_posix(), groups.get(path.stem, path.stem), round(info.duration, 3))


def _read_groups(folder: Path) -> dict[str, str]:
    for place in (folder, folder.parent, folder.parent.parent):
        index = place / "index.csv"
        if index.is_file():
            with index.open(newline="") as file:
                rows = list(csv.DictReader(file))
            if rows and "id" in rows[0] and "group" in rows[0]:
                return {row["id"]: row["group"] or row["id"] for row in rows}
    return {}
