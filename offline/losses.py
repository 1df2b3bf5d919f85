"""The report's losses (section 4): soft F with a temporal mask, and the sinusoidal distance.

Estimates and targets are (batch, label frames, ...); masks broadcast against them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def soft_f_loss(probability: Tensor, target: Tensor, mask: Tensor | None = None, per_class: bool = False) -> Tensor:
    """1 - F of expected counts, eq. (2)-(4): probabilities and 0/1 targets (batch, label frames, classes).

    ``mask`` (batch, label frames, 1) is 0 where nothing shall count: with the silent frames masked, this is the
    temporal masking loss. Counts are summed over everything, or per class with the mean over the classes that occur.
    """
    weight = torch.ones_like(probability) if mask is None else mask.expand_as(probability)
    kept = tuple(range(probability.ndim - 1)) if per_class else tuple(range(probability.ndim))
    true_positive = (probability * target * weight).sum(kept)
    false_positive = (probability * (1 - target) * weight).sum(kept)
    false_negative = ((1 - probability) * target * weight).sum(kept)
    loss = 1 - 2 * true_positive / (2 * true_positive + false_positive + false_negative).clamp_min(1e-6)
    if not per_class:
        return loss
    occurs = ((target * weight).sum(kept) > 0).to(loss.dtype)
    return (loss * occurs).sum() / occurs.sum().clamp_min(1)


def cross_entropy(probability: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, averaged over what the mask leaves."""
    weight = torch.ones_like(probability) if mask is None else mask.expand_as(probability)
    each = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), target, reduction="none")
    return (each * weight).sum() / weight.sum().clamp_min(1)


def sinusoidal_loss(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """sin^2(pi/2 (estimate - target)), eq. (5): angles over 180 deg in (-1, 1], period 2; masked mean."""
    each = torch.sin(torch.pi / 2 * (estimate - target)) ** 2
    return (each * mask).sum() / mask.expand_as(each).sum().clamp_min(1)


def distance_loss(estimate: Tensor, target: Tensor, mask: Tensor, squared: bool = True) -> Tensor:
    """Distance of vectors (..., 3) to unit vectors, or its square; the mask (...) chooses which count.

    Where a network cannot tell which of two sources is meant, the square is lowest between them, the distance at one.
    """
    each = (estimate - target).square().sum(-1)
    if not squared:
        each = torch.sqrt(each + 1e-4) - 1e-2  # smooth at zero
    return (each * mask).sum() / mask.sum().clamp_min(1)


def joint_loss(
    probability: Tensor, estimate: Tensor, target: Tensor, doa: Tensor, mask: Tensor, doa_weight: float
) -> Tensor:
    """Binary cross-entropy of the classes + weight * root mean square error of x, y, z where the mask (...) is 1.

    This is how the published baseline trains; there the root of the sum is divided by the count and multiplied by
    1000, which is a weight of about 5 at its batch of 256 sequences of 6 s.
    """
    squares = ((estimate - doa).square() * mask.unsqueeze(-1)).sum() / (3 * mask.sum()).clamp_min(1)
    return cross_entropy(probability, target) + doa_weight * torch.sqrt(squares + 1e-12)
