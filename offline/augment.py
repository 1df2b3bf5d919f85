"""Augmentation of feature chunks that keeps their labels true.

Features are (batch, frames, channels, n_mels) in the channel order of one task, directions (..., 3) with axis x, y, z.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from offline.batches import Batch
from seldrt.features import TASK_CHANNELS

# The 16 isometries that map the axes of first-order ambisonics onto themselves and keep up and down apart from the
# sides: four quarter turns, with and without a mirrored y, with and without a mirrored z.


def signed_permutations(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each of ``count`` chunks one of the 16 patterns: whether x and y change places, and the signs (count, 3)."""
    swap = torch.randint(0, 2, (count,), generator=generator).bool()
    signs = torch.randint(0, 2, (count, 3), generator=generator) * 2.0 - 1.0
    return swap, signs


def turned_directions(doa: Tensor, swap: Tensor, signs: Tensor) -> Tensor:
    """Directions (batch, ..., 3) under the patterns."""
    shape = (-1, *[1] * (doa.ndim - 1))
    turned = torch.where(swap.to(doa.device).view(shape), doa[..., [1, 0, 2]], doa)
    return turned * signs.to(doa).view(-1, *[1] * (doa.ndim - 2), 3)


def turned_features(x: Tensor, task: str, swap: Tensor, signs: Tensor) -> Tensor:
    """Features under the patterns; those of SAD and SED do not change."""
    names = TASK_CHANNELS[task]
    if "active_x" not in names:
        return x
    order = list(range(len(names)))
    factors = torch.ones(len(x), len(names))
    for kind in ("log_mel", "active", "reactive"):
        first, second = names.index(f"{kind}_x"), names.index(f"{kind}_y")
        order[first], order[second] = second, first
        if kind != "log_mel":
            for axis, name in enumerate("xyz"):
                factors[:, names.index(f"{kind}_{name}")] = signs[:, axis]
    turned = torch.where(swap.to(x.device).view(-1, 1, 1, 1), x[:, :, order], x)
    return turned * factors.to(x)[:, None, :, None]


def coloured(x: Tensor, task: str, generator: torch.Generator, gain_db: float = 6.0, tilt_db: float = 6.0) -> Tensor:
    """Another level and another smooth frequency response for each chunk (the log-mel channels only)."""
    batch, mels = len(x), x.shape[-1]
    knots = torch.rand(batch, 1, 5, generator=generator) * 2 * tilt_db - tilt_db
    curve = functional.interpolate(knots, mels, mode="linear", align_corners=True)
    curve = curve + torch.rand(batch, 1, 1, generator=generator) * 2 * gain_db - gain_db
    levels = torch.tensor(["active" not in name for name in TASK_CHANNELS[task]])
    return x + (curve * levels[:, None]).unsqueeze(1).to(x)


def mixed(batch: Batch, generator: torch.Generator, probability: float, gain_db: float = 10.0) -> Batch:
    """Some chunks with another one of the batch laid over them, up to 10 dB weaker; for SAD and SED.

    Powers add, up to the phase: exact on average for sounds that have nothing to do with each other.
    """
    chosen = torch.rand(len(batch.features), generator=generator) < probability
    chosen = chosen.to(batch.features.device)
    gains_db = -gain_db * torch.rand(len(batch.features), 1, 1, 1, generator=generator).to(batch.features)
    other = batch.features.roll(1, 0) + gains_db
    together = 10 * torch.log10(torch.pow(10.0, batch.features / 10) + torch.pow(10.0, other / 10))
    x = torch.where(chosen.view(-1, 1, 1, 1), together, batch.features)
    either = torch.maximum(batch.sed, batch.sed.roll(1, 0))
    return Batch(x, torch.where(chosen.view(-1, 1, 1), either, batch.sed), batch.doa, batch.doa_mask)


def masked(x: Tensor, fill: Tensor, generator: torch.Generator, bands: int, frames: int) -> Tensor:
    """One stripe of up to ``bands`` mel bands and one of up to ``frames`` frames replaced by ``fill`` per chunk."""
    hidden = torch.zeros(len(x), x.shape[1], 1, x.shape[3], dtype=torch.bool, device=x.device)
    for axis, longest in ((3, bands), (1, frames)):
        size = x.shape[axis]
        length = (torch.rand(len(x), generator=generator) * (longest + 1)).int()
        start = (torch.rand(len(x), generator=generator) * (size - length)).int()
        first, last = (bound.to(x.device)[:, None] for bound in (start, start + length))
        index = torch.arange(size, device=x.device)
        stripe = (index >= first) & (index < last)
        hidden |= stripe[:, None, None, :] if axis == 3 else stripe[:, :, None, None]
    return torch.where(hidden, fill, x)
