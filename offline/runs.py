"""A training run on disk: the state that `--resume` needs, the weights that are kept, and the logs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from offline.config import TrainConfig
from offline.optimization import Optimization
from seldrt.checkpoint import Checkpoint, save
from seldrt.config import ConfigError
from seldrt.description import CheckpointError, Description
from seldrt.files import whole
from seldrt.networks import Network

STATE = "last.pt"
BEST = "best.safetensors"


@dataclass
class Progress:
    """How far a run has come: whole epochs, steps into the next and what they cost, and the best score so far."""

    epoch: int = 0
    step: int = 0
    best: float = -float("inf")
    costs: list[Tensor] = field(default_factory=list)


class Run:
    """The folder of a run of one network."""

    def __init__(
        self, out: Path, description: Description, network: Network, config: TrainConfig, recordings: dict[str, str]
    ) -> None:
        self.out, self._description, self._network, self._config = out, description, network, config
        self._recordings = recordings  # their digest, by what they are for

    def settings(self) -> dict[str, Any]:
        """What must be the same when a run goes on; longer it may become."""
        train = msgspec.to_builtins(self._config)
        train.pop("epochs")
        return {
            "task": self._network.task,
            "features": msgspec.to_builtins(self._description.features),
            "classes": list(self._description.classes),
            "network": msgspec.to_builtins(self._network.config),
            "train": train,
        }

    def keep(self, progress: Progress, optimization: Optimization) -> None:
        """Write all that `restore` needs to go on as if nothing had happened."""
        state = {
            "settings": json.dumps(self.settings()),
            "recordings": self._recordings,
            "epoch": progress.epoch,
            "step": progress.step,
            "best": progress.best,
            "costs": [cost.cpu() for cost in progress.costs],
            "network": self._network.state_dict(),
            **optimization.state_dict(),
        }
        path = self.out / STATE
        try:
            with whole(path) as partial:
                torch.save(state, partial)
        except (OSError, RuntimeError) as error:  # torch's own for a full disk
            raise CheckpointError(f"{path}: cannot be written: {' '.join(str(error).split())[:160]}") from None

    def restore(self, optimization: Optimization, other_stores: bool = False) -> Progress:
        """Put a kept state back. `CheckpointError` says in one line which setting is another one now.

        Or that the recordings are, unless ``other_stores`` are welcome.
        """
        path = self.out / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._require_same(json.loads(state["settings"]))
            if not other_stores:
                self._require_same_recordings(state["recordings"])
            self._network.load_state_dict(state["network"])
        except CheckpointError:
            raise
        except Exception as error:  # torch and pickle have a dozen kinds of them
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(f"{path} is not a run of this network: {reason}") from None
        optimization.load_state_dict(state)
        device = self._network.mean.device
        costs = [cost.to(device) for cost in state["costs"]]
        return Progress(state["epoch"], state["step"], state["best"], costs)

    def _require_same(self, before: dict[str, Any]) -> None:
        for part, wanted in json.loads(json.dumps(self.settings())).items():
            old, now = (of if isinstance(of, dict) else {part: of} for of in (before[part], wanted))
            for name, value in now.items():
                if old.get(name, value) != value:  # a key that came with a later version had its default then
                    told = f"{self.out} was begun with {name} = {json.dumps(old[name])}, not {json.dumps(value)}"
                    raise CheckpointError(f"{told}: go on with the old settings, or give another --out")

    def _require_same_recordings(self, before: dict[str, str]) -> None:
        for purpose, digest in self._recordings.items():
            if before[purpose] != digest:
                told = f"{self.out} was begun with other recordings to {purpose} with"
                raise CheckpointError(f"{told}: go on with those, give another --out, or say --other-stores")

    def save_weights(self, name: str, figures: dict[str, Any]) -> None:
        """The present weights as a checkpoint ``name`` with the figures on its card."""
        train = msgspec.to_builtins(self._config) | {"teacher": Path(self._config.teacher).stem}  # whatever its folder
        card = {"seed": self._config.seed, "train": train, **rounded(figures)}
        described = msgspec.structs.replace(self._description, card={self._network.task: card})
        save(Checkpoint(described, {self._network.task: [self._network]}), self.out / name)


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures with four significant digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """A run folder in which no other training writes while the block lasts; `ConfigError` when one does.

    On Windows, and on network file systems that have no locks, nobody can tell.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = f"{out}: another training writes there now"
                raise ConfigError(f"{told}; wait until it has ended, or give another --out") from None
        yield
    finally:
        os.close(folder)


@contextmanager
def logging_to(out: Path, epoch: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What appends the figures of an epoch to the logs of a run; those after ``epoch`` of a run that died go."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the bare training machine has none; the JSONL log is always there
        writer = None
    else:
        writer = SummaryWriter(str(out), purge_step=epoch + 1)
    path = out / "log.jsonl"
    if path.exists():
        rows = path.read_text().splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["epoch"] <= epoch]
        if kept != rows:
            path.write_text("".join(kept))

    def log(figures: dict[str, Any]) -> None:
        with open(path, "a") as file:
            file.write(json.dumps(rounded(figures)) + "\n")
        if writer:
            for name, value in figures.items():
                if name != "epoch":
                    writer.add_scalar(name, value, figures["epoch"])
            writer.flush()

    try:
        yield log
    finally:
        if writer:
            writer.close()
