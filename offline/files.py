"""Files that are read or refused in one line, and written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import soundfile
from numpy.typing import ArrayLike, NDArray

from seldrt.config import ConfigError
from seldrt.files import check_utf8, whole
from seldrt.samples import CHANNELS, UNKNOWN, fault

Kind = TypeVar("Kind")

BLOCK_S = 10  # of long recordings, at a time
LOWEST_HZ = 1000


def read_json(path: Path, kind: type[Kind], refusal: str) -> Kind:
    """What a JSON file holds; `ConfigError` with the ``refusal`` when that is nothing of the kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {refusal} ({error})") from None


def sound_info(path: Path) -> Any:
    """What a sound file says of itself; `ConfigError` for one that cannot be read, or lacks a rate or a length."""
    check_utf8(path)
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"{path}: not a readable sound file ({reason(error)})") from None
    _check_length(path, info.frames)
    if info.samplerate < LOWEST_HZ:
        raise ConfigError(f"{path}: has a sample rate of {info.samplerate} Hz, that is no sound; remove it")
    return info


@contextmanager
def open_audio(path: Path, sample_rate: int | None = None) -> Iterator[soundfile.SoundFile]:
    """A recording to read from; `ConfigError` when it is broken, has not four channels, or another rate."""
    try:
        with soundfile.SoundFile(path) as file:
            wanted = sample_rate or file.samplerate
            if (file.samplerate, file.channels) != (wanted, CHANNELS):
                found = f"{file.channels} channel{'s' * (file.channels > 1)} at {file.samplerate} Hz"
                mend = f"; `sox IN -r {wanted} OUT` converts it" if file.channels == CHANNELS else ""
                raise ConfigError(f"{path} has {found}; expected {CHANNELS} at {wanted} Hz{mend}")
            _check_length(path, file.frames)
            yield file
    except soundfile.SoundFileError as error:
        raise ConfigError(f"{path}: not a readable sound file ({reason(error)})") from None


def audio_blocks(path: Path, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """A recording piece by piece (samples, 4).

    `ConfigError` as `open_audio`, when it ends early, and when it holds what is no sample.
    """
    with open_audio(path, sample_rate) as file:
        missing = file.frames
        for block in file.blocks(BLOCK_S * sample_rate, dtype="float32", always_2d=True):
            if told := fault(block, file.frames - missing, sample_rate):
                raise ConfigError(f"{path}: {told}")
            missing -= len(block)
            yield block
    if missing:
        raise ConfigError(f"{path}: ends {missing} samples early; it is damaged")


def _check_length(path: Path, frames: int) -> None:
    if frames == UNKNOWN:
        raise ConfigError(f"{path}: does not say how long it is, it was never ended; `sox IN OUT` mends it")


def write_audio(path: Path, samples: ArrayLike, sample_rate: int, subtype: str | None = None) -> None:
    """A sound file by the ending of its name, 16 bits unless ``subtype`` says otherwise.

    It is made before it is written: the sound library cannot tell that a disk is full.
    """
    content = io.BytesIO()
    soundfile.write(content, np.asarray(samples), sample_rate, subtype, format=path.suffix[1:].upper())
    write_file(path, content.getvalue())


def write_file(path: Path, data: bytes) -> None:
    """A file of these bytes."""
    with whole(path) as partial:
        partial.write_bytes(data)


def reason(error: Exception) -> str:
    """Why a sound file cannot be read, as the library says it, without the name of the file."""
    return str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error).rstrip(".")
