"""First weights: of models for the same and for other classes, and of the published image network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor
from torch.nn import functional

from offline.transfer import begin, shape_of, weights_path
from seldrt import checkpoint
from seldrt.config import NetworkConfig
from seldrt.description import CheckpointError, Description, describe
from seldrt.features import PRESETS, TASK_CHANNELS
from seldrt.models import model_path
from seldrt.networks import TASKS, build, class_weights
from seldrt.networks.causal import Memory
from seldrt.networks.efficientnet import EfficientNetLite
from tests.models import CAUSAL, FEATURES, WINDOWED, small_model

LITE = replace(CAUSAL, backbone="efficientnet_lite0")


def published(seed: int = 0) -> dict[str, Tensor]:
    """Random weights with the names and shapes of the published network (Tan and Le 2019, table 1; Lite: no SE)."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def convolution(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / 10

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = torch.rand(width, generator=generator) + 0.5
        weights[f"{name}.num_batches_tracked"] = torch.tensor(1)

    convolution("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    before, number = 32, 0
    for expansion, width, blocks, kernel in (
        *((1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 3, 3)),
        *((6, 112, 3, 5), (6, 192, 4, 5), (6, 320, 1, 3)),
    ):
        for _ in range(blocks):
            own, wide = f"_blocks.{number}", before * expansion
            if expansion > 1:
                convolution(f"{own}._expand_conv", wide, before, 1, 1)
                norm(f"{own}._bn0", wide)
            convolution(f"{own}._depthwise_conv", wide, 1, kernel, kernel)
            norm(f"{own}._bn1", wide)
            convolution(f"{own}._project_conv", width, wide, 1, 1)
            norm(f"{own}._bn2", width)
            before, number = width, number + 1
    convolution("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    weights |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    return weights


def description(task: str, classes: tuple[str, ...] = ("clap", "voice", "bell")) -> Description:
    return Description(features=FEATURES, classes=classes, networks={task: (LITE,)})


def test_image_weights_find_their_places(tmp_path: Path) -> None:
    """Block 6 has a shortcut and no stride: there the whole block must give what the published weights say."""
    weights = published()
    torch.save(weights, tmp_path / "lite0.pth")
    network = build("sed", 3, FEATURES, LITE)
    begin(network, tmp_path / "lite0.pth", description("sed"))
    backbone = network.eval().backbone
    assert isinstance(backbone, EfficientNetLite)
    assert torch.equal(backbone.stem.conv.weight, weights["_conv_stem.weight"])

    def norm(x: Tensor, name: str) -> Tensor:
        parts = [weights[f"_blocks.6.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts, eps=1e-3)

    x = torch.randn(1, 80, 12, 4)
    y = functional.relu6(norm(functional.conv2d(x, weights["_blocks.6._expand_conv.weight"]), "_bn0"))
    y = functional.pad(y, (1, 1, 2, 0))  # of time, the past only
    y = functional.relu6(norm(functional.conv2d(y, weights["_blocks.6._depthwise_conv.weight"], groups=480), "_bn1"))
    y = x + norm(functional.conv2d(y, weights["_blocks.6._project_conv.weight"]), "_bn2")
    block = backbone.stages[3][1]  # type: ignore[index]
    with torch.no_grad():
        torch.testing.assert_close(block(x, Memory()), y, atol=1e-4, rtol=1e-4)


def test_a_stem_for_more_than_three_channels_hears_grey_as_loud(tmp_path: Path) -> None:
    weights = published()
    torch.save(weights, tmp_path / "lite0.pth")
    network = build("doae", 3, FEATURES, LITE)
    begin(network, tmp_path / "lite0.pth", description("doae"))
    grey = torch.ones(1, 1, 3, 3)
    ours = functional.conv2d(grey.expand(-1, 10, -1, -1), network.backbone.stem.conv.weight)  # type: ignore[union-attr]
    theirs = functional.conv2d(grey.expand(-1, 3, -1, -1), weights["_conv_stem.weight"])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_image_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lite0.pth"
    torch.save(published(), path)
    with pytest.raises(CheckpointError, match='need \\[network\\] backbone = "efficientnet_lite0"'):
        begin(build("sed", 3, FEATURES, CAUSAL), path, description("sed"))
    for content in (b"", b"no weights", None):
        if content is None:
            torch.save({"_blocks.0._bn1.weight": torch.zeros(3)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"lite0\.pth holds no weights of EfficientNet-Lite0") as error:
            begin(build("sed", 3, FEATURES, LITE), path, description("sed"))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [("horn", "rain"), ("voice", "clap", "bell")])
@pytest.mark.parametrize("task", TASKS)
def test_what_does_not_depend_on_the_classes_is_taken_over(task: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    shape = replace(CAUSAL, direct_labels=3)
    first = small_model(shape, ("clap", "voice", "bell"))
    checkpoint.save(first, tmp_path / "first.safetensors")
    network = build(task, len(classes), FEATURES, shape)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    wanted = Description(features=FEATURES, classes=classes, networks={task: (shape,)})
    begin(network, tmp_path / "first.safetensors", wanted)
    own, others = network.state_dict(), class_weights(network)
    known = first.networks[task][0].state_dict()
    assert all(torch.equal(own[name], (fresh if name in others else known)[name]) for name in own)
    answering = {"head.dense.weight", "head.dense.bias"}
    direct = {"direct.mask.weight", "direct.mask.bias", "direct.weights", "direct.gain"}
    assert others == {"sad": set(), "sed": answering, "doae": answering | direct}[task]


def test_of_several_networks_of_a_task_the_first_is_taken(tmp_path: Path) -> None:
    models = [small_model(seed=seed) for seed in (1, 2)]
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for model, path in zip(models, paths, strict=True):
        checkpoint.save(model, path)
    both = tmp_path / "both.safetensors"
    checkpoint.save(checkpoint.merged(paths), both)
    network = build("sed", 3, FEATURES, CAUSAL)
    begin(network, both, models[0].description)
    assert torch.equal(network.head.dense.weight, models[0].networks["sed"][0].head.dense.weight)  # type: ignore[union-attr]
    assert shape_of(both, "sed") == CAUSAL
    assert shape_of(tmp_path / "images.pth", "sed") is None


@pytest.mark.parametrize(
    "shape", [CAUSAL, replace(CAUSAL, guidance="trellis"), WINDOWED], ids=["a", "trellis", "whole"]
)
@pytest.mark.parametrize("task", TASKS)
def test_a_wider_network_answers_as_the_one_that_it_begins_with(
    task: str, shape: NetworkConfig, tmp_path: Path
) -> None:
    shape = replace(shape, direct_labels=3)
    first = small_model(shape, ("clap", "voice", "bell"))
    checkpoint.save(first, tmp_path / "first.safetensors")
    narrow = first.networks[task][0].eval()
    wider = replace(
        narrow.config,
        stem_width=shape.stem_width + 3,
        widths=tuple(width + 4 for width in shape.widths),
        converted=tuple(width + 5 for width in shape.converted),
    )
    network = build(task, 3, FEATURES, wider).eval()
    begin(network, tmp_path / "first.safetensors", first.description)
    x = torch.randn(2, shape.chunk_frames, len(TASK_CHANNELS[task]), FEATURES.n_mels)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[0], narrow(x)[0], atol=1e-4, rtol=1e-4)
    network(x)[0].square().sum().backward()
    head = network.head.dense.weight  # type: ignore[union-attr]
    old = narrow.head.dense.in_features  # type: ignore[union-attr]
    assert head.grad is not None
    assert head.grad[:, old:].abs().sum() > 0  # type: ignore[index]


def test_what_a_run_may_change_of_its_first_weights(tmp_path: Path) -> None:
    shape, path = replace(CAUSAL, direct_labels=3), tmp_path / "first.safetensors"
    first = small_model(shape, ("clap", "voice", "bell"))
    checkpoint.save(first, path)
    known = first.networks["doae"][0].state_dict()
    changes: list[dict[str, float]] = [{"chunk_frames": 60}, {"lookahead_labels": 1}, {"dropout": 0.3}]
    for change in (*changes, {"focus_labels": 3}, {"views": 2}, {"weight": 2}):
        network = build("doae", 3, FEATURES, replace(shape, **change))
        begin(network, path, first.description)
        assert all(torch.equal(value, known[name]) for name, value in network.state_dict().items())
    for change in ({"bands": 2}, {"widths": (9, 7, 16, 16)}, {"converted": (7, 8, 8, 8)}):
        (name,) = change
        with pytest.raises(CheckpointError, match=f"first.safetensors has another network: {name} is .*, expected "):
            begin(build("doae", 3, FEATURES, replace(shape, **change)), path, first.description)
    strange = replace(first.description, features=replace(FEATURES, win_length=400), classes=("horn", "rain"))
    with pytest.raises(CheckpointError, match="win_length is"):
        begin(build("doae", 2, FEATURES, shape), path, strange)


def test_first_weights_are_a_model_by_its_name_or_a_file_of_images(tmp_path: Path) -> None:
    assert weights_path("compact") == model_path("compact")
    images = tmp_path / "lite0.pth"
    with pytest.raises(CheckpointError, match=r"lite0\.pth: no such file"):
        weights_path(str(images))
    images.touch()
    assert weights_path(str(images)) == images


def test_directions_from_another_span_of_intensity_are_refused(tmp_path: Path) -> None:
    first = small_model(replace(CAUSAL, direct_labels=3), ("clap", "voice", "bell"))
    checkpoint.save(first, tmp_path / "first.safetensors")
    with pytest.raises(CheckpointError, match="direct_labels is 3, expected 5"):
        begin(
            build("doae", 3, FEATURES, replace(CAUSAL, direct_labels=5)),
            tmp_path / "first.safetensors",
            first.description,
        )
    begin(build("doae", 3, FEATURES, CAUSAL), tmp_path / "first.safetensors", first.description)
    checkpoint.save(small_model(CAUSAL, ("clap", "voice", "bell")), tmp_path / "first.safetensors")
    begin(
        build("doae", 3, FEATURES, replace(CAUSAL, direct_labels=5)), tmp_path / "first.safetensors", first.description
    )


def test_a_narrower_network_is_refused(tmp_path: Path) -> None:
    first = small_model(CAUSAL, ("clap", "voice", "bell"))
    checkpoint.save(first, tmp_path / "first.safetensors")
    narrower = replace(CAUSAL, stem_width=CAUSAL.stem_width - 1)
    with pytest.raises(CheckpointError, match="stem_width is"):
        begin(build("sed", 3, FEATURES, narrower), tmp_path / "first.safetensors", first.description)


@pytest.mark.parametrize("name", ["compact", "light"])
def test_what_ships_fits_the_stores_that_are_extracted_by_default(name: str) -> None:
    """So that `offline train --start compact` and `--teacher compact` find the features that they know."""
    assert describe(model_path(name)).features == PRESETS["compact"]
