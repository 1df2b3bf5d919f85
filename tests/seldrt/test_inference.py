"""From features to estimates: ensembles answer with the mean, the baseline answers for all three networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from scipy.special import expit, logit

from seldrt import checkpoint, inference
from seldrt.checkpoint import Checkpoint
from seldrt.config import NetworkConfig
from seldrt.description import CheckpointError, Description
from seldrt.features import FEATURE_NAMES, task_indices
from seldrt.inference import Estimator
from seldrt.networks import TASKS, Network, build, preset, turns
from seldrt.pipeline import Pipeline
from seldrt.stream import run
from tests.contracts import assert_streaming_law
from tests.models import CAUSAL, FEATURES, WINDOWED, small_model

RNG = np.random.default_rng(0)
CLASSES = ("clap", "voice", "bell")


def features(labels: int) -> np.ndarray:
    return RNG.uniform(-80, 0, (10 * labels, 13, FEATURES.n_mels)).astype(np.float32)


def together(*models: Checkpoint) -> Checkpoint:
    """One model whose tasks are answered by the networks of all."""
    networks = {task: tuple(network for model in models for network in model.networks[task]) for task in TASKS}
    shapes = {task: tuple(network.config for network in group) for task, group in networks.items()}
    return Checkpoint(replace(models[0].description, networks=shapes), networks)


def estimates(model: Checkpoint, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = run(Estimator(model, "cpu").stage(), x)
    return result


# --- ensembles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [CAUSAL, WINDOWED], ids=["causal", "windowed"])
def test_an_ensemble_answers_with_the_mean_log_odds_and_the_mean_vectors(network: NetworkConfig) -> None:
    models, x = [small_model(network, seed=seed) for seed in range(3)], features(12)
    alone = np.stack([estimates(model, x) for model in models])
    assert np.abs(alone[0] - alone[1]).max() > 0.05
    y = estimates(together(*models), x)
    np.testing.assert_allclose(y[..., :2], expit(logit(alone[..., :2]).mean(axis=0)), atol=1e-5)
    np.testing.assert_allclose(y[..., 2:], alone[..., 2:].mean(axis=0), atol=1e-5)


def test_networks_of_an_ensemble_count_by_their_weights(tmp_path: Path) -> None:
    models, x = [small_model(seed=seed) for seed in range(3)], features(12)
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for model, path in zip(models, paths, strict=True):
        checkpoint.save(model, path)
    weights = np.array([1.0, 2.0, 0.5])
    checkpoint.save(checkpoint.merged(paths, weights.tolist()), tmp_path / "together.safetensors")
    y = estimates(checkpoint.load(tmp_path / "together.safetensors"), x)
    alone = np.stack([estimates(model, x) for model in models])
    np.testing.assert_allclose(y[..., :2], expit(np.average(logit(alone[..., :2]), 0, weights)), atol=1e-5)
    np.testing.assert_allclose(y[..., 2:], np.average(alone[..., 2:], 0, weights), atol=1e-5)


def test_one_that_is_certain_does_not_decide_alone() -> None:
    """Certainty beyond the last digit has finite odds."""
    certain, doubting = small_model(), small_model(seed=1)
    head = dict(certain.networks["sed"][0].named_parameters())
    with torch.no_grad():
        head["head.dense.weight"].zero_()
        head["head.dense.bias"].fill_(200)
    x = features(8)
    assert (estimates(certain, x)[..., 1] == 1).all()
    expected = expit((logit(1 - 1e-6) + logit(estimates(doubting, x)[..., 1])) / 2)
    np.testing.assert_allclose(estimates(together(certain, doubting), x)[..., 1], expected, atol=1e-4)


def test_directions_are_averaged_as_vectors_not_as_angles() -> None:
    """179 and -179 deg are 180 deg apart in their mean as numbers, 0 as directions."""
    model = small_model(replace(CAUSAL, representation="azel"))
    twin = small_model(replace(CAUSAL, representation="azel"))
    for one, azimuth_deg in ((model, 179.0), (twin, -179.0)):
        dense = dict(one.networks["doae"][0].named_parameters())
        with torch.no_grad():
            dense["head.dense.weight"].zero_()
            dense["head.dense.bias"].copy_(torch.atanh(torch.tensor([azimuth_deg / 180] * 3 + [0.0] * 3)))
    x, y, z = np.moveaxis(estimates(together(model, twin), features(8))[..., 2:], -1, 0)
    np.testing.assert_allclose([x.mean(), np.abs(y).max(), np.abs(z).max()], [-1, 0, 0], atol=1e-3)


@pytest.mark.parametrize("network", [CAUSAL, WINDOWED], ids=["causal", "windowed"])
def test_an_ensemble_keeps_the_streaming_law(network: NetworkConfig) -> None:
    model = together(small_model(network), small_model(network, seed=1))
    x = RNG.uniform(-80, 0, (97, 13, FEATURES.n_mels)).astype(np.float32)
    assert_streaming_law(lambda: Estimator(model, "cpu").stage(), x, hop=10, atol=1e-5)


def test_networks_of_an_ensemble_may_differ_in_shape_but_not_in_what_they_wait_for(tmp_path: Path) -> None:
    wider = replace(CAUSAL, guidance_width=12)
    model = together(small_model(), small_model(wider, seed=1))
    checkpoint.save(model, tmp_path / "m.safetensors")
    loaded = checkpoint.load(tmp_path / "m.safetensors")
    assert loaded.description.networks["sed"] == (CAUSAL, wider)
    x = features(6)
    np.testing.assert_array_equal(estimates(loaded, x), estimates(model, x))
    later = together(small_model(), small_model(replace(CAUSAL, lookahead_labels=3)))
    with pytest.raises(CheckpointError, match="lookahead_labels is 2 for sad and 3 for sad"):
        Estimator(later, "cpu")


def test_the_card_tells_what_an_ensemble_costs() -> None:
    one, three = (Pipeline(Estimator(together(*[small_model()] * n), "cpu"), "small").model_card for n in (1, 3))
    assert three["parameters"] == {task: 3 * count for task, count in one["parameters"].items()}
    assert three["networks"] == dict.fromkeys(TASKS, 3)


# --- focus ---------------------------------------------------------------------------------------------------------


def focused(network: NetworkConfig, labels: int = 4) -> Checkpoint:
    """A small model whose directions are drawn to the intensity."""
    model = small_model(replace(network, representation="xyz"))
    shapes = dict(model.description.networks)
    shapes["doae"] = tuple(replace(shape, focus_labels=labels) for shape in shapes["doae"])
    return Checkpoint(replace(model.description, networks=shapes), model.networks)


@pytest.mark.parametrize("network", [CAUSAL, WINDOWED], ids=["causal", "windowed"])
def test_drawn_directions_keep_the_streaming_law(network: NetworkConfig) -> None:
    model, x = focused(network), features(10)[:97]
    x[:, 4:10] = RNG.uniform(-0.5, 0.5, x[:, 4:10].shape)  # intensities
    assert_streaming_law(lambda: Estimator(model, "cpu").stage(), x, hop=10, atol=1e-4)
    drawn, plain = estimates(model, x), estimates(focused(network, 0), x)
    np.testing.assert_array_equal(drawn[..., :2], plain[..., :2])
    np.testing.assert_allclose(np.linalg.norm(drawn[..., 2:], axis=-1), 1, atol=1e-5)
    assert np.abs(drawn[..., 2:] - plain[..., 2:]).max() > 0.1


# --- the baseline --------------------------------------------------------------------------------------------------


def baseline(shape: NetworkConfig) -> Checkpoint:
    torch.manual_seed(0)
    network: Network = build("baseline", len(CLASSES), FEATURES, shape)
    network.mean.fill_(-40)
    network.scale.fill_(1 / 20)
    with torch.no_grad():
        for _ in range(10):
            network(torch.randn(4, 120, 7, FEATURES.n_mels) * 20 - 40)
    description = Description(features=FEATURES, classes=CLASSES, networks={"baseline": (shape,)})
    return Checkpoint(description, {"baseline": [network.eval()]})


SHORT = replace(preset("compact", "baseline"), chunk_frames=60, lookahead_labels=2)


def test_the_baseline_speaks_of_the_middle_of_its_chunk() -> None:
    model, x = baseline(SHORT), features(30)
    found = estimates(model, x)
    with torch.no_grad():
        own = torch.from_numpy(x[None, 100:160, inference.task_indices("baseline")])
        y = model.networks["baseline"][0](own)[0][0, 3].numpy()  # label frames 10 to 15, two of look-ahead: 13
    np.testing.assert_allclose(found[13, :, 1], y[:3], atol=1e-6)
    np.testing.assert_allclose(found[13, :, 2:], y[3:].reshape(3, 3).T, atol=1e-6)  # all x, all y, all z
    assert (found[..., 0] == 1).all(), "it has no SAD: the gate is open"
    assert found[..., 1].std() > 1e-3


def test_the_baseline_keeps_the_streaming_law() -> None:
    model, x = baseline(SHORT), features(20)[:197]
    assert_streaming_law(lambda: Estimator(model, "cpu").stage(), x, hop=10, atol=1e-5)


def test_a_model_of_the_baseline_runs_from_disk(tmp_path: Path) -> None:
    checkpoint.save(baseline(SHORT), tmp_path / "b.safetensors", torch.float16)
    pipeline = Pipeline(Estimator(checkpoint.load(tmp_path / "b.safetensors"), "cpu"), "baseline")
    frames = pipeline.push(RNG.standard_normal((24000, 4)).astype(np.float32)) + pipeline.flush()
    assert len(frames) == 10
    assert dict(pipeline.latency_table)["networks"] == 200.0


@pytest.mark.parametrize("network", [CAUSAL, WINDOWED])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_mean_over_views_turns_as_the_sound_does(network: NetworkConfig, count: int) -> None:
    """The first 2, 4 and 8 views are groups, so that no network can tell one of their turns from another."""
    model = small_model(replace(network, representation="xyz"))
    for one in model.networks["doae"]:
        one.config = replace(one.config, views=count)
    stage = Estimator(model, "cpu").stage()
    x = torch.randn(1, 80, len(FEATURE_NAMES), FEATURES.n_mels) * 20 - 40
    swap, signs = turns.views(count)
    own = task_indices("doae")
    for view in range(count):
        turned = x.clone()
        turned[:, :, own] = turns.turned_features(x[:, :, own], "doae", swap[[view]], signs[[view]])
        told, told_turned = (run(stage, part[0].numpy())[..., 2:] for part in (x, turned))
        back = turns.turned_back(torch.from_numpy(told_turned)[None], swap[[view]], signs[[view]])[0]
        np.testing.assert_allclose(back, told, atol=1e-5)
    assert told.std() > 1e-3


def test_views_keep_the_streaming_law() -> None:
    model = small_model(replace(CAUSAL, representation="xyz", views=4))
    stage = Estimator(model, "cpu").stage()
    x = np.random.default_rng(0).standard_normal((70, len(FEATURE_NAMES), FEATURES.n_mels)).astype(np.float32) * 20 - 40
    whole = run(stage, x)
    for block in (10, 30):
        np.testing.assert_allclose(run(stage, x, block), whole, atol=1e-5)
