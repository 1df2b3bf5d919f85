"""The folder of the DCASE 2020 SELD task: recordings, their metadata and folds.

    base/{foa_dev,mic_dev}/foldF_roomR_mixNNN_ovO.{wav,flac}    four channels
    base/metadata_dev/foldF_roomR_mixNNN_ovO.csv                rows: frame, class, track, azimuth, elevation
    base/classes.json                                           class names; absent in the original data

Label frames last 100 ms and begin at 0; angles are in degrees. Subfolders (as from 2021 on) are searched too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import soundfile
from numpy.typing import ArrayLike, NDArray

from seldrt.config import DCASE2020_CLASSES, ConfigError

NAME = re.compile(r"fold(?P<fold>\d+)_room(?P<room>\d+)_mix\d+(_ov(?P<overlap>\d+))?")
AUDIO_SUFFIXES = (".wav", ".flac")
COLUMNS = ("frame", "class", "track", "azimuth", "elevation")
CHANNELS = 4
BLOCK_S = 10


class Recording(msgspec.Struct, frozen=True):
    """One recording; metadata is None where labels are not public, overlap is None when not in the name."""

    name: str
    audio: Path
    metadata: Path | None
    fold: int
    overlap: int | None


def audio_folder(base: Path, array: str, split: str = "dev") -> Path:
    """Where the recordings of an array (`foa` or `mic`) lie."""
    return base / f"{array}_{split}"


def metadata_folder(base: Path, split: str = "dev") -> Path:
    """Where the labels lie."""
    return base / f"metadata_{split}"


def list_recordings(
    base: Path, array: str = "foa", folds: tuple[int, ...] | None = None, split: str = "dev"
) -> list[Recording]:
    """The recordings of a dataset, by name; files with other names, such as `._fold1...`, are passed over.

    `ConfigError` names the folder, the recordings or the labels that are missing.
    """
    folder = audio_folder(base, array, split)
    if not folder.is_dir():
        raise ConfigError(f"{base}: has no folder {folder.name}; give the one that holds {folder.name}")
    labels = {path.stem: path for path in metadata_folder(base, split).rglob("*.csv") if NAME.fullmatch(path.stem)}
    recordings = []
    for path in sorted(folder.rglob("*")):
        match = NAME.fullmatch(path.stem)
        if path.suffix not in AUDIO_SUFFIXES or not match:
            continue
        fold = int(match["fold"])
        if folds is None or fold in folds:
            overlap = int(match["overlap"]) if match["overlap"] else None
            recordings.append(Recording(path.stem, path, labels.get(path.stem), fold, overlap))
    if not recordings:
        wanted = "" if folds is None else f" of fold {', '.join(map(str, folds))}"
        raise ConfigError(f"{folder}: has no recording{wanted} named like fold1_room1_mix001_ov1.wav")
    unlabelled = [recording.name for recording in recordings if recording.metadata is None]
    if unlabelled and split == "dev":
        raise ConfigError(f"{metadata_folder(base, split)}: has no {unlabelled[0]}.csv ({len(unlabelled)} are missing)")
    return recordings


@contextmanager
def open_audio(path: Path, sample_rate: int | None = None) -> Iterator[soundfile.SoundFile]:
    """A recording to read from; `ConfigError` when it is broken, has not four channels, or another rate."""
    try:
        with soundfile.SoundFile(path) as file:
            wanted = sample_rate or file.samplerate
            if (file.samplerate, file.channels) != (wanted, CHANNELS):
                found = f"{file.channels} channels at {file.samplerate} Hz"
                raise ConfigError(f"{path} has {found}; expected {CHANNELS} at {wanted} Hz")
            yield file
    except soundfile.SoundFileError as error:
        raise ConfigError(f"{path}: not a readable sound file ({error})") from None


def audio_blocks(path: Path, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """A recording piece by piece (samples, 4); `ConfigError` as `open_audio`, and when it ends early."""
    with open_audio(path, sample_rate) as file:
        missing = file.frames
        for block in file.blocks(BLOCK_S * sample_rate, dtype="float32", always_2d=True):
            missing -= len(block)
            yield block
    if missing:
        raise ConfigError(f"{path}: ends {missing} samples early; it is damaged")


def read_audio(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """A whole recording (samples, 4); `ConfigError` as `audio_blocks`."""
    return np.concatenate([np.zeros((0, CHANNELS), np.float32), *audio_blocks(path, sample_rate)])


def read_metadata(path: Path) -> NDArray[np.int64]:
    """Label rows (m, 5) in COLUMNS of one CSV; a sixth column (distance, from 2023 on) is dropped.

    `ConfigError` names the line that is not of whole numbers.
    """
    rows = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            try:
                values = [round(float(value)) for value in row[:5]]
            except ValueError:
                values = []
            if len(values) != 5 or len(row) > 6 or values[0] < 0:
                raise ConfigError(f"{path}, line {number}: expected {','.join(COLUMNS)}, found {','.join(row)}")
            rows.append(values)
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def write_metadata(path: Path, rows: ArrayLike) -> None:
    """Label rows (m, 5) in COLUMNS as a CSV without header."""
    lines = [",".join(str(int(value)) for value in row) for row in np.asarray(rows).reshape(-1, 5)]
    write_file(path, "".join(line + "\n" for line in lines).encode())


def read_classes(base: Path) -> list[str]:
    """Class names of a dataset by index; those of DCASE 2020 when it has no classes.json."""
    path = base / "classes.json"
    if not path.is_file():
        return list(DCASE2020_CLASSES)
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not a list of class names ({error})") from None


def write_classes(base: Path, names: list[str]) -> None:
    """Class names of a dataset, as classes.json."""
    write_file(base / "classes.json", msgspec.json.encode(names))


def write_file(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    with whole(path) as partial:
        partial.write_bytes(data)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name to write a file under: it gets its own when the block ends, and is removed when that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
