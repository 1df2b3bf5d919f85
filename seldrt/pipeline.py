"""The whole chain: samples in, labelled directions out, one code for live, replay, evaluation.

samples -> features -> estimates -> medians and smoothing -> tracks, cut into label frames of 100 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from seldrt.config import ConfigError, PipelineConfig, PostprocessConfig
from seldrt.description import Description, describe
from seldrt.features import features_stage
from seldrt.findings import LabelFrame
from seldrt.graph import read_graph
from seldrt.models import model_path
from seldrt.postprocess import Tracker, adjusted, check_classes, postprocess_stage
from seldrt.samples import CHANNELS, fault
from seldrt.stream import Blocks, Chain, Stage

INSTALL_PYTORCH = "pip install 'seldrt[offline]'"


class Networks(Protocol):
    """The networks of a model, ready to run: a `seldrt.graph.Graph`, or a `seldrt.inference.Estimator`."""

    engine: str  # what runs them

    @property
    def description(self) -> Description: ...

    @property
    def parameters(self) -> Mapping[str, int]:
        """How many there are, by task."""

    def stage(self) -> Stage:
        """Features (frames, channels, n_mels) in, estimates (label frames, classes, 5) out."""


def open_networks(path: Path, device: str = "cpu", threads: int = 1, labels_at_once: int = 1) -> Networks:
    """The networks in the file of a model: on a CPU by its graph, if it has one, otherwise by PyTorch.

    PyTorch is quicker where many label frames come at once. Where one of the two cannot be loaded, the other serves.
    `ConfigError` or `CheckpointError` in one line when nothing can run them.
    """

    why = ""

    def graph() -> Networks | None:
        nonlocal why
        try:
            return read_graph(path, threads) if device == "cpu" else None
        except ImportError as error:
            why = f" (ONNX Runtime cannot be loaded: {error})"
            return None

    if labels_at_once == 1 and (found := graph()):
        return found
    try:
        import torch  # here, because it is large, and a graph needs none of it
    except (ImportError, OSError) as error:
        if found := graph():
            return found
        if device != "cpu":
            raise ConfigError(
                f"PyTorch is needed to compute on {device}, and cannot be loaded ({error}): {INSTALL_PYTORCH}"
            ) from None
        raise ConfigError(
            f"{path} has no graph that can be run: let `offline merge` give it one, or install PyTorch{why}: "
            + INSTALL_PYTORCH
        ) from None
    from seldrt import checkpoint
    from seldrt.inference import Estimator

    torch.set_num_threads(threads)
    return Estimator(checkpoint.load(path), device)


class Pipeline:
    """A stream of AmbiX samples (n, 4) float32 at ``sample_rate`` in, `LabelFrame`s out.

    The result is the same to the bit however the samples are cut, and N samples give exactly
    N // samples_per_label label frames. ``block_labels`` label frames share one computation: more are faster by
    PyTorch, and change the result by rounding only. ``only`` names the classes that are reported, all if empty; of
    the sectors to ``ignore`` nothing is, see `seldrt.spatial.within`.
    """

    def __init__(
        self,
        networks: Networks,
        name: str,
        postprocess: PostprocessConfig | None = None,
        block_labels: int = 1,
        only: Sequence[str] = (),
        ignore: Sequence[tuple[float, float]] = (),
    ) -> None:
        description = networks.description
        features = description.features
        self.model_id = name
        self.sample_rate = features.sample_rate
        self.samples_per_label = features.samples_per_label
        self.classes = description.classes
        check_classes(only, self.classes)
        self.reported = tuple(name for name in self.classes if not only or name in only)
        self.model_card = _card(networks, name)
        self.postprocess = postprocess or description.postprocess
        self._stages = {
            "features": features_stage(features),
            "networks": networks.stage(),
            "post-processing": postprocess_stage(self.postprocess, self.classes),
        }
        self._chain = Blocks(Chain(*self._stages.values()), block_labels * self.samples_per_label)
        only_these = np.isin(self.classes, self.reported)
        self._pushed = 0  # samples of this stream
        self._tracker = Tracker(self.samples_per_label, only_these, ignore)

    @property
    def latency_samples(self) -> int:
        """How many samples after a label frame must be known before its detections come out."""
        return self._chain.latency

    @property
    def latency_table(self) -> list[tuple[str, float]]:
        """What each stage waits for, in milliseconds; the computation itself comes on top."""
        per_ms = self.sample_rate / 1000
        rows, hop = [("filling a label frame", self.samples_per_label / per_ms)], 1
        for name, stage in self._stages.items():
            rows.append((name, stage.latency * hop / per_ms))
            hop *= stage.hop
        return rows

    def push(self, samples: NDArray[np.floating]) -> list[LabelFrame]:
        """The label frames that these samples (n, 4), float, W Y Z X as AmbiX has them, full scale 1, complete.

        `ValueError` for others; then none of them was heard.
        """
        samples = np.asarray(samples)
        if samples.ndim != 2 or samples.shape[1] != CHANNELS or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError(
                f"samples are {samples.dtype} {samples.shape}: give float (n, {CHANNELS}), full scale is 1"
            )
        if told := fault(samples, self._pushed, self.sample_rate):
            raise ValueError(told)
        self._pushed += len(samples)
        y = self._chain.push(samples.astype(np.float32, copy=False))
        return [] if y is None else self._tracker.push(y)

    def flush(self) -> list[LabelFrame]:
        """The stream ends: the remaining label frames; the pipeline is as new afterwards."""
        self._pushed = 0
        y = self._chain.flush()
        last = [] if y is None else self._tracker.push(y)
        return last + self._tracker.flush()


def load_pipeline(model: str | Path | None = None, block_labels: int = 1) -> Pipeline:
    """The pipeline of a model (default: the shipped one); `ConfigError` or `CheckpointError` in one line."""
    path = model_path(model)
    return Pipeline(open_networks(path, labels_at_once=block_labels), path.stem, block_labels=block_labels)


def check_names(model: str, names: Iterable[str]) -> None:
    """`ConfigError` when settings name a class that the model has not; it need not be loaded for that."""
    check_classes(names, describe(model_path(model or None)).classes)


def open_pipeline(config: PipelineConfig, changes: Mapping[str, Any]) -> Pipeline:
    """The pipeline that settings ask for; ``changes`` are what differs from the post-processing of the model."""
    path = model_path(config.model or None)
    networks = open_networks(path, config.compute, config.threads)
    known = networks.description
    postprocess = adjusted(known.postprocess, known.classes, config, changes)
    return Pipeline(networks, path.stem, postprocess, only=config.only, ignore=config.ignore)


def _card(networks: Networks, name: str) -> dict[str, Any]:
    description = networks.description
    return {
        "model": name,
        "engine": networks.engine,
        "classes": list(description.classes),
        "parameters": dict(networks.parameters),
        "networks": {task: len(configs) for task, configs in description.networks.items()},
        "causal": {task: all(config.causal for config in configs) for task, configs in description.networks.items()},
        "features": msgspec.to_builtins(description.features),
        "postprocess": msgspec.to_builtins(description.postprocess),
        **description.card,
    }
