"""Directions straight from the intensity: for each class, its mean over what a learnt mask of time and frequency takes.

The intensity of a single source points where the source is; what a network has to find out is which part of it belongs
to which class. The dense layer of the head then only corrects (rooms bend the intensity).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.config import NetworkConfig
from seldrt.features import TASK_CHANNELS
from seldrt.networks.causal import Memory, Past

LEVEL = TASK_CHANNELS["doae"].index("log_mel_w")
ACTIVE = [TASK_CHANNELS["doae"].index(f"active_{axis}") for axis in "xyz"]


class MaskedIntensity(nn.Module):
    """Features (batch, channels, frames, n_mels) in their own units and a map -> (batch, label frames, 3 * classes).

    The mean reaches over ``direct_labels`` label frames, weighted by the mask, the amplitude, and one learnt weight
    for each of them; causal networks take the last ones, others those around.
    """

    def __init__(self, channels: int, n_classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.labels, self.causal = config.direct_labels, config.causal
        self.mask = nn.Conv2d(channels, n_classes, 1)
        self.weights = nn.Parameter(torch.zeros(n_classes, self.labels))
        self.gain = nn.Parameter(torch.full((n_classes, 1), 0.5))
        self.past = Past(self.labels - 1 if self.causal else 0)

    def forward(self, x: Tensor, features: Tensor, labels: int, memory: Memory) -> Tensor:
        grid = (labels, x.shape[3])
        amplitude = torch.pow(10.0, features[:, [LEVEL]] / 20)
        flow = features[:, ACTIVE] * amplitude
        mean_flow, mean_amplitude = (functional.adaptive_avg_pool2d(part, grid) for part in (flow, amplitude))
        mask = torch.sigmoid(self.mask(functional.adaptive_avg_pool2d(x, grid)))
        # 2: a plane wave's active intensity is half its direction, see `seldrt.features.intensity`
        unit = 2 * mean_flow / mean_amplitude
        taken = torch.einsum("bclf,bdlf->bcdl", mask, torch.cat([unit, torch.ones_like(unit[:, :1])], dim=1))
        around = self.past(taken.flatten(1, 2).unsqueeze(-1), memory)
        if not self.causal:
            before = (self.labels - 1) // 2
            around = functional.pad(around, (0, 0, before, self.labels - 1 - before))
        spans = around.squeeze(-1).unfold(2, self.labels, 1).unflatten(1, (-1, 4))  # (batch, class, 4, label, span)
        summed = torch.einsum("bcdls,cs->bcdl", spans, torch.softmax(self.weights, dim=-1))
        direction = self.gain.unsqueeze(-1) * summed[:, :, :3] / summed[:, :, 3:].clamp_min(1e-6)
        return direction.permute(0, 3, 2, 1).flatten(2)
