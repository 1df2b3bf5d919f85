"""The networks: published parameter counts, causality, and streams that equal one pass."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch.nn import functional

from seldrt import features
from seldrt.config import MOST_VIEWS, ConfigError, FeatureConfig, NetworkConfig, override
from seldrt.networks import PRESETS, TASKS, Network, build, decode_doa, preset
from seldrt.networks.causal import Memory
from seldrt.networks.direct import MaskedIntensity
from seldrt.networks.efficientnet import EfficientNetLite
from seldrt.networks.focus import Focus
from seldrt.networks.trellis import Trellis
from seldrt.networks.turns import views
from seldrt.spatial import foa_gains, unit_vector
from seldrt.stream import run

SMALL_FEATURES = FeatureConfig(n_fft=512, n_mels=32)
SMALL = replace(
    PRESETS["compact"],
    stem_width=8, widths=(8, 8, 16, 16), converted=(8, 8, 8, 8), guidance_width=8, trellis_hidden=4, chunk_frames=100,
)  # fmt: skip


def settled(network: Network, seed: int = 0) -> Network:
    """Batch norms with the statistics of random input, as after training."""
    torch.manual_seed(seed)
    channels, mels = network.mean.shape
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(4, 100, channels, mels))
    return network.eval()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stem_width": 0}, "stem_width is 0: it must be 1 to 4096"),
        ({"strides": ((1, 0), (1, 1), (1, 1), (1, 1))}, "strides is 1, 0, 1, 1, 1, 1, 1, 1: it must be 1 to 4096"),
        ({"strides": ((1, 1),)}, "strides has 1 pairs: give 4"),
        ({"pyramid_bins": (0,)}, "pyramid_bins is 0: it must be 1 to 4096"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more, and below 1"),
        ({"lookahead_labels": -1}, "lookahead_labels is -1: it must be 0 to 601"),
        ({"focus_labels": 10**9, "representation": "xyz"}, "focus_labels is 1000000000: it must be 0 to 601"),
        ({"trellis_dilations": (1,) * 1001}, "trellis_dilations has 1001 values: give at most 1000"),
        ({"views": MOST_VIEWS + 1}, "views is 9: it must be 1 to 8"),
        ({"direct_labels": 4, "representation": "azel"}, "direct_labels and focus_labels need representation"),
        ({"focus_labels": 4, "representation": "azel"}, "direct_labels and focus_labels need representation"),
    ],
)
def test_shapes_that_are_none_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        override(PRESETS["compact"], **change)


@pytest.mark.parametrize(("task", "count"), [("sed", 2_143_950), ("doae", 2_360_796), ("sad", 2_142_273)])
def test_paper_preset_has_the_published_number_of_parameters(task: str, count: int) -> None:
    network = build(task, 14, features.PRESETS["paper"], preset("paper", task))
    assert sum(p.numel() for p in network.parameters()) == count


def test_efficientnet_lite0_has_the_published_number_of_parameters() -> None:
    # 4,652,008 in all (Liu 2020), of which the top for 1,000 kinds of image: 320 x 1280 and 1280 x 1000, norm, bias
    top = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    for causal in (False, True):
        assert sum(p.numel() for p in EfficientNetLite(3, causal).parameters()) == 4_652_008 - top


@pytest.mark.parametrize("task", TASKS)
def test_paper_preset_gives_20_label_frames_of_200_frames(task: str) -> None:
    config = features.PRESETS["paper"]
    network = build(task, 14, config, preset("paper", task)).eval()
    with torch.no_grad():
        y, state = network(torch.randn(1, 200, len(features.TASK_CHANNELS[task]), 256))
    assert y.shape == (1, 20, {"sad": 1, "sed": 14, "doae": 28}[task])
    assert state == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": "pyramid"},
        {"guidance": "trellis"},
        {"direct_labels": 4},
        {"backbone": "efficientnet_lite0"},
    ],
)
@pytest.mark.parametrize("cut", [[1] * 12, [3, 1, 8], [12]])
def test_a_causal_network_continues_where_it_stopped(changes: dict[str, Any], cut: list[int]) -> None:
    network = settled(build("doae", 5, SMALL_FEATURES, replace(SMALL, **changes)))
    x = torch.randn(2, 120, 10, 32)
    with torch.no_grad():
        whole, _ = network(x)
        state, parts = None, []
        for piece in x.split([10 * labels for labels in cut], dim=1):
            y, state = network(piece, state)
            parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)
    assert whole.std() > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_shape_continues_where_it_stopped(task: str) -> None:
    config = features.PRESETS["compact"]
    network = settled(build(task, 14, config, preset("compact", task)))
    x = torch.randn(1, 300, len(features.TASK_CHANNELS[task]), 64)
    with torch.no_grad():
        whole, _ = network(x)
        state, parts = None, []
        for piece in x.split(10, dim=1):
            y, state = network(piece, state)
            parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", ["resnet", "efficientnet_lite0"])
def test_a_causal_network_does_not_see_the_future(backbone: str) -> None:
    network = settled(build("sed", 5, SMALL_FEATURES, replace(SMALL, backbone=backbone)))
    x = torch.randn(1, 200, 3, 32)
    other = x.clone()
    other[:, 100:] = torch.nan
    with torch.no_grad():
        torch.testing.assert_close(network(x)[0][:, :10], network(other)[0][:, :10])


def test_the_trellis_equals_its_published_recursion() -> None:
    torch.manual_seed(1)
    channels, hidden, out, dilations = 3, 2, 4, (1, 2)
    net = Trellis(channels, hidden, out, dilations)
    x = torch.randn(1, channels, 9, 1)
    width = hidden + out
    h, c = [torch.zeros(width)] * 9, [torch.zeros(width)] * 9
    for d in dilations:
        new_h, new_c = [], []
        for t in range(9):
            now, before = x[0, :, t, 0], x[0, :, t - d, 0] if t >= d else torch.zeros(channels)
            h_before, c_before = (h[t - d], c[t - d]) if t >= d else (torch.zeros(width), torch.zeros(width))
            w_in, w_h = net.from_input.weight[..., 0], net.from_hidden.weight[..., 0]
            z = w_in[..., 0] @ before + w_in[..., 1] @ now
            z = z + w_h[..., 0] @ h_before + w_h[..., 1] @ h[t] + net.from_hidden.bias
            i, o, g, f = z.split(width)
            new_c.append(f.sigmoid() * c_before + i.sigmoid() * g.tanh())
            new_h.append(o.sigmoid() * new_c[-1].tanh())
        h, c = new_h, new_c
    expected = torch.stack(h, dim=1)[None, -out:, :, None]
    torch.testing.assert_close(net(x, Memory()), expected, atol=1e-6, rtol=1e-5)


def test_features_are_standardised_by_the_networks_own_statistics() -> None:
    network = settled(build("sad", 2, SMALL_FEATURES, SMALL))
    x = torch.randn(1, 100, 3, 32)
    with torch.no_grad():
        before, _ = network(x)
        network.mean.fill_(5)
        network.scale.fill_(1 / 3)
        after, _ = network(x * 3 + 5)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_decoded_directions() -> None:
    azimuth, elevation = torch.tensor([90.0, -170.0]), torch.tensor([30.0, -60.0])
    vectors = decode_doa(torch.cat([azimuth, elevation]) / 180, 2, "azel")
    torch.testing.assert_close(
        vectors, torch.tensor(unit_vector(azimuth.numpy(), elevation.numpy())).float(), atol=1e-6, rtol=0
    )
    xyz = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])  # x, y, z of two classes
    torch.testing.assert_close(decode_doa(xyz.flatten(), 2, "xyz"), xyz.T)


@pytest.mark.parametrize(
    ("task", "config", "said"),
    [
        ("loc", NetworkConfig(), "loc"),
        ("sed", replace(SMALL, pool_stride=(2, 2), strides=((1, 1), (2, 2), (2, 2), (1, 1))), "8"),
        ("sed", NetworkConfig(chunk_frames=205), "205"),
    ],
)
def test_shapes_that_cannot_be_are_refused(task: str, config: NetworkConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(task, 14, SMALL_FEATURES, config)


def test_gradients_reach_every_weight() -> None:
    network = build("doae", 3, SMALL_FEATURES, replace(SMALL, guidance="trellis"))
    y, _ = network(torch.randn(2, 100, 10, 32))
    functional.mse_loss(y, torch.randn_like(y)).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The last aggregation has neither lateral map nor guidance; everything else learns.
    assert silent == []


@pytest.mark.parametrize("causal", [True, False])
def test_masked_intensity_of_one_plane_wave_points_at_it_whatever_the_mask(causal: bool) -> None:
    doa = unit_vector(-70.0, 35.0)
    wave = np.random.default_rng(0).standard_normal((24000, 1)) * foa_gains(doa)
    rows = run(features.features_stage(SMALL_FEATURES), wave.astype(np.float32))[:, features.task_indices("doae")]
    torch.manual_seed(0)
    direct = MaskedIntensity(8, 5, replace(SMALL, direct_labels=5, causal=causal))
    torch.nn.init.normal_(direct.weights)
    with torch.no_grad():
        told = direct(torch.randn(1, 8, 200, 8), torch.from_numpy(rows[None]).transpose(1, 2), 10, Memory(None))
    vectors = decode_doa(told, 5, "xyz")[0, 5:] / direct.gain.detach().T.unsqueeze(-1)
    torch.testing.assert_close(vectors.mean(0), torch.tensor(doa).float().expand(5, 3), atol=0.02, rtol=0)


def test_the_baseline_has_the_size_of_the_published_one() -> None:
    """Keras counts 513,336: its GRUs of 2020 have one bias for each gate where PyTorch's have two."""
    network = build("baseline", 14, features.PRESETS["compact"], preset("compact", "baseline"))
    second_biases = sum(p.numel() for name, p in network.named_parameters() if "bias_hh" in name)
    convolutions = 64 * (7 * 9 + 1) + 2 * 64 * (64 * 9 + 1) + 3 * 2 * 64
    recurrent = 2 * 2 * 3 * 128 * (128 + 128 + 1)
    dense = 2 * (128 * 128 + 128) + 128 * 14 + 14 + 128 * 42 + 42
    assert convolutions + recurrent + dense == 513_336
    assert sum(p.numel() for p in network.parameters()) - second_biases == 513_336
    y, state = network(torch.randn(2, 600, 7, 64))
    assert (y.shape, state) == ((2, 60, 56), {})
    assert float(y[..., :14].detach().min()) > 0
    assert -1 <= float(y[..., 14:].detach().min()) < 0


@pytest.mark.parametrize(
    ("shape", "mels", "said"),
    [
        (replace(SMALL, causal=True), 64, "the baseline is not causal"),
        (preset("compact", "baseline"), 24, "at least 32 mel bands, the features have 24"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused(shape: NetworkConfig, mels: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build("baseline", 14, replace(SMALL_FEATURES, n_mels=mels), shape)


def test_there_are_as_many_views_as_may_be_asked_for() -> None:
    assert len(set(zip(*(map(str, part.tolist()) for part in views(MOST_VIEWS)), strict=True))) == MOST_VIEWS


def two_waves(louder_db: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions of two plane waves, and features in which each band of each frame belongs to one of them."""
    truth = torch.tensor(unit_vector(np.array([0.0, 100.0]), np.array([10.0, -20.0]))).float()
    rng = torch.Generator().manual_seed(0)
    owner = torch.randint(0, 2, (200, 32), generator=rng)
    x = torch.full((1, 10, 200, 32), -30.0)
    x[:, 0] += louder_db * (owner == 0)
    noise = 0.05 * torch.randn(1, 3, 200, 32, generator=rng)
    x[:, 4:7] = (truth[owner] / 2).permute(2, 0, 1) + noise  # active intensity of a plane wave: half its direction
    return truth, x


def mixtures(truth: torch.Tensor, *shares: float) -> torch.Tensor:
    """For 20 label frames, directions between two, by their share of the first: (1, 20, shares, 3)."""
    between = [share * truth[0] + (1 - share) * truth[1] for share in shares]
    return functional.normalize(torch.stack(between), dim=-1).expand(1, 20, -1, 3)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(-1)


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Focus goes all the way."""
    monkeypatch.setattr("seldrt.networks.focus.KEPT", 0.0)


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("causal", [True, False])
def test_focus_leads_from_between_two_sources_to_the_nearer_one(causal: bool) -> None:
    truth, x = two_waves(louder_db=0)
    between = mixtures(truth, 0.7, 0.3)
    focused = Focus(4, causal, 10)(between, torch.ones(1, 20, 2), x, Memory())
    assert cosines(between, truth).max() < np.cos(np.radians(24))
    assert cosines(focused, truth).min() > np.cos(np.radians(5))


@pytest.mark.usefixtures("nothing_kept")
def test_of_two_that_are_drawn_to_the_louder_source_the_further_one_goes_to_the_other() -> None:
    truth, x = two_waves(louder_db=12)
    between = mixtures(truth, 0.7, 0.5)
    focus = Focus(4, True, 10)
    alone = focus(between, torch.zeros(1, 20, 2), x, Memory())
    assert cosines(alone, truth[0]).min() > np.cos(np.radians(10))
    together = focus(between, torch.ones(1, 20, 2), x, Memory())
    assert cosines(together, truth).min() > np.cos(np.radians(10))


def test_focus_keeps_a_share_of_what_the_network_said(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, x = two_waves(louder_db=0)
    between = mixtures(truth, 0.7, 0.3)
    focus = Focus(4, True, 10)
    kept = focus(between, torch.ones(1, 20, 2), x, Memory())
    monkeypatch.setattr("seldrt.networks.focus.KEPT", 0.0)
    drawn = focus(between, torch.ones(1, 20, 2), x, Memory())
    expected = functional.normalize(0.7 * drawn + 0.3 * between, dim=-1)
    torch.testing.assert_close(kept, expected, atol=1e-5, rtol=0)


def test_one_that_does_not_sound_takes_nothing_from_others() -> None:
    truth, x = two_waves(louder_db=0)
    between = mixtures(truth, 0.7, 0.3, 0.65)
    activity = torch.tensor([1.0, 1.0, 0.0]).expand(1, 20, 3)
    focus = Focus(4, True, 10)
    focused = focus(between, activity, x, Memory())
    pair = focus(between[:, :, :2], activity[:, :, :2], x, Memory())
    torch.testing.assert_close(focused[:, :, :2], pair, atol=1e-5, rtol=0)


def test_focus_leaves_directions_where_there_is_nothing_to_hear() -> None:
    x = torch.zeros(1, 10, 100, 32)
    x[:, :4] = -100.0
    doa = functional.normalize(torch.randn(1, 10, 5, 3), dim=-1)
    torch.testing.assert_close(Focus(4, True, 10)(doa, torch.zeros(1, 10, 5), x, Memory()), doa)
