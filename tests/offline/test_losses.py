"""Losses against the published formulas written out in numpy."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offline import losses

LABELS, CLASSES = 6, 3


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    probability = torch.tensor(rng.uniform(0.01, 0.99, (2, LABELS, CLASSES)))
    return probability, torch.tensor(rng.integers(0, 2, (2, LABELS, CLASSES)).astype(float))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_soft_f_of_hard_decisions_is_one_minus_the_f_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    decided, target = rng.integers(0, 2, (2, 2, LABELS, CLASSES)).astype(float)
    target[0, 0, 0] = 1
    hits = (decided * target).sum()
    f_score = 2 * hits / (decided.sum() + target.sum())
    assert np.isclose(float(losses.soft_f_loss(torch.tensor(decided), torch.tensor(target))), 1 - f_score)


def test_soft_f_is_equation_3() -> None:
    y_hat, y = drawn(1)
    tp, fp, fn = (y_hat * y).sum(), (y_hat * (1 - y)).sum(), ((1 - y_hat) * y).sum()
    torch.testing.assert_close(losses.soft_f_loss(y_hat, y), 1 - 2 * tp / (2 * tp + fn + fp))


def test_masked_frames_have_no_influence() -> None:
    y_hat, y = drawn(2)
    mask = torch.ones(2, LABELS, 1, dtype=y.dtype)
    mask[:, 4:] = 0
    changed = y_hat.clone()
    changed[:, 4:] = 0.5
    for per_class in (False, True):
        kept = losses.soft_f_loss(y_hat[:, :4], y[:, :4], per_class=per_class)
        torch.testing.assert_close(losses.soft_f_loss(changed, y, mask, per_class), kept)
    torch.testing.assert_close(losses.cross_entropy(changed, y, mask), losses.cross_entropy(y_hat[:, :4], y[:, :4]))


def test_per_class_is_the_mean_over_the_classes_that_occur() -> None:
    y_hat, y = drawn(3)
    y[..., 2] = 0
    single = [losses.soft_f_loss(y_hat[..., [c]], y[..., [c]]) for c in (0, 1)]
    torch.testing.assert_close(losses.soft_f_loss(y_hat, y, per_class=True), sum(single) / 2)


def test_a_class_that_sounds_only_where_nothing_counts_does_not_occur() -> None:
    probability, target = torch.tensor([[[1.0, 0.5], [0.5, 0.5]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    mask = torch.tensor([[[1.0], [0.0]]])
    assert float(losses.soft_f_loss(probability, target, mask, per_class=True)) < 1e-6


def test_sinusoidal_loss_is_the_haversine_and_knows_no_seam() -> None:
    degrees = torch.tensor([[170.0, -90.0, 0.0]])
    target = torch.tensor([[-170.0, 90.0, 45.0]])
    mask = torch.ones(1, 3)
    expected = ((1 - torch.cos(torch.deg2rad(degrees - target))) / 2).mean()
    torch.testing.assert_close(losses.sinusoidal_loss(degrees / 180, target / 180, mask), expected)
    near = losses.sinusoidal_loss(degrees[:, :1] / 180, target[:, :1] / 180, mask[:, :1])
    assert float(near) < 0.031  # 20 degrees apart across the seam


def test_distance_loss_counts_what_the_mask_names() -> None:
    estimate, target = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3)
    target[..., 0] = 1
    estimate[0, 0, 0] = torch.tensor([0.0, 2.0, 0.0])
    mask = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert float(losses.distance_loss(estimate, target, mask)) == (5 + 1) / 2


def test_joint_loss_is_cross_entropy_and_the_root_mean_square_error_of_active_directions() -> None:
    torch.manual_seed(3)
    probability, target = torch.rand(4, 6, 3), torch.randint(0, 2, (4, 6, 3)).float()
    estimate, doa, mask = torch.randn(4, 6, 3, 3), torch.randn(4, 6, 3, 3), target.clone()
    active = mask.bool()
    entropy = torch.nn.functional.binary_cross_entropy(probability, target)
    distance = torch.nn.functional.mse_loss(estimate[active], doa[active]).sqrt()
    told = losses.joint_loss(probability, estimate, target, doa, mask, 5.0)
    torch.testing.assert_close(told, entropy + 5 * distance, rtol=1e-5, atol=1e-6)
    silent = losses.joint_loss(probability, estimate, 0 * target, doa, 0 * mask, 5.0)
    assert torch.isfinite(silent)


def test_the_distance_is_lowest_at_the_likelier_of_two_directions_its_square_between_them() -> None:
    ends = torch.eye(3)[:2]
    target = ends[[0, 0, 0, 1, 1]]
    mask = torch.ones(5)
    between = ends[0] * 0.6 + ends[1] * 0.4
    costs = {
        squared: [float(losses.distance_loss(at.expand(5, 3), target, mask, squared)) for at in (ends[0], between)]
        for squared in (True, False)
    }
    assert costs[True][1] < costs[True][0]
    assert costs[False][0] < costs[False][1]
