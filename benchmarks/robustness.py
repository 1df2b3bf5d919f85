"""What real microphones do to a model: python -m benchmarks.robustness --data DIR [--model compact] [--model FILE ...]

The recordings of a dataset (FOA, with labels) as they are, quieter, in wind, with hum or hiss, without their lowest
frequencies, and with channels of unequal gain; the metrics of DCASE 2020 for each, streamed. Levels are relative to the
RMS of W of each recording. Noise is drawn anew for each recording, and the same for each model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy.signal
import soundfile
from msgspec.structs import replace
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from offline.dataset import Recording, list_recordings, read_classes
from offline.encoding import read_foa
from offline.estimates import Job, estimates_of, rows_of
from offline.evaluate import compare
from offline.report.terminal import HEADINGS, cells
from seldrt.description import describe
from seldrt.models import model_path
from seldrt.spatial import foa_gains, unit_vector

Samples = NDArray[np.floating[Any]]
RATE = 24000


def quieter(x: Samples, _rng: np.random.Generator, by_db: float) -> Samples:
    return x * 10 ** (-by_db / 20)


def windy(x: Samples, rng: np.random.Generator, above_db: float) -> Samples:
    """Noise from 10 to 80 Hz, 12 dB an octave, in gusts of some seconds, unlike in any two channels."""
    band = scipy.signal.butter(2, [10, 80], "bandpass", fs=RATE, output="sos")
    wind = scipy.signal.sosfilt(band, rng.standard_normal(x.shape), axis=0)
    gusts = 1 + 0.8 * np.sin(2 * np.pi * (np.arange(len(x)) / RATE / rng.uniform(4, 10) + rng.uniform()))
    return x + level(x, above_db) / wind.std() * wind * gusts[:, None]


def humming(x: Samples, rng: np.random.Generator, above_db: float) -> Samples:
    """50 Hz and harmonics from somewhere."""
    t = np.arange(len(x)) / RATE
    hum = sum(np.sin(2 * np.pi * (50 * k * t + rng.uniform())) / k for k in (1, 2, 3, 5, 7))
    gains = foa_gains(unit_vector(rng.uniform(-180, 180), rng.uniform(-40, 40)))
    return x + level(x, above_db) / np.std(hum) * np.asarray(hum)[:, None] * gains


def hissing(x: Samples, rng: np.random.Generator, above_db: float) -> Samples:
    return x + level(x, above_db) * rng.standard_normal(x.shape)


def without_lows(x: Samples, _rng: np.random.Generator, hz: float) -> Samples:
    filtered: Samples = scipy.signal.sosfilt(scipy.signal.butter(4, hz, "high", fs=RATE, output="sos"), x, axis=0)
    return filtered


def uneven(x: Samples, _rng: np.random.Generator, *gains_db: float) -> Samples:
    return x * 10 ** (np.array(gains_db) / 20)


def level(x: Samples, above_db: float) -> float:
    """The RMS of W, so much higher."""
    return float(np.sqrt(np.mean(np.square(x[:, 0])))) * 10 ** (above_db / 20)


CONDITIONS: dict[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "as it is": lambda x, _rng: x,
    "20 dB quieter": partial(quieter, by_db=20),
    "40 dB quieter": partial(quieter, by_db=40),
    "wind, +10 dB": partial(windy, above_db=10),
    "wind, +20 dB": partial(windy, above_db=20),
    "hum, 0 dB": partial(humming, above_db=0),
    "hiss, -20 dB": partial(hissing, above_db=-20),
    "nothing below 100 Hz": partial(without_lows, hz=100),
    "gains 0, 2, -2, 1 dB": lambda x, rng: uneven(x, rng, 0, 2, -2, 1),
}


def spoilt(recordings: list[Recording], condition: str, folder: Path) -> list[Recording]:
    """The recordings in that condition, written into the folder as float WAV."""
    found = []
    for number, recording in enumerate(recordings):
        x = CONDITIONS[condition](read_foa(recording, RATE), np.random.default_rng(number))
        path = folder / f"{recording.name}.wav"
        soundfile.write(path, x.astype(np.float32), RATE, subtype="FLOAT")
        found.append(replace(recording, audio=path, array="foa"))
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Dataset folder with foa_dev.")
@click.option("--model", "models", multiple=True, default=["compact"], help="May be repeated.  [default: compact]")
@click.option("--condition", "conditions", multiple=True, type=click.Choice(list(CONDITIONS)), help="[default: all]")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Only every so many recordings.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
def main(data: Path, models: tuple[str, ...], conditions: tuple[str, ...], every: int, workers: int) -> None:
    """Measure models on recordings that a microphone has spoilt."""
    recordings, classes = list_recordings(data)[::every], tuple(read_classes(data))
    table = Table("condition", "model", *HEADINGS.values(), title=f"{len(recordings)} recordings of {data}")
    for condition in conditions or CONDITIONS:
        with tempfile.TemporaryDirectory() as folder:
            heard = spoilt(recordings, condition, Path(folder))
            for model in models:
                path = model_path(model)
                known, said = describe(path), estimates_of(Job(path, tuple(heard)), workers=workers)
                rows = {
                    recording.name: rows_of(estimates, known.postprocess, known.classes, classes)
                    for recording, estimates in zip(heard, said, strict=True)
                }
                scores = compare(heard, rows, classes, np.random.default_rng(0), "").overall.scores
                if scores is None:
                    raise click.ClickException(f"{data}: no class ever sounds")
                figures = cells(scores)
                table.add_row(condition, Path(model).stem, *figures)
                click.echo("  ".join((condition, model, *figures)), err=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
