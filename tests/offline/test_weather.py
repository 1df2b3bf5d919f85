"""Weather on features is like weather in the sound, and leaves what is above it and the targets alone."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from msgspec.structs import replace

from offline import weather
from offline.batches import Batch
from seldrt import features
from seldrt.stream import run

CONFIG = replace(features.PRESETS["compact"], max_gain_db=0.0, max_rumble_cut_db=0.0)
RATE = CONFIG.sample_rate
TASKS = ["sad", "sed", "doae", "baseline"]


def heard(x: np.ndarray, task: str) -> torch.Tensor:
    rows = run(features.features_stage(CONFIG), x.astype(np.float32))
    assert rows is not None
    return torch.from_numpy(rows[50:250, features.task_indices(task)])


def sound() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3 * RATE, 4)) * [0.02, 0.01, 0.01, 0.01]


def batch(x: torch.Tensor, count: int = 40) -> Batch:
    targets = torch.rand(count, 20, 3)
    return Batch(x.repeat(count, 1, 1, 1), targets, torch.rand(count, 20, 3, 3), targets, targets)


@pytest.mark.parametrize("task", TASKS)
def test_some_chunks_change_and_the_targets_do_not(task: str) -> None:
    before = batch(heard(sound(), task))
    after = weather.weathered(before, task, CONFIG, torch.Generator().manual_seed(0), 0.5)
    changed = (after.features != before.features).flatten(1).any(1)
    assert 20 < changed.sum() < 39  # three in four
    assert bool(after.features.isfinite().all())
    for name in ("sed", "doa", "doa_mask", "taught"):
        assert getattr(after, name) is getattr(before, name)
    again = weather.weathered(before, task, CONFIG, torch.Generator().manual_seed(0), 0.5)
    assert torch.equal(again.features, after.features)
    never = weather.weathered(before, task, CONFIG, torch.Generator().manual_seed(0), 0.0)
    assert torch.equal(never.features, before.features)


def test_noise_is_no_louder_than_what_the_rumble_filter_leaves() -> None:
    before = batch(heard(sound(), "sed"), 400)
    loudest = []
    for filtered in (0.0, 60.0):
        config = replace(CONFIG, max_rumble_cut_db=filtered)
        after = weather.weathered(before, "sed", config, torch.Generator().manual_seed(1), 1.0)
        loudest.append(float(after.features[:, :, 0].max()))
        above = after.features[:, :, 0].mean(1).amax(1) - before.features[0, :, 0].mean()
        assert abs(above.max() - (20 if filtered else 40)) < 5  # but for gusts
    assert 15 < loudest[0] - loudest[1] < 25


@pytest.mark.parametrize("task", TASKS)
def test_weather_is_low_and_levels_stay_levels_and_intensities_intensities(task: str) -> None:
    before = batch(heard(sound(), task))
    after = weather.weathered(before, task, CONFIG, torch.Generator().manual_seed(1), 1.0).features
    names = features.TASK_CHANNELS[task]
    levels = [i for i, name in enumerate(names) if "active" not in name]
    flows = [i for i, name in enumerate(names) if "active" in name]
    low, high = (abs(after - before.features)[:, :, levels][..., bands].mean() for bands in (slice(4), slice(40, 64)))
    assert low > 8
    assert high < 2
    assert after[:, :, levels].min() >= weather.LOWEST_DB
    if flows:
        assert abs(after[:, :, flows]).max() < 1.0


@pytest.mark.parametrize("task", TASKS)
def test_silence_has_no_lows_to_lose(task: str) -> None:
    silence = torch.from_numpy(features.silence(CONFIG)[features.task_indices(task)]).repeat(40, 200, 1, 1)
    cut = weather.without_lows(silence, task, weather._octaves(CONFIG).float(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(cut, silence, atol=1e-3, rtol=0.0)


def test_a_hum_lasts() -> None:
    """As the harmonic and the percussive part of a real one have it, beside the whole."""
    t = np.arange(3 * RATE)[:, None] / RATE
    hum = sum(np.sin(2 * np.pi * hz * t + hz) for hz in (50, 100, 150, 200)) * np.full(4, 0.1)
    quiet, octaves = sound() / 100, weather._octaves(CONFIG).float()
    x = heard(quiet, "sed").repeat(100, 1, 1, 1)
    made = weather.with_noise(x, "sed", octaves, 100.0, 40.0, torch.Generator().manual_seed(0))

    def parts_db(x: torch.Tensor) -> torch.Tensor:
        return (x[..., 1:, :4] - x[..., :1, :4]).mean((-3, -1))

    assert (parts_db(made) - parts_db(heard(quiet + hum, "sed"))).norm(dim=-1).min() < 3


def test_what_is_cut_off_is_what_a_high_pass_cuts_off() -> None:
    """A Butterworth filter of second order at 200 Hz: 12 dB an octave."""
    x = sound()
    filtered = scipy.signal.sosfilt(scipy.signal.butter(2, 200, "high", fs=RATE, output="sos"), x, axis=0)
    before, expected = heard(x, "sed"), heard(filtered, "sed")
    octaves = weather._octaves(CONFIG).float()
    chunk = before.repeat(500, 1, 1, 1)
    cut = weather.without_lows(chunk, "sed", octaves, torch.Generator().manual_seed(0))
    error_db = abs(cut.mean(1)[:, 0] - expected.mean(0)[0]).max(1).values
    assert error_db.min() < 3.5  # one of 500 draws is that filter, but for its knee


def test_wind_on_features_is_like_wind_in_the_sound() -> None:
    rng = np.random.default_rng(2)
    x = sound()
    band = scipy.signal.butter(2, 80, "low", fs=RATE, output="sos")
    wind = scipy.signal.sosfilt(band, rng.standard_normal(x.shape), axis=0)
    windy = heard(x + 0.2 * wind / wind.std(), "doae")
    octaves, generator = weather._octaves(CONFIG).float(), torch.Generator().manual_seed(0)
    made = weather.with_noise(heard(x, "doae").repeat(200, 1, 1, 1), "doae", octaves, 100.0, 40.0, generator)
    levels, flows = slice(0, 4), slice(4, 10)
    nearest = abs(made[:, :, levels].mean((1, 2)) - windy[:, levels].mean((0, 1)))[:, :30].mean(1).argmin()
    like = made[nearest]
    assert abs(like[:, levels].mean((0, 1)) - windy[:, levels].mean((0, 1)))[:30].mean() < 6
    for bands in (slice(0, 4), slice(30, 60)):  # intensities say nothing where the wind is, and what they said above
        ratio = like[:, flows, bands].std() / windy[:, flows, bands].std()
        assert 0.5 < ratio < 2
