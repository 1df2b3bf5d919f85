"""A bank of isolated sounds: a folder of class folders of clips, of any rate and number of channels.

Class folders named `distractor` or `background` hold sounds that are never a class. Clips of one source recording
make a group: those in one folder within a class folder, or those that an `index.csv` in the folder or up to two
levels above names with columns `id` (file stem) and `group`; any other clip stands for itself.
"""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from offline.arrays import SAMPLE_RATE
from offline.files import reason, sound_info
from seldrt.config import DCASE2020_CLASSES, ConfigError
from seldrt.detection import check_name, safe_name
from seldrt.files import check_utf8
from seldrt.samples import is_sound

# What libsndfile names its formats, and the other endings that these have.
AUDIO_SUFFIXES = frozenset(
    {f".{name.lower()}" for name in soundfile.available_formats() if name not in ("RAW", "MAT4", "MAT5", "HTK", "XI")}
    | {".aif", ".aifc", ".oga", ".opus", ".snd"}
)
EXAMPLES = ".wav, .flac, .ogg, .mp3 ..."
UNREADABLE_SUFFIXES = frozenset((".m4a", ".aac", ".mp4", ".mov", ".wma", ".webm", ".amr", ".3gp", ".alac", ".ape"))
NOT_CLASSES = ("distractor", "background")
PARTS = frozenset(("train", "val", "valid", "validation", "dev", "eval", "test"))
VALIDATION_SHARE = 0.2  # of the source recordings

Part = Literal["all", "train", "validation"]
DCASE2020_ALIASES = {
    "baby": "crying_baby",
    "dog": "barking_dog",
    "engine": "running_engine",
    "fire": "burning_fire",
    "knock": "knocking_on_door",
    "knocking": "knocking_on_door",
    "phone": "ringing_phone",
}
SHORTEST_S = 0.01  # of a recording
MOST_TOLD = 20  # mistakes
STEADY_SECONDS = 5.0
STEADY_SPREAD_DB = 3.0
TRIM_DB = 60.0
SILENT_PEAK = 1e-9


class Clip(msgspec.Struct, frozen=True):
    """One isolated sound; path is relative to the bank."""

    path: str
    group: str
    seconds: float


class Bank(msgspec.Struct, frozen=True):
    """What a folder of sounds holds; steady are the unlabelled clips that can serve as background, one by one.

    unlabelled: the clips of the folder background, or of distractor where there is none: for many at once.
    """

    folder: str
    clips: dict[str, tuple[Clip, ...]]  # by class name
    distractors: tuple[Clip, ...]
    steady: tuple[Clip, ...]
    unlabelled: tuple[Clip, ...] = ()


def read_bank(folder: Path, part: Part = "all") -> Bank:
    """Index a folder of class folders; of its source recordings all, or one `part` of `split_groups`.

    `ConfigError` when there is nothing to learn from: no class, one class and nothing else; or, all of them told
    together, for sounds that cannot be used (each is read as `read_clip` does), folders without any, classes that
    cannot stand in a topic, and classes without enough recordings for their part.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give one that holds a folder of sounds for each class")
    check_utf8(folder)
    groups = _read_groups(folder)
    found: dict[str, tuple[Clip, ...]] = {}
    mistakes: list[str] = []
    loose = sum(path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES for path in folder.iterdir())
    if loose:
        mistakes.append(
            f"{folder}: {loose} sound{'s' * (loose > 1)} in no class folder: sort them into folders, by class"
        )
    class_folders = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    for class_folder in sorted(class_folders, key=lambda path: path.name):
        sounds = list(_audio_files(class_folder))
        if not sounds and class_folder.name in NOT_CLASSES:
            continue
        with _noted(mistakes):
            _check_class_folder(class_folder, sounds)
        clips: list[Clip] = []
        for path in sounds:
            with _noted(mistakes):
                clips.append(_clip(path, folder, groups))
        if clips and len(clips) == len(sounds):  # else what is to be mended may be the second recording
            with _noted(mistakes):
                found[class_folder.name] = _part_of(tuple(clips), part, class_folder)
    if mistakes:
        raise ConfigError(_told(folder, mistakes))
    distractors = found.get("distractor", ())
    candidates = found.get("background", ()) + distractors
    clips_by_class = {name: clips for name, clips in found.items() if name not in NOT_CLASSES}
    _check_classes(folder, clips_by_class, bool(found.keys() & set(NOT_CLASSES)))
    steady = tuple(clip for clip in candidates if clip.seconds >= STEADY_SECONDS and _is_steady(folder / clip.path))
    return Bank(str(folder), clips_by_class, distractors, steady, found.get("background", distractors))


def split_groups(groups: set[str]) -> tuple[set[str], set[str]]:
    """Groups to train with, and about one in five to validate with; `ConfigError` when there is only one.

    Each is on its side by its name alone, so that any computer and any day agrees, and stays there when others come.
    Only where validation would get none or more than half, the nearest change sides.
    """
    if len(groups) < 2:
        raise ConfigError("has one source recording; a second is needed to validate with")
    ordered = sorted(groups, key=_place)
    held_back = sum(_place(name) < VALIDATION_SHARE for name in groups)
    held_back = min(max(held_back, 1), len(groups) // 2)
    return set(ordered[held_back:]), set(ordered[:held_back])


def _place(name: str) -> float:
    """A number in 0..1 that belongs to a name, as good as drawn."""
    return int.from_bytes(hashlib.sha256(_composed(name).encode()).digest()[:6]) / 2**48


def _composed(name: str) -> str:
    """The same on any system: some write a letter and its accent apart."""
    return unicodedata.normalize("NFC", name)


def bank_digest(bank: Bank) -> str:
    """SHA-256 over the names, groups and bytes of all clips of a bank."""
    digest = hashlib.sha256()
    for name, clips in sorted({**bank.clips, "distractor": bank.distractors, "background": bank.unlabelled}.items()):
        for clip in clips:
            digest.update(f"{name}\0{clip.path}\0{clip.group}\0".encode())
            digest.update(hashlib.sha256((Path(bank.folder) / clip.path).read_bytes()).digest())
    return digest.hexdigest()


def _part_of(clips: tuple[Clip, ...], part: Part, folder: Path) -> tuple[Clip, ...]:
    groups = {clip.group for clip in clips}
    if part == "all":
        return clips
    if folder.name in NOT_CLASSES and len(groups) == 1:
        return clips if part == "train" else ()
    try:
        train, validation = split_groups(groups)
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from None
    return tuple(clip for clip in clips if clip.group in (train if part == "train" else validation))


def _check_classes(folder: Path, clips: dict[str, tuple[Clip, ...]], others: bool) -> None:
    if not clips:
        raise ConfigError(f"{folder}: no class folder with sounds ({EXAMPLES}) in it")
    if set(clips) <= PARTS:
        raise ConfigError(f"{folder}: holds {', '.join(clips)}, no classes: give {folder / min(clips)} as --events")
    if len(clips) == 1 and not others:
        raise ConfigError(
            f"{folder}: has only the class {min(clips)}; a network learns what it is by what it is not: "
            "add a second class, or a folder `distractor` of other sounds"
        )


def _check_class_folder(folder: Path, sounds: list[Path]) -> None:
    if not sounds:
        raise ConfigError(f"{folder}: is empty; put sounds ({EXAMPLES}) there, or remove it")
    try:
        check_name(folder.name, f"{folder.parent}: class folder")
    except ConfigError as error:
        raise ConfigError(f"{error}; rename it to {safe_name(folder.name)}") from None


@contextmanager
def _noted(mistakes: list[str]) -> Iterator[None]:
    """A `ConfigError` inside is added to the others, and the work goes on."""
    try:
        yield
    except ConfigError as error:
        mistakes.append(str(error))


def _told(folder: Path, mistakes: list[str]) -> str:
    """One mistake in its line, or a list of the first `MOST_TOLD`."""
    if len(mistakes) == 1:
        return mistakes[0]
    more = [f"and {len(mistakes) - MOST_TOLD} more"] if len(mistakes) > MOST_TOLD else []
    return "\n  ".join([f"{folder}: {len(mistakes)} things to mend:", *mistakes[:MOST_TOLD], *more])


def _audio_files(class_folder: Path) -> Iterator[Path]:
    """The sounds of a class and of the folders in it, by name, also those of a format that cannot be read."""
    for path in sorted(class_folder.rglob("*"), key=lambda path: path.parts):  # paths of Windows know no case
        hidden = any(name.startswith(".") for name in path.relative_to(class_folder).parts)
        if not hidden and path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES | UNREADABLE_SUFFIXES:
            yield path


def class_order(names: list[str]) -> tuple[dict[str, int], list[str]]:
    """Class index by folder name, and the class names: in DCASE 2020 order if it is those 14, else sorted."""
    renamed = {name: DCASE2020_ALIASES.get(name, name) for name in names}
    if sorted(renamed.values()) == sorted(DCASE2020_CLASSES):
        return {name: DCASE2020_CLASSES.index(renamed[name]) for name in names}, list(DCASE2020_CLASSES)
    return {name: i for i, name in enumerate(sorted(names))}, sorted(names)


@lru_cache(maxsize=512)
def read_clip(path: Path) -> NDArray[np.float32]:
    """A clip (samples,) at 24 kHz, mono, peak 1, without the silence (60 dB under its peak) around it.

    `ConfigError` when it cannot be read, and when there is nothing in it to hear.
    """
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ConfigError(f"{path}: not a readable sound file ({reason(error)})") from None
    if not is_sound(audio).all():
        raise ConfigError(f"{path}: holds samples that are no numbers; remove it")
    mono = audio.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    mono = mono[slice(*active_region(mono))]
    peak = float(np.max(np.abs(mono), initial=0))
    if peak < SILENT_PEAK:
        raise ConfigError(f"{path}: holds nothing but silence; remove it")
    mono = mono / peak
    mono.flags.writeable = False
    return mono


def active_region(audio: NDArray[np.floating]) -> tuple[int, int]:
    """Where the blocks (10 ms) that are at most 60 dB under the loudest begin and end, in samples."""
    block = SAMPLE_RATE // 100
    level = _block_levels_db(audio, block)
    loud = np.flatnonzero(level >= level.max(initial=-np.inf) - TRIM_DB)
    if len(loud) == 0:
        return 0, len(audio)
    return int(loud[0]) * block, min(int(loud[-1] + 1) * block, len(audio))


def _block_levels_db(audio: NDArray[np.floating], block: int) -> NDArray[np.floating]:
    padded = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    return 10 * np.log10(np.mean(np.square(padded, dtype=float), axis=1) + 1e-20)


def _is_steady(path: Path) -> bool:
    """Whether it sounds for `STEADY_SECONDS`, and the level of 100 ms blocks varies little."""
    sound = read_clip(path)
    if len(sound) < STEADY_SECONDS * SAMPLE_RATE:  # most of the file was silence
        return False
    level = _block_levels_db(sound, SAMPLE_RATE // 10)[:-1]
    low, high = np.percentile(level, [5, 95])
    return bool(high - low < 2 * STEADY_SPREAD_DB)


def _clip(path: Path, folder: Path, groups: dict[str, str]) -> Clip:
    if path.suffix.lower() in UNREADABLE_SUFFIXES:
        raise ConfigError(f"{path}: {path.suffix} cannot be read; convert it, as with ffmpeg, to .wav or .flac")
    info = sound_info(path)
    if info.frames < SHORTEST_S * info.samplerate:
        raise ConfigError(f"{path}: lasts {1000 * info.duration:.3g} ms, no sound is that short; remove it")
    read_clip.__wrapped__(path)  # all of it: the damage may lie behind the header, and it may be silent
    name, stem = path.relative_to(folder), _composed(path.stem)
    group = stem if len(name.parts) == 2 else _composed("/".join(name.parts[1:-1]))
    return Clip(name.as_posix(), groups.get(stem, group), round(info.duration, 3))


def _read_groups(folder: Path) -> dict[str, str]:
    for place in (folder, folder.parent, folder.parent.parent):
        index = place / "index.csv"
        if index.is_file():
            try:
                with index.open(newline="", encoding="utf-8-sig") as file:
                    rows = list(csv.DictReader(file))
            except (UnicodeDecodeError, csv.Error) as error:
                why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"is no table ({error})"
                raise ConfigError(f"{index}: {why}; save it as CSV UTF-8") from None
            if rows and "id" in rows[0] and "group" in rows[0]:
                return {_composed(row["id"]): _composed(row["group"] or row["id"]) for row in rows if row["id"]}
    return {}
