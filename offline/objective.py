"""What a network is asked for: the loss of a task, and the outputs and targets that it compares."""

from __future__ import annotations

import torch
from torch import Tensor

from offline import losses
from offline.batches import Batch
from offline.config import TrainConfig
from seldrt.config import NetworkConfig
from seldrt.networks import decode_doa, split_joint


def loss(task: str, y: Tensor, batch: Batch, config: TrainConfig, network: NetworkConfig) -> Tensor:
    """The loss of network outputs (batch, label frames, outputs) that speak of the batch's label frames."""
    if task == "doae":
        n_classes = batch.sed.shape[-1]
        if network.representation == "xyz":
            estimate = decode_doa(y, n_classes, "xyz")
            return losses.distance_loss(estimate, batch.doa, batch.doa_mask, config.squared_distance)
        x_axis, y_axis, z_axis = batch.doa.unbind(-1)
        azimuth = torch.atan2(y_axis, x_axis) / torch.pi
        elevation = torch.atan2(z_axis, torch.hypot(x_axis, y_axis)) / torch.pi
        return losses.sinusoidal_loss(y, torch.cat([azimuth, elevation], dim=-1), batch.doa_mask.repeat(1, 1, 2))
    if task == "baseline":
        probability, doa = split_joint(y, batch.sed.shape[-1])
        return losses.joint_loss(probability, doa, batch.sed, batch.doa, batch.doa_mask, config.doa_weight)
    target = batch.target(task)
    # The temporal mask: the report's SED does not learn silence at all.
    mask = None if task == "sad" else batch.sad.clamp_min(config.silence_weight)
    total = losses.soft_f_loss(y, target, mask, config.soft_f_per_class)
    if config.cross_entropy_weight:
        soft = target if batch.taught is None else target.lerp(batch.taught, config.teacher_share)
        total = total + config.cross_entropy_weight * losses.cross_entropy(y, soft, mask)
    return total


def aligned(y: Tensor, batch: Batch, network: NetworkConfig) -> tuple[Tensor, Batch]:
    """Outputs and targets that speak of the same label frames.

    Output j of a causal network speaks of label frame j - lookahead, that of any other of label frame j.
    """
    ahead = network.lookahead_labels
    if not (network.causal and ahead):
        return y, batch
    return y[:, ahead:], batch.at(slice(None, -ahead))
