"""A training run on disk: the state that `--resume` needs, and the logs."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seldrt.checkpoint import CheckpointError
from seldrt.networks import Network


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures with four significant digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}


def keep(
    path: Path, epoch: int, best: float, network: Network, optimizer: Any, lookahead: Any, schedule: Any,
    rng: np.random.Generator, generator: torch.Generator,
) -> None:  # fmt: skip
    """Write all that `restore` needs to go on as if nothing had happened."""
    state = {
        "epoch": epoch,
        "best": best,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lookahead": lookahead.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": json.dumps(rng.bit_generator.state),
        "generator": generator.get_state(),
        "torch": torch.get_rng_state(),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def restore(
    path: Path, network: Network, optimizer: Any, lookahead: Any, schedule: Any,
    rng: np.random.Generator, generator: torch.Generator,
) -> tuple[int, float]:  # fmt: skip
    """Put a kept state back; the epoch and the best score so far. `CheckpointError` when it does not fit."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
    except (RuntimeError, OSError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path} is not a run of this network: {reason}") from None
    optimizer.load_state_dict(state["optimizer"])
    lookahead.load_state_dict(state["lookahead"])
    schedule.load_state_dict(state["schedule"])
    rng.bit_generator.state = json.loads(state["rng"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return state["epoch"], state["best"]


@contextmanager
def logging_to(out: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What appends the figures of an epoch to the logs of a run."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the bare training machine has none; the JSONL log is always there
        writer = None
    else:
        writer = SummaryWriter(str(out))

    def log(figures: dict[str, Any]) -> None:
        with open(out / "log.jsonl", "a") as file:
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
