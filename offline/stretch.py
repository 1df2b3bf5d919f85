"""Recordings made slower or faster at their pitch, with their directions kept: a phase vocoder locked to one channel.

A phase vocoder of each channel by itself turns their phases against each other, and the direction is in just these. So
the phases advance as those of the first channel (W) want it, and the others keep their phase relative to it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import scipy.signal
from numpy.typing import NDArray

from offline import dataset
from offline.dataset import Recording
from offline.files import open_audio, read_json, write_audio, write_file
from offline.workers import ShowProgress, results, silent
from seldrt.config import LABEL_RATE_HZ, ConfigError
from seldrt.files import check_utf8

WINDOW, HOP = 2048, 512  # samples; librosa's defaults
SLOWEST, FASTEST = 0.5, 2.0

Floats = NDArray[np.floating]


class Stretched(msgspec.Struct, frozen=True):
    """What a dataset folder was made from, as its stretch.json says."""

    of: str
    rate: float


def stretched(samples: Floats, rate: float) -> NDArray[np.float32]:
    """Samples (n, channels) -> (round(n / rate), channels) float32, ``rate`` times as fast."""
    padded = np.pad(samples, ((0, max(WINDOW - len(samples), 0)), (0, 0)))
    spectra = scipy.signal.stft(padded, nperseg=WINDOW, noverlap=WINDOW - HOP, axis=0)[2]  # (bins, channels, frames)
    first = spectra[:, 0]
    phase = np.angle(first)
    relative = spectra * np.exp(-1j * phase)[:, None]
    centre = 2 * np.pi * HOP / WINDOW * np.arange(len(first))[:, None]  # what a bin turns in a hop
    turned = np.diff(phase, axis=1) - centre
    advance = centre + turned - 2 * np.pi * np.round(turned / (2 * np.pi))

    places = np.arange(0, spectra.shape[-1] - 1, rate)
    before = places.astype(int)
    part = places - before
    between = (1 - part) * relative[..., before] + part * relative[..., before + 1]
    locked = phase[:, :1] + np.concatenate(
        [np.zeros_like(centre), np.cumsum(advance[:, before[:-1]], axis=1)], axis=1
    )  # fmt: skip
    slow = scipy.signal.istft(
        between * np.exp(1j * locked)[:, None], nperseg=WINDOW, noverlap=WINDOW - HOP, time_axis=-1, freq_axis=0
    )[1]
    wanted = round(len(samples) / rate)
    y = np.zeros((wanted, samples.shape[1]), np.float32)
    length = min(wanted, slow.shape[-1])
    y[:length] = slow.T[:length] if slow.ndim == 2 else slow[:length]
    return y


def stretched_labels(rows: NDArray[np.int64], labels: int, rate: float) -> NDArray[np.int64]:
    """Label rows of the stretched recording of ``labels`` label frames: each is that which sounds in its middle."""
    source = ((np.arange(labels) + 0.5) * rate).astype(int)
    first, last = np.searchsorted(rows[:, 0], source), np.searchsorted(rows[:, 0], source, side="right")
    frame = np.repeat(np.arange(labels), last - first)
    index = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)] or [np.zeros(0)]).astype(int)
    return np.column_stack([frame, rows[index, 1:]])


def stretch(
    folder: Path, out: Path, rate: float, array: str = "foa", workers: int = 1,
    progress: ShowProgress = silent,
) -> None:  # fmt: skip
    """A dataset folder ``out`` with every recording of another, stretched, and its labels; those there are kept.

    `ConfigError` for a rate outside 0.5 to 2, a folder that is none, and an ``out`` that was made from something else.
    """
    if not SLOWEST <= rate <= FASTEST:
        raise ConfigError(f"rate {rate} is too far from 1: use {SLOWEST} to {FASTEST}")
    if out.resolve() == folder.resolve():
        raise ConfigError(f"{out} is the folder of the recordings themselves: give another --out")
    record, made = out / "stretch.json", Stretched(str(folder.resolve()), rate)
    check_utf8(made.of)
    if record.is_file():
        before = read_json(record, Stretched, "does not say what was stretched; give another --out")
        if (str(Path(before.of).resolve()), before.rate) != (made.of, rate):
            raise ConfigError(
                f"{out}: holds {before.of} at rate {before.rate:g}; go on with that, or give another --out"
            )
    recordings = dataset.list_recordings(folder, array)
    dataset.write_classes(out, dataset.read_classes(folder))
    write_file(record, msgspec.json.encode(made))
    for done, _ in enumerate(results(_stretch_one, (out, rate, array), recordings, workers), 1):
        progress(done, len(recordings))


def _stretch_one(job: tuple[Path, float, str], recording: Recording) -> None:
    out, rate, array = job
    audio = dataset.audio_folder(out, array) / recording.audio.name
    if audio.exists():  # it is written last
        return
    with open_audio(recording.audio) as file:
        sample_rate, subtype = file.samplerate, file.subtype
        samples = stretched(file.read(dtype="float32", always_2d=True), rate)
    assert recording.metadata is not None, "development recordings have labels"
    rows = dataset.read_metadata(recording.metadata)
    rows = stretched_labels(
        rows[np.argsort(rows[:, 0], kind="stable")], len(samples) * LABEL_RATE_HZ // sample_rate, rate
    )
    dataset.write_metadata(dataset.metadata_folder(out) / f"{recording.name}.csv", rows)
    write_audio(audio, np.clip(samples, -1, 1), sample_rate, subtype)
