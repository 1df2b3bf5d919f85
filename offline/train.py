"""THE training loop, one for all tasks.

A run is a folder: `best.safetensors` (by validation), `snapshot-EPOCH.safetensors` when asked for, `last.pt`
(everything that `--resume` needs), `log.jsonl` and TensorBoard events. Weights and state are written under a temporary
name and renamed; the logs only grow. Whatever is drawn by chance in a step depends on the seed, the number of the step
and the process alone, so a run that was killed goes on to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline.augment import augmented
from offline.batches import (
    Chunks,
    mean_event_labels,
    recordings_digest,
    require_alike,
    require_measurable,
    require_sounding,
)
from offline.config import TrainConfig
from offline.extract import Store
from offline.objective import aligned, loss
from offline.optimization import Optimization, cycle_ends
from offline.processes import Processes, joined
from offline.runs import BEST, STATE, Progress, Run, alone_in, logging_to
from offline.teacher import Teacher
from offline.transfer import begin
from offline.validation import validate
from offline.weather import weathered
from seldrt.config import ConfigError, NetworkConfig
from seldrt.description import Description
from seldrt.networks import Network, build

Figures = dict[str, Any]


def train(
    task: str,
    stores: Sequence[Store],
    validation: Sequence[Store],
    out: Path,
    network_config: NetworkConfig,
    config: TrainConfig,
    *,
    device: str = "cpu",
    time_budget_s: float | None = None,
    resume: bool = False,
    start: Path | None = None,
    mapped: bool = False,
    report: Callable[[Figures], None] = lambda figures: None,
    stopped: Callable[[], bool] = lambda: False,
    other_stores: bool = False,
) -> Progress:
    """Train one task into the run folder ``out``; stops after the configured epochs or, in any step, the time budget.

    ``start`` holds first weights (see `offline.transfer`), ``resume`` continues a run as if it had never stopped, with
    the same stores or, where it shall, with ``other_stores``, ``mapped`` leaves the features of training on disk,
    ``stopped`` is asked in each step whether to stop there, too.
    Gives how far the run has come. `ConfigError` or `CheckpointError` says what does not fit together.
    """
    if not resume and (out / STATE).exists():
        raise ConfigError(f"{out} holds a run: give --resume to continue it, or another --out")
    if resume and not (out / STATE).exists():
        raise ConfigError(f"{out} holds no run to go on with: leave out --resume, or give the --out of one")
    require_alike([*stores, *validation])
    require_sounding(task, stores, "learn from", config.folds)
    require_measurable(task, validation, network_config, config.validation_folds)
    end = math.inf if time_budget_s is None else time.monotonic() + time_budget_s
    with joined(device) as (processes, own_device):
        torch.manual_seed(config.seed)
        torch.set_float32_matmul_precision("high")  # TF32 where the GPU has it
        torch.backends.cudnn.benchmark = own_device.startswith("cuda")  # the shapes never change
        chunks = Chunks(stores, task, own_device, config.folds, mapped)
        network = build(task, len(chunks.classes), chunks.config, network_config)
        network = network.to(own_device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean, scale = chunks.statistics(np.random.default_rng(config.seed))
        network.mean.copy_(mean)
        network.scale.copy_(scale)
        description = Description(
            features=chunks.config,
            classes=chunks.classes,
            networks={task: (network_config,)},
            mean_event_labels=mean_event_labels(stores),
        )
        if start is not None and not resume:
            begin(network, start, description)
        teacher = Teacher(config, task, description, own_device) if config.teacher else None
        recordings = {"train": recordings_digest(stores), "validate": recordings_digest(validation)}
        run = Run(out, description, network, config, recordings)
        optimization = Optimization(network.parameters(), config)
        progress = run.restore(optimization, other_stores) if resume else Progress()
        training = _Training(
            network, teacher, chunks, config, optimization, processes, lambda: stopped() or time.monotonic() >= end
        )
        if not processes.leads:
            while training.epoch(progress):
                progress = Progress(progress.epoch + 1)
            return progress
        held_out = Chunks(validation, task, own_device, config.validation_folds)
        with alone_in(out), logging_to(out, progress.epoch) as log:
            while True:
                began, stepped = time.monotonic(), progress.step
                if not training.epoch(progress):
                    break
                figures: Figures = {
                    "epoch": progress.epoch + 1,
                    "loss": float(torch.stack(progress.costs).mean()),
                    **validate(network, held_out, config),
                    "learning_rate": optimization.learning_rate,
                    "seconds": time.monotonic() - began,
                }
                if figures["score"] > progress.best:
                    run.save_weights(BEST, figures)
                if config.snapshots and figures["epoch"] in cycle_ends(config):
                    run.save_weights(f"snapshot-{figures['epoch']:03d}.safetensors", figures)
                progress = Progress(figures["epoch"], best=max(progress.best, figures["score"]))
                log(figures)
                run.keep(progress, optimization)
                report(figures)
        if progress.step > stepped:
            run.keep(progress, optimization)
            if not (out / BEST).exists():  # better than nothing, and not remembered as the best
                figures = {"epoch": 0, "steps": progress.step, **validate(network, held_out, config)}
                run.save_weights(BEST, figures)
        return progress


class _Training:
    """What a step needs."""

    def __init__(
        self,
        network: Network,
        teacher: Teacher | None,
        chunks: Chunks,
        config: TrainConfig,
        optimization: Optimization,
        processes: Processes,
        enough: Callable[[], bool],
    ) -> None:
        self.network, self.chunks, self.config, self.optimization = network, chunks, config, optimization
        self.teacher, self.processes, self.enough = teacher, processes, enough
        self.device = torch.device(chunks.device)
        self.labels = network.config.chunk_frames // chunks.config.frames_per_label
        self.bf16 = config.bf16 and _has_bf16(self.device)

    def epoch(self, progress: Progress) -> bool:
        """The steps that an epoch still lacks; false when the run is at its end, or it is enough."""
        if progress.epoch >= self.config.epochs:
            return False
        while progress.step < self.config.steps_per_epoch:
            if self.processes.follow(self.enough()):
                return False
            cost = self.step(progress.epoch * self.config.steps_per_epoch + progress.step)
            progress.costs.append(cost)  # its value is read once an epoch: a GPU need not wait
            progress.step += 1
        return True

    def step(self, number: int) -> Tensor:
        """One step of the run, and what it cost."""
        config, network, rank = self.config, self.network, self.processes.rank
        for_all = np.random.default_rng([config.seed, number])
        own, own_dropout = np.random.SeedSequence([config.seed, number, rank]).generate_state(2).tolist()
        generator = torch.Generator().manual_seed(own)
        torch.manual_seed(own_dropout)
        count = config.batch_size
        starts = self.chunks.starts(
            for_all, count * self.processes.size, self.labels, config.chunk_hop_labels, config.balanced
        )
        batch = self.chunks.take(starts[rank * count : (rank + 1) * count], self.labels)
        batch = augmented(batch, network.task, config, network.mean, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            batch = batch if self.teacher is None else self.teacher.taught(batch)
            if config.weather_probability:
                batch = weathered(batch, network.task, self.chunks.config, generator, config.weather_probability)
            y = self.processes.shared(network)(batch.features)[0]
        y, batch = aligned(y.float(), batch, network.config)
        cost = loss(network.task, y, batch, config, network.config)
        self.optimization.step(cost)
        return self.processes.mean(cost.detach())


def _has_bf16(device: torch.device) -> bool:
    """Whether computing in bfloat16 is quicker there."""
    if device.type == "cuda":
        return True
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
