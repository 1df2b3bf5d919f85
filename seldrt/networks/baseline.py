"""The baseline of DCASE 2020 Task 3 (SELDnet: Adavanne et al. 2019), to compare with: one network for what and where.

Three convolutions with pooling, two bidirectional GRUs whose directions are multiplied, and a branch each for the
classes and for their directions. The widths are those of its published code; the features come every 20 ms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.config import ConfigError, FeatureConfig, NetworkConfig
from seldrt.networks.causal import State
from seldrt.networks.interface import Network

FRAMES_PER_LABEL = 5  # 20 ms
FILTERS = 64
POOLS = ((FRAMES_PER_LABEL, 4), (1, 4), (1, 2))  # frames, mel bands
HIDDEN = 128

# Its sequences last 6 s; a stream uses the decision in their middle.
BASELINE = NetworkConfig(chunk_frames=600, lookahead_labels=29, representation="xyz")


class Baseline(Network):
    """Features -> (batch, label frames, 4 * classes): probabilities in (0, 1), then all x, all y, all z in (-1, 1).

    Of the configuration, ``chunk_frames``, ``lookahead_labels`` and ``dropout`` matter.
    """

    def __init__(self, n_classes: int, features: FeatureConfig, config: NetworkConfig) -> None:
        super().__init__("baseline", features, config)
        if config.causal or config.representation != "xyz":
            raise ConfigError('the baseline is not causal and gives vectors: causal = false, representation = "xyz"')
        if features.frames_per_label % FRAMES_PER_LABEL:
            raise ConfigError(f"the baseline needs a multiple of {FRAMES_PER_LABEL} frames per label")
        self.step = features.frames_per_label // FRAMES_PER_LABEL
        channels, bands = self.mean.shape
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for _, factor in POOLS:
            self.convolutions.append(nn.Conv2d(channels, FILTERS, 3, padding=1))
            self.norms.append(nn.BatchNorm2d(FILTERS))
            channels, bands = FILTERS, bands // factor
        if not bands:
            raise ConfigError(f"the baseline needs at least 32 mel bands, the features have {features.n_mels}")
        self.recurrent = nn.ModuleList(
            nn.GRU(width, HIDDEN, batch_first=True, bidirectional=True) for width in (FILTERS * bands, HIDDEN)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), self.dropout, nn.Linear(HIDDEN, n_classes))
        self.directions = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), self.dropout, nn.Linear(HIDDEN, 3 * n_classes))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        x = self.standardised(x[:, self.step - 1 :: self.step])
        for convolution, norm, pool in zip(self.convolutions, self.norms, POOLS, strict=True):
            x = self.dropout(functional.max_pool2d(functional.relu(norm(convolution(x))), pool))
        x = x.transpose(1, 2).flatten(2)
        for recurrent in self.recurrent:
            forwards, backwards = recurrent(self.dropout(x))[0].chunk(2, dim=-1)
            x = forwards * backwards
        y = torch.cat([torch.sigmoid(self.classes(x).float()), torch.tanh(self.directions(x).float())], dim=-1)
        return y, {}
