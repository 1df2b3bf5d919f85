"""A model that has learnt teaches another one: its doubts say more of a sound than labels do (Hinton et al. 2015)."""

from __future__ import annotations

import torch

from offline.batches import Batch
from offline.config import TrainConfig
from offline.objective import aligned
from seldrt.checkpoint import load
from seldrt.config import ConfigError
from seldrt.description import CheckpointError, Description, require_same
from seldrt.inference import ensemble_mean
from seldrt.models import model_path
from seldrt.postprocess import check_classes


class Teacher:
    """What the networks of the model ``config.teacher`` say on average of chunks, for SAD or SED.

    It says nothing of the classes ``config.untaught``, and nothing at all while they sound. ``wanted`` describes the
    network that learns. `ConfigError` for another task or an unknown class, `CheckpointError` for a model of other
    features or classes.
    """

    def __init__(self, config: TrainConfig, task: str, wanted: Description, device: str) -> None:
        if task not in ("sad", "sed"):
            raise ConfigError(
                f"teacher is {config.teacher!r}: {task} learns from labels only, SAD and SED have teachers"
            )
        path = model_path(config.teacher)
        model = load(path, device)
        require_same(wanted, model.description, path)
        if task not in model.networks:
            raise CheckpointError(f"{path} has no network for {task}, only for {', '.join(model.networks)}")
        check_classes(config.untaught, wanted.classes)
        self.untaught = torch.tensor([name in config.untaught for name in wanted.classes], device=device)
        self.task, self.networks = task, model.networks[task]
        for network in self.networks:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def taught(self, batch: Batch) -> Batch:
        """The batch with the teacher's answers; of label frames that it cannot speak of, the labels."""
        with torch.inference_mode():
            heard = [network(batch.features)[0].float() for network in self.networks]
            answers = [aligned(y, batch, network.config)[0] for y, network in zip(heard, self.networks, strict=True)]
            labels = min(answer.shape[1] for answer in answers)
            weights = [network.config.weight for network in self.networks]
            known = ensemble_mean(self.task, [answer[:, :labels] for answer in answers], weights)
        taught = batch.target(self.task).clone()
        by_labels = (batch.sed[:, :labels] * self.untaught).amax(-1, keepdim=True) > 0
        if self.task == "sed":
            by_labels = by_labels | self.untaught
        taught[:, :labels] = torch.where(by_labels, taught[:, :labels], known)
        return batch._replace(taught=taught)
