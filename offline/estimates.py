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
from offline.encoding import foa_blocks, read_foa
from offline.workers import ShowProgress, results, silent
from seldrt.config import ConfigError, PostprocessConfig, named
from seldrt.description import describe
from seldrt.features import features_stage
from seldrt.files import whole
from seldrt.findings import LabelFrame
from seldrt.graph import GRAPH
from seldrt.pipeline import Networks, open_networks
from seldrt.postprocess import Tracker, postprocess_stage
from seldrt.spatial import wrap_azimuth
from seldrt.stream import Blocks, Chain, run

BLOCK_LABELS = 50  # label frames that share one computation: faster than live, equal but for rounding
PIECE_LABELS = 6000  # that are post-processed together: a whole night would need much memory
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
    smoothed = run(postprocess_stage(postprocess, spoken), estimates, PIECE_LABELS)
    frames = [] if smoothed is None else Tracker(1).push(smoothed)
    return prediction_rows(frames, spoken, wanted)


def prediction_rows(frames: Sequence[LabelFrame], spoken: Sequence[str], wanted: Sequence[str]) -> Rows:
    """Label rows (n, 5) of a metadata CSV, in whole degrees, with the class numbers of ``wanted``.

    ``spoken`` are the names of the classes that the frames count by; `ConfigError` when the dataset lacks
    one.
    """
    number = class_numbers(spoken, wanted)
    rows = [
        (
            frame.index,
            number[source.class_id],
            source.track,
            wrap_azimuth(round(source.azimuth_deg)),
            round(source.elevation_deg),
        )
        for frame in frames
        for source in frame.sources
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def class_numbers(spoken: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """For each name that is spoken its number among those wanted; `ConfigError` when one is not among them."""
    unknown = [name for name in spoken if name not in wanted]
    if unknown:
        raise ConfigError(
            f"the dataset lacks classes of the model: {named(unknown)} (it has {named(wanted)}); give a model for "
            "these, or make scenes with a classes.json of the model's classes in their folder beforehand (see "
            "docs/datasets.md); do not change it once labels are made, which number the classes by it"
        )
    return [list(wanted).index(name) for name in spoken]


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
    networks = _loaded(job.model, job.model.stat().st_mtime_ns)
    recording, config = job.recordings[index], networks.description.features
    block = BLOCK_LABELS * config.samples_per_label
    if job.form == "streamed":
        stage = Blocks(Chain(features_stage(config), networks.stage()), block)
        parts = [*map(stage.push, foa_blocks(recording, config.sample_rate)), stage.flush()]
    else:
        from seldrt.inference import Estimator  # here, because it needs PyTorch

        assert isinstance(networks, Estimator), "others are causal: for them this is the stream"
        features = run(features_stage(config), read_foa(recording, config.sample_rate), block)
        parts = [None if features is None else networks.at_once(features)]
    nothing = np.zeros((0, len(networks.description.classes), 5), np.float32)
    return index, np.concatenate([nothing, *(part for part in parts if part is not None)])


@functools.lru_cache(maxsize=1)
def _loaded(model: Path, written_ns: int) -> Networks:
    """Those in a file that was ``written_ns``, once."""
    return open_networks(model, labels_at_once=BLOCK_LABELS)
