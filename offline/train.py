"""THE training loop, one for the three tasks.

RAdam with Lookahead ("Ranger") and cosine warm restarts (SGDR), as the report; the losses are in `offline.losses`.
A run is a folder: `best.safetensors` (by validation), `last.pt` (everything that `--resume` needs), `log.jsonl` and
TensorBoard events. The first two are written under a temporary name and renamed; the logs only grow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from offline import augment, losses, runs
from offline.batches import Batch, Chunks, mean_event_labels, require_alike, require_measurable
from offline.config import TrainConfig
from offline.extract import Store
from seldrt.checkpoint import Checkpoint, CheckpointError, Description, load, require_same, save
from seldrt.config import ConfigError, NetworkConfig
from seldrt.networks import Network, build, decode_doa

# A run may change these of its first weights.
NOT_OF_THE_SHAPE = ("chunk_frames", "lookahead_labels", "dropout", "direct_labels")


class Lookahead:
    """Every ``period`` steps the weights go half way back to where they were (Zhang et al. 2019)."""

    def __init__(self, parameters: Iterable[Tensor], period: int = 6, alpha: float = 0.5) -> None:
        self.parameters = list(parameters)
        self.slow = [p.detach().clone() for p in self.parameters]
        self.period, self.alpha, self.steps = period, alpha, 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        if self.steps % self.period == 0:
            for slow, fast in zip(self.slow, self.parameters, strict=True):
                slow.lerp_(fast, self.alpha)
                fast.copy_(slow)

    def state_dict(self) -> dict[str, Any]:
        # Where both have just met, the weights themselves: a file then holds these numbers once.
        met = self.steps % self.period == 0
        return {"slow": [p.detach() for p in self.parameters] if met else self.slow, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for slow, loaded in zip(self.slow, state["slow"], strict=True):
            slow.copy_(loaded)


def loss(task: str, y: Tensor, batch: Batch, config: TrainConfig, network: NetworkConfig) -> Tensor:
    """The loss of network outputs (batch, label frames, outputs) that speak of the batch's label frames."""
    if task == "doae":
        n_classes = batch.sed.shape[-1]
        if network.representation == "xyz":
            return losses.distance_loss(decode_doa(y, n_classes, "xyz"), batch.doa, batch.doa_mask)
        x_axis, y_axis, z_axis = batch.doa.unbind(-1)
        azimuth = torch.atan2(y_axis, x_axis) / torch.pi
        elevation = torch.atan2(z_axis, torch.hypot(x_axis, y_axis)) / torch.pi
        return losses.sinusoidal_loss(y, torch.cat([azimuth, elevation], dim=-1), batch.doa_mask.repeat(1, 1, 2))
    target = batch.sad if task == "sad" else batch.sed
    # The temporal mask: the report's SED does not learn silence at all.
    mask = None if task == "sad" else batch.sad.clamp_min(config.silence_weight)
    total = losses.soft_f_loss(y, target, mask, config.soft_f_per_class)
    if config.cross_entropy_weight:
        total = total + config.cross_entropy_weight * losses.cross_entropy(y, target, mask)
    return total


def aligned(y: Tensor, batch: Batch, network: NetworkConfig) -> tuple[Tensor, Batch]:
    """Outputs and targets that speak of the same label frames.

    Output j of a causal network speaks of label frame j - lookahead, that of any other of label frame j.
    """
    ahead = network.lookahead_labels
    if not (network.causal and ahead):
        return y, batch
    return y[:, ahead:], batch.at(slice(None, -ahead))


@torch.no_grad()
def validate(network: Network, chunks: Chunks, config: TrainConfig) -> dict[str, float]:
    """Figures over whole recordings; ``score`` is what to maximize. Frame-wise, before any post-processing."""
    network.eval()
    task, n_classes = network.task, len(chunks.classes)
    hits, wanted, given = torch.zeros(3, 1 if task == "sad" else n_classes)
    error_deg = directions = total_loss = 0.0
    for first, length in chunks.recordings:
        labels = length if network.config.causal else network.config.chunk_frames // network.frames_per_label
        batch = chunks.take(range(first, first + length - labels + 1, labels), labels)
        y, batch = aligned(network(batch.features)[0].float(), batch, network.config)
        if not network.config.causal:  # of each chunk, a stream uses the label frame that has its look-ahead behind it
            spoken_of = labels - 1 - network.config.lookahead_labels
            used = slice(spoken_of, spoken_of + 1)
            y, batch = y[:, used], batch.at(used)
        total_loss += float(loss(task, y, batch, config, network.config))
        if task == "doae":
            doa = decode_doa(y, n_classes, network.config.representation)
            cosine = torch.nn.functional.cosine_similarity(doa, batch.doa, dim=-1).clamp(-1, 1)
            error_deg += float((torch.rad2deg(torch.acos(cosine)) * batch.doa_mask).sum())
            directions += float(batch.doa_mask.sum())
        else:
            target = batch.sad if task == "sad" else batch.sed
            decided = (y > 0.5) if task == "sad" else (y > 0.5) & (batch.sad > 0)
            hits += (decided * target).sum((0, 1)).cpu()
            wanted += target.sum((0, 1)).cpu()
            given += decided.sum((0, 1)).cpu()
    network.train()
    figures = {"val_loss": total_loss / len(chunks.recordings)}
    if task == "doae":
        mean_error_deg = error_deg / max(directions, 1)
        return figures | {"mean_error_deg": mean_error_deg, "score": -mean_error_deg}
    f_class = (2 * hits / (wanted + given).clamp_min(1))[wanted > 0]
    f_micro, f_macro = float(2 * hits.sum() / (wanted + given).sum().clamp_min(1)), float(f_class.mean())
    return figures | {"f_micro": f_micro, "f_macro": f_macro, "score": (f_micro + f_macro) / 2}


def augmented(batch: Batch, task: str, config: TrainConfig, fill: Tensor, generator: torch.Generator) -> Batch:
    """The batch with other directions, colours and holes, as the configuration asks."""
    x, doa = batch.features, batch.doa
    if config.mix_probability and task != "doae":
        batch = augment.mixed(batch, generator, config.mix_probability)
        x = batch.features
    if config.rotations and task == "doae":
        swap, signs = augment.signed_permutations(len(x), generator)
        x = augment.turned_features(x, task, swap, signs)
        doa = augment.turned_directions(doa, swap, signs)
    if config.colour_db:
        x = augment.coloured(x, task, generator, config.colour_db, config.colour_db)
    if config.mask_bands or config.mask_frames:
        x = augment.masked(x, fill, generator, config.mask_bands, config.mask_frames)
    return Batch(x, batch.sed, doa, batch.doa_mask)


def train(
    task: str,
    stores: Sequence[Store],
    validation: Sequence[Store],
    out: Path,
    network_config: NetworkConfig,
    config: TrainConfig,
    device: str = "cpu",
    time_budget_s: float | None = None,
    resume: bool = False,
    start: Path | None = None,
    report: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> None:
    """Train one task into the run folder ``out``; stops after the configured epochs or the time budget.

    ``start`` is a checkpoint of first weights (with fresh optimizer), ``resume`` continues a run as if it had never
    stopped. `ConfigError` or `CheckpointError` says what does not fit together.
    """
    if not resume and (out / "last.pt").exists():
        raise ConfigError(f"{out} holds a run: give --resume to continue it, or another --out")
    require_alike([*stores, *validation])
    require_measurable(task, validation, network_config)
    began = time.monotonic()
    rng = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    chunks, held_out = Chunks(stores, task, device), Chunks(validation, task, device)
    network = build(task, len(chunks.classes), chunks.config, network_config)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, scale = chunks.statistics(rng)
    network.mean.copy_(mean)
    network.scale.copy_(scale)
    description = Description(
        features=chunks.config,
        classes=chunks.classes,
        networks={task: network_config},
        mean_event_labels=mean_event_labels(stores),
    )
    if start is not None:
        first = _first_weights(start, task, description)
        known = first.config.direct_labels == network_config.direct_labels
        network.load_state_dict(first.state_dict(), strict=known)
    optimizer = torch.optim.RAdam(network.parameters(), lr=config.learning_rate, betas=(0.95, 0.999), eps=1e-5)
    lookahead = Lookahead(network.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer,
        config.cycle_epochs * config.steps_per_epoch,
        config.cycle_factor,
        config.final_learning_rate,
    )
    epoch, best = 0, -float("inf")
    if resume and (out / "last.pt").exists():
        epoch, best = runs.restore(out / "last.pt", network, optimizer, lookahead, schedule, rng, generator)
    out.mkdir(parents=True, exist_ok=True)
    bf16 = config.bf16 and _has_bf16(device)
    torch.backends.cudnn.benchmark = device.startswith("cuda")  # the shapes never change
    labels = network_config.chunk_frames // chunks.config.frames_per_label

    with runs.logging_to(out) as log:
        while epoch < config.epochs and not _spent(began, time_budget_s):
            epoch_began, costs = time.monotonic(), []
            for _ in range(config.steps_per_epoch):
                batch = augmented(chunks.random(rng, config.batch_size, labels), task, config, network.mean, generator)
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                    y = network(batch.features)[0]
                y, batch = aligned(y.float(), batch, network_config)
                cost = loss(task, y, batch, config, network_config)
                optimizer.zero_grad(set_to_none=True)
                cost.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_norm)
                optimizer.step()
                lookahead.step()
                schedule.step()
                costs.append(cost.detach())  # its value is read once an epoch: a GPU need not wait
            epoch += 1
            figures: dict[str, Any] = {
                "epoch": epoch,
                "loss": float(torch.stack(costs).mean()),
                **validate(network, held_out, config),
                "learning_rate": schedule.get_last_lr()[0],
                "seconds": time.monotonic() - epoch_began,
            }
            if figures["score"] > best:
                best = figures["score"]
                card = {
                    "epoch": epoch,
                    "seed": config.seed,
                    "train": msgspec.to_builtins(config),
                    **runs.rounded(figures),
                }
                described = msgspec.structs.replace(description, card={task: card})
                save(Checkpoint(described, {task: network}), out / "best.safetensors")
            runs.keep(out / "last.pt", epoch, best, network, optimizer, lookahead, schedule, rng, generator)
            log(figures)
            report(figures)


def _first_weights(path: Path, task: str, wanted: Description) -> Network:
    """The network of a checkpoint; `CheckpointError` when that is for something else than ``wanted``."""
    start = load(path)
    require_same(wanted, start.description, path)
    if task not in start.networks:
        raise CheckpointError(f"{path} has no network for {task}, only for {', '.join(start.networks)}")
    expected, found = wanted.networks[task], start.description.networks[task]
    for name in NetworkConfig.__struct_fields__:
        if name not in NOT_OF_THE_SHAPE and getattr(found, name) != getattr(expected, name):
            differs = f"{name} is {getattr(found, name)}, expected {getattr(expected, name)}"
            raise CheckpointError(f"{path} has another network: {differs}")
    return start.networks[task]


def _has_bf16(device: str) -> bool:
    """Whether computing in bfloat16 is quicker there."""
    if device.startswith("cuda"):
        return True
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device == "cpu" else {}
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _spent(began: float, budget_s: float | None) -> bool:
    return budget_s is not None and time.monotonic() - began >= budget_s
