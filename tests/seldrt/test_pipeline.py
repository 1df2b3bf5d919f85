"""The whole chain: the streaming law, equal bits for any cut, gating, latency, refusals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import astuple, replace

from seldrt import checkpoint, inference
from seldrt.checkpoint import Checkpoint
from seldrt.config import ConfigError, NetworkConfig, PipelineConfig, PostprocessConfig
from seldrt.description import CheckpointError
from seldrt.features import features_stage
from seldrt.inference import Estimator
from seldrt.pipeline import Pipeline, load_pipeline, open_pipeline
from seldrt.stream import run
from tests.contracts import AsArrays, assert_streaming_law
from tests.models import CAUSAL, FEATURES, WINDOWED, small_model

RNG = np.random.default_rng(0)


def bursts(labels: int, rest: int = 0) -> np.ndarray:
    """Noise with a level that comes and goes, so that the gate opens and closes."""
    samples = RNG.standard_normal((labels * 2400 + rest, 4)).astype(np.float32)
    level = np.repeat(10.0 ** RNG.uniform(-3, 0, len(samples) // 6000 + 1), 6000)[: len(samples)]
    return (samples * level[:, None]).astype(np.float32)


@pytest.mark.parametrize("network", [CAUSAL, WINDOWED], ids=["causal", "windowed"])
def test_estimates_keep_the_streaming_law(network: NetworkConfig) -> None:
    model = small_model(network)
    x = RNG.uniform(-80, 0, (107, 13, FEATURES.n_mels)).astype(np.float32)
    assert_streaming_law(lambda: Estimator(model, "cpu").stage(), x, hop=10, atol=1e-5)


@pytest.mark.parametrize("network", [CAUSAL, WINDOWED], ids=["causal", "windowed"])
def test_the_pipeline_keeps_the_law_to_the_bit(network: NetworkConfig) -> None:
    model, x = small_model(network), bursts(13, 777)
    estimates = run(Estimator(model, "cpu").stage(), run(features_stage(FEATURES), x))
    assert estimates is not None
    halfway = tuple(np.median(estimates[..., 1], axis=0).tolist())  # each class is active about half of the time
    postprocess = PostprocessConfig(sad_threshold=0.0, sed_thresholds=halfway)

    def stage() -> AsArrays:
        pipeline = Pipeline(Estimator(model, "cpu"), "small", postprocess)
        return AsArrays(pipeline, 3, pipeline.latency_samples, pipeline.samples_per_label)

    whole = stage()
    expected = whole.push(x)
    rest = whole.flush()
    assert expected is not None
    assert rest is not None
    expected = np.concatenate([expected, rest])
    assert len(expected) == 13
    assert 0 < (expected[..., 0] >= 0).mean() < 1, "the test needs some sounds and some silence"
    for block in (1111, 2400, 7000):
        again = stage()
        parts = [again.push(x[i : i + block].copy()) for i in range(0, len(x), block)] + [again.flush()]
        np.testing.assert_array_equal(np.concatenate([p for p in parts if p is not None]), expected)


def test_samples_after_the_latency_have_no_influence() -> None:
    model = small_model()
    pipeline = Pipeline(Estimator(model, "cpu"), "small")
    x = bursts(20)
    known = 8 * 2400 + pipeline.latency_samples
    frames = pipeline.push(x[:known])
    assert len(frames) == 8
    spoiled = np.concatenate([x[:known], np.full((2400, 4), 3, np.float32)])
    assert Pipeline(Estimator(model, "cpu"), "small").push(spoiled)[:8] == frames


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: (x * 32767).astype(np.int16), r"samples are int16 \(24000, 4\): give float \(n, 4\), full scale"),
        (lambda x: x.T, r"samples are float32 \(4, 24000\)"),
        (lambda x: x[:, :3], r"samples are float32 \(24000, 3\)"),
        (lambda x: np.tile(x, 2), r"samples are float32 \(24000, 8\)"),
        (lambda x: x[:, 0], r"samples are float32 \(24000,\)"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 12000, np.nan, x), "at 2.500 s, channel 1, .* no number"),
        (lambda x: x * 32768, "full scale is 1"),
    ],
)
def test_what_is_no_sound_is_refused_and_was_not_heard(spoil: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    x = bursts(50)
    expected = (whole := Pipeline(Estimator(small_model(), "cpu"), "small")).push(x) + whole.flush()
    pipeline = Pipeline(Estimator(small_model(), "cpu"), "small")
    heard = pipeline.push(x[:48000])
    with pytest.raises(ValueError, match=said):
        pipeline.push(spoil(x[48000:72000]))
    assert heard + pipeline.push(x[48000:]) + pipeline.flush() == expected


def test_latency_table_adds_up() -> None:
    pipeline = Pipeline(Estimator(small_model(), "cpu"), "small")
    rows = dict(pipeline.latency_table)
    assert rows["filling a label frame"] == 100
    assert rows["features"] == 0
    assert rows["networks"] == 200
    assert sum(rows.values()) - 100 == pipeline.latency_samples / 24


def test_bigger_blocks_change_rounding_only() -> None:
    model, x = small_model(), bursts(30)
    one, many = (Pipeline(Estimator(model, "cpu"), "small", block_labels=n) for n in (1, 10))
    a, b = one.push(x) + one.flush(), many.push(x) + many.flush()
    heard, also = (np.array([astuple(s) for frame in y for s in frame.sources], float) for y in (a, b))
    assert len(heard) > 20
    np.testing.assert_allclose(heard, also, rtol=0, atol=1e-3)  # with NaN where there is no spread


def test_windowed_networks_see_the_chunk_that_ends_with_their_look_ahead() -> None:
    model = small_model(WINDOWED)
    estimator = Estimator(model, "cpu")
    x = RNG.uniform(-80, 0, (100, 13, FEATURES.n_mels)).astype(np.float32)
    estimates = run(estimator.stage(), x)
    chunk = x[20:80]  # 6 label frames; with one of look-ahead the last but one is spoken of: frames 60..69
    with torch.no_grad():
        y = model.networks["sed"][0](torch.from_numpy(chunk[None, :, inference.task_indices("sed")]))[0]
    np.testing.assert_allclose(estimates[6, :, 1], y[0, 4].numpy(), atol=1e-6)


def test_a_model_needs_all_three_networks() -> None:
    model = small_model()
    del model.networks["doae"]
    with pytest.raises(CheckpointError, match="no network for doae"):
        Estimator(model, "cpu")


def test_networks_that_look_ahead_differently_are_refused() -> None:
    model = small_model()
    networks = model.description.networks | {"doae": (replace(CAUSAL, lookahead_labels=5),)}
    with pytest.raises(CheckpointError, match="lookahead_labels is 2 for sad and 5 for doae"):
        Estimator(Checkpoint(replace(model.description, networks=networks), model.networks), "cpu")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'cpu:x' is none: use cpu, cuda, cuda:1 or mps"):
        inference.torch_device("cpu:x")
    with pytest.raises(ConfigError, match="'tpu' is not available here"):
        Estimator(small_model(), "tpu")


def test_models_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.save(small_model(), path)
    pipeline = load_pipeline(path)
    assert (pipeline.model_id, pipeline.classes) == ("mine", ("clap", "voice", "bell"))
    assert pipeline.model_card["parameters"]["sed"] > 1000
    with pytest.raises(ConfigError, match="'none' was not found"):
        load_pipeline("none")


def test_settings_open_a_pipeline_that_reports_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.save(small_model(), path)
    config = PipelineConfig(model=str(path), only=("bell",), sensitivity={"bell": 3.0})
    pipeline = open_pipeline(config, {"doa_window_labels": 1})
    assert pipeline.postprocess.sed_thresholds == pytest.approx((0.45, 0.45, 0.45 / (0.45 + 3 * 0.55)))
    assert pipeline.postprocess.doa_window_labels == 1
    assert pipeline.postprocess.sad_threshold == 0.3
    assert (pipeline.classes, pipeline.reported) == (("clap", "voice", "bell"), ("bell",))
    frames = pipeline.push(bursts(80)) + pipeline.flush()
    assert {source.class_id for frame in frames for source in frame.sources} == {2}
    with pytest.raises(ConfigError, match="the model has no class 'dog'; it has clap, voice, bell"):
        open_pipeline(replace(config, only=("dog",)), {})


def test_what_is_ignored_is_missing_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.save(small_model(), path)
    x = bursts(80)

    def heard(config: PipelineConfig) -> list[list[tuple[int, float, float]]]:
        pipeline = open_pipeline(config, {"doa_smoothing": False})
        frames = pipeline.push(x) + pipeline.flush()
        return [[(s.class_id, s.azimuth_deg, s.confidence) for s in frame.sources] for frame in frames]

    everything = heard(PipelineConfig(model=str(path)))
    middle = float(np.median([azimuth for frame in everything for _, azimuth, _ in frame]))
    some = heard(PipelineConfig(model=str(path), ignore=((-180.0, middle),)))
    assert some == [[source for source in frame if source[1] > middle] for frame in everything]
    assert any(some)


def test_post_processing_of_the_checkpoint_can_be_overridden() -> None:
    model = small_model(postprocess=PostprocessConfig(sad_threshold=0.99))
    assert Pipeline(Estimator(model, "cpu"), "small").postprocess.sad_threshold == 0.99
    assert (
        Pipeline(Estimator(model, "cpu"), "small", PostprocessConfig(sad_threshold=0.2)).postprocess.sad_threshold
        == 0.2
    )
