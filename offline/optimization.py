"""How weights move: RAdam with Lookahead ("Ranger") or Adam, under cosine warm restarts (SGDR, Loshchilov 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from offline.config import TrainConfig
from seldrt.config import ConfigError

MOST_ASTRAY = 20
PERIOD, ALPHA = 6, 0.5  # of Lookahead


class Lookahead:
    """Every `PERIOD` steps the weights go half way back to where they were (Zhang et al. 2019)."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        self.slow = [p.detach().clone() for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        if self.steps % PERIOD == 0:
            for slow, fast in zip(self.slow, self.parameters, strict=True):
                slow.lerp_(fast, ALPHA)
                fast.copy_(slow)

    def state_dict(self) -> dict[str, Any]:
        # Where both have just met, the weights themselves: a file then holds these numbers once.
        met = self.steps % PERIOD == 0
        return {"slow": [p.detach() for p in self.parameters] if met else self.slow, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for slow, loaded in zip(self.slow, state["slow"], strict=True):
            slow.copy_(loaded)


class Optimization:
    """All that moves the weights of a network, a step at a time."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: TrainConfig) -> None:
        self.parameters, self.config = list(parameters), config
        self.astray = 0  # steps in a row whose gradient was no number
        self.learning_rate = config.learning_rate  # of the last step
        self.optimizer: torch.optim.Optimizer
        if config.optimizer == "ranger":
            self.optimizer = torch.optim.RAdam(self.parameters, config.learning_rate, betas=(0.95, 0.999), eps=1e-5)
        else:
            self.optimizer = torch.optim.Adam(self.parameters, config.learning_rate)
        self.lookahead = Lookahead(self.parameters if config.optimizer == "ranger" else [])
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            self.optimizer, config.cycle_epochs * config.steps_per_epoch, config.cycle_factor,
            config.final_learning_rate,
        )  # fmt: skip

    def step(self, cost: Tensor) -> None:
        """Against the gradient of ``cost``, if that is a number; `ConfigError` when `MOST_ASTRAY` in a row are not."""
        self.learning_rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.zero_grad(set_to_none=True)
        cost.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_norm)
        if bool(norm.isfinite()):
            self.optimizer.step()
            self.lookahead.step()
            self.astray = 0
        else:
            self.astray += 1
            if self.astray == MOST_ASTRAY:
                rate = f"{self.learning_rate:.3g}"
                raise ConfigError(f"{self.astray} gradients in a row are no numbers; lower learning_rate, now {rate}")
        self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        parts = ("optimizer", "lookahead", "schedule")
        return {name: getattr(self, name).state_dict() for name in parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("optimizer", "lookahead", "schedule"):
            getattr(self, name).load_state_dict(state[name])


def cycle_ends(config: TrainConfig) -> list[int]:
    """The epochs at whose end a cosine cycle has come down to its lowest rate: where snapshots are taken."""
    ends, length, end = [], config.cycle_epochs, config.cycle_epochs
    while end <= config.epochs:
        ends.append(end)
        length *= config.cycle_factor
        end += length
    return ends
