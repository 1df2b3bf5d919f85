"""The ResNet path: four maps, from fine to coarse."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from seldrt.config import NetworkConfig
from seldrt.networks.causal import Memory, TimeConv, TimeMaxPool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut (a 1x1 projection where the shape changes)."""

    def __init__(
        self, channels: int, width: int, causal: bool, stride: tuple[int, int], dilation: int, project: bool
    ) -> None:
        super().__init__()
        self.conv1 = TimeConv(channels, width, causal, stride, dilation)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = TimeConv(width, width, causal, dilation=dilation)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.first = stride[0] - 1 if causal else 0  # frame of a stride that the convolution ends or centres on
        self.project = nn.Conv2d(channels, width, 1, bias=False) if project else None
        self.project_norm = nn.BatchNorm2d(width) if project else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x, memory)))
        y = self.norm2(self.conv2(y, memory))
        if self.project is not None and self.project_norm is not None:
            x = self.project_norm(self.project(x[:, :, self.first :: self.stride[0], :: self.stride[1]]))
        return functional.relu(x + y)


class Backbone(nn.Module):
    """Features (batch, channels, frames, mel) -> four maps at the resolutions that the strides of the config give."""

    def __init__(self, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        causal = config.causal
        self.stem = TimeConv(channels, config.stem_width, causal, config.stem_stride)
        self.stem_norm = nn.BatchNorm2d(config.stem_width)
        self.pool = TimeMaxPool(causal, config.pool_stride)
        self.stages = nn.ModuleList()
        width_before = config.stem_width
        for i, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True)):
            dilation = 2 if i == len(config.widths) - 1 else 1
            stage = nn.ModuleList(
                BasicBlock(width_before, width, causal, stride, dilation, project=True)
                if k == 0
                else BasicBlock(width, width, causal, (1, 1), dilation, project=False)
                for k in range(config.blocks)
            )
            self.stages.append(stage)
            width_before = width

    def forward(self, x: Tensor, memory: Memory) -> list[Tensor]:
        x = functional.relu(self.stem_norm(self.stem(x, memory)))
        x = self.pool(x, memory)
        maps = []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, memory)
            maps.append(x)
        return maps
