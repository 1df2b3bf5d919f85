"""python -m benchmarks [--json FILE] [--rounds N]"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before anything counts the cores; child processes inherit it

import click  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.measure import Row  # noqa: E402


def table(title: str, unit: str, rows: list[Row]) -> Table:
    """The rows with their ratios to the first."""
    made = Table(title=title, title_justify="left")
    for column in ("", unit, "least", "greatest", "x first", "goal"):
        made.add_column(column, justify="left" if not column else "right")
    for row in rows:
        figures = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in row[1:4]]
        made.add_row(row.name, *figures, f"{row.times:.1f}", row.target)
    return made


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here, too.")
@click.option("--rounds", type=click.IntRange(3), default=7, show_default=True)
def main(json_file: Path | None, rounds: int) -> None:
    """CPU time of the parts of seldrt on one thread, beside the plain way: medians of interleaved rounds."""
    import torch

    from benchmarks import features, networks, pipeline

    torch.set_num_threads(1)
    console, began = Console(), time.perf_counter()
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "rounds": rounds}
    found["load_before"] = os.getloadavg()[0]

    found["features"], difference = features.measure(rounds)
    found |= difference
    console.print(table("Features of 4 channels, blocks of 100 ms (librosa: 1 s)", "µs/frame", found["features"]))
    console.print(f"greatest difference between both ways: {difference['greatest_difference_of_features']:.2g}\n")

    found["networks"] = networks.measure(rounds)
    console.print(table("Three networks, random weights", "ms/hop", found["networks"]))
    found["engines"] = networks.measure_engines(rounds)
    console.print(table("All networks of the model that ships", "ms/hop", found["engines"]))

    found["blocks"], found["pipeline"] = pipeline.measure()
    console.print(table("Pipeline of each model that ships", "ms/block", found["blocks"]))
    for name, figures in found["pipeline"].items():
        console.print(
            "{name}: {times_real_time:.1f} x real time, {percent_of_a_core:.1f} % of a core, {memory_mib:.0f} MiB, "
            "first block after {cpu_s_until_first_block:.1f} s CPU".format(name=name, **figures)
        )
    console.print()

    found["start"] = pipeline.measure_start()
    console.print(table("Start, wall time", "ms", found["start"]))
    found["seconds"] = time.perf_counter() - began
    console.print(f"{found['seconds']:.0f} s")
    if json_file:
        plain = {
            key: [row._asdict() for row in value] if isinstance(value, list) else value for key, value in found.items()
        }
        json_file.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
