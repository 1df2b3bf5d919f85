"""Recordings -> feature store: one folder that training reads.

`features.npy` float16 (frames, channels, n_mels) of all recordings one after the other, each cut to whole label
frames; `targets.npz` with `sed` (label frames, classes), `doa` (label frames, classes, 3) and `doa_mask`;
`manifest.json` with the feature configuration, the classes and where each recording lies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline import dataset, targets
from offline.encoding import read_foa
from offline.files import open_audio, write_file
from offline.workers import ShowProgress, results, silent
from seldrt import features, stream
from seldrt.config import ConfigError, FeatureConfig
from seldrt.files import NO_ROOM, whole

DAY_S = 86400
MANIFEST = "manifest.json"


class StoredRecording(msgspec.Struct, frozen=True):
    """Where a recording lies in a store, in label frames."""

    name: str
    fold: int
    overlap: int | None
    first_label: int
    labels: int


class Manifest(msgspec.Struct, frozen=True):
    """What a store holds."""

    features: FeatureConfig
    classes: tuple[str, ...]
    mean_event_labels: tuple[float, ...]
    recordings: tuple[StoredRecording, ...]


class Store:
    """A feature store on disk, memory-mapped: ``features``, ``sed``, ``doa``, ``doa_mask`` and ``manifest``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
            self.features: NDArray[np.float16] = np.load(folder / "features.npy", mmap_mode="r")
            arrays = np.load(folder / "targets.npz")
            self.sed: NDArray[np.float32] = arrays["sed"].astype(np.float32)
            self.doa: NDArray[np.float32] = arrays["doa"].astype(np.float32)
            self.doa_mask: NDArray[np.float32] = arrays["doa_mask"].astype(np.float32)
            self._check_shapes()
        except (OSError, EOFError, ValueError, KeyError, BadZipFile, msgspec.MsgspecError) as error:
            raise ConfigError(f"{folder} is no feature store ({error}); make one with `offline extract`") from None

    def _check_shapes(self) -> None:
        config, classes = self.manifest.features, len(self.manifest.classes)
        labels = sum(recording.labels for recording in self.manifest.recordings)
        expected = {
            "features": (labels * config.frames_per_label, len(features.FEATURE_NAMES), config.n_mels),
            "sed": (labels, classes),
            "doa": (labels, classes, 3),
            "doa_mask": (labels, classes),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} do not fit manifest.json")


def _extract_one(job: tuple[FeatureConfig, Path], item: tuple[dataset.Recording, StoredRecording]) -> None:
    (config, out), (recording, place) = job, item
    first, frames = (labels * config.frames_per_label for labels in (place.first_label, place.labels))
    samples = read_foa(recording, config.sample_rate)[: frames * config.hop_length]
    store = np.load(out, mmap_mode="r+")
    store[first : first + frames] = stream.run(features.features_stage(config), samples, config.sample_rate)
    store.flush()


def _whole_labels(path: Path, config: FeatureConfig) -> int:
    with open_audio(path, config.sample_rate) as file:
        labels = int(file.frames) // config.samples_per_label
    if not labels:
        raise ConfigError(f"{path}: is shorter than a label frame; remove it")
    return labels


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """An empty array on disk with all its room: a worker whose map finds none dies, and cannot say why."""
    np.lib.format.open_memmap(path, "w+", np.float16, shape).flush()
    if not hasattr(os, "posix_fallocate"):  # on macOS and Windows
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:  # other file systems just cannot tell
            if error.errno in NO_ROOM:
                raise


def _names_in(out: Path) -> set[str]:
    """The names of the recordings of a store; none where there is no whole one."""
    try:
        manifest = msgspec.json.decode((out / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return set()
    return {recording.name for recording in manifest.recordings}


def _remove_left(out: Path) -> None:
    """Removes the features that runs which were killed have left in a store, but for those of the last day."""
    for left in out.glob(".features.npy.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY_S:
                left.unlink()


def extract(
    folder: Path,
    out: Path,
    config: FeatureConfig,
    workers: int = 1,
    progress: ShowProgress = silent,
    *,
    array: str = "foa",
    folds: Sequence[int] = (),
    split: str = "dev",
) -> Sequence[StoredRecording]:
    """Extract the recordings of a dataset folder into the store ``out``, with as many processes as ``workers``.

    array: `foa`, or `mic`, which is encoded to FOA first. folds: only these; () for all. split: `dev` or `eval`.
    All files get their names at the end, the manifest last: what has one is a whole store.
    Gives where each recording lies. `ConfigError` for a store of other recordings, none of which is among these.
    """
    recordings = dataset.list_recordings(folder, array, folds, split)
    held = _names_in(out)
    if held and held.isdisjoint(recording.name for recording in recordings):
        raise ConfigError(f"{out}: holds the features of other recordings; choose another --out, or remove it")
    classes = dataset.read_classes(folder)
    stored, rows, found, label = [], [], [], 0
    for recording in recordings:
        labels = _whole_labels(recording.audio, config)
        stored.append(StoredRecording(recording.name, recording.fold, recording.overlap, label, labels))
        if recording.metadata is None:
            raise ConfigError(f"{recording.audio}: has no labels to learn from")
        rows.append(dataset.read_metadata(recording.metadata))
        try:
            found.append(targets.frame_targets(rows[-1], labels, len(classes)))
        except ConfigError as error:
            raise ConfigError(f"{recording.metadata}: {error}") from None
        label += labels
    shape = (label * config.frames_per_label, len(features.FEATURE_NAMES), config.n_mels)
    _remove_left(out)
    with whole(out / "features.npy") as partial:
        _reserve(partial, shape)
        items = list(zip(recordings, stored, strict=True))
        for done, _ in enumerate(results(_extract_one, (config, partial), items, workers), 1):
            progress(done, len(items))
        with whole(out / "targets.npz") as partial_targets, partial_targets.open("wb") as file:
            np.savez(
                file,
                sed=np.concatenate([t.sed for t in found]).astype(np.uint8),
                doa=np.concatenate([t.doa for t in found]).astype(np.float16),
                doa_mask=np.concatenate([t.doa_mask for t in found]).astype(np.uint8),
            )
        (out / MANIFEST).unlink(missing_ok=True)
    durations = targets.mean_event_labels(rows, len(classes))
    manifest = Manifest(config, tuple(classes), tuple(durations.tolist()), tuple(stored))
    write_file(out / MANIFEST, msgspec.json.encode(manifest))
    return stored
