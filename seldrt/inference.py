"""From features to estimates: SAD, SED and DOAE together (report, section 3.3).

Estimates are (label frames, classes, 5) float32: probability of any target sound (the same for all classes),
probability of the class, and x, y, z of its direction (of any length). The gate itself is in `seldrt.postprocess`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seldrt.checkpoint import Checkpoint, CheckpointError
from seldrt.config import ConfigError, NetworkConfig
from seldrt.features import silence, task_indices
from seldrt.networks import TASKS, decode_doa
from seldrt.stream import Scan, Stage, Windowed

Array = NDArray[np.float32]


def torch_device(name: str) -> torch.device:
    """The device of that name; `ConfigError` when this machine lacks it."""
    kind = name.split(":", maxsplit=1)[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind, False):
        usable = ", ".join(kind for kind, here in available.items() if here)
        raise ConfigError(f"device {name!r} is not available here; use one of: {usable}")
    return torch.device(name)


class Estimator:
    """Runs the three networks of a checkpoint on pieces of a stream of features."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        missing = [task for task in TASKS if task not in checkpoint.networks]
        if missing:
            raise CheckpointError(f"the model has no network for {', '.join(missing)}; merge them with `offline merge`")
        self.device = torch_device(device)
        self.networks = {task: checkpoint.networks[task].to(self.device).eval() for task in TASKS}
        self.n_classes = len(checkpoint.description.classes)
        self.features = checkpoint.description.features
        self.config = _common(checkpoint.description.networks)

    def stage(self, silent_below: float) -> Stage:
        """Features (frames, channels, n_mels) in, estimates (label frames, classes, 5) out.

        Causal networks continue from state to state. Others see, at each label frame, the chunk of the past (and of
        the look-ahead) anew; there SED and DOAE rest where SAD is below ``silent_below``.
        """
        hop, ahead = self.features.frames_per_label, self.config.lookahead_labels
        fill = silence(self.features)
        if self.config.causal:
            return Scan(self._continue, lambda: dict.fromkeys(TASKS), hop, delay=ahead, fill=fill)
        past = self.config.chunk_frames - hop * (1 + ahead)
        return Windowed(lambda x: self._chunks(x, silent_below), past, hop * ahead, hop, fill)

    def _run(self, task: str, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        with torch.inference_mode():
            return self.networks[task](x[:, :, task_indices(task)], state)

    def _continue(self, states: dict[str, Any], x: Array) -> tuple[dict[str, Any], Array]:
        piece = torch.from_numpy(np.ascontiguousarray(x)).to(self.device).unsqueeze(0)
        outputs, after = {}, {}
        for task in TASKS:
            outputs[task], after[task] = self._run(task, piece, states[task])
        return after, self._assembled(*(outputs[task][0] for task in TASKS))

    def _chunks(self, x: Array, silent_below: float) -> Array:
        hop, size = self.features.frames_per_label, self.config.chunk_frames
        count = (len(x) - size) // hop + 1
        chunks = torch.from_numpy(np.stack([x[i * hop : i * hop + size] for i in range(count)])).to(self.device)
        spoken_of = size // hop - 1 - self.config.lookahead_labels
        sad = self._run("sad", chunks)[0][:, spoken_of]
        awake = sad[:, 0] >= silent_below
        per_task = []
        for task in ("sed", "doae"):
            y = sad.new_zeros(count, self.networks[task].head.dense.out_features)
            if awake.any():
                y[awake] = self._run(task, chunks[awake])[0][:, spoken_of]
            per_task.append(y)
        return self._assembled(sad, *per_task)

    def _assembled(self, sad: Tensor, sed: Tensor, doae: Tensor) -> Array:
        doa = decode_doa(doae, self.n_classes, self.networks["doae"].config.representation)
        parts = [sad.expand_as(sed).unsqueeze(-1), sed.unsqueeze(-1), doa]
        result: Array = torch.cat(parts, dim=-1).float().cpu().numpy()
        return result


def _common(configs: dict[str, NetworkConfig]) -> NetworkConfig:
    """What the three networks must share to run side by side."""
    first = configs[TASKS[0]]
    for task in TASKS[1:]:
        for name in ("causal", "lookahead_labels", *(() if first.causal else ("chunk_frames",))):
            wanted, got = getattr(first, name), getattr(configs[task], name)
            if wanted != got:
                raise CheckpointError(f"the networks differ: {name} is {wanted} for sad and {got} for {task}")
    return first
