"""The whole pipeline in 100-ms blocks, in a process of its own, and the start of the program.

``python -m benchmarks.pipeline`` is that process: it prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measure import Row, rows

if TYPE_CHECKING:
    from seldrt.pipeline import Pipeline

SECONDS = 6
PROCESSES = 3
STARTS = 7


def shipped_or_random() -> tuple[Pipeline, str]:
    """The pipeline of the model that ships, or of one with random weights, and which of them it is."""
    import torch

    from seldrt.checkpoint import CheckpointError
    from seldrt.pipeline import load_pipeline

    try:
        return load_pipeline(), "the model that ships"
    except CheckpointError:
        torch.set_num_threads(1)
        return random_pipeline(), "random weights, preset compact"


def random_pipeline() -> Pipeline:
    """A pipeline of the compact preset with random weights."""
    from benchmarks.networks import built
    from seldrt import features
    from seldrt.checkpoint import Checkpoint, Description
    from seldrt.config import DCASE2020_CLASSES, NetworkConfig
    from seldrt.pipeline import Pipeline

    nets = built("compact")
    configs: dict[str, tuple[NetworkConfig, ...]] = {task: (net.config,) for task, net in nets.items()}
    description = Description(features=features.PRESETS["compact"], classes=DCASE2020_CLASSES, networks=configs)
    return Pipeline(Checkpoint(description, {task: (net,) for task, net in nets.items()}), "random")


def stream() -> dict[str, Any]:
    """CPU milliseconds of each block, seconds until the first block was done, and memory in MiB."""
    pipeline, weights = shipped_or_random()
    block = pipeline.samples_per_label
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((SECONDS * pipeline.sample_rate, 4))).astype(np.float32)
    pipeline.push(samples[:block])
    ready_s = time.process_time()
    blocks_ms = []
    for start in range(block, len(samples), block):
        began = time.process_time()
        pipeline.push(samples[start : start + block])
        blocks_ms.append(1e3 * (time.process_time() - began))
    return {"weights": weights, "blocks_ms": blocks_ms, "ready_s": ready_s, "memory_mib": memory_mib()}


def memory_mib() -> float:
    """Resident memory now (Linux), else the greatest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        scale = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def measure() -> tuple[list[Row], dict[str, Any]]:
    """CPU milliseconds per block, and the other figures of the process: medians over several."""
    found = [json.loads(_output("-m", "benchmarks.pipeline")) for _ in range(PROCESSES)]
    per_block = [statistics.median(one["blocks_ms"]) for one in found]
    slow = [float(np.percentile(one["blocks_ms"], 99)) for one in found]
    table = rows({"median block": per_block, "99 % of blocks": slow}, {"median block": "≤ 50"})
    total_ms = statistics.median(statistics.fmean(one["blocks_ms"]) for one in found)
    return table, {
        "weights": found[0]["weights"],
        "times_real_time": 100 / total_ms,
        "percent_of_a_core": total_ms,
        "memory_mib": statistics.median(one["memory_mib"] for one in found),
        "cpu_s_until_first_block": statistics.median(one["ready_s"] for one in found),
    }


def measure_start() -> list[Row]:
    """Wall milliseconds of `seldrt --help`, beside Python itself."""
    ways = {"python -c pass": ["-c", "pass"], "seldrt --help": ["-m", "seldrt", "--help"]}
    wall_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(STARTS):
        for name, arguments in ways.items():
            began = time.perf_counter()
            _output(*arguments)
            wall_ms[name].append(1e3 * (time.perf_counter() - began))
    return rows(wall_ms, {"seldrt --help": "≤ 300"})


def _output(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(json.dumps(stream()))
