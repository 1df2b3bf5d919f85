"""Directions drawn to where the sound comes from: mean shift (Fukunaga and Hostetler 1975) on the sphere, among rivals.

With two sources at a time, directions of a network lie between them. The intensity of a single frame and band mostly
belongs to one source alone, so these crowd around the true directions: from its own, each class goes a few steps to the
mean of those around it. Classes that sound at the same time share what lies around both of them, by how near each is,
and begin further apart than the network says; otherwise both go to the louder source. A share of what the network said
is kept: it has learnt how rooms and microphones bend directions. Nothing is learnt here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.networks.causal import Memory, Past
from seldrt.networks.direct import ACTIVE, LEVEL

STEPS = 4
SHARPNESS = 12.0  # of the von Mises-Fisher kernel: what is 20 degrees off counts 0.48
APART = 2.0  # times the distance from the others, so much further from them the steps begin
KEPT = 0.3  # of the direction that the network said
FRAME_STEP = 2  # windows overlap: every second frame will do


class Focus(nn.Module):
    """Vectors (batch, label frames, classes, 3) -> unit vectors nearer to the sources.

    What counts are the frames and bands of ``labels`` label frames: causally the last ones, otherwise those around.
    Each weighs as the root of its amplitude and its directness (1 for a plane wave, 0 for diffuse sound).
    """

    def __init__(self, labels: int, causal: bool, frames_per_label: int) -> None:
        super().__init__()
        self.per_label = -(-frames_per_label // FRAME_STEP)
        self.span, self.causal, self.frames_per_label = labels * self.per_label, causal, frames_per_label
        self.past = Past(self.span - self.per_label if causal else 0)

    def forward(self, doa: Tensor, activity: Tensor, features: Tensor, memory: Memory) -> Tensor:
        """``activity`` (batch, label frames, classes): the probability of each class, which makes it a rival.

        ``features`` (batch, channels of DOAE, frames, n_mels) are in their own units.
        """
        around = self.past(self._cells(features), memory)
        if not self.causal:
            before = (self.span // self.per_label - 1) // 2 * self.per_label
            around = functional.pad(around, (0, 0, before, self.span - self.per_label - before))
        cells = around.unfold(2, self.span, self.per_label).permute(0, 2, 3, 4, 1).flatten(2, 3)
        direction, weight = cells[..., :3], cells[..., 3].unsqueeze(2)
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-20)
        activity = activity.unsqueeze(-1)
        own = functional.normalize(doa, dim=-1)
        doa = _apart(own, activity)
        for _ in range(STEPS):
            nearness = torch.exp(SHARPNESS * (doa @ direction.transpose(2, 3) - 1))
            claimed = activity * nearness
            share = nearness / (nearness + claimed.sum(2, keepdim=True) - claimed).clamp_min(1e-30)
            drawn = (weight * nearness * share) @ direction
            length = drawn.norm(dim=-1, keepdim=True)
            doa = torch.where(length > 0, drawn / length.clamp_min(1e-30), doa)
        return functional.normalize((1 - KEPT) * doa + KEPT * own, dim=-1)

    def _cells(self, features: Tensor) -> Tensor:
        """Unit vector and weight (batch, 4, frames, n_mels) of every `FRAME_STEP`-th frame of each label frame."""
        labels = features.unflatten(2, (-1, self.frames_per_label))[:, :, :, ::FRAME_STEP].flatten(2, 3).float()
        flow = 2 * labels[:, ACTIVE]  # 2: a plane wave's active intensity is half its direction
        length = flow.norm(dim=1, keepdim=True).clamp_min(1e-4)
        root_amplitude = torch.pow(10.0, labels[:, [LEVEL]] / 40)
        return torch.cat([flow / length, root_amplitude * length.clamp_max(1)], dim=1)


def _apart(doa: Tensor, activity: Tensor) -> Tensor:
    """Unit vectors (..., classes, 3), each further from the mean of its rivals; ``activity`` is (..., classes, 1)."""
    active = activity * doa
    rivals = activity.sum(-2, keepdim=True) - activity
    mean = (active.sum(-2, keepdim=True) - active) / rivals.clamp_min(1e-6)
    return functional.normalize(doa + APART * rivals.clamp(0, 1) * (doa - mean), dim=-1)
