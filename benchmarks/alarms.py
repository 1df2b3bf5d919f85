"""Which alarms and telephones a model finds: python -m benchmarks.alarms [--model compact] [--model FILE ...]

Sounds made by rule (`offline.alarms`), of a seed that nothing was trained on, each by itself from a direction drawn by
chance, in pink noise that is equal from all sides. Streamed. Found is a sound during which its class is reported at
least once; the share is that of its label frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from offline import alarms
from offline.arrays import SAMPLE_RATE
from seldrt.models import model_path
from seldrt.pipeline import Pipeline, load_pipeline
from seldrt.spatial import foa_gains, unit_vector

Samples = NDArray[np.float64]
BEFORE_S, LONGEST_S, AFTER_S = 3.0, 6.0, 2.0

Shares = Counter[str]  # of the label frames of a sound, in which a class is reported


def noise(n: int, rng: np.random.Generator) -> Samples:
    """Diffuse pink noise (n, 4) above 20 Hz in AmbiX, the RMS of W is 1."""
    frequencies_hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    gains = np.where(frequencies_hz > 20, 1 / np.sqrt(np.maximum(frequencies_hz, 20)), 0)
    y: Samples = np.fft.irfft(np.fft.rfft(rng.standard_normal((n, 4)), axis=0) * gains[:, None], n, axis=0)
    return y * [1, *[3**-0.5] * 3] / y[:, 0].std()


def hear(pipeline: Pipeline, sound: Samples, snr_db: float, rng: np.random.Generator) -> Shares:
    """What is said during the sound (n,), which is at 24 kHz, in noise."""
    begin, end = round(BEFORE_S * SAMPLE_RATE), round(BEFORE_S * SAMPLE_RATE) + len(sound)
    sounding = sound[np.abs(sound) > 0.01 * np.abs(sound).max()]
    level = np.sqrt(np.mean(np.square(sounding))) * 10 ** (-snr_db / 20)
    x = noise(end + round(AFTER_S * SAMPLE_RATE), rng) * level
    x[begin:end] += sound[:, None] * foa_gains(unit_vector(rng.uniform(-180, 180), rng.uniform(-30, 30)))
    frames = pipeline.push(x.astype(np.float32)) + pipeline.flush()
    during = frames[begin // pipeline.samples_per_label : -(-end // pipeline.samples_per_label)]
    said = Counter(pipeline.classes[source.class_id] for frame in during for source in frame.sources)
    return Counter({name: count / len(during) for name, count in said.items()})


def sounds_of(kind: Callable[[np.random.Generator], Samples], count: int, seed: int) -> list[Samples]:
    """``count`` sounds of a kind, at 20 dB under full scale and cut to `LONGEST_S`."""
    number = sum(map(ord, kind.__name__))
    made = (alarms.make(kind, np.random.default_rng((seed, number, i)), LONGEST_S) for i in range(count))
    return [0.1 * sound.astype(np.float64) for sound in made]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "models", multiple=True, default=["compact"], help="May be repeated.  [default: compact]")
@click.option("--count", type=click.IntRange(1), default=12, show_default=True, help="Sounds of each kind.")
@click.option("--seed", type=click.IntRange(0), default=9000, show_default=True)
@click.option("--snr-db", type=float, default=20.0, show_default=True, help="Of the sounding parts, RMS.")
def main(models: tuple[str, ...], count: int, seed: int, snr_db: float) -> None:
    """Play alarms and telephones that are made by rule to models."""
    table = Table("class", "kind", "model", "found %", "time %", "else", title=f"{count} of each kind, {snr_db:g} dB")
    for model in models:
        pipeline = load_pipeline(model_path(model), block_labels=50)
        for name, kinds in alarms.KINDS.items():
            everything: list[Shares] = []
            for kind in kinds:
                rng = np.random.default_rng(seed)
                heard = [hear(pipeline, sound, snr_db, rng) for sound in sounds_of(kind, count, seed)]
                table.add_row(name, kind.__name__, pipeline.model_id, *_figures(name, heard))
                everything += heard
            table.add_row(name, "all", pipeline.model_id, *_figures(name, everything), end_section=True)
    Console(width=120).print(table)


def _figures(name: str, heard: list[Shares]) -> tuple[str, str, str]:
    shares = [one[name] for one in heard]
    others = sum(heard, Shares())
    del others[name]
    most = ", ".join(f"{other} {100 * share / len(heard):.0f}" for other, share in others.most_common(2))
    return f"{100 * np.mean(np.array(shares) > 0):.0f}", f"{100 * np.mean(shares):.0f}", most


if __name__ == "__main__":
    main()
