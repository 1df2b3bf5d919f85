"""What every network is to the rest of the house."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seldrt.config import FeatureConfig, NetworkConfig
from seldrt.features import TASK_CHANNELS
from seldrt.networks.causal import State


class Network(nn.Module):
    """Features (batch, frames, channels, n_mels) -> (batch, label frames, outputs), and the state that goes on.

    The features are standardised by ``mean`` and ``scale`` (channels, n_mels), which belong to the weights. A causal
    network continues a stream: ``y, state = network(x, state)`` for pieces of whole label frames equals one pass; no
    state is a fresh state. Its label frame j speaks of label frame j - lookahead_labels.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, task: str, features: FeatureConfig, config: NetworkConfig) -> None:
        super().__init__()
        self.task, self.config, self.frames_per_label = task, config, features.frames_per_label
        shape = (len(TASK_CHANNELS[task]), features.n_mels)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        raise NotImplementedError

    def standardised(self, x: Tensor) -> Tensor:
        """Features with mean 0 and deviation 1 as (batch, channels, frames, n_mels)."""
        return ((x - self.mean) * self.scale).transpose(1, 2)
