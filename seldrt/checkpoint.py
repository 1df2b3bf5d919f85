"""Networks on disk: one safetensors file with weights and all that belongs to them.

A checkpoint may hold one network (from training) or all that a pipeline needs: for each task one, or several whose
answers are averaged. Its metadata are its `Description`. Beside the weights there may be the graph of them all (see
`seldrt.graph`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch
from torch.nn import Parameter

from seldrt.config import override
from seldrt.description import KEY, CheckpointError, Description, describe, require_same
from seldrt.files import check_writable, whole
from seldrt.graph import GRAPH, check_finite
from seldrt.networks import Network, build


class Checkpoint:
    """Networks (in evaluation mode, float32) with their description, and the graph of them all if there is one.

    The graph knows the shapes of networks, features and classes, not the weights: who changes a shape drops it.
    """

    def __init__(self, description: Description, networks: Mapping[str, Sequence[Network]], graph: bytes = b"") -> None:
        self.description = description
        self.networks = {task: tuple(group) for task, group in networks.items()}
        self.graph = graph

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters and buffers, by their names in the file."""
        for task, group in self.networks.items():
            for i, network in enumerate(group):
                for name, value in network.state_dict(keep_vars=True).items():
                    yield f"{task}.{i}.{name}", value


def save(checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the whole file or, with a `CheckpointError` in one line, none: also when a weight is no finite number.

    ``dtype`` is that of the parameters; what was counted (buffers: means, variances) has no bounds and stays as it is.
    """
    tensors = {name: v.to(dtype) if isinstance(v, Parameter) else v for name, v in checkpoint.tensors()}
    if checkpoint.graph:
        tensors[GRAPH] = torch.frombuffer(bytearray(checkpoint.graph), dtype=torch.uint8)
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    metadata = {KEY: msgspec.json.encode(checkpoint.description).decode()}
    check_finite(path, {name: value.numpy() for name, value in tensors.items()})
    try:
        check_writable(path)
        with whole(path) as partial:
            safetensors.torch.save_file(tensors, partial, metadata)
            partial.chmod(0o644)  # safetensors makes it for its owner only
    except (OSError, safetensors.SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: cannot be written: {reason or error}") from None


def load(path: Path, device: str = "cpu") -> Checkpoint:
    """All networks of a checkpoint; `CheckpointError` in one line when the weights do not fit, or are no numbers."""
    description = describe(path)
    tensors = safetensors.torch.load_file(path, device)
    graph = tensors.pop(GRAPH, None)
    check_finite(path, {name: value.cpu().numpy() for name, value in tensors.items()})
    networks = {}
    for task, configs in description.networks.items():
        group = []
        for i, config in enumerate(configs):
            shape = task, len(description.classes), description.features, config
            prefix = f"{task}.{i}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            own = {name: t.float() if t.is_floating_point() else t for name, t in own.items()}
            try:
                with torch.device("meta"):  # takes no memory, of which metadata could ask for any
                    build(*shape).load_state_dict(own, assign=True)
                network = build(*shape)
                network.load_state_dict(own)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:160]
                raise CheckpointError(f"{path}: weights of {task} do not fit its network: {reason}") from None
            group.append(network.to(device).eval())
        networks[task] = group
    return Checkpoint(description, networks, b"" if graph is None else graph.cpu().numpy().tobytes())


def merged(paths: Sequence[Path], weights: Sequence[float] = ()) -> Checkpoint:
    """One checkpoint of several that share features and classes; several networks of a task become its ensemble.

    ``weights`` are those of the networks of each checkpoint, () leaves them as they are; `ConfigError` for one that
    is none. The card of a task with several is that of each, by its number from 1.
    """
    parts = [load(path) for path in paths]
    first = parts[0].description
    networks: dict[str, list[Network]] = {}
    cards: dict[str, list[Any]] = {}
    for part, path, weight in zip(parts, paths, weights or repeat(None, len(parts)), strict=True):
        require_same(first, part.description, path)
        for task, group in part.networks.items():
            for network in group:
                network.config = override(network.config, weight=weight)
            networks.setdefault(task, []).extend(group)
            cards.setdefault(task, []).append(part.description.card.get(task, {}))
    card = {key: value for part in parts for key, value in part.description.card.items() if key not in networks}
    for task, one in cards.items():
        card[task] = one[0] if len(one) == 1 else {str(number): each for number, each in enumerate(one, 1)}
    configs = {task: tuple(network.config for network in group) for task, group in networks.items()}
    return Checkpoint(msgspec.structs.replace(first, networks=configs, card=card), networks)


def blended(before: Path, after: Path, share: float) -> Checkpoint:
    """The networks of ``after``, with weights that are ``share`` of the way from ``before`` to there.

    ``after`` began with the weights of ``before`` (of several networks of a task with the first). Between the two lie
    networks that know much of what both know (Wortsman et al. 2022). `CheckpointError` where they have other shapes.
    """
    first, last = load(before), load(after)
    require_same(last.description, first.description, before)
    for task, group in last.networks.items():
        old = first.networks[task][0].state_dict() if task in first.networks else {}
        for network in group:
            new = network.state_dict()
            if {name: value.shape for name, value in old.items()} != {name: value.shape for name, value in new.items()}:
                raise CheckpointError(f"{before}: has no network for {task} of the shape of that in {after}")
            mean = {name: old[name].lerp(new[name], share) for name in new if new[name].is_floating_point()}
            network.load_state_dict(new | mean)
    return last
