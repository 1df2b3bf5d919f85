"""From features to estimates: SAD, SED and DOAE together (report, section 3.3).

Estimates are (label frames, classes, 5) float32: probability of any target sound (the same for all classes; 1 where
the baseline answers), probability of the class, and x, y, z of its direction (of any length). The gate itself is in
`seldrt.postprocess`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seldrt.checkpoint import Checkpoint
from seldrt.config import ConfigError, NetworkConfig
from seldrt.description import CheckpointError
from seldrt.features import silence, task_indices
from seldrt.networks import TASKS, Network, State, decode_doa, split_joint, turns
from seldrt.networks.causal import Memory
from seldrt.networks.focus import Focus
from seldrt.stream import Scan, Stage, Windowed, run

Array = NDArray[np.float32]
States = dict[str, Any]  # of the networks of each task a list, and of "focus"

SUREST = 1e-6  # probabilities are taken to be this far from 0 and 1 at least
CHUNKS_AT_ONCE = 8  # of networks that see chunks anew: as fast as more, and needs less memory


def torch_device(name: str) -> torch.device:
    """The device of that name; `ConfigError` when this machine lacks it."""
    kind = name.split(":", maxsplit=1)[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind, False):
        usable = ", ".join(kind for kind, here in available.items() if here)
        raise ConfigError(f"device {name!r} is not available here; use one of: {usable}")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is none: use cpu, cuda, cuda:1 or mps") from None


class Estimator:
    """Runs the networks of a checkpoint on pieces of a stream of features.

    These are one or several for each of the three tasks, whose answers are averaged by their weights (the
    log-odds of probabilities, and the vectors of directions), or baselines alone, which answer for all.
    """

    engine = "PyTorch"

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.tasks = ("baseline",) if "baseline" in checkpoint.networks else TASKS
        missing = [task for task in self.tasks if task not in checkpoint.networks]
        if missing:
            raise CheckpointError(f"the model has no network for {', '.join(missing)}; merge them with `offline merge`")
        self.device = torch_device(device)
        self.networks = {task: [n.to(self.device).eval() for n in checkpoint.networks[task]] for task in self.tasks}
        self.description = checkpoint.description
        self.parameters = {
            task: sum(p.numel() for network in group for p in network.parameters())
            for task, group in self.networks.items()
        }
        self.n_classes = len(checkpoint.description.classes)
        self.features = checkpoint.description.features
        self.config = _common({task: checkpoint.description.networks[task] for task in self.tasks})
        labels = checkpoint.description.networks["doae"][0].focus_labels if "doae" in self.tasks else 0
        self.focus = Focus(labels, self.config.causal, self.features.frames_per_label) if labels else None

    def stage(self) -> Stage:
        """Features (frames, channels, n_mels) in, estimates (label frames, classes, 5) out.

        Causal networks continue from state to state. Others see, at each label frame, the chunk of the past (and of
        the look-ahead) anew.
        """
        hop, ahead = self.features.frames_per_label, self.config.lookahead_labels
        fill = silence(self.features)
        if self.config.causal:
            return Scan(self._continue, self.initial, hop, delay=ahead, fill=fill)
        past = self.config.chunk_frames - hop * (1 + ahead)
        return Windowed(self._chunks, past, hop * ahead, hop, fill)

    def at_once(self, x: Array) -> Array | None:
        """The features of a whole recording in, its estimates out: nothing waits, so every chunk may see the future.

        Each label frame is taken from a chunk that has it in its middle half. Causal networks have no chunks: for them
        this is the stream.
        """
        hop, size = self.features.frames_per_label, self.config.chunk_frames
        if self.config.causal:
            return run(self.stage(), x)
        labels = size // hop
        kept = (labels + 1) // 2
        before = (labels - kept) // 2
        step, fill = kept * hop, silence(self.features)

        def middles(x: Array) -> Array:
            chunks = np.stack([x[i : i + size] for i in range(0, len(x) - size + 1, step)])
            answers = self._of_chunks(chunks)
            return _on_cpu(_assembled({t: y[:, before : before + kept].flatten(0, 1) for t, y in answers.items()}))

        whole = len(x) // hop * hop
        x = np.concatenate([x[:whole], np.broadcast_to(fill, (-whole % step, *x.shape[1:])).astype(x.dtype)])
        y = run(Windowed(middles, before * hop, size - step - before * hop, step, fill), x, CHUNKS_AT_ONCE * step)
        return None if y is None else y[: whole // hop]

    def _answers(self, task: str, x: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        """What the networks of a task say of chunks (batch, frames, channels, n_mels) on average, and their states.

        Probabilities (batch, label frames, 1 or classes), vectors (..., classes, 3), or for baselines both (..., 4).
        """
        answers, after = [], []
        own = x[:, :, task_indices(task)]
        for network, state in zip(self.networks[task], states or [None] * len(self.networks[task]), strict=True):
            if task == "doae":
                y, state = self._directions(network, own, state)
            else:
                y, state = network(own, state)
            if task == "baseline":
                probability, doa = split_joint(y, self.n_classes)
                y = torch.cat([probability.unsqueeze(-1), doa], dim=-1)
            answers.append(y)
            after.append(state)
        return ensemble_mean(task, answers, [network.config.weight for network in self.networks[task]]), after

    def _directions(self, network: Network, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Vectors (batch, label frames, classes, 3), averaged over the network's views of the sound, and its state."""
        swap, signs = (part.repeat_interleave(len(x), dim=0) for part in turns.views(network.config.views))
        seen = turns.turned_features(x.repeat(network.config.views, 1, 1, 1), "doae", swap, signs)
        y, state = network(seen, state)
        doa = turns.turned_back(decode_doa(y, self.n_classes, network.config.representation), swap, signs)
        return doa.unflatten(0, (network.config.views, -1)).mean(0), state

    def _draw(self, answers: dict[str, Tensor], x: Tensor, state: State | None = None) -> State:
        """Draws the directions among the answers to what was heard (see `Focus`); its state."""
        if self.focus is None:
            return {}
        memory = Memory(state)
        features = x[:, :, task_indices("doae")].transpose(1, 2)
        answers["doae"] = self.focus(answers["doae"], answers["sad"] * answers["sed"], features, memory)
        return memory.new

    def initial(self) -> States:
        """The states before the stream begins."""
        return dict.fromkeys((*self.tasks, "focus"))

    def step(self, states: States, piece: Tensor) -> tuple[States, Tensor]:
        """Causal networks go on from their states: whole label frames of features (frames, channels, n_mels) in,
        the states after them and the estimates out."""
        x, answers, after = piece.unsqueeze(0), {}, {}
        for task in self.tasks:
            answers[task], after[task] = self._answers(task, x, states[task])
        after["focus"] = self._draw(answers, x, states["focus"])
        return after, _assembled({task: answer[0] for task, answer in answers.items()})

    def _continue(self, states: States, x: Array) -> tuple[States, Array]:
        with torch.inference_mode():
            states, y = self.step(states, torch.from_numpy(np.ascontiguousarray(x)).to(self.device))
        return states, _on_cpu(y)

    def _chunks(self, x: Array) -> Array:
        hop, size = self.features.frames_per_label, self.config.chunk_frames
        starts = range(0, len(x) - size + 1, hop)
        together = [starts[i : i + CHUNKS_AT_ONCE] for i in range(0, len(starts), CHUNKS_AT_ONCE)]
        spoken_of = size // hop - 1 - self.config.lookahead_labels
        parts = []
        for some in together:
            answers = self._of_chunks(np.stack([x[first : first + size] for first in some]))
            parts.append(_on_cpu(_assembled({task: y[:, spoken_of] for task, y in answers.items()})))
        return np.concatenate(parts)

    def _of_chunks(self, chunks: Array) -> dict[str, Tensor]:
        """What the networks say of chunks (batch, frames, channels, n_mels) that they know nothing before."""
        with torch.inference_mode():
            x = torch.from_numpy(chunks).to(self.device)
            answers = {task: self._answers(task, x)[0] for task in self.tasks}
            self._draw(answers, x)
        return answers


def ensemble_mean(task: str, answers: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of the answers of several networks of a task: of the log-odds of probabilities, and of vectors.

    Networks that learnt by soft F are sure of themselves, and near 1 a mean of probabilities asks whether all are; the
    log-odds weigh how sure.
    """
    if len(answers) == 1:
        return answers[0]
    y = torch.stack(list(answers))
    share = y.new_tensor(weights) / sum(weights)
    if task == "doae":
        return _mean(y, share)
    if task == "baseline":
        return torch.cat([_mean_probability(y[..., :1], share), _mean(y[..., 1:], share)], dim=-1)
    return _mean_probability(y, share)


def _mean_probability(y: Tensor, share: Tensor) -> Tensor:
    return torch.sigmoid(_mean(torch.logit(y, SUREST), share))


def _mean(y: Tensor, share: Tensor) -> Tensor:
    return torch.einsum("n,n...->...", share, y)


def _on_cpu(y: Tensor) -> Array:
    result: Array = y.float().cpu().numpy()
    return result


def _assembled(answers: dict[str, Tensor]) -> Tensor:
    """Estimates of the answers (label frames, ...) of each task."""
    if "baseline" in answers:
        joint = answers["baseline"]
        parts = [torch.ones_like(joint[..., :1]), joint]  # it has no SAD: the gate is open
    else:
        sed = answers["sed"]
        parts = [answers["sad"].expand_as(sed).unsqueeze(-1), sed.unsqueeze(-1), answers["doae"]]
    return torch.cat(parts, dim=-1)


def _common(shapes: dict[str, tuple[NetworkConfig, ...]]) -> NetworkConfig:
    """What all networks must share to run side by side."""
    (leader, (first, *_)), *_ = shapes.items()
    for task, configs in shapes.items():
        for config in configs:
            for name in ("causal", "lookahead_labels", *(() if first.causal else ("chunk_frames",))):
                wanted, got = getattr(first, name), getattr(config, name)
                if wanted != got:
                    raise CheckpointError(f"the networks differ: {name} is {wanted} for {leader} and {got} for {task}")
    return first
