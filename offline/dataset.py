"""The folders of the DCASE SELD task: recordings, their metadata and folds.

    base/{foa_dev,mic_dev}/foldF_roomR_mixNNN_ovO.{wav,flac}    four channels
    base/metadata_dev/foldF_roomR_mixNNN_ovO.csv                rows: frame, class, track, azimuth, elevation
    base/classes.json                                           class names; absent in the original data
    base/{foa_eval,mic_eval,metadata_eval}/                     the same, also named mixNNN; labels may be absent

Label frames last 100 ms and begin at 0; angles are in degrees. Subfolders, names without `_ov`, and a sixth column
with the distance (2021 to 2024) are read too. Recordings may have any length.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline.files import BLOCK_S, open_audio, read_json, write_file
from seldrt.config import DCASE2020_CLASSES, ConfigError, named
from seldrt.detection import check_name
from seldrt.files import check_utf8
from seldrt.spatial import wrap_azimuth

NAME = re.compile(r"fold(?P<fold>\d+)_room(?P<room>\d+)_mix\d+(_ov(?P<overlap>\d+))?")
EVAL_NAME = re.compile(NAME.pattern + r"|mix\d+")
FOLDER = re.compile(r"(foa|mic|metadata)_(dev|eval)")
AUDIO_SUFFIXES = (".wav", ".flac")
COLUMNS = ("frame", "class", "track", "azimuth", "elevation")
COUNTED = COLUMNS[:3]
MOST = 10_000_000  # label frames: eleven days
RANGES = ((0, MOST), (0, MOST), (-MOST, MOST), (-360, 360), (-90, 90))
HEADER = re.compile(r"frame,class,(track|source),azimuth,elevation(,distance)?")

# TAU-NIGENS Spatial Sound Events 2021, and STARSS22 and 23 (DCASE 2022 to 2024), in the order of their class numbers.
DCASE2021_CLASSES = (
    *("alarm", "crying_baby", "crash", "barking_dog", "female_scream", "female_speech"),
    *("footsteps", "knocking_on_door", "male_scream", "male_speech", "ringing_phone", "piano"),
)
STARSS_CLASSES = (
    *("female_speech", "male_speech", "clapping", "telephone", "laughter", "domestic_sounds", "footsteps", "door"),
    *("music", "musical_instrument", "water_tap", "bell", "knock"),
)
STARSS_FOLDERS = frozenset(("dev-train-sony", "dev-test-sony", "dev-train-tau", "dev-test-tau"))
DCASE2021_FOLDERS = frozenset(("dev-train", "dev-val", "dev-test"))


class Recording(msgspec.Struct, frozen=True):
    """One recording; metadata is None where labels are not public.

    fold: 0 when not in the name. overlap: None when not in the name. array: what its channels are, `foa` or `mic`.
    """

    name: str
    audio: Path
    metadata: Path | None
    fold: int
    overlap: int | None
    array: str = "foa"


def audio_folder(base: Path, array: str, split: str = "dev") -> Path:
    """Where the recordings of an array (`foa` or `mic`) lie."""
    return base / f"{array}_{split}"


def metadata_folder(base: Path, split: str = "dev") -> Path:
    """Where the labels lie."""
    return base / f"metadata_{split}"


def check_apart(out: Path) -> None:
    """`ConfigError` when ``out`` is, or lies in, a folder of a dataset that holds recordings or labels."""
    for folder in (out.resolve(), *out.resolve().parents):
        if FOLDER.fullmatch(folder.name):
            raise ConfigError(f"{out}: would overwrite what lies in {folder}; give another --out")


def list_recordings(base: Path, array: str = "foa", folds: Sequence[int] = (), split: str = "dev") -> list[Recording]:
    """The recordings of a dataset, by name; files with other names, such as `._fold1...`, are passed over.

    `ConfigError` names the folder, the recordings or the labels that are missing, names that occur twice or are not
    UTF-8, and other names of recordings that have labels.
    """
    folder, label_folder = audio_folder(base, array, split), metadata_folder(base, split)
    pattern = NAME if split == "dev" else EVAL_NAME
    if not folder.is_dir():
        raise ConfigError(f"{base}: has no folder {folder.name}; {_what_is_there(base, folder.name)}")
    _check_names(folder, label_folder, pattern)
    audio = _files_by_name(folder, AUDIO_SUFFIXES, folds, pattern)
    labels = _files_by_name(label_folder, (".csv",), folds, pattern)
    if not audio:
        wanted = f" of fold {', '.join(map(str, folds))}" if folds else ""
        raise ConfigError(f"{folder}: has no recording{wanted} named like fold1_room1_mix001_ov1.wav")
    if split == "dev" or labels:
        _check_complete(label_folder, "labels", audio, labels)
        _check_complete(folder, "recordings", labels, audio)
    return [_recording(name, path, labels.get(name), array) for name, path in sorted(audio.items())]


def list_quiet(bases: Iterable[Path], array: str = "foa") -> list[Recording]:
    """The recordings of datasets where nothing is to be heard; `ConfigError` also for one that has labels."""
    recordings = [recording for base in bases for recording in list_recordings(base, array)]
    for recording in recordings:
        if recording.metadata and len(read_metadata(recording.metadata)):
            raise ConfigError(f"{recording.metadata}: has labels; quiet scenes hold nothing that is to be heard")
    return recordings


def _recording(name: str, audio: Path, metadata: Path | None, array: str) -> Recording:
    found = NAME.fullmatch(name)
    overlap = found["overlap"] if found else None
    return Recording(
        name, audio, metadata, int(found["fold"]) if found else 0, int(overlap) if overlap else None, array
    )


def _files_by_name(
    folder: Path, suffixes: tuple[str, ...], folds: Sequence[int], pattern: re.Pattern[str]
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        match = pattern.fullmatch(path.stem) if path.suffix.lower() in suffixes else None
        if not match or (folds and int(match["fold"] or 0) not in folds):
            continue
        check_utf8(path)
        if path.stem in found:
            raise ConfigError(f"{folder}: has {path.stem} twice, {found[path.stem]} and {path}; keep one")
        found[path.stem] = path
    return found


def _check_names(folder: Path, label_folder: Path, pattern: re.Pattern[str]) -> None:
    """`ConfigError` for recordings with labels that would be passed over."""
    sounds, labels = (
        {path.stem for path in place.rglob("[!.]*") if path.suffix.lower() in suffixes}
        for place, suffixes in ((folder, AUDIO_SUFFIXES), (label_folder, (".csv",)))
    )
    strange = sorted(name for name in sounds & labels if not pattern.fullmatch(name))
    if strange:
        raise ConfigError(
            f"{folder}: has recordings with labels, but without names like fold1_room1_mix001_ov1: {named(strange)}; "
            "rename both, or take them away"
        )


def _check_complete(folder: Path, what: str, wanted: Iterable[str], there: Iterable[str]) -> None:
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise ConfigError(f"{folder}: {what} are missing: {named(missing)}")


def _what_is_there(base: Path, wanted: str) -> str:
    """What to do about a dataset without the folder `wanted`."""
    if not base.is_dir():
        return "there is no such folder at all"
    archives = sorted(path.name for path in base.glob(f"{wanted}*.z*"))
    if archives:
        return f"unpack {', '.join(archives)} there"
    if any(NAME.fullmatch(path.stem) for path in base.glob("*")):
        return f"it holds files, give the folder above it: {base.resolve().parent}"
    inside = sorted(path.parent for path in base.glob(f"*/{wanted}"))
    if inside:
        return f"{inside[0]} has"
    known = [path.name for path in sorted(base.iterdir()) if FOLDER.fullmatch(path.name)]
    return f"it has {', '.join(known)}" if known else f"give the one that holds {wanted} and metadata_dev"


def content_digest(recordings: Sequence[Recording]) -> str:
    """SHA-256 over names, samples and labels of recordings, in the order of their names.

    It does not depend on the container (WAV or FLAC) nor on the folder: equal digests mean equal data, so that
    figures may be compared. `ConfigError` as `audio_blocks`.
    """
    digest = hashlib.sha256()
    for recording in sorted(recordings, key=lambda recording: recording.name):
        digest.update(f"{recording.array}/{recording.name}\0".encode())
        with open_audio(recording.audio) as file:
            digest.update(f"{file.samplerate}\0".encode())
            for block in file.blocks(BLOCK_S * file.samplerate, dtype="int32", always_2d=True):
                digest.update(block.tobytes())
        if recording.metadata:
            digest.update(read_metadata(recording.metadata).astype("<i8").tobytes())
    return digest.hexdigest()


def read_metadata(path: Path) -> NDArray[np.int64]:
    """Label rows (m, 5) in COLUMNS of one CSV; a distance (from 2023 on) is dropped.

    Angles are rounded, azimuths then wrapped to -180..179. The track is the source number from 2021 on. `ConfigError`
    names the line that cannot be read, or a file with Cartesian directions, as some systems write them.
    """
    rows: list[list[float]] = []
    try:
        table = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"is no table ({error})"
        raise ConfigError(f"{path}: {why}; expected {','.join(COLUMNS)}") from None
    for number, row in enumerate(table, start=1):
        if not row or (number == 1 and HEADER.fullmatch(",".join(row).replace(" ", "").lower())):
            continue
        try:
            values = [float(value) for value in row]
        except ValueError:
            values = []
        if len(values) not in (5, 6):
            raise ConfigError(f"{path}, line {number}: expected {','.join(COLUMNS)}, found {','.join(row)[:80]}")
        for name, (low, high), value in zip(COLUMNS, RANGES, values, strict=False):
            if not low <= value <= high:
                raise ConfigError(f"{path}, line {number}: {name} is {value:g}, it must be {low} to {high}")
            if name in COUNTED and value % 1:
                raise ConfigError(f"{path}, line {number}: {name} is {value}, it must be a whole number")
        rows.append(values)
    if rows and all(len(row) == 6 and abs(math.hypot(*row[3:]) - 1) < 0.02 for row in rows):
        raise ConfigError(f"{path}: holds directions as x, y, z; expected azimuth and elevation in degrees")
    labels = np.array([[round(value) for value in row[:5]] for row in rows], dtype=np.int64).reshape(-1, 5)
    labels[:, 3] = wrap_azimuth(labels[:, 3])
    return labels


def within(rows: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """The label rows (m, 5) of so many label frames: those beyond the end of a recording count for nothing."""
    return rows[rows[:, 0] < labels]


def write_metadata(path: Path, rows: ArrayLike) -> None:
    """Label rows (m, 5) in COLUMNS as a CSV without header."""
    lines = [",".join(str(int(value)) for value in row) for row in np.asarray(rows).reshape(-1, 5)]
    write_file(path, "".join(line + "\n" for line in lines).encode())


def read_classes(base: Path) -> list[str]:
    """Class names of a dataset by index: of its classes.json, else of the year whose folders it has.

    `ConfigError` when the names of its recordings fit no year.
    """
    path = base / "classes.json"
    if not path.is_file():
        return list(_classes_by_layout(base))
    names = read_json(path, list[str], "not a list of class names")
    for name in names:
        check_name(name, f"{path}: the class name")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{path}: gives {'a name twice' if names else 'no names'}; each class has one of its own")
    return names


def _classes_by_layout(base: Path) -> tuple[str, ...]:
    places = (audio_folder(base, array, split) for array in ("foa", "mic") for split in ("dev", "eval"))
    folders = [folder for folder in places if folder.is_dir()]
    names = {path.stem for folder in folders for path in folder.rglob("*") if EVAL_NAME.fullmatch(path.stem)}
    parts = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    if not names or any("_ov" in name for name in names):
        return DCASE2020_CLASSES
    if parts & STARSS_FOLDERS:
        return STARSS_CLASSES
    if parts & DCASE2021_FOLDERS:
        return DCASE2021_CLASSES
    raise ConfigError(
        f"{base}: which classes? Its names are not those of 2020, its folders not those of 2021 to 2024: "
        'write a classes.json with the class names in order, such as ["alarm", "crash"]'
    )


def write_classes(base: Path, names: list[str]) -> None:
    """Class names of a dataset, as classes.json."""
    write_file(base / "classes.json", msgspec.json.encode(names))
