"""How well a network does on recordings that it does not learn from: what the best weights are chosen by."""

from __future__ import annotations

import torch

from offline.batches import Chunks
from offline.config import TrainConfig
from offline.objective import aligned, loss
from seldrt.networks import Network, decode_doa, split_joint


@torch.no_grad()
def validate(network: Network, chunks: Chunks, config: TrainConfig) -> dict[str, float]:
    """Figures over recordings; ``score`` is what to maximize. Frame-wise, before any post-processing.

    Of a network that is not causal, which computes a whole chunk for one label frame, every so many frames count.
    """
    network.eval()
    task, n_classes = network.task, len(chunks.classes)
    hits, wanted, given = torch.zeros(3, 1 if task == "sad" else n_classes)
    error_deg = directions = total_loss = 0.0
    for first, length in chunks.recordings:
        causal, one = network.config.causal, not network.config.causal and task != "baseline"
        labels = length if causal else network.config.chunk_frames // network.frames_per_label
        hop = max(labels // 4, 1) if one else labels
        batch = chunks.take(range(first, first + length - labels + 1, hop), labels)
        y, batch = aligned(network(batch.features)[0].float(), batch, network.config)
        if one:
            # Of each chunk, a stream uses the label frame that has its look-ahead behind it. The baseline's chunks are
            # long and few: there all count, as its authors do.
            spoken_of = labels - 1 - network.config.lookahead_labels
            used = slice(spoken_of, spoken_of + 1)
            y, batch = y[:, used], batch.at(used)
        total_loss += float(loss(task, y, batch, config, network.config))
        if task == "baseline":
            y, doa = split_joint(y, n_classes)
        elif task == "doae":
            doa = decode_doa(y, n_classes, network.config.representation)
        if task in ("doae", "baseline"):
            cosine = torch.nn.functional.cosine_similarity(doa, batch.doa, dim=-1).clamp(-1, 1)
            error_deg += float((torch.rad2deg(torch.acos(cosine)) * batch.doa_mask).sum())
            directions += float(batch.doa_mask.sum())
        if task != "doae":
            target = batch.target(task)
            decided = (y > 0.5) & (batch.sad > 0) if task == "sed" else y > 0.5
            hits += (decided * target).sum((0, 1)).cpu()
            wanted += target.sum((0, 1)).cpu()
            given += decided.sum((0, 1)).cpu()
    network.train()
    figures = {"val_loss": total_loss / len(chunks.recordings)}
    mean_error_deg = error_deg / max(directions, 1)
    if task == "doae":
        return figures | {"mean_error_deg": mean_error_deg, "score": -mean_error_deg}
    f_class = (2 * hits / (wanted + given).clamp_min(1))[wanted > 0]
    f_micro, f_macro = float(2 * hits.sum() / (wanted + given).sum().clamp_min(1)), float(f_class.mean())
    figures |= {"f_micro": f_micro, "f_macro": f_macro, "score": (f_micro + f_macro) / 2}
    if task == "baseline":
        figures |= {"mean_error_deg": mean_error_deg, "score": (figures["score"] + 1 - mean_error_deg / 180) / 2}
    return figures
