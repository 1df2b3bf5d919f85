"""Time in the networks: one module remembers, everything else is built upon it.

Maps are (batch, channels, time, frequency). A causal layer gets what it needs of the past from `Past`: zeros at the
beginning of a stream, afterwards the frames that it kept in the `Memory`. So one pass over everything and many passes
over pieces are the same computation, as long as each piece is a multiple of the layers' time strides.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

State = dict[str, Tensor]


class Memory:
    """What the layers kept of the frames before (``old``; None at the beginning) and keep for those after (``new``)."""

    def __init__(self, old: State | None = None) -> None:
        self.old = old
        self.new: State = {}


class Past(nn.Module):
    """Puts the ``frames`` frames before x in front of it."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.key = ""  # set by the network: the name of this module in it

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        if self.frames == 0:
            return x
        if memory.old is None:
            joined = functional.pad(x, (0, 0, self.frames, 0))
        else:
            joined = torch.cat([memory.old[self.key], x], dim=2)
        memory.new[self.key] = joined[:, :, -self.frames :]
        return joined


class TimeConv(nn.Module):
    """Convolution, 3x3 unless said; causal: the window ends with the last frame of its stride, else it is centred."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        causal: bool,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        bias: bool = False,
        kernel: int = 3,
        groups: int = 1,
    ) -> None:
        super().__init__()
        reach = dilation * (kernel // 2)
        taps = max(kernel, stride[0]) if causal else kernel
        self.past = Past(max((taps - 1) * dilation + 1 - stride[0], 0) if causal else 0)
        self.conv = nn.Conv2d(
            channels,
            out_channels,
            (taps, kernel),
            stride,
            padding=(0 if causal else reach, reach),
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y: Tensor = self.conv(self.past(x, memory))
        return y


class TimeMaxPool(nn.Module):
    """3x3 maximum with a stride (of non-negative maps); causal or centred like `TimeConv`."""

    def __init__(self, causal: bool, stride: tuple[int, int]) -> None:
        super().__init__()
        self.taps = max(3, stride[0]) if causal else 3
        self.stride, self.causal = stride, causal
        self.past = Past(self.taps - stride[0] if causal else 0)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        padding = (0, 1) if self.causal else (1, 1)
        return functional.max_pool2d(self.past(x, memory), (self.taps, 3), self.stride, padding)


class TrailingMean(nn.Module):
    """Mean over the last ``frames`` frames, at every frame."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.past = Past(frames - 1)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        return functional.avg_pool2d(self.past(x, memory), (self.frames, 1), stride=1)


def resized(x: Tensor, like: Tensor, causal: bool) -> Tensor:
    """x at the time and frequency resolution of ``like``: held and repeated in causal networks, else bilinear."""
    if x.shape[2:] == like.shape[2:]:
        return x
    if causal:
        return functional.interpolate(x, like.shape[2:], mode="nearest")
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)
