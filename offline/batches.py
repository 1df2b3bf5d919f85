"""Chunks of T frames from feature stores, on the device where they are used."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.extract import Store, StoredRecording
from seldrt.config import ConfigError, NetworkConfig
from seldrt.description import Description, require_same
from seldrt.features import TASK_CHANNELS, task_indices

SAMPLED_LABELS = 6000  # label frames that tell mean and deviation of the features


class Batch(NamedTuple):
    """Features (batch, frames, channels, n_mels) float32 and targets (batch, label frames, ...) of equal chunks.

    ``taught`` is what a teacher says in place of the targets of SAD or SED, see `offline.teacher`.
    """

    features: Tensor
    sed: Tensor
    doa: Tensor
    doa_mask: Tensor
    taught: Tensor | None = None

    def at(self, labels: slice) -> Batch:
        """The targets of some label frames (beside all features)."""
        taught = None if self.taught is None else self.taught[:, labels]
        return Batch(self.features, self.sed[:, labels], self.doa[:, labels], self.doa_mask[:, labels], taught)

    @property
    def sad(self) -> Tensor:
        """Whether any class sounds (batch, label frames, 1)."""
        return self.sed.amax(-1, keepdim=True)

    def target(self, task: str) -> Tensor:
        """What SAD or SED shall say (batch, label frames, 1 or classes)."""
        return self.sad if task == "sad" else self.sed


def level_channels(task: str, device: torch.device) -> Tensor:
    """Which channels of the features of a task are levels in dB (channels, 1); the others are intensities."""
    return torch.tensor(["active" not in name for name in TASK_CHANNELS[task]], device=device)[:, None]


def require_alike(stores: Sequence[Store]) -> None:
    """An error that names the store which differs from the first in features or classes, and what differs."""
    first, *others = (
        Description(features=store.manifest.features, classes=store.manifest.classes, networks={}) for store in stores
    )
    for store, other in zip(stores[1:], others, strict=True):
        require_same(first, other, store.folder)


def require_measurable(task: str, stores: Sequence[Store], network: NetworkConfig, folds: Sequence[int] = ()) -> None:
    """`ConfigError` when a recording is too short for the network to decide anything, or no class ever sounds."""
    for store, recording in chosen(stores, folds):
        chunk = network.chunk_frames // store.manifest.features.frames_per_label
        labels = network.lookahead_labels + 1 if network.causal else chunk
        if recording.labels < labels:
            few = f"{recording.labels} label frames, the network needs {labels}"
            raise ConfigError(f"{store.folder}: {recording.name} has {few} to validate with")
    require_sounding(task, stores, "choose the best weights by", folds)


def require_sounding(task: str, stores: Sequence[Store], purpose: str, folds: Sequence[int] = ()) -> None:
    """`ConfigError` when no class ever sounds in any recording of these folds."""
    for store, recording in chosen(stores, folds):
        labels = slice(recording.first_label, recording.first_label + recording.labels)
        if (store.doa_mask if task == "doae" else store.sed)[labels].any():
            return
    raise ConfigError(f"{stores[0].folder}: no class ever sounds: nothing to {purpose}")


def too_short(stores: Sequence[Store], network: NetworkConfig, folds: Sequence[int] = ()) -> list[str]:
    """The recordings of these folds that are shorter than a training chunk: no chunk is ever cut from them."""
    return [
        recording.name
        for store, recording in chosen(stores, folds)
        if recording.labels * store.manifest.features.frames_per_label < network.chunk_frames
    ]


def chosen(stores: Sequence[Store], folds: Sequence[int]) -> list[tuple[Store, StoredRecording]]:
    """The recordings of these folds, () for all; `ConfigError` for a fold that no store has."""
    everything = [(store, recording) for store in stores for recording in store.manifest.recordings]
    missing = set(folds) - {recording.fold for _, recording in everything}
    if missing or not everything:
        wanted = ", ".join(map(str, sorted(missing)))
        raise ConfigError(f"{stores[0].folder}: has no recording of fold {wanted}; [train] folds = [] takes all")
    return [(store, recording) for store, recording in everything if not folds or recording.fold in folds]


def in_both(stores: Sequence[Store], others: Sequence[Store]) -> list[str]:
    """The recordings that are in stores of either kind: of one name, with the same sounds at the same times."""

    def known(stores: Sequence[Store]) -> set[tuple[str, bytes]]:
        found = set()
        for store, each in chosen(stores, ()):
            sed = store.sed[each.first_label : each.first_label + each.labels]
            if sed.any():  # all those without a sound are alike
                found.add((each.name, hashlib.sha256(np.ascontiguousarray(sed).data).digest()))
        return found

    return sorted(name for name, _ in known(stores) & known(others))


def recordings_digest(stores: Sequence[Store]) -> str:
    """SHA-256 over the names and the targets of all recordings, in their order, wherever the stores lie."""
    digest = hashlib.sha256()
    for store in stores:
        digest.update(msgspec.json.encode(store.manifest.recordings))
        digest.update(np.ascontiguousarray(store.sed).data)
        digest.update(np.ascontiguousarray(store.doa).data)
    return digest.hexdigest()


class Chunks:
    """All chunks of some stores that are alike for one task: float16 in memory on the device, or read when asked for.

    ``folds`` chooses recordings, () all; `ConfigError` when none is left. ``mapped`` leaves the features on disk.
    """

    def __init__(
        self, stores: Sequence[Store], task: str, device: str, folds: Sequence[int] = (), mapped: bool = False
    ) -> None:
        first = stores[0].manifest
        self.task, self.config, self.classes, self.device = task, first.features, first.classes, device
        self._channels = task_indices(task)
        self._places = [(store, each.first_label, each.labels) for store, each in chosen(stores, folds)]
        offsets = np.cumsum([0, *(labels for _, _, labels in self._places)]).tolist()
        self.recordings = [(offset, labels) for offset, (_, _, labels) in zip(offsets[:-1], self._places, strict=True)]
        self.labels = offsets[-1]
        self._sounding: dict[int, list[NDArray[np.intp]]] = {}
        self.features = None if mapped else self._all_features().to(device)
        self.sed, self.doa, self.doa_mask = (
            torch.from_numpy(
                np.concatenate([getattr(store, name)[at : at + labels] for store, at, labels in self._places])
            ).to(device)
            for name in ("sed", "doa", "doa_mask")
        )

    def _all_features(self) -> Tensor:
        """The channels of the task, one recording after the other; beside the result, only one is in memory."""
        frames = self.labels * self.config.frames_per_label
        features = torch.empty(frames, len(self._channels), self.config.n_mels, dtype=torch.float16)
        for offset, labels in self.recordings:
            at = offset * self.config.frames_per_label
            part = self._read(offset, labels)
            features[at : at + len(part)] = part
        return features

    def _read(self, first: int, labels: int) -> Tensor:
        """Features from disk of label frames that lie within one recording."""
        index = bisect_right(self.recordings, first, key=lambda place: place[0]) - 1
        store, at, _ = self._places[index]
        per_label = self.config.frames_per_label
        begin = (at + first - self.recordings[index][0]) * per_label
        return torch.from_numpy(store.features[begin : begin + labels * per_label, self._channels])

    def statistics(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation (channels, n_mels) of the features, over some `SAMPLED_LABELS`."""
        chosen = np.sort(rng.choice(self.labels, min(SAMPLED_LABELS, self.labels), replace=False))
        sample = self._cut(chosen.tolist(), 1).flatten(0, 1)
        return sample.mean(0), 1 / sample.std(0).clamp_min(1e-3)

    def _cut(self, firsts: Sequence[int], labels: int) -> Tensor:
        """Features (chunk, frame, channels, n_mels) float32 of the chunks that begin at these label frames."""
        if self.features is None:
            return torch.stack([self._read(first, labels) for first in firsts]).to(self.device).float()
        per_label = self.config.frames_per_label
        begin = torch.tensor(firsts, device=self.device)[:, None] * per_label
        return self.features[begin + torch.arange(labels * per_label, device=self.device)].float()

    def take(self, firsts: Sequence[int], labels: int) -> Batch:
        """The chunks that begin at these label frames."""
        index = torch.tensor(firsts, device=self.device)[:, None] + torch.arange(labels, device=self.device)
        return Batch(self._cut(firsts, labels), self.sed[index], self.doa[index], self.doa_mask[index])

    def starts(
        self, rng: np.random.Generator, count: int, labels: int, hop_labels: int = 1, balanced: float = 0.0
    ) -> list[int]:
        """Where ``count`` chunks begin: in recordings drawn by their length, at multiples of ``hop_labels``.

        With the probability ``balanced``, a chunk is drawn anew so as to hold an event of a class drawn by chance.
        """
        rooms = np.maximum((np.array([n for _, n in self.recordings]) - labels) // hop_labels + 1, 0)
        if not rooms.any():
            raise ConfigError(f"no recording is as long as a training chunk ({labels} label frames)")
        drawn = rng.choice(len(rooms), count, p=rooms / rooms.sum())
        starts = [self.recordings[i][0] + hop_labels * int(rng.integers(rooms[i])) for i in drawn]
        if not balanced:
            return starts
        return [self._with_any_class(rng, labels) if rng.random() < balanced else start for start in starts]

    def _with_any_class(self, rng: np.random.Generator, labels: int) -> int:
        sounding = self._sounding_labels(labels)
        heard = int(rng.choice(sounding[int(rng.integers(len(sounding)))]))
        first, length = self.recordings[bisect_right(self.recordings, heard, key=lambda place: place[0]) - 1]
        return int(np.clip(heard - rng.integers(labels), first, first + length - labels))

    def _sounding_labels(self, labels: int) -> list[NDArray[np.intp]]:
        """For each class that sounds, its label frames in recordings of at least ``labels``."""
        if labels in self._sounding:
            return self._sounding[labels]
        long_enough = np.concatenate([np.full(length, length >= labels) for _, length in self.recordings])
        found = [np.flatnonzero(active & long_enough) for active in self.sed.T.cpu().numpy() > 0]
        sounding = [each for each in found if len(each)]
        if not sounding:
            raise ConfigError("no class ever sounds: nothing to balance the chunks by")
        self._sounding[labels] = sounding
        return sounding


def mean_event_labels(stores: Sequence[Store]) -> tuple[float, ...]:
    """Mean duration of the events of each class over all stores, in label frames; 0 for one that never sounds."""
    means = np.array([store.manifest.mean_event_labels for store in stores])
    active = np.array([store.sed.sum(axis=0, dtype=float) for store in stores])
    events = np.divide(active, means, out=np.zeros_like(means), where=means > 0).sum(axis=0)
    return tuple((active.sum(axis=0) / np.where(events > 0, events, np.inf)).round(2).tolist())
