"""Checkpoints survive the disk, and those that do not fit are refused in one line."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
from msgspec.structs import replace

from seldrt import checkpoint
from seldrt.checkpoint import Checkpoint
from seldrt.description import CheckpointError, Description, describe
from seldrt.features import PRESETS, TASK_CHANNELS
from seldrt.models import shipped
from seldrt.networks import TASKS, Network, build, preset
from tests.disk import full_disk
from tests.models import CAUSAL, FEATURES, small_model


def refused(match: str) -> pytest.RaisesExc:
    return pytest.raises(CheckpointError, match=match)


def test_a_disk_that_is_full_is_told_in_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    with full_disk(), refused("m.safetensors: cannot be written: "):
        checkpoint.save(small_model(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == b"old"


def test_round_trip(tmp_path: Path) -> None:
    model = small_model()
    checkpoint.save(model, tmp_path / "m.safetensors")
    loaded = checkpoint.load(tmp_path / "m.safetensors")
    assert loaded.description == model.description
    for task, (network,) in model.networks.items():
        (again,) = loaded.networks[task]
        for name, value in network.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
        assert not again.training
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_are_no_finite_numbers_are_neither_written_nor_used(tmp_path: Path, value: float) -> None:
    model, path = small_model(), tmp_path / "m.safetensors"
    checkpoint.save(model, path)
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    next(iter(model.networks["sad"][0].parameters())).data.view(-1)[0] = value
    with refused("holds what is no finite number"):  # the largest number of float16 is 65504
        checkpoint.save(model, path, torch.float16)
    assert checkpoint.load(path).networks
    if value != 1e6:
        next(tensor for tensor in tensors.values() if tensor.is_floating_point()).view(-1)[0] = value
        safetensors.torch.save_file(tensors, path, metadata)
        with refused("holds what is no finite number"):
            checkpoint.load(path)


def test_half_precision_file_gives_float32_networks(tmp_path: Path) -> None:
    model = small_model()
    checkpoint.save(model, tmp_path / "m.safetensors", torch.float16)
    stored = safetensors.torch.load_file(tmp_path / "m.safetensors")
    loaded = checkpoint.load(tmp_path / "m.safetensors")
    assert {p.dtype for (network,) in loaded.networks.values() for p in network.parameters()} == {torch.float32}
    halves = {name for name, value in stored.items() if value.dtype == torch.float16}
    networks = [(task, network) for task, (network,) in loaded.networks.items()]
    assert halves == {f"{task}.0.{name}" for task, network in networks for name, _ in network.named_parameters()}


def test_half_precision_leaves_variances_that_it_has_no_numbers_for(tmp_path: Path) -> None:
    """Those of EfficientNet-Lite0 reach from 1e-45 to 1e6; 65504 is the largest number of float16."""
    model, x = small_model(), 20 * torch.randn(1, 120, 3, FEATURES.n_mels) - 40
    (sed,) = model.networks["sed"]
    sed.head.norm.running_var.mul_(1e6)
    sed.head.norm.weight.data.mul_(1e3)
    expected = sed(x)[0]
    checkpoint.save(model, tmp_path / "m.safetensors", torch.float16)
    (again,) = checkpoint.load(tmp_path / "m.safetensors").networks["sed"]
    torch.testing.assert_close(again(x)[0], expected, atol=0.01, rtol=0)
    assert expected.std() > 0.01


def part(model: Checkpoint, task: str, **changes: object) -> Checkpoint:
    networks = {task: model.description.networks[task]}
    return Checkpoint(replace(model.description, networks=networks, **changes), {task: model.networks[task]})


def test_parts_merge_into_one_model(tmp_path: Path) -> None:
    model = small_model()
    paths = [tmp_path / f"{task}.safetensors" for task in model.networks]
    for task, path in zip(model.networks, paths, strict=True):
        checkpoint.save(part(model, task, card={task: {"epoch": 3}}), path)
    merged = checkpoint.merged(paths)
    assert merged.description.networks == model.description.networks
    assert set(merged.description.card) == {"sad", "sed", "doae"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("clap", "voice", "horn")}, "'horn' for 'bell'"),
        ({"classes": ("clap", "voice")}, "knows other classes: without 'bell'$"),
        ({"features": replace(FEATURES, win_length=400)}, "win_length is 400, expected 480"),
    ],
)
def test_parts_that_differ_do_not_merge(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    model = small_model()
    checkpoint.save(part(model, "sad"), tmp_path / "a.safetensors")
    description = replace(model.description, **changes)
    other = small_model(classes=description.classes, features=description.features)
    checkpoint.save(part(other, "sed"), tmp_path / "b.safetensors")
    with refused(said):
        checkpoint.merged([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


def test_the_shipped_models_are_read() -> None:
    loaded = {name: checkpoint.load(path) for name, path in shipped().items()}
    counts = {name: [len(model.networks[task]) for task in TASKS] for name, model in loaded.items()}
    assert counts == {"compact": [1, 3, 1], "light": [1, 1, 1]}
    assert loaded["light"].description.classes == loaded["compact"].description.classes


def test_networks_of_one_task_merge_into_an_ensemble(tmp_path: Path) -> None:
    first, second = small_model(), small_model(seed=1)
    parts = [part(first, task) for task in first.networks] + [part(second, "sed", card={"sed": {"epoch": 9}})]
    paths = [tmp_path / f"{i}.safetensors" for i in range(len(parts))]
    for one, path in zip(parts, paths, strict=True):
        checkpoint.save(one, path)
    checkpoint.save(checkpoint.merged(paths), tmp_path / "m.safetensors")
    loaded = checkpoint.load(tmp_path / "m.safetensors")
    assert {task: len(group) for task, group in loaded.networks.items()} == {"sad": 1, "sed": 2, "doae": 1}
    assert loaded.description.card["sed"] == {"1": {}, "2": {"epoch": 9}}
    for network, model in zip(loaded.networks["sed"], (first, second), strict=True):
        for name, value in model.networks["sed"][0].state_dict().items():
            assert torch.equal(network.state_dict()[name], value)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    model = small_model()
    checkpoint.save(
        Checkpoint(replace(model.description, format_version=99), model.networks), tmp_path / "m.safetensors"
    )
    with refused("format version 99, this program reads 2"):
        checkpoint.load(tmp_path / "m.safetensors")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with refused("cannot be read"):
        checkpoint.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, I am no model")
    with refused("cannot be read"):
        checkpoint.load(tmp_path / "text.safetensors")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with refused("no seldrt model"):
        checkpoint.load(tmp_path / "foreign.safetensors")


def test_weights_that_do_not_fit_the_shape_are_refused(tmp_path: Path) -> None:
    model = small_model()
    wider = {task: (replace(config, guidance_width=12),) for task, (config,) in model.description.networks.items()}
    checkpoint.save(Checkpoint(replace(model.description, networks=wider), model.networks), tmp_path / "m.safetensors")
    with refused("weights of sad do not fit"):
        checkpoint.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("preset_name", PRESETS)
@pytest.mark.parametrize("task", [*TASKS, "baseline"])
@pytest.mark.parametrize("backbone", ["resnet", "efficientnet_lite0"])
def test_networks_of_all_kinds_are_read(tmp_path: Path, preset_name: str, task: str, backbone: Any) -> None:
    features = replace(PRESETS[preset_name], n_mels=32)
    shape = replace(preset(preset_name, task), backbone=backbone)
    network = build(task, 2, features, shape).eval()
    description = Description(features=features, classes=("clap", "bell"), networks={task: (shape,)})
    checkpoint.save(Checkpoint(description, {task: (network,)}), tmp_path / "m.safetensors")
    (again,) = checkpoint.load(tmp_path / "m.safetensors").networks[task]
    assert not any(value.is_meta for value in (*again.parameters(), *again.buffers()))
    x = torch.randn(1, shape.chunk_frames, len(TASK_CHANNELS[task]), features.n_mels)
    with torch.no_grad():
        torch.testing.assert_close(again(x)[0], network(x)[0], rtol=0, atol=0)


def test_metadata_alone_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask for networks of 60 GB; none is made."""
    model = small_model()
    huge = replace(CAUSAL, widths=(4096,) * 4, blocks=100)
    text = msgspec.json.encode(replace(model.description, networks=dict.fromkeys(TASKS, (huge,)))).decode()
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", {"seldrt": text})
    made = list[torch.Tensor]()

    def building(*shape: Any) -> Network:
        network = build(*shape)
        made.extend(network.parameters())
        return network

    monkeypatch.setattr(checkpoint, "build", building)
    with refused("weights of sad do not fit"):
        checkpoint.load(tmp_path / "m.safetensors")
    assert sum(value.numel() for value in made) > 10**10
    assert all(value.is_meta for value in made)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("features", {"n_fft": 2**31}, "n_fft is 2147483648: it must be at most 65536"),
        ("features", {"hpss_kernel": 2**31 + 1}, "hpss_kernel is 2147483649: it must be at most 1023"),
        ("features", {"n_fft": 65536, "n_mels": 1025}, "n_mels is 1025: it must be 1 to 1024"),
        ("features", {"hop_length": 1, "frames_per_label": 2400}, "frames_per_label is 2400: it must be at most 100"),
        ("postprocess", {"speeds_deg_per_s": [1.0] * 1001}, "speeds_deg_per_s has 1001 values: give at most 1000"),
    ],
)
def test_metadata_that_ask_for_much_memory_are_refused(
    tmp_path: Path, section: str, change: dict[str, Any], said: str
) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(small_model().description))
    plain[section] |= change
    metadata = {"seldrt": msgspec.json.encode(plain).decode()}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
    with refused(said):
        describe(tmp_path / "m.safetensors")


def test_metadata_that_are_deep_or_hold_long_numbers_are_refused(tmp_path: Path) -> None:
    text = msgspec.json.encode(small_model().description).decode()
    for card in ("[" * 100_000 + "]" * 100_000, "9" * 5000):
        metadata = {"seldrt": text.replace('"card":{}', f'"card":{{"x":{card}}}')}
        safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
        with refused("has metadata that do not fit: ") as told:
            describe(tmp_path / "m.safetensors")
        assert "\n" not in str(told.value)


def test_unknown_settings_in_the_metadata_are_refused(tmp_path: Path) -> None:
    model = small_model()
    text = msgspec.json.decode(msgspec.json.encode(model.description))
    text["features"]["window"] = "kaiser"
    metadata = {"seldrt": msgspec.json.encode(text).decode()}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
    with refused("window"):
        checkpoint.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("networks", [{}, {"sad": []}])
def test_metadata_without_networks_are_refused(tmp_path: Path, networks: dict[str, list[object]]) -> None:
    text = msgspec.json.decode(msgspec.json.encode(small_model().description))
    metadata = {"seldrt": msgspec.json.encode(text | {"networks": networks}).decode()}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
    with refused("has metadata that do not fit: networks are missing"):
        describe(tmp_path / "m.safetensors")


def test_a_blend_lies_between_two_networks(tmp_path: Path) -> None:
    for seed in (1, 2):
        checkpoint.save(small_model(seed=seed), tmp_path / f"{seed}")
    first, last = (checkpoint.load(tmp_path / f"{seed}") for seed in (1, 2))
    blend = checkpoint.blended(tmp_path / "1", tmp_path / "2", 0.25)
    assert blend.description == last.description
    for task, (network,) in blend.networks.items():
        ends = first.networks[task][0].state_dict(), last.networks[task][0].state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected = 0.75 * ends[0][name].double() + 0.25 * ends[1][name].double()
                assert torch.allclose(value.double(), expected, atol=1e-5)


def test_a_blend_of_other_shapes_is_refused(tmp_path: Path) -> None:
    checkpoint.save(small_model(), tmp_path / "small")
    checkpoint.save(small_model(replace(CAUSAL, guidance_width=12)), tmp_path / "wide")
    checkpoint.save(small_model(classes=("clap", "voice")), tmp_path / "few")
    with refused(r"small: has no network for sad of the shape of that in .*wide"):
        checkpoint.blended(tmp_path / "small", tmp_path / "wide", 0.5)
    with refused("few knows other classes"):
        checkpoint.blended(tmp_path / "few", tmp_path / "small", 0.5)
