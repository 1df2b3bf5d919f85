"""The networks: a PoolNet-style pyramid over time and frequency, one implementation for the three tasks and all forms.

A reconstruction of the ETRI report's networks with matching parameter counts (SED 2,143,950, DOAE 2,360,796); the
report does not give the layers, so these are not the authors' architecture.
"""

from __future__ import annotations

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from seldrt.config import ConfigError, FeatureConfig, NetworkConfig
from seldrt.description import TASKS
from seldrt.features import TASK_CHANNELS
from seldrt.networks import efficientnet
from seldrt.networks.aggregation import Aggregation
from seldrt.networks.backbone import Backbone
from seldrt.networks.baseline import BASELINE, Baseline
from seldrt.networks.causal import Memory, Past, State
from seldrt.networks.direct import MaskedIntensity
from seldrt.networks.efficientnet import EfficientNetLite
from seldrt.networks.guidance import GuidanceFlow, PyramidGuidance, TrellisGuidance
from seldrt.networks.heads import Head, decode_doa, split_joint
from seldrt.networks.interface import Network

__all__ = ["PRESETS", "TASKS", "Network", "State", "build", "class_weights", "decode_doa", "preset", "split_joint"]

PRESETS = {
    "paper": NetworkConfig(),
    # Causal and narrow: trains on two CPU cores in hours, runs on a fraction of one.
    "compact": NetworkConfig(
        causal=True,
        chunk_frames=400,
        lookahead_labels=4,
        stem_width=24,
        pool_stride=(5, 2),
        widths=(32, 48, 64, 96),
        strides=((1, 1), (2, 2), (1, 2), (1, 1)),
        converted=(24, 32, 48, 48),
        guidance_width=48,
        head_norm=True,
        dropout=0.2,
        representation="xyz",
    ),
}


def preset(name: str, task: str) -> NetworkConfig:
    """The configuration of a named preset for a task: the trellis guides DOAE, pyramid pooling SAD and SED.

    The baseline has one shape, whatever the preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"network preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    if task == "baseline":
        return BASELINE
    config = PRESETS[name]
    if task != "doae":
        return config
    labels = 8 if config.representation == "xyz" else 0
    return replace(config, guidance="trellis", head_norm=True, direct_labels=labels, focus_labels=labels)


class Pyramid(Network):
    """The network of a task: outputs in (0, 1) or, for DOAE, (-1, 1), and with `direct_labels` beyond."""

    def __init__(self, task: str, n_classes: int, features: FeatureConfig, config: NetworkConfig) -> None:
        super().__init__(task, features, config)
        channels = len(TASK_CHANNELS[task])
        causal, finer = config.causal, config.converted
        self.backbone: nn.Module
        if config.backbone == "efficientnet_lite0":
            self.backbone, widths = EfficientNetLite(channels, causal), efficientnet.WIDTHS
        else:
            self.backbone, widths = Backbone(channels, config), config.widths
        self.convert = nn.ModuleList(nn.Conv2d(width, out, 1) for width, out in zip(widths, finer, strict=True))
        top = widths[-1]
        self.guidance: nn.Module
        if config.guidance == "trellis":
            self.guidance = TrellisGuidance(top, config)
        else:
            self.guidance = PyramidGuidance(top, config, config.chunk_frames // _time_stride(config))
        self.flows = nn.ModuleList(GuidanceFlow(config.guidance_width, width, causal) for width in reversed(finer[:-1]))
        self.aggregations = nn.ModuleList(
            Aggregation(finer[i], finer[i - 1] if i else finer[0], causal, fuse=i > 0) for i in (3, 2, 1, 0)
        )
        self.head = Head(finer[0], task, n_classes, config)
        wanted = task == "doae" and config.direct_labels
        self.direct = MaskedIntensity(finer[0], n_classes, config) if wanted else None
        for name, module in self.named_modules():
            if isinstance(module, Past):
                module.key = name

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        memory = Memory(state)
        labels = x.shape[1] // self.frames_per_label
        features = x.transpose(1, 2)
        x = self.standardised(x)
        maps = self.backbone(x, memory)
        guidance = self.guidance(maps[-1], memory)
        *laterals, merged = [convert(m) for convert, m in zip(self.convert, maps, strict=True)]
        for aggregation, flow, lateral in zip(self.aggregations, self.flows, reversed(laterals), strict=False):
            merged = aggregation(merged, memory, lateral, flow(guidance, lateral, memory))
        merged = self.aggregations[-1](merged, memory)
        y = self.head(merged, labels).float()  # bf16 would saturate below
        y = torch.tanh(y) if self.task == "doae" else torch.sigmoid(y)
        if self.direct is not None:
            with torch.autocast(y.device.type, enabled=False):
                y = y + self.direct(merged.float(), features, labels, memory)
        return y, memory.new if self.config.causal else {}


def _time_stride(config: NetworkConfig) -> int:
    if config.backbone == "efficientnet_lite0":
        return efficientnet.TIME_STRIDE
    total = config.stem_stride[0] * config.pool_stride[0]
    for stride, _ in config.strides:
        total *= stride
    return total


def build(task: str, n_classes: int, features: FeatureConfig, config: NetworkConfig) -> Network:
    """A network with fresh weights; `ConfigError` when its strides do not fit the features."""
    if task not in TASK_CHANNELS:
        raise ConfigError(f"task {task!r} is unknown; choose one of {', '.join(TASK_CHANNELS)}")
    if config.causal and features.frames_per_label % _time_stride(config):
        raise ConfigError(
            f"causal networks need time strides that divide {features.frames_per_label} frames per label; "
            f"these multiply up to {_time_stride(config)}"
        )
    if config.chunk_frames % features.frames_per_label:
        raise ConfigError(f"chunk_frames {config.chunk_frames} is no multiple of {features.frames_per_label}")
    labels = config.chunk_frames // features.frames_per_label
    if not 0 <= config.lookahead_labels < labels:
        raise ConfigError(f"lookahead_labels {config.lookahead_labels} must lie in 0..{labels - 1}, within a chunk")
    if task == "baseline":
        return Baseline(n_classes, features, config)
    return Pyramid(task, n_classes, features, config)


def class_weights(network: Network) -> set[str]:
    """The names of the weights that depend on the classes: those that give the answers, but for SAD."""
    if network.task == "sad":
        return set()
    answering = ("head.dense.", "direct.", "classes.2.", "directions.2.")  # of `Pyramid` and of `Baseline`
    return {name for name in network.state_dict() if name.startswith(answering)}
