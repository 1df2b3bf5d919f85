"""The dense layer per label frame: probabilities for SAD and SED, directions for DOAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.config import NetworkConfig


def outputs(task: str, n_classes: int, config: NetworkConfig) -> int:
    """How many numbers a network gives per label frame."""
    if task == "doae":
        return n_classes * (2 if config.representation == "azel" else 3)
    return {"sad": 1, "sed": n_classes}[task]


class Head(nn.Module):
    """A map (batch, channels, time, frequency) -> (batch, label frames, outputs), before the squashing function."""

    def __init__(self, channels: int, task: str, n_classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.bands = config.bands
        self.norm = nn.BatchNorm2d(channels) if config.head_norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(channels * config.bands, outputs(task, n_classes, config))

    def forward(self, x: Tensor, labels: int) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        x = functional.adaptive_avg_pool2d(x, (labels, self.bands))
        y: Tensor = self.dense(self.dropout(x.permute(0, 2, 1, 3).flatten(2)))
        return y


def decode_doa(squashed: Tensor, n_classes: int, representation: str) -> Tensor:
    """Vectors (..., n_classes, 3) of tanh outputs; "azel": all azimuths / 180, then all elevations / 180 (unit
    vectors); "xyz": all x, then all y, then all z (of any length)."""
    parts = squashed.unflatten(-1, (-1, n_classes))
    if representation == "xyz":
        return parts.transpose(-1, -2)
    azimuth, elevation = (parts * torch.pi).unbind(-2)
    return torch.stack([azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)


def split_joint(y: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Probabilities (..., n_classes) and vectors (..., n_classes, 3) of the outputs of the baseline."""
    return y[..., :n_classes], decode_doa(y[..., n_classes:], n_classes, "xyz")
