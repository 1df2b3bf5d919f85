"""PoolNet's feature aggregation module: one map at several scales, then fused with the next finer level."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from seldrt.networks.causal import Memory, TimeConv, TrailingMean, resized

SCALES = (2, 4, 8)


class Aggregation(nn.Module):
    """ReLU(x + pooled convolutions), resized to the finer level, narrowed, and fused with lateral map and guidance."""

    def __init__(self, channels: int, width: int, causal: bool, fuse: bool) -> None:
        super().__init__()
        self.causal = causal
        self.scales = nn.ModuleList(TimeConv(channels, channels, causal, bias=True) for _ in SCALES)
        self.means = nn.ModuleList(TrailingMean(scale) for scale in SCALES if causal)
        self.narrow = TimeConv(channels, width, causal, bias=True)
        self.fuse = TimeConv(width, width, causal, bias=True) if fuse else None

    def forward(self, x: Tensor, memory: Memory, lateral: Tensor | None = None, guided: Tensor | None = None) -> Tensor:
        y = x
        for i, scale in enumerate(SCALES):
            bins = min(scale, x.shape[3])
            if self.causal:
                pooled = functional.avg_pool2d(self.means[i](x, memory), (1, bins))
            else:
                pooled = functional.avg_pool2d(x, (min(scale, x.shape[2]), bins))
            y = y + resized(self.scales[i](pooled, memory), x, self.causal)
        y = functional.relu(y)
        if lateral is not None:
            y = resized(y, lateral, self.causal)
        y = self.narrow(y, memory)
        if self.fuse is None or lateral is None or guided is None:
            return y
        fused: Tensor = self.fuse(y + lateral + guided, memory)
        return fused
