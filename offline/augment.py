"""Augmentation of feature chunks that keeps their labels true.

Features are (batch, frames, channels, n_mels) in the channel order of one task, directions (..., 3) with axis x, y, z.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from offline.batches import Batch, level_channels
from offline.config import TrainConfig
from seldrt.networks.turns import turned_directions, turned_features


def signed_permutations(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One of the 16 patterns of `seldrt.networks.turns` for each chunk: swap (count,), signs (count, 3)."""
    swap = torch.randint(0, 2, (count,), generator=generator).bool()
    signs = torch.randint(0, 2, (count, 3), generator=generator) * 2.0 - 1.0
    return swap, signs


def coloured(x: Tensor, task: str, generator: torch.Generator, most_db: float) -> Tensor:
    """Another level and another smooth frequency response for each chunk, each by up to ``most_db``; levels only."""
    batch, mels = len(x), x.shape[-1]
    knots = torch.rand(batch, 1, 5, generator=generator) * 2 * most_db - most_db
    curve = functional.interpolate(knots, mels, mode="linear", align_corners=True)
    curve = curve + torch.rand(batch, 1, 1, generator=generator) * 2 * most_db - most_db
    return x + (curve * level_channels(task, curve.device)).unsqueeze(1).to(x)


def restyled(x: Tensor, task: str, generator: torch.Generator, probability: float) -> Tensor:
    """Some chunks with levels whose mean and deviation in each band lean towards those of another one of the batch.

    The log-mel channels only: what a recorder, a codec or a room does to all sounds alike. After frequency-wise
    MixStyle (Zhou et al. 2021, Kim et al. 2022), on features instead of maps.
    """
    chosen = (torch.rand(len(x), 1, 1, 1, generator=generator) < probability).to(x.device)
    share = torch.rand(len(x), 1, 1, 1, generator=generator).to(x) / 2  # of the other's
    mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True).clamp_min(1e-3)
    other_mean, other_deviation = mean.roll(1, 0), deviation.roll(1, 0)
    y = (x - mean) / deviation * deviation.lerp(other_deviation, share) + mean.lerp(other_mean, share)
    return torch.where(chosen & level_channels(task, x.device), y, x)


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
    return batch._replace(features=x, sed=torch.where(chosen.view(-1, 1, 1), either, batch.sed))


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


def augmented(batch: Batch, task: str, config: TrainConfig, fill: Tensor, generator: torch.Generator) -> Batch:
    """The batch with other directions, colours and holes, as the configuration asks."""
    if config.mix_probability and task in ("sad", "sed"):
        batch = mixed(batch, generator, config.mix_probability)
    x, doa = batch.features, batch.doa
    if config.rotations and task in ("doae", "baseline"):
        swap, signs = signed_permutations(len(x), generator)
        x = turned_features(x, task, swap, signs)
        doa = turned_directions(doa, swap, signs)
    if config.colour_db:
        x = coloured(x, task, generator, config.colour_db)
    if config.restyle_probability:
        x = restyled(x, task, generator, config.restyle_probability)
    if config.mask_bands or config.mask_frames:
        x = masked(x, fill, generator, config.mask_bands, config.mask_frames)
    return batch._replace(features=x, doa=doa)
