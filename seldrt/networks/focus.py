"""Directions drawn to where the sound comes from: mean shift on the sphere (Fukunaga and Hostetler 1975).

With two sources at a time, directions of a network lie between them. The intensity of a single frame and band mostly
belongs to one source alone, so these crowd around the true directions: from its own, each class goes a few steps to the
mean of those around it. Nothing is learnt here, and training leaves it out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.features import TASK_CHANNELS
from seldrt.networks.causal import Memory, Past

STEPS = 4
SHARPNESS = 16.0  # of the von Mises-Fisher kernel: what is 20 degrees off counts 0.38
FRAME_STEP = 2  # windows overlap: every second frame will do

_LEVEL = TASK_CHANNELS["doae"].index("log_mel_w")
_ACTIVE = [TASK_CHANNELS["doae"].index(f"active_{axis}") for axis in "xyz"]


class Focus(nn.Module):
    """Vectors (batch, label frames, 3 * classes; all x, y, z) -> unit vectors nearer to the sources.

    What counts are the frames and bands of ``labels`` label frames: causal networks take the last ones, others those
    around. Each weighs as its amplitude and the square of its directness (1 for a plane wave, 0 for diffuse sound).
    """

    def __init__(self, labels: int, causal: bool, frames_per_label: int) -> None:
        super().__init__()
        self.per_label = -(-frames_per_label // FRAME_STEP)
        self.span, self.causal, self.frames_per_label = labels * self.per_label, causal, frames_per_label
        self.past = Past(self.span - self.per_label if causal else 0)

    def forward(self, y: Tensor, features: Tensor, memory: Memory) -> Tensor:
        """``features`` (batch, channels, frames, n_mels) are in their own units."""
        n_classes = y.shape[2] // 3
        around = self.past(self._cells(features), memory)
        if not self.causal:
            before = (self.span // self.per_label - 1) // 2 * self.per_label
            around = functional.pad(around, (0, 0, before, self.span - self.per_label - before))
        cells = around.unfold(2, self.span, self.per_label).permute(0, 2, 3, 4, 1).flatten(2, 3)
        direction, weight = cells[..., :3], cells[..., 3].unsqueeze(2)
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-20)
        doa = functional.normalize(y.unflatten(2, (3, n_classes)).transpose(2, 3), dim=-1)
        for _ in range(STEPS):
            nearness = torch.exp(SHARPNESS * (doa @ direction.transpose(2, 3) - 1))
            drawn = (weight * nearness) @ direction
            length = drawn.norm(dim=-1, keepdim=True)
            doa = torch.where(length > 0, drawn / length.clamp_min(1e-30), doa)
        return doa.transpose(2, 3).flatten(2)

    def _cells(self, features: Tensor) -> Tensor:
        """Unit vector and weight (batch, 4, frames, n_mels) of every `FRAME_STEP`-th frame of each label frame."""
        labels = features.unflatten(2, (-1, self.frames_per_label))[:, :, :, ::FRAME_STEP].flatten(2, 3).float()
        flow = 2 * labels[:, _ACTIVE]  # 2: a plane wave's active intensity is half its direction
        length = flow.norm(dim=1, keepdim=True).clamp_min(1e-4)
        amplitude = torch.pow(10.0, labels[:, [_LEVEL]] / 20)
        return torch.cat([flow / length, amplitude * length.clamp_max(1) ** 2], dim=1)
