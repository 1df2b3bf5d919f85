"""The networks of a model as one ONNX graph: on a CPU the answers of PyTorch in a fraction of its time and memory.

`offline.graph` makes it of causal networks. In the file of a model it lies beside the weights, which it only names. It
takes the features of one label frame and what the layers remember, and gives the estimates (see `seldrt.inference`)
and what they remember then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray

from seldrt.description import TASKS, CheckpointError, Description, describe
from seldrt.features import silence
from seldrt.stream import Scan, Stage

Array = NDArray[np.float32]

GRAPH = "graph"  # the name of its bytes among the tensors of a file
FEATURES, ESTIMATES = "features", "estimates"  # its first input and output; the states follow, both in one order
COUNTED = ("mean", "scale", "running_mean", "running_var", "num_batches_tracked")  # and no parameters

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported, or it reports to Microsoft


class Graph:
    """Runs the graph of a model with its weights, by their names in the file.

    Raises `CheckpointError` in one line when it does not fit them or the description.
    """

    engine = "ONNX Runtime"

    def __init__(self, description: Description, graph: bytes, weights: Mapping[str, Array], threads: int) -> None:
        import onnxruntime  # here, because a machine that only trains lacks it

        if not can_have_graph(description):
            raise CheckpointError("its graph is of other networks than its metadata; `offline merge` makes a new one")
        self.description = description
        self.parameters = dict.fromkeys(description.networks, 0)
        for name, value in weights.items():
            task, _, part = name.partition(".")
            if task in self.parameters and part.rpartition(".")[2] not in COUNTED:  # others the runtime refuses
                self.parameters[task] += value.size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)  # no files
        options.log_severity_level = 3
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in weights.values()]
        try:
            options.add_external_initializers(list(weights), values)
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            fits = self._fits()
            finite = not fits or np.isfinite(self._continue(self._fresh(), self._silence())[1]).all()
        except Exception as error:  # the runtime has a dozen kinds of them without a common one
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(f"its graph cannot be run ({reason}); `offline merge` makes a new one") from None
        if not fits:
            raise CheckpointError("its graph is of other features or classes; `offline merge` makes a new one")
        if not finite:
            raise CheckpointError("its graph answers silence with what is no finite number: it hears nothing")

    def _fits(self) -> bool:
        """Whether it takes and gives what the description says; learns what it remembers."""
        (first, *states), (answer, *after) = self._session.get_inputs(), self._session.get_outputs()
        self._states = {state.name: tuple(state.shape) for state in states}
        takes, gives = list(self._silence().shape), [1, len(self.description.classes), 5]
        alike = [state.shape for state in states] == [state.shape for state in after]
        return alike and (first.name, first.shape, answer.shape) == (FEATURES, takes, gives)

    def _silence(self) -> Array:
        """The features of a label frame of it."""
        features = self.description.features
        return np.repeat(silence(features)[np.newaxis], features.frames_per_label, axis=0)

    def stage(self) -> Stage:
        """Features (frames, channels, n_mels) in, estimates (label frames, classes, 5) out."""
        features, networks = self.description.features, self.description.networks
        ahead = networks["doae"][0].lookahead_labels
        return Scan(self._continue, self._fresh, features.frames_per_label, delay=ahead, fill=silence(features))

    def _fresh(self) -> list[Array]:
        """What the layers remember before the stream begins: nothing."""
        return [np.zeros(shape, np.float32) for shape in self._states.values()]

    def _continue(self, states: list[Array], x: Array) -> tuple[list[Array], Array]:
        parts = []
        for piece in np.split(np.ascontiguousarray(x), len(x) // self.description.features.frames_per_label):
            remembered = dict(zip(self._states, states, strict=True))
            estimates, *states = self._session.run(None, {FEATURES: piece} | remembered)
            parts.append(estimates)
        return states, np.concatenate(parts)


def can_have_graph(description: Description) -> bool:
    """Whether `offline.graph` can make one: for the three tasks, all of causal networks."""
    return description.networks.keys() == set(TASKS) and description.causal


def read_graph(path: Path, threads: int) -> Graph | None:
    """The graph of the model in a file, ready to run; None when it has none."""
    description = describe(path)
    with safetensors.safe_open(path, framework="np") as file:
        names = list(file.keys())
        if GRAPH not in names:
            return None
        try:
            tensors = {name: file.get_tensor(name) for name in names}
        except (TypeError, AttributeError):  # bfloat16, float8
            raise CheckpointError(f"{path} holds numbers that NumPy has no kind for: save it as float16") from None
    graph = tensors.pop(GRAPH).tobytes()
    weights = {name: value.astype(np.float32) for name, value in tensors.items() if value.dtype.kind == "f"}
    check_finite(path, weights)
    try:
        return Graph(description, graph, weights, threads)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def check_finite(path: Path, weights: Mapping[str, Array]) -> None:
    """`CheckpointError` for weights that are no numbers."""
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds what is no finite number: such a network hears nothing")
