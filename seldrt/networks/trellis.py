"""TrellisNet (Bai et al. 2019): one tied, dilated convolution with LSTM gates at every level; causal by nature."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from seldrt.networks.causal import Memory, Past


class Trellis(nn.Module):
    """Sequences (batch, channels, time, 1) -> (batch, out_channels, time, 1); the input enters at every level."""

    def __init__(self, channels: int, hidden: int, out_channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.out_channels, self.dilations = out_channels, dilations
        width = hidden + out_channels
        self.from_input = nn.Conv2d(channels, 4 * width, (2, 1), bias=False)
        self.from_hidden = nn.Conv2d(width, 4 * width, (2, 1))
        self.input_past = nn.ModuleList(Past(d) for d in dilations)
        self.hidden_past = nn.ModuleList(Past(d) for d in dilations)
        self.cell_past = nn.ModuleList(Past(d) for d in dilations)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        frames = x.shape[2]
        # The two taps as 1x1 convolutions: those of the input serve all levels, which differ in their reach only, and
        # PyTorch's dilated convolution is slow on few frames.
        older, newer = (functional.conv2d(x, self.from_input.weight[:, :, [tap]]) for tap in (0, 1))
        hidden_older, hidden_newer = (self.from_hidden.weight[:, :, [tap]] for tap in (0, 1))
        width = self.from_hidden.in_channels
        hidden = cell = x.new_zeros(x.shape[0], width, frames, 1)
        for level in range(len(self.dilations)):
            drive = self.input_past[level](older, memory)[:, :, :frames] + newer
            hidden_before = self.hidden_past[level](hidden, memory)[:, :, :frames]
            recurrent = functional.conv2d(hidden_before, hidden_older)
            recurrent = recurrent + functional.conv2d(hidden, hidden_newer, self.from_hidden.bias)
            keep_in, keep_out, candidate, forget = (drive + recurrent).chunk(4, dim=1)
            before = self.cell_past[level](cell, memory)[:, :, :frames]
            cell = torch.sigmoid(forget) * before + torch.sigmoid(keep_in) * torch.tanh(candidate)
            hidden = torch.sigmoid(keep_out) * torch.tanh(cell)
        return hidden[:, -self.out_channels :]
