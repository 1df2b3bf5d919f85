"""Files that are read or refused in one line, and written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import soundfile
from numpy.typing import ArrayLike

from seldrt.config import ConfigError
from seldrt.files import whole

Kind = TypeVar("Kind")


def read_json(path: Path, kind: type[Kind], refusal: str) -> Kind:
    """What a JSON file holds; `ConfigError` with the ``refusal`` when that is nothing of the kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {refusal} ({error})") from None


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
