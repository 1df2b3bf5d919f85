"""The graph of a model (see `seldrt.graph`): traced by PyTorch's ONNX exporter from `Estimator.step` itself.

So the networks are described once. A graph is of the shape of its model alone; the weights go in when it is run, by the
names that they have in the file. Who changes the code of the networks makes the graphs of the models that ship anew
(`offline merge MODEL --out MODEL`): a test compares them.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from seldrt.checkpoint import Checkpoint
from seldrt.description import CheckpointError
from seldrt.features import FEATURE_NAMES, INTENSITY
from seldrt.graph import ESTIMATES, FEATURES, Graph
from seldrt.inference import Estimator, States
from seldrt.stream import run

CHECKED_LABELS = 30  # label frames of noise that the graph must answer as PyTorch does
TOLERANCE = 1e-3  # of probabilities and unit vectors; rounding makes a thirtieth of it


def graph_of(model: Checkpoint) -> bytes:
    """The graph of a model that can have one (`can_have_graph`).

    `CheckpointError` in one line when the exporter fails, or the graph does not answer as the networks themselves do.
    """
    estimator = Estimator(model, "cpu")
    features = model.description.features
    shape = (CHECKED_LABELS * features.frames_per_label, len(FEATURE_NAMES), features.n_mels)
    noise = np.random.default_rng(0).uniform(-1, 1, shape)  # of intensities; of levels from -100 to 0 dB
    x = np.where(np.isin(FEATURE_NAMES, INTENSITY)[:, None], noise, 50 * noise - 50).astype(np.float32)
    weights = {name: value.detach() for name, value in model.tensors() if value.is_floating_point()}
    with torch.no_grad(), _quiet(), _failing_in_one_line():
        piece = torch.from_numpy(x[: features.frames_per_label])
        states, _ = estimator.step(estimator.initial(), piece)
        remembered = _flat(states)
        program = torch.onnx.export(
            _Step(estimator, list(remembered)),
            (piece, weights, list(remembered.values())),
            dynamo=True,
            verbose=False,
            input_names=[FEATURES, *weights, *remembered],
            output_names=[ESTIMATES, *(f"{name} after" for name in remembered)],
        )
    assert program, "dynamo=True gives one"
    graph = _without_weights(program.model_proto, weights)
    arrays = {name: value.numpy() for name, value in weights.items()}
    answers = [run(one.stage(), x) for one in (estimator, Graph(model.description, graph, arrays, threads=1))]
    apart = float(np.ptp(np.stack([y for y in answers if y is not None]), axis=0).max())
    if not apart < TOLERANCE:
        raise CheckpointError(f"the graph of the model says something else than its networks do: {apart:.2g} apart")
    return graph


class _Step(nn.Module):
    """`Estimator.step` as a function of tensors alone: features, weights and states by the names of both."""

    def __init__(self, estimator: Estimator, remembered: Sequence[str]) -> None:
        super().__init__()
        self._remembered = remembered
        self._inner = (_Networks(estimator),)  # in a tuple, so that its weights are none of this module

    def forward(self, x: Tensor, weights: Mapping[str, Tensor], states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        named = dict(zip(self._remembered, states, strict=True))
        after, y = torch.func.functional_call(self._inner[0], dict(weights), (_nested(named), x))
        return (y, *_flat(after).values())


class _Networks(nn.Module):
    """The networks under the names of their weights in a file."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self._step = estimator.step
        for task, group in estimator.networks.items():
            self.add_module(task, nn.ModuleList(group))

    def forward(self, states: States, x: Tensor) -> tuple[States, Tensor]:
        return self._step(states, x)


def _flat(states: States) -> dict[str, Tensor]:
    """What the layers remember, by the names of task, number of the network, and layer."""
    groups = {task: group if isinstance(group, list) else [group] for task, group in states.items()}
    return {
        f"{task}.{i}.{layer}": value
        for task, group in groups.items()
        for i, state in enumerate(group)
        for layer, value in state.items()
    }


def _nested(flat: Mapping[str, Tensor]) -> States:
    states: States = {}
    for name, value in flat.items():
        task, number, layer = name.split(".", maxsplit=2)
        group = states.setdefault(task, [])
        group.extend({} for _ in range(int(number) + 1 - len(group)))
        group[int(number)][layer] = value
    (focus,) = states.pop("focus", [{}])
    return states | {"focus": focus}


def _without_weights(model: onnx.ModelProto, weights: Mapping[str, Tensor]) -> bytes:
    """The bytes of a graph whose weights are no longer inputs, but to be put in when it is run."""
    graph = model.graph
    inputs = [one for one in graph.input if one.name not in weights]
    del graph.input[:], graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    graph.input.extend(inputs)
    for name, value in weights.items():
        weight = graph.initializer.add(name=name, dims=value.shape, data_type=onnx.TensorProto.FLOAT)
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights")
    for part in (*graph.node, *graph.input, *graph.output):
        part.ClearField("metadata_props")  # where in the sources it comes from: nine tenths of the whole
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of packages that it does not need here, and of its own future."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _failing_in_one_line() -> Iterator[None]:
    """Other versions of the exporter's packages fail in many ways, and tell of it in hundreds of lines."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:160]
        raise CheckpointError(f"the ONNX exporter of PyTorch {torch.__version__} fails ({reason})") from None
