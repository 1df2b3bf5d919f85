"""The networks per hop of 100 ms, in milliseconds: from what they kept or a whole window anew; PyTorch or a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measure import Row, interleaved
from seldrt import checkpoint, features, networks
from seldrt.config import DCASE2020_CLASSES
from seldrt.features import TASK_CHANNELS
from seldrt.inference import Estimator
from seldrt.models import model_path
from seldrt.pipeline import Networks, open_networks

WINDOW_FRAMES = 200  # of the report: 2 s
HOP_FRAMES = 10


def built(preset: str) -> dict[str, networks.Network]:
    """The networks of a preset for all tasks, with random weights."""
    torch.manual_seed(0)
    config = features.PRESETS[preset]
    return {
        task: networks.build(task, len(DCASE2020_CLASSES), config, networks.preset(preset, task)).eval()
        for task in networks.TASKS
    }


def inputs(preset: str, frames: int) -> dict[str, torch.Tensor]:
    """Noise in place of features, by task."""
    mels = features.PRESETS[preset].n_mels
    return {task: torch.randn(1, frames, len(TASK_CHANNELS[task]), mels) for task in networks.TASKS}


def cached(preset: str) -> Callable[[], None]:
    """One hop of a causal preset, from state to state."""
    nets, x = built(preset), inputs(preset, HOP_FRAMES)
    states: dict[str, networks.State | None] = dict.fromkeys(networks.TASKS)

    def hop() -> None:
        with torch.inference_mode():
            for task in networks.TASKS:
                states[task] = nets[task](x[task], states[task])[1]

    return hop


def windowed(preset: str) -> Callable[[], None]:
    """One hop of any preset, as a whole window."""
    nets, x = built(preset), inputs(preset, WINDOW_FRAMES)

    def hop() -> None:
        with torch.inference_mode():
            for task in networks.TASKS:
                nets[task](x[task])

    return hop


def repeated(hop: Callable[[], object], hops: int) -> Callable[[], None]:
    """Several hops as one call."""

    def call() -> None:
        for _ in range(hops):
            hop()

    return call


def of_model(opened: Networks, hops: int = 1) -> Callable[[], object]:
    """Some hops of a whole model at once."""
    stage = opened.stage()
    quiet = features.silence(opened.description.features)
    x = (quiet + np.random.default_rng(0).gamma(2.0, 10.0, (hops * HOP_FRAMES, *quiet.shape))).astype(np.float32)
    return lambda: stage.push(x)


def measure_engines(rounds: int) -> list[Row]:
    """The model that ships, by PyTorch and by its graph."""
    path = model_path(None)
    pytorch, graph = Estimator(checkpoint.load(path), "cpu"), open_networks(path)
    ways = {
        "PyTorch": repeated(of_model(pytorch), 10),
        "ONNX Runtime": repeated(of_model(graph), 10),
        "PyTorch, 50 hops at once": of_model(pytorch, 50),
    }
    return interleaved(ways, rounds, dict(zip(ways, (10 / 1e3, 10 / 1e3, 50 / 1e3), strict=True)), {})


def measure(rounds: int) -> list[Row]:
    """The three networks of a preset, with random weights, which cost what trained ones cost."""
    hops = {
        "compact, from its state": 10,
        "compact, a 2-s window": 2,
        "paper, a 2-s window": 1,
    }
    hop = dict(zip(hops, [cached("compact"), windowed("compact"), windowed("paper")], strict=True))
    ways = {name: repeated(hop[name], count) for name, count in hops.items()}
    per = {name: count / 1e3 for name, count in hops.items()}
    return interleaved(ways, rounds, per, {})
