"""What a microphone hears beside the sounds: wind, hum, and low frequencies that its filters take away.

Made on features, as in `offline.augment`, and after a teacher has heard them: it tells what sounds without the weather.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from offline.batches import Batch, level_channels
from seldrt.config import FeatureConfig
from seldrt.features import mel_filters

LOWEST_DB = -100.0  # the floor of the features
# Of noise in the levels of `seldrt.features.MEAN_LOG_MEL`: what lasts is harmonic, what comes in gusts is half of both.
WIND_PARTS_DB, HUM_PARTS_DB = (0.0, -5.0, -5.0), (0.0, -0.5, -25.0)


def weathered(batch: Batch, task: str, config: FeatureConfig, generator: torch.Generator, probability: float) -> Batch:
    """Some chunks without their low frequencies, and some with wind or hum in them; the targets stay."""
    x = batch.features.clone()
    cut, noisy = (torch.rand(len(x), generator=generator) < probability for _ in range(2))
    octaves = _octaves(config).to(x)
    if bool(cut.any()):
        x[cut] = without_lows(x[cut], task, octaves, generator)
    if bool(noisy.any()):
        loudest_db = 20 if config.max_rumble_cut_db else 40  # the rumble filter leaves no more
        x[noisy] = with_noise(x[noisy], task, octaves, config.frame_rate_hz, loudest_db, generator)
    return batch._replace(features=x)


def without_lows(x: Tensor, task: str, octaves: Tensor, generator: torch.Generator) -> Tensor:
    """High-passed from 60 to 360 Hz on, by 6 to 24 dB an octave; ``octaves`` of the bands above 100 Hz (n_mels,)."""
    corner, slope_db = (_drawn(x, generator, *between) for between in ((-0.7, 1.85), (6, 24)))
    lost_db = (slope_db * (corner - octaves).clamp_min(0)).clamp_max(60)
    return torch.where(level_channels(task, x.device), (x - lost_db).clamp_min(LOWEST_DB), x)


def with_noise(
    x: Tensor, task: str, octaves: Tensor, frame_rate_hz: float, loudest_db: float, generator: torch.Generator
) -> Tensor:
    """Noise of the lowest bands, at most ``loudest_db`` above the mean band.

    Gusts, unlike in any two channels, or a hum that comes from somewhere.
    """
    count, frames, _, mels = x.shape
    levels = level_channels(task, x.device)
    power = torch.where(levels, _power(x), 0.0)
    hums = torch.rand(count, 1, 1, 1, generator=generator).to(x) < 0.4
    corner, fall_db, over_db = (_drawn(x, generator, *between) for between in ((-1, 1.6), (9, 30), (-20, loudest_db)))
    noise_db = 10 * torch.log10(power.sum((1, 2, 3), keepdim=True) / levels.sum() / frames / mels + 1e-10) + over_db
    noise_db = noise_db - torch.where(hums, fall_db / 3, fall_db) * (octaves - corner).clamp_min(0)
    uneven_db = torch.rand(count, 1, 1, mels, generator=generator).to(x)
    noise_db = noise_db - torch.where(hums, 25 * uneven_db, 3 * uneven_db)
    gusts_db = torch.randn(count, 1, max(int(frames / frame_rate_hz), 1) + 1, generator=generator).to(x) * 5
    gusts_db = functional.interpolate(gusts_db, frames, mode="linear", align_corners=True).view(count, frames, 1, 1)
    flutter_db = torch.randn(count, frames, 1, mels, generator=generator).to(x) * 4
    noise_db = noise_db + torch.where(hums, flutter_db / 8, gusts_db + flutter_db)
    noise = _power(noise_db)
    if task in ("sad", "sed"):
        wind_db, hum_db = (torch.tensor(parts).to(x).view(1, 1, 3, 1) for parts in (WIND_PARTS_DB, HUM_PARTS_DB))
        parts_db = torch.where(hums, hum_db, wind_db)
        return 10 * torch.log10(power + noise * _power(parts_db))
    share = noise / (power.sum(2, keepdim=True) / levels.sum() + noise)
    own_db = torch.rand(count, 1, x.shape[2], 1, generator=generator).to(x) * 8 - 4
    from_somewhere = torch.randn(count, 1, x.shape[2], 1, generator=generator).to(x) * 0.2
    from_nowhere = torch.randn(x.shape, generator=generator).to(x) * 0.12
    flow = x.lerp(torch.where(hums, from_somewhere + from_nowhere / 4, from_nowhere), share)
    return torch.where(levels, 10 * torch.log10(power + noise * _power(own_db)), flow)


def _power(level_db: Tensor) -> Tensor:
    return (level_db * (np.log(10) / 10)).exp()


def _drawn(x: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, generator=generator).to(x) * (high - low) + low


def _octaves(config: FeatureConfig) -> Tensor:
    """Centres of the mel bands (n_mels,) in octaves above 100 Hz."""
    filters, hz = mel_filters(config), np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    return torch.from_numpy(np.log2(np.maximum(filters @ hz / filters.sum(1), 20) / 100))
