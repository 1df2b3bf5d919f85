"""The three networks per hop of 100 ms: going on from what they kept, or a whole window anew; milliseconds.

Random weights: they cost what trained ones cost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.measure import Row, interleaved
from seldrt import features, networks
from seldrt.config import DCASE2020_CLASSES
from seldrt.features import TASK_CHANNELS

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


def repeated(hop: Callable[[], None], hops: int) -> Callable[[], None]:
    """Several hops as one call."""

    def call() -> None:
        for _ in range(hops):
            hop()

    return call


def measure(rounds: int) -> list[Row]:
    """The rows."""
    hops = {
        "compact, from its state": 10,
        "compact, a 2-s window": 2,
        "paper, a 2-s window": 1,
    }
    hop = dict(zip(hops, [cached("compact"), windowed("compact"), windowed("paper")], strict=True))
    ways = {name: repeated(hop[name], count) for name, count in hops.items()}
    per = {name: count / 1e3 for name, count in hops.items()}
    return interleaved(ways, rounds, per, {})
