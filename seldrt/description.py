"""What a model is: the metadata of its file, read without its weights and without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import safetensors

from seldrt.config import FeatureConfig, NetworkConfig, PostprocessConfig, SeldrtError, named

FORMAT_VERSION = 2
KEY = "seldrt"  # of the metadata among those that safetensors keeps
TASKS = ("sad", "sed", "doae")  # besides them: "baseline", one network for all


class CheckpointError(SeldrtError):
    """A checkpoint that cannot be used."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a checkpoint."""

    features: FeatureConfig
    classes: tuple[str, ...]
    networks: dict[str, tuple[NetworkConfig, ...]]  # by task
    mean_event_labels: tuple[float, ...] = ()  # label frames, one a class, of the training labels
    postprocess: PostprocessConfig = PostprocessConfig()
    card: dict[str, Any] = {}  # where trained, on what, figures
    format_version: int = FORMAT_VERSION

    @property
    def causal(self) -> bool:
        """Whether all networks are."""
        return all(config.causal for group in self.networks.values() for config in group)


def describe(path: Path) -> Description:
    """The metadata of a checkpoint, without its weights; `CheckpointError` when it is none or of another version."""
    if path.is_dir():
        best = path / "best.safetensors"  # of a training
        raise CheckpointError(f"{path} is a folder; give {best if best.is_file() else 'a .safetensors file'}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, safetensors.SafetensorError) as error:
        why = getattr(error, "strerror", None) or "it is none, or was cut off"
        raise CheckpointError(f"{path} cannot be read as a model: {why}") from None
    if text is None:
        raise CheckpointError(f"{path} is no seldrt model: its metadata lack the key {KEY!r}")
    try:
        plain = msgspec.json.decode(text, type=dict)
        version = plain.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}")
        found = msgspec.convert(plain, Description)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} has metadata that do not fit: {error}") from None
    if not found.networks or not all(found.networks.values()):
        raise CheckpointError(f"{path} has metadata that do not fit: networks are missing")
    return found


def require_same(expected: Description, found: Description, path: Path) -> None:
    """`CheckpointError` that says in one line which setting of ``found`` differs in features or classes."""
    if found.classes != expected.classes:
        raise CheckpointError(f"{path} knows other classes: {_difference(expected.classes, found.classes)}")
    for name in FeatureConfig.__struct_fields__:
        wanted, got = getattr(expected.features, name), getattr(found.features, name)
        if wanted != got:
            raise CheckpointError(f"{path} has other features: {name} is {got}, expected {wanted}")


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    if len(expected) == len(found):
        return ", ".join(f"{b!r} for {a!r}" for a, b in zip(expected, found, strict=True) if a != b)
    missing, more = ([repr(name) for name in a if name not in b] for a, b in ((expected, found), (found, expected)))
    return "; ".join(f"{how} {named(names)}" for how, names in (("without", missing), ("also", more)) if names)
