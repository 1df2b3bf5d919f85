"""Turns and mirrors of first-order ambisonics that need no more than exchanged channels and signs.

The 16 isometries that map the axes onto themselves and keep up and down apart from the sides: four quarter turns, with
and without a mirrored y, with and without a mirrored z. One is told by whether x and y change places, and then by the
signs (3,) of x, y and z. Features are (batch, frames, channels, n_mels) in the channel order of a task, directions
(batch, ..., 3); each of the batch has its own pattern: swap (batch,), signs (batch, 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from seldrt.features import TASK_CHANNELS

# The first 2, 4 and 8 are groups: a mean over them turns exactly as the sound does.
_VIEWS = (
    (False, 1, 1, 1), (False, -1, -1, 1), (True, 1, -1, -1), (True, -1, 1, -1),
    (True, -1, -1, -1), (True, 1, 1, -1), (False, 1, -1, 1), (False, -1, 1, 1),
)  # fmt: skip


def views(count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` patterns of a fixed list, at most `MOST_VIEWS`; the first leaves everything as it is."""
    chosen = _VIEWS[:count]
    return torch.tensor([view[0] for view in chosen]), torch.tensor([view[1:] for view in chosen], dtype=torch.float32)


def turned_directions(doa: Tensor, swap: Tensor, signs: Tensor) -> Tensor:
    """Directions under the patterns."""
    shape = (-1, *[1] * (doa.ndim - 1))
    turned = torch.where(swap.to(doa.device).view(shape), doa[..., [1, 0, 2]], doa)
    return turned * signs.to(doa).view(-1, *[1] * (doa.ndim - 2), 3)


def turned_back(doa: Tensor, swap: Tensor, signs: Tensor) -> Tensor:
    """Directions from before `turned_directions`."""
    return turned_directions(doa, swap, torch.where(swap[:, None], signs[:, [1, 0, 2]], signs))


def turned_features(x: Tensor, task: str, swap: Tensor, signs: Tensor) -> Tensor:
    """Features under the patterns; those of SAD and SED do not change."""
    names = TASK_CHANNELS[task]
    if "active_x" not in names:
        return x
    order = list(range(len(names)))
    factors = torch.ones(len(x), len(names))
    for kind in ("log_mel", "active", "reactive"):
        if f"{kind}_x" not in names:
            continue
        first, second = names.index(f"{kind}_x"), names.index(f"{kind}_y")
        order[first], order[second] = second, first
        if kind != "log_mel":
            for axis, name in enumerate("xyz"):
                factors[:, names.index(f"{kind}_{name}")] = signs[:, axis]
    turned = torch.where(swap.to(x.device).view(-1, 1, 1, 1), x[:, :, order], x)
    return turned * factors.to(x)[:, None, :, None]
