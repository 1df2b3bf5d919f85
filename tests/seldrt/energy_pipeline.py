"""A small pipeline without networks: whatever is loud is a piano, in the direction of the sound intensity.

``python -m tests.seldrt.energy_pipeline ...`` is the command line of seldrt with this pipeline as its model, so that
real processes can be tested in a second. The model path ``broken`` fails after one second of sound, ``slow`` takes
half a minute for a label frame.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from seldrt.config import DCASE2020_CLASSES, PipelineConfig
from seldrt.findings import ActiveSource, LabelFrame
from seldrt.spatial import azimuth_elevation, foa_gains, unit_vector

SAMPLE_RATE = 24000
LABEL = 2400
PIANO = DCASE2020_CLASSES.index("piano")


class EnergyPipeline:
    """Looks one label frame ahead, for no reason but that real pipelines look ahead."""

    sample_rate = SAMPLE_RATE
    samples_per_label = LABEL
    classes = reported = DCASE2020_CLASSES
    latency_samples = LABEL

    def __init__(self, model: str | Path | None = None) -> None:
        self.model_id = str(model or "energy")
        self.latency_table = [("filling a label frame", 100.0), ("looking ahead", 100.0)]
        self.model_card: dict[str, Any] = {"model": self.model_id, "engine": "NumPy", "classes": list(self.classes)}
        self.model_card["figures"] = {"er_20": 0.5}
        self._reset()

    def _reset(self) -> None:
        self._rest = np.zeros((0, 4), np.float32)
        self._index = self._track = 0
        self._onset: int | None = None

    def push(self, samples: np.ndarray) -> list[LabelFrame]:
        assert samples.dtype == np.float32
        assert samples.shape[1:] == (4,)
        self._rest = np.concatenate([self._rest, samples])
        frames = []
        while len(self._rest) >= 2 * LABEL:
            frames.append(self._frame(self._rest[:LABEL]))
            self._rest = self._rest[LABEL:]
        return frames

    def flush(self) -> list[LabelFrame]:
        frames = self.push(np.zeros((LABEL, 4), np.float32))
        self._reset()
        return frames

    def _frame(self, x: np.ndarray) -> LabelFrame:
        if self.model_id == "broken" and self._index == 10:
            raise ArithmeticError("the network has burnt down")
        if self.model_id == "slow":
            print("computing for long", file=sys.stderr, flush=True)
            time.sleep(30.0)
        w, y, z, front = x.T.astype(float)
        frame = LabelFrame(index=self._index, sample=self._index * LABEL, sources=[])
        level = float(np.sqrt(np.mean(w**2)))
        if level > 0.01:
            if self._onset is None:
                self._onset = frame.sample
            azimuth, elevation = azimuth_elevation([np.dot(w, front), np.dot(w, y), np.dot(w, z)])
            frame.sources.append(
                ActiveSource(
                    class_id=PIANO,
                    track=self._track,
                    azimuth_deg=float(azimuth),
                    elevation_deg=float(elevation),
                    confidence=min(level, 1.0),
                    onset_sample=self._onset,
                )
            )
        elif self._onset is not None:
            self._onset, self._track = None, self._track + 1
        self._index += 1
        return frame


def open_pipeline(config: PipelineConfig, changes: Mapping[str, Any]) -> EnergyPipeline:
    return EnergyPipeline(config.model or None)


def noise(seconds: float, azimuth_deg: float, elevation_deg: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    """White noise (n, 4) as a plane wave in AmbiX, -20 dB."""
    mono = np.random.default_rng(0).standard_normal((round(seconds * rate), 1)) / 10
    return (mono * foa_gains(unit_vector(azimuth_deg, elevation_deg))).astype(np.float32)


def two_pianos(rate: int = SAMPLE_RATE) -> np.ndarray:
    """3.05 s: noise at 0.5..1.2 s from the left, at 1.8..2.9 s from the right and below."""
    sound = np.zeros((round(3.05 * rate), 4), np.float32)
    for start_s, length_s, azimuth_deg, elevation_deg in ((0.5, 0.7, 90.0, 10.0), (1.8, 1.1, -90.0, -20.0)):
        part = noise(length_s, azimuth_deg, elevation_deg, rate)
        sound[round(start_s * rate) :][: len(part)] = part
    return sound


def main() -> None:
    sys.modules["seldrt.pipeline"] = module = ModuleType("seldrt.pipeline")
    module.load_pipeline = EnergyPipeline  # type: ignore[attr-defined]
    module.open_pipeline = open_pipeline  # type: ignore[attr-defined]
    from seldrt import cli

    cli.main()


if __name__ == "__main__":
    main()
