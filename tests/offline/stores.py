"""Small datasets and feature stores for the tests of extraction, batches and training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from offline import dataset
from offline.extract import Manifest, StoredRecording
from seldrt import features
from seldrt.config import FeatureConfig
from seldrt.spatial import foa_gains, unit_vector
from tests.models import FEATURES

RATE, LABEL = FEATURES.sample_rate, FEATURES.samples_per_label
TONES_HZ = {"low": 500.0, "high": 3000.0}


def write_recording(base: Path, name: str, samples: NDArray[np.floating], rows: Sequence[Sequence[int]]) -> Path:
    """Samples (n, 4) and label rows in the folder layout of DCASE; gives the path of the audio."""
    path = dataset.audio_folder(base, "foa") / f"{name}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    dataset.write_metadata(dataset.metadata_folder(base) / f"{name}.csv", rows)
    return path


def write_tones(base: Path, recordings: int, seconds: float, seed: int) -> None:
    """Recordings in which a low and a high tone come and go, each time from the left or from the right."""
    rng = np.random.default_rng(seed)
    labels = int(seconds * RATE) // LABEL
    for index in range(recordings):
        samples = 1e-3 * rng.standard_normal((round(seconds * RATE), 4))
        rows = []
        for class_index, frequency_hz in enumerate(TONES_HZ.values()):
            label = int(rng.integers(0, 15))
            while label < labels - 10:
                length, azimuth_deg = int(rng.integers(6, 10)), int(rng.choice([-90, 90]))
                time = np.arange(length * LABEL) / RATE
                tone = 0.1 * np.sin(2 * np.pi * frequency_hz * time)
                heard = tone[:, None] * foa_gains(unit_vector(azimuth_deg, 0))
                samples[label * LABEL : (label + length) * LABEL] += heard
                rows += [(frame, class_index, class_index, azimuth_deg, 0) for frame in range(label, label + length)]
                label += length + int(rng.integers(5, 15))
        write_recording(base, f"fold1_room1_mix{index:03d}_ov2", samples, sorted(rows))
    dataset.write_classes(base, list(TONES_HZ))


def memory_store(
    lengths: Sequence[int], classes: Sequence[str] = ("low", "high"), config: FeatureConfig = FEATURES, seed: int = 0
) -> Any:
    """What a `Store` holds, of noise: recordings of so many label frames with random labels and directions."""
    rng = np.random.default_rng(seed)
    labels = sum(lengths)
    first = np.cumsum([0, *lengths[:-1]]).tolist()
    recordings = tuple(
        StoredRecording(f"r{i}", 1, 1, begin, length)
        for i, (begin, length) in enumerate(zip(first, lengths, strict=True))
    )
    sed = rng.integers(0, 2, (labels, len(classes))).astype(np.float32)
    directions = unit_vector(rng.uniform(-180, 180, sed.shape), rng.uniform(-45, 45, sed.shape))
    shape = (labels * config.frames_per_label, len(features.FEATURE_NAMES), config.n_mels)
    return SimpleNamespace(
        folder=Path(f"store{seed}"),
        manifest=Manifest(config, tuple(classes), (1.0,) * len(classes), recordings),
        features=rng.normal(-40, 10, shape).astype(np.float16),
        sed=sed,
        doa=(directions * sed[..., None]).astype(np.float32),
        doa_mask=sed.copy(),
    )
