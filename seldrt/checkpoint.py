"""Networks on disk: one safetensors file with weights and all that belongs to them.

A checkpoint may hold one network (from training) or the three that a pipeline needs. Its metadata say the format
version, features, classes, network shapes, event durations of the training labels, post-processing, and a card.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch

from seldrt.config import FeatureConfig, NetworkConfig, PostprocessConfig, SeldrtError
from seldrt.networks import Network, build

FORMAT_VERSION = 1


class CheckpointError(SeldrtError):
    """A checkpoint that cannot be used."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a checkpoint."""

    features: FeatureConfig
    classes: tuple[str, ...]
    networks: dict[str, NetworkConfig]  # by task
    mean_event_labels: tuple[float, ...] = ()  # label frames, one a class, of the training labels
    postprocess: PostprocessConfig = PostprocessConfig()
    card: dict[str, Any] = {}  # where trained, on what, figures
    format_version: int = FORMAT_VERSION


class Checkpoint:
    """Networks (in evaluation mode, float32) with their description."""

    def __init__(self, description: Description, networks: Mapping[str, Network]) -> None:
        self.description = description
        self.networks = dict(networks)


def save(checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the whole new one."""
    tensors = {
        f"{task}.{name}": (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for task, network in checkpoint.networks.items()
        for name, value in network.state_dict().items()
    }
    metadata = {"seldrt": msgspec.json.encode(checkpoint.description).decode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    safetensors.torch.save_file(tensors, temporary, metadata)
    os.chmod(temporary, 0o644)  # safetensors makes it for its owner only
    os.replace(temporary, path)


def describe(path: Path) -> Description:
    """The metadata of a checkpoint, without its weights; `CheckpointError` when it is none or of another version."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("seldrt")
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a model: {error}") from None
    if text is None:
        raise CheckpointError(f"{path} is no seldrt model: its metadata lack the key 'seldrt'")
    try:
        version = msgspec.json.decode(text, type=dict).get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}")
        return msgspec.json.decode(text, type=Description)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{path} has metadata that do not fit: {error}") from None


def load(path: Path, device: str = "cpu") -> Checkpoint:
    """All networks of a checkpoint; `CheckpointError` in one line when the weights do not fit the metadata."""
    description = describe(path)
    tensors = safetensors.torch.load_file(path, device)
    networks = {}
    for task, config in description.networks.items():
        network = build(task, len(description.classes), description.features, config)
        own = {name.removeprefix(f"{task}."): t for name, t in tensors.items() if name.startswith(f"{task}.")}
        try:
            network.load_state_dict(
                {name: t.float() if t.is_floating_point() else t for name, t in own.items()}, strict=True
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(f"{path}: weights of {task} do not fit its network: {reason}") from None
        networks[task] = network.to(device).eval()
    return Checkpoint(description, networks)


def merged(paths: Sequence[Path]) -> Checkpoint:
    """One checkpoint of several that share features and classes; a later one replaces the tasks of an earlier one."""
    parts = [load(path) for path in paths]
    first = parts[0].description
    for part, path in zip(parts[1:], paths[1:], strict=True):
        require_same(first, part.description, path)
    networks = {task: network for part in parts for task, network in part.networks.items()}
    card = {task: value for part in parts for task, value in part.description.card.items()}
    configs = {task: network.config for task, network in networks.items()}
    return Checkpoint(msgspec.structs.replace(first, networks=configs, card=card), networks)


def require_same(expected: Description, found: Description, path: Path) -> None:
    """`CheckpointError` that says in one line which setting of ``found`` differs in features or classes."""
    if found.classes != expected.classes:
        raise CheckpointError(f"{path} knows other classes: {_difference(expected.classes, found.classes)}")
    for name in FeatureConfig.__struct_fields__:
        wanted, got = getattr(expected.features, name), getattr(found.features, name)
        if wanted != got:
            raise CheckpointError(f"{path} has other features: {name} is {got}, expected {wanted}")


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    if len(expected) != len(found):
        return f"{len(found)}, expected {len(expected)}"
    return ", ".join(f"{b!r} for {a!r}" for a, b in zip(expected, found, strict=True) if a != b)
