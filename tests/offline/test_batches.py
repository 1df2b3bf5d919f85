"""Chunks: cut from one recording each, with the targets that belong to their frames."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from offline.batches import Batch, Chunks, mean_event_labels, require_alike, require_measurable, too_short
from seldrt.config import ConfigError
from seldrt.description import CheckpointError
from seldrt.features import FEATURE_NAMES, TASK_CHANNELS
from tests.models import CAUSAL, FEATURES, WINDOWED
from tests.offline.stores import memory_store

LENGTHS = (30, 5, 90, 40)


def numbered_store(lengths: Sequence[int], seed: int = 0) -> Any:
    """Channel 0 says which recording a frame is of, channel 1 which frame it is; targets say the label frame."""
    store = memory_store(lengths, seed=seed)
    for number, place in enumerate(store.manifest.recordings):
        labels = slice(place.first_label, place.first_label + place.labels)
        frames = slice(labels.start * 10, labels.stop * 10)
        store.features[frames, 0] = number
        store.features[frames, 1] = np.arange(place.labels * 10)[:, None]
        store.sed[labels] = store.doa_mask[labels] = np.arange(place.labels)[:, None]
        store.doa[labels] = np.arange(place.labels)[:, None, None]
    return store


def drawn_chunks(chunks: Chunks, rng: np.random.Generator, count: int, labels: int) -> Batch:
    """``count`` chunks that begin anywhere in recordings drawn by their length."""
    return chunks.take(chunks.starts(rng, count, labels), labels)


def assert_aligned(batch: Batch, labels: int) -> None:
    """One recording in each chunk, its frames one after the other, and its targets beside them."""
    number, frame = batch.features[:, :, 0, 0], batch.features[:, :, 1, 0]
    assert (number == number[:, :1]).all()
    assert (frame.diff(dim=1) == 1).all()
    assert frame.shape[1] == labels * 10
    for target in (batch.sed[..., 0], batch.doa[..., 0, 0], batch.doa_mask[..., 0]):
        assert (target == frame[:, ::10] / 10).all()


def test_random_chunks_never_cross_recordings_and_carry_their_targets() -> None:
    chunks = Chunks([numbered_store(LENGTHS), numbered_store(LENGTHS, seed=1)], "doae", "cpu")
    rng = np.random.default_rng(0)
    firsts: set[tuple[int, int]] = set()
    drawn = np.zeros(4)
    for _ in range(20):
        batch = drawn_chunks(chunks, rng, 32, 30)
        assert_aligned(batch, 30)
        numbers = batch.features[:, 0, 0, 0].int().numpy()
        drawn += np.bincount(numbers, minlength=4)
        firsts |= {(int(n), int(f)) for n, f in zip(numbers, batch.features[:, 0, 1, 0] / 10, strict=True)}
    assert drawn[1] == 0, "five label frames hold no chunk of 30"
    # By the number of places where a chunk can begin: 1, 61 and 11.
    np.testing.assert_allclose(drawn / drawn.sum(), np.array([1, 0, 61, 11]) / 73, atol=0.05)
    assert {first for number, first in firsts if number == 2} >= set(range(5, 55))
    assert max(first for number, first in firsts if number == 3) == 10


def test_chunks_are_taken_where_asked() -> None:
    chunks = Chunks([numbered_store(LENGTHS)], "doae", "cpu")
    batch = chunks.take([0, 35 + 60], 25)
    assert_aligned(batch, 25)
    assert batch.features[:, 0, 0, 0].tolist() == [0, 2]
    assert batch.features[:, 0, 1, 0].tolist() == [0, 600]


def test_recordings_of_several_stores_follow_each_other() -> None:
    chunks = Chunks([memory_store((3, 4)), memory_store((5,))], "sad", "cpu")
    assert chunks.recordings == [(0, 3), (3, 4), (7, 5)]


@pytest.mark.parametrize("task", ["sad", "sed", "doae"])
def test_each_task_gets_its_channels(task: str) -> None:
    store = memory_store((12,))
    batch = Chunks([store], task, "cpu").take([2], 10)
    expected = store.features[20:120, [FEATURE_NAMES.index(name) for name in TASK_CHANNELS[task]]]
    assert batch.features.dtype == torch.float32
    np.testing.assert_array_equal(batch.features[0].numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(batch.sad[0, :, 0], store.sed[2:12].max(axis=1))


def test_statistics_standardise_the_features() -> None:
    chunks = Chunks([memory_store((50,))], "sed", "cpu")
    mean, scale = chunks.statistics(np.random.default_rng(0))
    standard = (chunks.features.float() - mean) * scale
    torch.testing.assert_close(standard.mean(0), torch.zeros_like(mean), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.ones_like(mean), atol=1e-4, rtol=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="no recording is as long as a training chunk"):
        Chunks([memory_store((9, 9))], "sed", "cpu").starts(np.random.default_rng(0), 4, 10)
    stores = [memory_store((9,)), memory_store((9,)), memory_store((9,), classes=("low", "mid"), seed=7)]
    with pytest.raises(CheckpointError, match=r"store7 knows other classes: 'mid' for 'high'"):
        require_alike(stores)
    stores[2] = memory_store((9,), config=replace(FEATURES, f_max_hz=9000.0), seed=7)
    with pytest.raises(CheckpointError, match=r"store7 has other features: f_max_hz is 9000\.0, expected 12000"):
        require_alike(stores)


def test_recordings_that_are_never_learnt_from_are_named() -> None:
    stores = [memory_store((9, 10)), memory_store((3, 11))]
    begin = Chunks(stores, "sed", "cpu").starts(np.random.default_rng(0), 100, 10)
    assert set(begin) == {9, 22, 23}
    assert too_short(stores, CAUSAL) == ["r0", "r0"]


def test_validation_needs_long_recordings_in_which_something_sounds() -> None:
    require_measurable("sed", [memory_store((6, 7))], WINDOWED)
    with pytest.raises(ConfigError, match="store0: r1 has 5 label frames, the network needs 6"):
        require_measurable("sed", [memory_store((6, 5))], WINDOWED)
    require_measurable("sed", [memory_store((3,))], CAUSAL)
    with pytest.raises(ConfigError, match="store0: r0 has 2 label frames, the network needs 3"):
        require_measurable("sed", [memory_store((2,))], CAUSAL)
    silent = memory_store((9,))
    silent.doa_mask[:] = 0
    require_measurable("sed", [silent], CAUSAL)
    with pytest.raises(ConfigError, match="no class ever sounds"):
        require_measurable("doae", [silent], CAUSAL)


def test_chunks_are_loaded_a_recording_at_a_time(tmp_path: Path) -> None:
    store = memory_store((20,) * 20)
    np.save(tmp_path / "features.npy", store.features)
    size = store.features.nbytes
    store.features = np.load(tmp_path / "features.npy", mmap_mode="r")
    tracemalloc.start()
    chunks = Chunks([store], "doae", "cpu")
    peak = tracemalloc.get_traced_memory()[1]  # of numpy: without the tensor itself
    tracemalloc.stop()
    assert chunks.features.shape[0] == 4000
    assert peak < 0.2 * size


def test_event_durations_are_those_of_all_events_together() -> None:
    stores = [memory_store((60,)), memory_store((20, 20)), memory_store((10,))]
    means, active = [(4.0, 8.0, 0.0), (8.0, 0.0, 0.0), (2.0, 2.5, 0.0)], [(40, 16, 0), (16, 0, 0), (0, 5, 0)]
    for store, mean, frames in zip(stores, means, active, strict=True):
        store.manifest = replace(store.manifest, classes=("a", "b", "c"), mean_event_labels=mean)
        store.sed = (np.arange(len(store.sed))[:, None] < frames).astype(np.float32)
    assert mean_event_labels(stores) == (round(56 / 12, 2), round(21 / 4, 2), 0.0)
    assert mean_event_labels(stores[:1]) == (4.0, 8.0, 0.0)


# --- which chunks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sed", "doae", "baseline"])
def test_features_left_on_disk_are_the_same(task: str) -> None:
    stores = [numbered_store(LENGTHS), numbered_store(LENGTHS, seed=1)]
    held, mapped = (Chunks(stores, task, "cpu", mapped=mapped) for mapped in (False, True))
    assert mapped.features is None
    starts = held.starts(np.random.default_rng(0), 40, 30)
    for name in ("features", "sed", "doa", "doa_mask"):
        assert torch.equal(getattr(held.take(starts, 30), name), getattr(mapped.take(starts, 30), name))
    for one, other in zip(*(chunks.statistics(np.random.default_rng(1)) for chunks in (held, mapped)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("mapped", [False, True])
def test_only_recordings_of_the_folds_asked_for(mapped: bool) -> None:
    store = numbered_store(LENGTHS)
    for fold, place in enumerate(store.manifest.recordings, 1):
        msgspec.structs.force_setattr(place, "fold", fold)
    chunks = Chunks([store, store], "doae", "cpu", (3, 4), mapped)
    assert chunks.recordings == [(0, 90), (90, 40), (130, 90), (220, 40)]
    batch = drawn_chunks(chunks, np.random.default_rng(0), 64, 30)
    assert_aligned(batch, 30)
    assert set(batch.features[:, 0, 0, 0].tolist()) == {2.0, 3.0}
    for folds in ((7, 8), (3, 7, 4, 8)):
        with pytest.raises(ConfigError, match="store0: has no recording of fold 7, 8"):
            Chunks([store], "doae", "cpu", folds)


def test_chunks_may_begin_on_a_grid() -> None:
    """As the report cuts: 20 label frames with 5 of overlap."""
    chunks = Chunks([memory_store((50, 64))], "sed", "cpu")
    starts = chunks.starts(np.random.default_rng(0), 500, 20, hop_labels=15)
    assert set(starts) == {0, 15, 30, 50, 65, 80}


def test_balanced_chunks_hold_rare_classes() -> None:
    store = memory_store((400, 15, 400), classes=("often", "rare", "never"))
    store.sed[:] = [1, 0, 0]
    store.sed[[405, 600], 1] = 1  # 405 lies in a recording too short for a chunk
    chunks = Chunks([store], "sed", "cpu")
    shares = []
    for balanced in (0.0, 0.5, 1.0):
        starts = chunks.starts(np.random.default_rng(0), 400, 20, balanced=balanced)
        batch = chunks.take(starts, 20)
        shares.append(float(batch.sed[..., 1].amax(1).mean()))
        assert all(start + 20 <= 400 or 415 <= start <= 795 for start in starts)
    assert shares[0] < 0.06
    np.testing.assert_allclose(shares[1:], [0.26, 0.51], atol=0.06)
    positions = [600 - start for start in starts if start <= 600 < start + 20]
    assert set(positions) == set(range(20)), "anywhere in the chunk"
