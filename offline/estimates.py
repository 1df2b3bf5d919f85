"""What the networks say about recordings, before any post-processing: computed once, kept, and used many times.

Estimates are as in `seldrt.inference`: (label frames, classes, 5) float32. A kept file is named after the networks (not
their thresholds) and after the sound, so that it fits whatever the recording or the model is called.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import safetensors
from numpy.typing import NDArray

from offline.dataset import Recording
from offline.encoding import read_foa
from offline.evaluate import BLOCK_LABELS, prediction_rows
from offline.workers import ShowProgress, results, silent
from seldrt import checkpoint
from seldrt.config import LABEL_RATE_HZ, PostprocessConfig
from seldrt.description import describe
from seldrt.features import features_stage
from seldrt.files import whole
from seldrt.graph import GRAPH
from seldrt.inference import Estimator
from seldrt.postprocess import Tracker, postprocess_stage
from seldrt.stream import Chain, run

KEY_LENGTH = 20

Estimates = NDArray[np.float32]
Rows = NDArray[np.int64]
Form = Literal["streamed", "offline"]


class Job(msgspec.Struct, frozen=True):
    """Which networks listen to what, and how: as the daemon, or to a recording as a whole."""

    model: Path
    recordings: tuple[Recording, ...]
    form: Form = "streamed"


def estimates_of(
    job: Job, kept: Path | None = None, workers: int = 1, progress: ShowProgress = silent
) -> list[Estimates]:
    """The estimates of each recording, with one thread a process.

    With a folder ``kept``, what lies there whole is not computed again. Raises `CheckpointError` for a model that
    cannot be run, `ConfigError` for a recording that does not fit it.
    """
    folder = kept / f"{networks_key(job.model)}-{job.form}" if kept else None
    paths = [_kept_path(folder, recording) if folder else None for recording in job.recordings]
    found = {i: known for i, path in enumerate(paths) if path and (known := _read_kept(path)) is not None}
    progress(len(found), len(paths))
    for i, estimates in results(_compute, job, [i for i in range(len(paths)) if i not in found], workers):
        found[i] = estimates
        path = paths[i]
        if path:
            with whole(path) as partial, partial.open("wb") as file:
                np.save(file, estimates)
        progress(len(found), len(paths))
    return [found[i] for i in range(len(paths))]


def rows_of(estimates: Estimates, postprocess: PostprocessConfig, spoken: Sequence[str], wanted: Sequence[str]) -> Rows:
    """What the daemon says of these estimates of one recording, as label rows (see `prediction_rows`)."""
    smoothed = run(postprocess_stage(postprocess, spoken), estimates)
    frames = [] if smoothed is None else Tracker(1).push(smoothed)
    return prediction_rows(frames, spoken, wanted)


def networks_key(model: Path) -> str:
    """A name for the networks of a model: equal where features, shapes and weights are, whatever the thresholds."""
    description = describe(model)
    shape = (description.features, description.networks, description.classes)
    digest = hashlib.sha256(msgspec.json.encode(shape))
    with safetensors.safe_open(model, framework="np") as file:
        for name in sorted(set(file.keys()) - {GRAPH}):
            digest.update(name.encode())
            digest.update(file.get_tensor(name).tobytes())
    return digest.hexdigest()[:KEY_LENGTH]


def _kept_path(folder: Path, recording: Recording) -> Path:
    with recording.audio.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:KEY_LENGTH]
    return folder / f"{recording.array}-{digest}.npy"


def _read_kept(path: Path) -> Estimates | None:
    try:
        return np.load(path)
    except (OSError, EOFError, ValueError):  # it is not there, or damaged
        return None


def _compute(job: Job, index: int) -> tuple[int, Estimates]:
    estimator = _loaded(job.model, job.model.stat().st_mtime_ns)
    config = estimator.features
    samples = read_foa(job.recordings[index], config.sample_rate)
    block = BLOCK_LABELS * config.sample_rate // LABEL_RATE_HZ
    if job.form == "streamed":
        estimates = run(Chain(features_stage(config), estimator.stage()), samples, block)
    else:
        features = run(features_stage(config), samples, block)
        estimates = None if features is None else estimator.at_once(features)
    return index, np.zeros((0, estimator.n_classes, 5), np.float32) if estimates is None else estimates


@functools.lru_cache(maxsize=1)
def _loaded(model: Path, written_ns: int) -> Estimator:
    """Those in a file that was ``written_ns``, once."""
    import torch

    torch.set_num_threads(1)
    return Estimator(checkpoint.load(model), "cpu")
