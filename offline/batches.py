"""Chunks of T frames from feature stores, on the device where they are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offline.extract import Store
from seldrt.checkpoint import Description, require_same
from seldrt.config import ConfigError, NetworkConfig
from seldrt.features import task_indices


class Batch:
    """Features (batch, frames, channels, n_mels) float32 and targets (batch, label frames, ...) of equal chunks."""

    def __init__(self, features: Tensor, sed: Tensor, doa: Tensor, doa_mask: Tensor) -> None:
        self.features, self.sed, self.doa, self.doa_mask = features, sed, doa, doa_mask

    def at(self, labels: slice) -> Batch:
        """The targets of some label frames (beside all features)."""
        return Batch(self.features, self.sed[:, labels], self.doa[:, labels], self.doa_mask[:, labels])

    @property
    def sad(self) -> Tensor:
        """Whether any class sounds (batch, label frames, 1)."""
        return self.sed.amax(-1, keepdim=True)


def require_alike(stores: Sequence[Store]) -> None:
    """An error that names the store which differs from the first in features or classes, and what differs."""
    first, *others = (
        Description(features=store.manifest.features, classes=store.manifest.classes, networks={}) for store in stores
    )
    for store, other in zip(stores[1:], others, strict=True):
        require_same(first, other, store.folder)


def require_measurable(task: str, stores: Sequence[Store], network: NetworkConfig) -> None:
    """`ConfigError` when a recording is too short for the network to decide anything, or no class ever sounds."""
    for store in stores:
        chunk = network.chunk_frames // store.manifest.features.frames_per_label
        labels = network.lookahead_labels + 1 if network.causal else chunk
        for recording in store.manifest.recordings:
            if recording.labels < labels:
                few = f"{recording.labels} label frames, the network needs {labels}"
                raise ConfigError(f"{store.folder}: {recording.name} has {few} to validate with")
    if not any((store.doa_mask if task == "doae" else store.sed).any() for store in stores):
        raise ConfigError(f"{stores[0].folder}: no class ever sounds: nothing to choose the best weights by")


class Chunks:
    """All chunks of some stores that are alike for one task, held in memory as float16 on the device."""

    def __init__(self, stores: Sequence[Store], task: str, device: str) -> None:
        first = stores[0].manifest
        self.task, self.config, self.classes = task, first.features, first.classes
        self.features = _features(stores, task_indices(task)).to(device)
        self.sed, self.doa, self.doa_mask = (
            torch.from_numpy(np.concatenate([getattr(store, name) for store in stores])).to(device)
            for name in ("sed", "doa", "doa_mask")
        )
        offsets = np.cumsum([0, *(len(store.sed) for store in stores)])
        self.recordings = [
            (int(offset + recording.first_label), recording.labels)
            for offset, store in zip(offsets[:-1], stores, strict=True)
            for recording in store.manifest.recordings
        ]

    def statistics(self, rng: np.random.Generator, frames: int = 60000) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation (channels, n_mels) of the features, over a sample of frames."""
        chosen = torch.from_numpy(rng.choice(len(self.features), min(frames, len(self.features)), replace=False))
        sample = self.features[chosen.to(self.features.device)].float()
        return sample.mean(0), 1 / sample.std(0).clamp_min(1e-3)

    def take(self, firsts: Sequence[int], labels: int) -> Batch:
        """The chunks that begin at these label frames."""
        device = self.features.device
        label_index = torch.tensor(firsts, device=device)[:, None] + torch.arange(labels, device=device)
        per_label = self.config.frames_per_label
        frame_index = label_index[..., None] * per_label + torch.arange(per_label, device=device)
        return Batch(
            self.features[frame_index.flatten(1)].float(),
            self.sed[label_index],
            self.doa[label_index],
            self.doa_mask[label_index],
        )

    def random(self, rng: np.random.Generator, count: int, labels: int) -> Batch:
        """``count`` chunks that begin anywhere in recordings drawn by their length."""
        lengths = np.array([n for _, n in self.recordings])
        fitting = np.maximum(lengths - labels + 1, 0)
        if not fitting.any():
            raise ConfigError(f"no recording is as long as a training chunk ({labels} label frames)")
        drawn = rng.choice(len(lengths), count, p=fitting / fitting.sum())
        return self.take([self.recordings[i][0] + int(rng.integers(fitting[i])) for i in drawn], labels)


def _features(stores: Sequence[Store], channels: Sequence[int]) -> Tensor:
    """Some channels of all stores, one after the other, float16; beside the result, only a recording is in memory."""
    frames = sum(len(store.features) for store in stores)
    features = torch.empty(frames, len(channels), stores[0].features.shape[2], dtype=torch.float16)
    rest = features
    for store in stores:
        per_label = store.manifest.features.frames_per_label
        for place in store.manifest.recordings:
            first, length = place.first_label * per_label, place.labels * per_label
            rest[:length] = torch.from_numpy(store.features[first : first + length, channels])
            rest = rest[length:]
    return features


def mean_event_labels(stores: Sequence[Store]) -> tuple[float, ...]:
    """Mean duration of the events of each class over all stores, in label frames; 0 for one that never sounds."""
    means = np.array([store.manifest.mean_event_labels for store in stores])
    active = np.array([store.sed.sum(axis=0, dtype=float) for store in stores])
    events = np.divide(active, means, out=np.zeros_like(means), where=means > 0).sum(axis=0)
    return tuple((active.sum(axis=0) / np.where(events > 0, events, np.inf)).round(2).tolist())
