"""Augmented features equal the features of the augmented sound."""

import numpy as np
import pytest
import torch

from offline import augment
from offline.batches import Batch
from offline.config import TrainConfig
from seldrt import features
from seldrt.config import FeatureConfig
from seldrt.networks import turns
from seldrt.spatial import foa_gains, unit_vector
from seldrt.stream import run

CONFIG = FeatureConfig(n_fft=512, n_mels=16, hpss_kernel=5)


def rows_of(doas: np.ndarray) -> torch.Tensor:
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((2, 4800, 1)) * foa_gains(doas)[:, None]
    rows = run(features.features_stage(CONFIG), waves.sum(0).astype(np.float32))
    return torch.from_numpy(rows[None, :, features.task_indices("doae")])


def test_all_16_patterns_equal_the_sound_from_the_turned_directions() -> None:
    doas = unit_vector([30, -100], [20, -40])
    x, seen = rows_of(doas), set()
    for swapped in (False, True):
        for bits in range(8):
            signs = torch.tensor([[1.0 if bits & 1 << axis else -1.0 for axis in range(3)]])
            swap = torch.tensor([swapped])
            turned = turns.turned_directions(torch.tensor(doas)[None], swap, signs)[0].numpy()
            seen.add(tuple(np.round(turned[0], 6)))
            torch.testing.assert_close(
                turns.turned_features(x, "doae", swap, signs), rows_of(turned), atol=2e-3, rtol=1e-4
            )
    assert len(seen) == 16


def test_drawn_patterns_cover_all_16() -> None:
    swap, signs = augment.signed_permutations(400, torch.Generator().manual_seed(0))
    assert len({(bool(s), *row.tolist()) for s, row in zip(swap, signs, strict=True)}) == 16


def test_sed_features_do_not_turn() -> None:
    x = torch.randn(2, 8, 3, 16)
    swap, signs = augment.signed_permutations(2, torch.Generator().manual_seed(1))
    assert turns.turned_features(x, "sed", swap, signs) is x


def test_colour_changes_levels_alike_in_time_and_leaves_intensity() -> None:
    x = torch.zeros(3, 5, 10, 16)
    y = augment.coloured(x, "doae", torch.Generator().manual_seed(0), 6)
    assert (y[:, :, 4:] == 0).all()
    assert (y[:, :, :4] == y[:, :1, :1]).all()
    assert 0 < y.abs().max() <= 12
    assert len(torch.unique(y[:, 0, 0, 0])) == 3


def test_restyling_leans_levels_towards_another_chunk_band_by_band() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 50, 10, 16, generator=generator) * torch.rand(64, 1, 10, 16, generator=generator) * 8 - 40
    y = augment.restyled(x, "doae", torch.Generator().manual_seed(1), 0.5)
    assert torch.equal(y[:, :, 4:], x[:, :, 4:])
    changed = (y != x).flatten(1).any(1)
    assert 20 < changed.sum() < 44
    for statistic in (torch.mean, torch.std):
        own, now = statistic(x, 1)[:, :4], statistic(y, 1)[:, :4]
        share = ((now - own) / (own.roll(1, 0) - own))[changed].flatten(1)
        torch.testing.assert_close(share, share[:, :1].expand_as(share), atol=2e-2, rtol=0)
        assert (share > 0).all()
        assert (share < 0.52).all()
    assert torch.equal(augment.restyled(x, "doae", generator, 0.0), x)


def test_masks_hide_at_most_what_was_asked() -> None:
    x = torch.ones(50, 40, 3, 16)
    y = augment.masked(x, torch.zeros(3, 16), torch.Generator().manual_seed(0), bands=4, frames=10)
    hidden = y[:, :, 0] == 0
    whole_bands, whole_frames = hidden.all(1).sum(-1), hidden.all(2).sum(-1)
    assert whole_bands.max() == 4
    assert whole_frames.max() == 10
    assert (hidden.sum((1, 2)) == whole_bands * 40 + whole_frames * 16 - whole_bands * whole_frames).all()


def test_mixed_chunks_have_the_levels_of_the_mixed_sounds_and_the_labels_of_both() -> None:
    rng = np.random.default_rng(3)
    sounds = rng.standard_normal((2, 48000, 1)) * np.array([[[1, 0.2, 0.2, 0.2]], [[0.5, 0.3, 0.1, 0.1]]])
    stage = features.features_stage(CONFIG)
    first, second, both = (
        torch.from_numpy(run(stage, sound.astype(np.float32))[:, features.task_indices("sed")])
        for sound in (*sounds, sounds.sum(0))
    )
    sed = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    batch = Batch(torch.stack([first, second]), sed, torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3))
    mixed = augment.mixed(batch, torch.Generator().manual_seed(0), probability=1.0, gain_db=0.0)
    level = slice(0, 1)  # log_mel_mean; noise has no harmonic part to speak of
    assert abs(mixed.features[0, 20:, level] - both[20:, level]).mean() < 2.0
    assert abs(mixed.features[0, 20:, level].mean() - both[20:, level].mean()) < 0.5
    assert mixed.sed.tolist() == [[[1.0, 1.0, 0.0]]] * 2
    alone = augment.mixed(batch, torch.Generator().manual_seed(0), probability=0.0)
    assert torch.equal(alone.features, batch.features)
    assert torch.equal(alone.sed, sed)


@pytest.mark.parametrize("task", ["doae", "baseline"])
def test_labels_turn_with_the_sound(task: str) -> None:
    doas = unit_vector([30, -100], [20, -40])
    x, there = rows_of(doas), torch.tensor(doas, dtype=torch.float32)[None, None]
    if task == "baseline":
        x = x[:, :, :7]
    batch = Batch(x, torch.ones(1, 1, 2), there, torch.ones(1, 1, 2))
    generator, turned = torch.Generator().manual_seed(0), 0
    for _ in range(5):
        y = augment.augmented(batch, task, TrainConfig(rotations=True), torch.zeros(()), generator)
        expected = rows_of(y.doa[0, 0].numpy())[:, :, : x.shape[2]]
        torch.testing.assert_close(y.features, expected, atol=2e-3, rtol=1e-4)
        turned += not torch.equal(y.doa, there)
    assert turned


@pytest.mark.parametrize("task", ["sad", "sed", "doae"])
def test_chunks_are_changed_as_the_configuration_asks(task: str) -> None:
    x = torch.randn(8, 40, len(features.TASK_CHANNELS[task]), 16, generator=torch.Generator().manual_seed(0))
    sed = torch.eye(8)[:, None]
    batch = Batch(x, sed, torch.zeros(8, 1, 8, 3), torch.zeros(8, 1, 8), taught=sed)

    def changed(**settings: float) -> Batch:
        return augment.augmented(batch, task, TrainConfig(**settings), x.mean(), torch.Generator().manual_seed(1))

    assert torch.equal(changed().features, x)
    assert changed().taught is sed
    for one in ({"mask_bands": 4}, {"mask_frames": 4}, {"colour_db": 6.0}, {"restyle_probability": 1.0}):
        assert not torch.equal(changed(**one).features, x), one
    laid_over = changed(mix_probability=1.0)
    assert torch.equal(laid_over.sed, sed) == (task == "doae")
    assert torch.equal(laid_over.features, x) == (task == "doae")


def test_what_is_laid_over_is_weaker() -> None:
    sed = torch.eye(2)[:, None]
    batch = Batch(torch.zeros(2, 4, 3, 16), sed, torch.zeros(2, 1, 2, 3), torch.zeros(2, 1, 2))
    y = augment.mixed(batch, torch.Generator().manual_seed(0), probability=1.0, gain_db=10.0).features
    assert 10 * np.log10(1.1) <= y.min()
    assert y.max() <= 10 * np.log10(2)
