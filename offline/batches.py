"""Chunks of T frames from feature stores, on the device where they are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offline.extract import Store
from seldrt.config import ConfigError
from seldrt.features import task_indices


class Batch:
    """Features (batch, frames, channels, n_mels) float32 and targets (batch, label frames, ...) of equal chunks."""

    def __init__(self, features: Tensor, sed: Tensor, doa: Tensor, doa_mask: Tensor) -> None:
        self.features, self.sed, self.doa, self.doa_mask = features, sed, doa, doa_mask

    @property
    def sad(self) -> Tensor:
        """Whether any class sounds (batch, label frames, 1)."""
        return self.sed.amax(-1, keepdim=True)


class Chunks:
    """All chunks of some stores for one task, held in memory as float16 on the device."""

    def __init__(self, stores: Sequence[Store], task: str, device: str) -> None:
        first = stores[0].manifest
        for store in stores[1:]:
            if (store.manifest.features, store.manifest.classes) != (first.features, first.classes):
                raise ConfigError("feature stores differ in features or classes; extract them alike")
        self.task, self.config, self.classes = task, first.features, first.classes
        channels = task_indices(task)
        self.features = torch.cat([torch.from_numpy(store.features[:, channels]) for store in stores]).to(device)
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


def mean_event_labels(stores: Sequence[Store]) -> tuple[float, ...]:
    """Mean duration of the events of each class over all stores, in label frames."""
    durations = [store.manifest.mean_event_labels for store in stores]
    weights = [len(store.manifest.recordings) for store in stores]
    return tuple(float(value) for value in np.average(durations, axis=0, weights=weights).round(2))
