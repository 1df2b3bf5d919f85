"""Small models with random weights, settled like trained ones: for tests of everything but accuracy."""

from __future__ import annotations

import torch
from msgspec.structs import replace

from seldrt.checkpoint import Checkpoint
from seldrt.config import FeatureConfig, NetworkConfig, PostprocessConfig
from seldrt.description import Description
from seldrt.features import TASK_CHANNELS
from seldrt.networks import PRESETS, TASKS, build

FEATURES = FeatureConfig(n_fft=512, n_mels=32, hpss_kernel=5, hpss_time="trailing")
CAUSAL = replace(
    PRESETS["compact"],
    stem_width=8, widths=(8, 8, 16, 16), converted=(8, 8, 8, 8), guidance_width=8, trellis_hidden=4,
    chunk_frames=100, lookahead_labels=2,
)  # fmt: skip
WINDOWED = replace(CAUSAL, causal=False, chunk_frames=60, lookahead_labels=1)


def small_model(
    network: NetworkConfig = CAUSAL,
    classes: tuple[str, ...] = ("clap", "voice", "bell"),
    features: FeatureConfig = FEATURES,
    postprocess: PostprocessConfig | None = None,
    seed: int = 0,
) -> Checkpoint:
    """A model of all three tasks whose outputs vary with its input."""
    torch.manual_seed(seed)
    networks = {}
    for task in TASKS:
        one = build(task, len(classes), features, network)
        one.mean.fill_(-40)
        one.scale.fill_(1 / 20)
        with torch.no_grad():
            for _ in range(20):
                one(torch.randn(4, 120, len(TASK_CHANNELS[task]), features.n_mels) * 20 - 40)
        networks[task] = (one.eval(),)
    description = Description(
        features=features,
        classes=classes,
        networks=dict.fromkeys(TASKS, (network,)),
        mean_event_labels=(5.0,) * len(classes),
        postprocess=postprocess or PostprocessConfig(sad_threshold=0.3, sed_thresholds=(0.45,)),
    )
    return Checkpoint(description, networks)
