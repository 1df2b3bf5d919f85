"""The whole pipeline of each model that ships, in 100-ms blocks in a process of its own; the start of the program.

``python -m benchmarks.pipeline MODEL`` is that process: it prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Row, rows
from seldrt.models import shipped

SECONDS = 6
PROCESSES = 3
STARTS = 7


def stream(model: str) -> dict[str, Any]:
    """CPU milliseconds of each block, seconds until the first block was done, and memory in MiB."""
    from seldrt.pipeline import load_pipeline

    pipeline = load_pipeline(model)
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
    return {"blocks_ms": blocks_ms, "ready_s": ready_s, "memory_mib": memory_mib()}


def memory_mib() -> float:
    """Resident memory now (Linux), else the greatest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        scale = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def measure() -> tuple[list[Row], dict[str, dict[str, float]]]:
    """CPU milliseconds per block of each model, and the other figures of its process: medians over several."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in shipped()}
    for _ in range(PROCESSES):
        for name, processes in found.items():
            processes.append(json.loads(_output("-m", "benchmarks.pipeline", name)))
    blocks_ms, figures = {}, {}
    for name, processes in found.items():
        blocks_ms[f"{name}, median block"] = [statistics.median(one["blocks_ms"]) for one in processes]
        blocks_ms[f"{name}, 99 % of blocks"] = [float(np.percentile(one["blocks_ms"], 99)) for one in processes]
        total_ms = statistics.median(statistics.fmean(one["blocks_ms"]) for one in processes)
        figures[name] = {
            "times_real_time": 100 / total_ms,
            "percent_of_a_core": total_ms,
            "memory_mib": statistics.median(one["memory_mib"] for one in processes),
            "cpu_s_until_first_block": statistics.median(one["ready_s"] for one in processes),
        }
    return rows(blocks_ms, {f"{name}, median block": "≤ 50" for name in found}), figures


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
    print(json.dumps(stream(sys.argv[1])))
