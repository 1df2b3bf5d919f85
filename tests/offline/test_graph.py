"""The graph of a model answers as its networks do, whatever the cuts; what does not fit is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
import safetensors.numpy
import safetensors.torch
import soundfile
import torch
from click.testing import CliRunner
from msgspec.structs import replace

from offline import cli
from offline.graph import graph_of
from seldrt import checkpoint
from seldrt.checkpoint import Checkpoint
from seldrt.config import ConfigError
from seldrt.description import KEY, CheckpointError, describe
from seldrt.features import FEATURE_NAMES, features_stage
from seldrt.graph import Graph, can_have_graph, read_graph
from seldrt.inference import Estimator
from seldrt.models import shipped
from seldrt.networks import TASKS
from seldrt.pipeline import open_networks
from seldrt.runtime.demo import demo_files
from seldrt.stream import run
from tests.contracts import assert_streaming_law
from tests.models import CAUSAL, FEATURES, WINDOWED, small_model

RNG = np.random.default_rng(0)
MASKED = replace(CAUSAL, direct_labels=3)


def ensemble() -> Checkpoint:
    """Two SED of different weight, and directions that are averaged over views and drawn."""
    first, second = (small_model(MASKED, seed=seed) for seed in range(2))
    networks = first.networks | {"sed": (first.networks["sed"][0], second.networks["sed"][0])}
    shapes = {
        "sad": (MASKED,),
        "sed": (MASKED, replace(MASKED, weight=3.0)),
        "doae": (replace(MASKED, views=4, focus_labels=3),),
    }
    for task, group in networks.items():
        for network, shape in zip(group, shapes[task], strict=True):
            network.config = shape
    return Checkpoint(replace(first.description, networks=shapes), networks)


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    made = ensemble()
    made.graph = graph_of(made)
    return made


@pytest.fixture
def path(model: Checkpoint, tmp_path: Path) -> Path:
    checkpoint.save(model, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_a_graph_answers_as_the_networks_do_however_the_stream_is_cut(model: Checkpoint, path: Path) -> None:
    graph = open_networks(path)
    assert isinstance(graph, Graph)
    x = RNG.uniform(-80, 0, (10 * 23 + 7, len(FEATURE_NAMES), FEATURES.n_mels)).astype(np.float32)
    expected = run(Estimator(model, "cpu").stage(), x)
    assert expected is not None
    assert expected.std(axis=0).min() > 1e-4, "the test needs answers that vary"
    np.testing.assert_allclose(run(graph.stage(), x), expected, atol=2e-5)
    assert_streaming_law(graph.stage, x, hop=10, atol=0)


def test_a_graph_holds_no_weights(model: Checkpoint, path: Path) -> None:
    """So that those of another model of its shape can be put in."""
    other = ensemble()
    with torch.no_grad():
        for name, value in other.tensors():
            if name.startswith("sed.1.head.dense"):
                value.mul_(-1)
    other.graph = model.graph
    checkpoint.save(other, path)
    x = RNG.uniform(-80, 0, (100, len(FEATURE_NAMES), FEATURES.n_mels)).astype(np.float32)
    np.testing.assert_allclose(run(open_networks(path).stage(), x), run(Estimator(other, "cpu").stage(), x), atol=2e-5)


def test_a_file_keeps_the_graph(model: Checkpoint, path: Path) -> None:
    assert checkpoint.load(path).graph == model.graph
    parameters = {task: sum(p.numel() for n in group for p in n.parameters()) for task, group in model.networks.items()}
    assert open_networks(path).parameters == Estimator(model, "cpu").parameters == parameters
    checkpoint.save(small_model(), path)
    assert read_graph(path, 1) is None
    assert open_networks(path).engine == "PyTorch"


def test_only_causal_networks_of_all_tasks_have_one(model: Checkpoint) -> None:
    networks = model.description.networks
    assert can_have_graph(model.description)
    assert not can_have_graph(small_model(WINDOWED).description)
    assert not can_have_graph(replace(model.description, networks={"sed": networks["sed"]}))
    assert not can_have_graph(replace(model.description, networks=networks | {"baseline": (CAUSAL,)}))


@pytest.mark.parametrize("what", ["bytes", "classes", "weights", "numbers", "tasks", "states", "runs", "answers"])
def test_a_graph_that_does_not_fit_is_one_line(model: Checkpoint, path: Path, what: str) -> None:
    other = Checkpoint(model.description, model.networks, model.graph)
    if what == "bytes":
        other.graph = model.graph[:5000]
    elif what == "classes":
        other.description = replace(model.description, classes=("clap", "voice"))
    elif what == "weights":
        other.networks = {task: group[:1] for task, group in model.networks.items()}
    elif what == "tasks":
        few = {task: group for task, group in model.description.networks.items() if task != "doae"}
        other.description = replace(model.description, networks=few)
    elif what in ("states", "runs", "answers"):
        other.graph = spoilt(model.graph, what)
    checkpoint.save(other, path)
    if what == "numbers":
        tensors = safetensors.numpy.load_file(path)
        tensors["sed.0.head.dense.bias"][0] = np.nan
        safetensors.numpy.save_file(tensors, path, {KEY: msgspec.json.encode(model.description).decode()})
    with pytest.raises(CheckpointError) as refused:
        open_networks(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert ("no finite number" if what in ("numbers", "answers") else "its graph") in str(refused.value)


def spoilt(graph: bytes, what: str) -> bytes:
    """A graph whose states have no shape, that fails when it is run, or that answers what is no number."""
    changed = onnx.load_from_string(graph)
    if what == "states":
        changed.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "some"
    else:
        answer = changed.graph.output[0].name
        for node in changed.graph.node:
            node.output[:] = ["before" if name == answer else name for name in node.output]
        wrong = [np.float32(-1.0)] if what == "answers" else np.ones((7, 7, 7), np.float32)
        changed.graph.initializer.append(onnx.numpy_helper.from_array(np.array(wrong, np.float32), "wrong"))
        last = onnx.helper.make_node("Add", ["before", "wrong"], ["sum"])
        log = onnx.helper.make_node("Log", ["sum"], [answer])
        changed.graph.node.extend([last, log])
    return changed.SerializeToString()


@pytest.mark.parametrize("what", ["more", "bfloat16"])
def test_weights_that_the_graph_cannot_take_are_one_line(model: Checkpoint, path: Path, what: str) -> None:
    checkpoint.save(model, path)
    tensors = safetensors.torch.load_file(path)
    if what == "more":
        tensors["foo.bar"] = torch.ones(3)
    else:  # which NumPy knows only where ml_dtypes is installed
        tensors["sed.0.head.dense.bias"] = tensors["sed.0.head.dense.bias"].bfloat16()
    safetensors.torch.save_file(tensors, path, {KEY: msgspec.json.encode(model.description).decode()})
    with pytest.raises(CheckpointError, match=r"its graph cannot be run|save it as float16") as refused:
        open_networks(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", ["secret", "{folder}/secret", "../{name}/secret"])
def test_a_graph_gets_no_file(
    model: Checkpoint, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It could put what is in there into its answers."""
    (tmp_path / "secret").write_bytes(b"key!" * 10)
    monkeypatch.chdir(tmp_path)
    graph = onnx.load_from_string(model.graph)
    stolen = onnx.TensorProto(name="stolen", data_type=onnx.TensorProto.FLOAT, dims=[1])
    stolen.data_location = onnx.TensorProto.EXTERNAL
    location = place.format(folder=tmp_path, name=tmp_path.name)
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        stolen.external_data.add(key=key, value=value)
    graph.graph.initializer.append(stolen)
    answer = graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["before" if name == answer else name for name in node.output]
    graph.graph.node.append(onnx.helper.make_node("Add", ["before", "stolen"], [answer]))
    checkpoint.save(Checkpoint(model.description, model.networks, graph.SerializeToString()), path)
    with pytest.raises(CheckpointError, match="its graph cannot be run") as refused:
        open_networks(path)
    assert "\n" not in str(refused.value)
    if place == "secret":  # it would be read, were it allowed
        monkeypatch.setattr("os.devnull", str(tmp_path))
        assert isinstance(open_networks(path), Graph)


def test_merge_makes_a_graph_and_blend_keeps_it(model: Checkpoint, tmp_path: Path) -> None:
    parts, merged, blended = [], tmp_path / "merged", tmp_path / "blended"
    for task in TASKS:
        parts.append(tmp_path / f"{task}.safetensors")
        shape = {task: model.description.networks[task]}
        checkpoint.save(Checkpoint(replace(model.description, networks=shape), {task: model.networks[task]}), parts[-1])
    for command in (["merge", *parts, "--out", merged], ["blend", merged, merged, "--out", blended]):
        done = CliRunner().invoke(cli.main, list(map(str, command)))
        assert done.exit_code == 0, done.output
    assert describe(merged).networks == model.description.networks
    assert checkpoint.load(blended).graph == checkpoint.load(merged).graph == model.graph


def test_a_graph_has_the_views_that_a_merge_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    checkpoint.save(small_model(MASKED), path)
    command = ["merge", str(path), "--views", "2", "--focus", "2", "--out", str(path)]
    assert CliRunner().invoke(cli.main, command).exit_code == 0
    loaded = checkpoint.load(path)
    assert [(one.views, one.focus_labels) for one in loaded.description.networks["doae"]] == [(2, 2)]
    x = RNG.uniform(-1, 1, (100, len(FEATURE_NAMES), FEATURES.n_mels)).astype(np.float32)
    expected = run(Estimator(loaded, "cpu").stage(), x)
    np.testing.assert_allclose(run(open_networks(path).stage(), x), expected, atol=1e-4)


WAIT = "making the graph, which takes up to half a minute ..."


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("no such\noperator") from KeyError("what this version\nlacks")


def test_a_merge_goes_on_without_a_graph(model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the exporter fails or is not there, or nobody wants to wait for it."""
    path, out = tmp_path / "m.safetensors", tmp_path / "merged"
    checkpoint.save(model, path)

    def told(*arguments: str) -> str:
        done = CliRunner().invoke(cli.main, ["merge", str(path), "--out", str(out), *arguments])
        assert done.exit_code == 0, done.output
        assert not checkpoint.load(out).graph
        assert describe(out).networks == model.description.networks
        return done.stderr.removeprefix(f"{WAIT}\n")

    assert told("--no-graph") == ""
    monkeypatch.setattr("torch.onnx.export", fails)
    assert told() == (
        f"it gets no graph, PyTorch will run it: the ONNX exporter of PyTorch {torch.__version__} fails "
        "('what this version\\nlacks')\n"
    )
    monkeypatch.setitem(sys.modules, "offline.graph", None)
    assert told().startswith("it gets no graph, PyTorch will run it: ")


@pytest.mark.parametrize("channels", [("active_x", "active_y"), ("log_mel_mean", "harmonic_mean"), ()])
def test_a_graph_that_says_something_else_is_refused(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch, channels: tuple[str, ...]
) -> None:
    """One that takes a channel for another, or begins otherwise; the true one is not."""
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: SimpleNamespace(model_proto=None))
    monkeypatch.setattr("offline.graph._without_weights", lambda *_: model.graph)
    assert graph_of(model) == model.graph
    went_on, order = Graph._continue, list(range(len(FEATURE_NAMES)))
    for here, there in zip(channels, reversed(channels), strict=True):
        order[FEATURE_NAMES.index(here)] = FEATURE_NAMES.index(there)
    begun = 0.0 if channels else 1.0
    monkeypatch.setattr(Graph, "_continue", lambda self, states, x: went_on(self, states, x[:, order]))
    monkeypatch.setattr(Graph, "_fresh", lambda self: [np.full(s, begun, np.float32) for s in self._states.values()])
    with pytest.raises(CheckpointError, match="says something else than its networks do"):
        graph_of(model)


def test_pytorch_serves_where_onnxruntime_is_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_networks(path).engine == "ONNX Runtime"
    assert open_networks(path, labels_at_once=50).engine == "PyTorch"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert open_networks(path).engine == "PyTorch"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert open_networks(path, labels_at_once=50).engine == "ONNX Runtime"


def test_why_nothing_runs_a_model_is_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, error in (("onnxruntime", "ImportError('DLL load failed')"), ("torch", "OSError('c10.dll is missing')")):
        (tmp_path / f"{name}.py").write_text(f"raise {error}")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"install PyTorch \(ONNX Runtime cannot be loaded: DLL load failed\)"):
        open_networks(path)
    with pytest.raises(ConfigError, match=r"compute on cuda, and cannot be loaded \(c10\.dll is missing\): pip"):
        open_networks(path, "cuda")


@pytest.mark.parametrize("name", shipped())
def test_the_shipped_models_answer_by_their_graphs(name: str) -> None:
    graph = open_networks(shipped()[name])
    assert isinstance(graph, Graph)
    loaded = checkpoint.load(shipped()[name])
    assert graph.parameters == Estimator(loaded, "cpu").parameters
    samples, _ = soundfile.read(demo_files()[0], dtype="float32", stop=24000 * 10)
    x = run(features_stage(loaded.description.features), samples)
    assert x is not None
    expected = run(Estimator(loaded, "cpu").stage(), x)
    np.testing.assert_allclose(run(graph.stage(), x), expected, atol=1e-4)


def test_a_model_with_a_graph_needs_no_pytorch(tmp_path: Path) -> None:
    """Which takes more memory than all the rest."""

    def replayed(*arguments: str) -> subprocess.CompletedProcess[str]:
        blocked = "import sys; sys.modules |= dict.fromkeys(['torch', 'librosa']); from seldrt.cli import main; main()"
        command = [sys.executable, "-c", blocked, "replay", "--demo", "--fast", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = replayed()
    assert done.returncode == 0, done.stderr
    assert "of 15 events" in done.stderr
    loaded = checkpoint.load(shipped()["light"])
    checkpoint.save(Checkpoint(loaded.description, loaded.networks), tmp_path / "m.safetensors")
    for arguments, told in (
        (["--model", f"{tmp_path}/m.safetensors"], "`offline merge`"),
        (["--compute", "cuda"], "pip install 'seldrt[offline]'"),
    ):
        refused = replayed(*arguments)
        assert refused.returncode == 2
        assert told in refused.stderr.splitlines()[-1]
