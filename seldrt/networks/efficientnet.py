"""EfficientNet-Lite0 (Tan and Le 2019, the Lite form of 2020) as the way from features to maps over time and mel.

A network for images on telephones: its weights can begin with what it learnt of a million photographs
(`offline.transfer`). The Lite form lacks squeeze-and-excitation, which would look at all times at once, so the whole
can be causal. Strides in time differ from the published ones: 20 ms after the stem, 100 ms from the third stage on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.networks.causal import Memory, TimeConv

STEM = 32
# Of each stage: expansion, width, blocks, kernel, stride in time and mel (as published but for the strides in time).
STAGES = (
    (1, 16, 1, 3, (1, 1)),
    (6, 24, 2, 3, (1, 2)),
    (6, 40, 2, 5, (5, 2)),
    (6, 80, 3, 3, (1, 2)),
    (6, 112, 3, 5, (1, 1)),
    (6, 192, 4, 5, (1, 2)),
    (6, 320, 1, 3, (1, 1)),
)
STEM_STRIDE = (2, 2)
MAPS = (1, 2, 4, 6)  # the stages whose maps go on
WIDTHS = tuple(STAGES[i][1] for i in MAPS)
TIME_STRIDE = STEM_STRIDE[0] * STAGES[2][4][0]


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class InvertedResidual(nn.Module):
    """Wider, a convolution of each channel by itself, narrower; beside a shortcut where the shape stays."""

    def __init__(
        self, channels: int, width: int, expansion: int, kernel: int, stride: tuple[int, int], causal: bool
    ) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1, bias=False) if expansion > 1 else None
        self.expand_norm = _norm(wide) if expansion > 1 else None
        self.depthwise = TimeConv(wide, wide, causal, stride, kernel=kernel, groups=wide)
        self.depthwise_norm = _norm(wide)
        self.narrow = nn.Conv2d(wide, width, 1, bias=False)
        self.narrow_norm = _norm(width)
        self.shortcut = channels == width and stride == (1, 1)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = functional.relu6(self.expand_norm(self.expand(y)))
        with torch.autocast(y.device.type, enabled=False):  # on CPUs its gradient in bfloat16 takes ten times as long
            z = self.depthwise(y.float(), memory)
        y = functional.relu6(self.depthwise_norm(z.to(y.dtype)))
        y = self.narrow_norm(self.narrow(y))
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Module):
    """Features (batch, channels, frames, mel) -> four maps of `WIDTHS`, from fine to coarse."""

    def __init__(self, channels: int, causal: bool) -> None:
        super().__init__()
        self.stem = TimeConv(channels, STEM, causal, STEM_STRIDE)
        self.stem_norm = _norm(STEM)
        self.stages = nn.ModuleList()
        before = STEM
        for expansion, width, blocks, kernel, stride in STAGES:
            stage = nn.ModuleList([InvertedResidual(before, width, expansion, kernel, stride, causal)])
            stage.extend(InvertedResidual(width, width, expansion, kernel, (1, 1), causal) for _ in range(1, blocks))
            self.stages.append(stage)
            before = width

    def forward(self, x: Tensor, memory: Memory) -> list[Tensor]:
        x = functional.relu6(self.stem_norm(self.stem(x, memory)))
        maps = []
        for i, stage in enumerate(self.stages):
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, memory)
            if i in MAPS:
                maps.append(x)
        return maps
