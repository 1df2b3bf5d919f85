"""Global guidance: what the top of the pyramid tells every level (PoolNet's GGM and guiding flows)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.config import NetworkConfig
from seldrt.networks.causal import Memory, TimeConv, TrailingMean, resized
from seldrt.networks.trellis import Trellis


class PyramidGuidance(nn.Module):
    """Pyramid pooling of the top map: means over 1, 3, 5 bins of the chunk; causal: trailing means as long as these."""

    def __init__(self, channels: int, config: NetworkConfig, top_frames: int) -> None:
        super().__init__()
        width, self.bins, self.causal = config.guidance_width, config.pyramid_bins, config.causal
        self.narrow = nn.Conv2d(channels, width, 1)
        self.pooled = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in self.bins)
        self.means = nn.ModuleList(TrailingMean(-(-top_frames // bins)) for bins in self.bins if self.causal)
        self.merge = TimeConv(width * (1 + len(self.bins)), width, self.causal, bias=True)

    def forward(self, top: Tensor, memory: Memory) -> Tensor:
        x = self.narrow(top)
        parts = [x]
        for i, bins in enumerate(self.bins):
            if self.causal:
                mean = functional.adaptive_avg_pool2d(self.means[i](x, memory), (x.shape[2], bins))
                mean = functional.relu(self.pooled[i](mean))
                parts.append(functional.interpolate(mean, x.shape[2:], mode="bilinear", align_corners=True))
            else:
                mean = functional.relu(self.pooled[i](functional.adaptive_avg_pool2d(x, bins)))
                parts.append(resized(mean, x, causal=False))
        return functional.relu(self.merge(torch.cat(parts, dim=1), memory))


class TrellisGuidance(nn.Module):
    """A trellis network over the bands of the top map; its answer holds for all frequencies."""

    def __init__(self, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.bands = config.bands
        self.trellis = Trellis(
            channels * config.bands, config.trellis_hidden, config.guidance_width, config.trellis_dilations
        )

    def forward(self, top: Tensor, memory: Memory) -> Tensor:
        bands = functional.adaptive_avg_pool2d(top, (top.shape[2], self.bands))
        sequence = bands.transpose(2, 3).flatten(1, 2).unsqueeze(-1)
        answer: Tensor = self.trellis(sequence, memory)
        return answer.expand(-1, -1, -1, top.shape[3])


class GuidanceFlow(nn.Module):
    """The guidance at the resolution and width of one level."""

    def __init__(self, channels: int, width: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.conv = TimeConv(channels, width, causal, bias=True)

    def forward(self, guidance: Tensor, like: Tensor, memory: Memory) -> Tensor:
        return functional.relu(self.conv(resized(guidance, like, self.causal), memory))
