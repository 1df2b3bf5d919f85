"""One training in several processes, as `torchrun` starts them: who this one is, and what all agree on."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from seldrt.networks import Network


class Processes:
    """This process, number ``rank`` of ``size``; alone when `torchrun` did not start it."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._shared: torch.nn.Module | None = None

    @property
    def leads(self) -> bool:
        """Whether this one validates and writes the files."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
            value = value / self.size
        return value

    def follow(self, wish: bool) -> bool:
        """What the leading process wishes."""
        if self.size == 1:
            return wish
        told = torch.tensor(float(wish and self.leads), device="cuda" if torch.cuda.is_available() else "cpu")
        distributed.all_reduce(told)
        return bool(told)

    def shared(self, network: Network) -> torch.nn.Module:
        """The one network of the training, with gradients that are the mean over all processes."""
        if self.size == 1:
            return network
        if self._shared is None:
            self._shared = torch.nn.parallel.DistributedDataParallel(network)
        return self._shared

    def part(self) -> None:
        """Leave the group: its threads have ended when this returns, as any that outlived Python would abort it."""
        self._shared = None
        gc.collect()  # what is shared holds the threads, and itself in cycles
        distributed.destroy_process_group()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """This process among the others while the block lasts, and the device of its own."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(), device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    processes = Processes(distributed.get_rank(), size)
    try:
        yield processes, device
    finally:
        processes.part()
