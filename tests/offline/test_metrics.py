"""The official 2020 metrics: corner cases as golden values, and a slow second implementation as oracle."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.metrics import (
    METRICS,
    MetricsError,
    Scores,
    SeldCounts,
    bootstrap_interval,
    count,
    nearest_angle_deg,
)

CLASSES = 4
SECOND = range(10)


def rows(frames, class_id=0, azimuth=0.0, elevation=0.0, track=0):
    return [[frame, class_id, track, azimuth, elevation] for frame in frames]


def four(scores: Scores) -> tuple[float, ...]:
    return scores.er_20, scores.f_20, scores.le_cd, scores.lr_cd


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        pytest.param(rows(SECOND), rows(SECOND), (0, 1, 0, 1), id="perfect"),
        pytest.param(rows(SECOND), [], (1, 0, 180, 0), id="no prediction"),
        pytest.param([], [], (0, 0, 180, 0), id="nothing at all"),
        pytest.param(rows(SECOND), rows([4]), (0, 1, 0, 1), id="one exact frame of ten makes a perfect segment"),
        pytest.param(rows(SECOND), rows(SECOND, azimuth=30), (1, 0, 30, 1), id="misplaced is lost, never false"),
        pytest.param(rows(SECOND), rows(SECOND, azimuth=20), (0, 1, 20, 1), id="the threshold is inclusive"),
        pytest.param(rows(SECOND), rows(SECOND, azimuth=20.001), (1, 0, 20.001, 1), id="just beyond it"),
        pytest.param(rows(SECOND), rows(SECOND, class_id=1), (1, 0, 180, 0), id="wrong class is one substitution"),
        pytest.param(rows([0, 1]), rows([2, 3]), (1, 0, 180, 0), id="no common frame is lost, and not false"),
        pytest.param(rows(SECOND), rows(range(10, 20)), (2, 0, 180, 0), id="the next second is another segment"),
        pytest.param(
            rows(SECOND, azimuth=0) + rows(SECOND, azimuth=90, track=1),
            rows(SECOND, azimuth=8) + rows(SECOND, azimuth=102, track=1),
            (0, 1, 20, 1),
            id="two tracks of a class: the angles add up",
        ),
        pytest.param(
            rows(SECOND, azimuth=0) + rows(SECOND, azimuth=90, track=1),
            rows(SECOND, azimuth=90),
            (0, 1, 0, 1),
            id="one prediction satisfies two tracks of a class",
        ),
        pytest.param(
            rows(SECOND),
            rows(range(5), azimuth=10) + rows(range(5, 10), azimuth=40),
            (1, 0, 25, 1),
            id="mean of frames",
        ),
        pytest.param(rows(SECOND, azimuth=-175), rows(SECOND, azimuth=175), (0, 1, 10, 1), id="behind, the wrap"),
        pytest.param(rows(SECOND, azimuth=-180), rows(SECOND, azimuth=180), (0, 1, 0, 1), id="straight behind"),
        pytest.param(rows(SECOND, elevation=90), rows(SECOND, 0, 123, 90), (0, 1, 0, 1), id="the pole"),
    ],
)
def test_corner_cases_of_the_official_code(reference, prediction, expected):
    assert four(count(reference, prediction, CLASSES).scores()) == pytest.approx(expected)


def test_a_false_class_in_an_empty_reference_is_absurd_alone_and_right_when_pooled():
    alone = count([], rows(SECOND), CLASSES)
    assert alone.scores().er_20 == pytest.approx(1 / np.finfo(float).eps)
    pooled = alone + count(rows(SECOND), rows(SECOND), CLASSES)
    assert four(pooled.scores()) == pytest.approx((1, 2 / 3, 0, 2 / 3))


def test_the_published_localization_recall_is_an_f_score():
    scores = count(rows(SECOND), rows(SECOND) + rows(SECOND, class_id=1), CLASSES).scores()
    assert scores.lr_cd == pytest.approx(2 / 3)
    assert scores.lr_recall == pytest.approx(1)
    assert scores.seld == pytest.approx((1 + (1 - 2 / 3) + 0 + (1 - 2 / 3)) / 4)


def test_the_criterion_weighs_half_a_turn_as_much_as_all_else():
    scores = count(rows(SECOND), rows(SECOND, azimuth=90), CLASSES).scores()
    assert scores.seld == pytest.approx((1 + 1 + 90 / 180 + 0) / 4)


def test_error_categories():
    reference = rows(SECOND, 0) + rows(SECOND, 1) + rows(SECOND, 2)
    prediction = rows(SECOND, 0) + rows(SECOND, 1, azimuth=90) + rows(SECOND, 3)
    counts = count(reference, prediction, CLASSES)
    assert counts.correct.tolist() == [1, 0, 0, 0]
    assert counts.misplaced.tolist() == [0, 1, 0, 0]
    assert counts.missed.tolist() == [0, 0, 1, 0]
    assert counts.false.tolist() == [0, 0, 0, 1]
    assert (counts.substitutions, counts.deletions, counts.insertions) == (1, 1, 0)
    right, misplaced, missed, false = counts.scores_per_class()
    assert four(right) == pytest.approx((0, 1, 0, 1))
    assert four(misplaced) == pytest.approx((1, 0, 90, 1))
    assert four(missed) == pytest.approx((1, 0, 180, 0))
    assert false.er_20 > 1e15
    assert false.f_20 == 0


def slow_scores(recordings: list[tuple[list, list]]) -> tuple[float, ...]:
    """The definition once more, by loops over frames and permutations."""
    n_ref = n_sys = tp = de_tp = angle_sum = errors = 0.0
    for reference, prediction in recordings:
        tables = []
        for table in (reference, prediction):
            tables.append(defaultdict(lambda: defaultdict(list)))
            for frame, class_id, _, azimuth, elevation in table:
                tables[-1][frame // 10, class_id][frame].append((azimuth, elevation))
        ref, sys = tables
        for segment in {key[0] for key in [*ref, *sys]}:
            lost = false = 0
            for class_id in range(CLASSES):
                r, s = ref.get((segment, class_id)), sys.get((segment, class_id))
                n_ref, n_sys = n_ref + (r is not None), n_sys + (s is not None)
                common = set(r or ()) & set(s or ())
                if common:
                    angle = float(np.mean([best_sum(r[frame], s[frame]) for frame in common]))
                    de_tp, angle_sum = de_tp + 1, angle_sum + angle
                    near = angle <= 20 + 1e-9
                    tp, lost = tp + near, lost + (not near)
                elif r:
                    lost += 1
                elif s:
                    false += 1
            errors += max(lost, false)
    f = 2 * tp / (n_ref + n_sys) if n_ref + n_sys else 0
    lr = 2 * de_tp / (n_ref + n_sys) if n_ref + n_sys else 0
    return errors / n_ref, f, angle_sum / de_tp if de_tp else 180, lr


def best_sum(a: list, b: list) -> float:
    few, many = sorted((a, b), key=len)
    return min(sum(map(cosine_rule, few, chosen)) for chosen in permutations(many, len(few)))


def cosine_rule(p: tuple, q: tuple) -> float:
    (a1, e1), (a2, e2) = np.radians(p), np.radians(q)
    cosine = np.sin(e1) * np.sin(e2) + np.cos(e1) * np.cos(e2) * np.cos(a1 - a2)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def random_recording(rng: np.random.Generator, frames: int = 35, rows_at_most: int = 60) -> tuple[list, list]:
    """Dense enough for several tracks of a class in a frame; predictions partly near the truth."""

    def table(n):
        return np.column_stack(
            [
                rng.integers(0, frames, n),
                rng.integers(0, CLASSES, n),
                rng.integers(0, 3, n),
                rng.integers(-30, 31, n),
                rng.integers(-45, 46, n) // 3,
            ]
        ).tolist()

    return table(rng.integers(1, rows_at_most)), table(rng.integers(0, rows_at_most))


@given(st.integers(0, 2**32 - 1))
def test_equals_the_slow_definition(seed):
    rng = np.random.default_rng(seed)
    recordings = [random_recording(rng) for _ in range(3)]
    counts = [count(reference, prediction, CLASSES) for reference, prediction in recordings]
    total = sum(counts, SeldCounts.zero(CLASSES))
    assert four(total.scores()) == pytest.approx(slow_scores(recordings), abs=1e-5)
    assert total.reference.sum() == (total.correct + total.missed + total.misplaced).sum()


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_and_the_numbers_of_tracks_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    reference, prediction = random_recording(rng)
    renamed = [[frame, class_id, rng.integers(100), *angles] for frame, class_id, _, *angles in prediction]
    shuffled = [renamed[k] for k in rng.permutation(len(renamed))]
    a, b = count(reference, prediction, CLASSES), count(reference[::-1], shuffled, CLASSES)
    np.testing.assert_allclose(a.totals(), b.totals())


@given(st.integers(0, 2**32 - 1))
def test_a_perfect_prediction_is_perfect(seed):
    reference, _ = random_recording(np.random.default_rng(seed))
    assert four(count(reference, reference, CLASSES).scores()) == pytest.approx((0, 1, 0, 1), abs=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0, 0, 0, 0]], r"shape \(1, 4\), not \(n, 5\)"),
        ([[0, 0, 0, 0, 0], [0, 0, 0]], "not numbers of one width"),
        ([["a", 0, 0, 0, 0]], "not numbers"),
        ([[0, 0, 0, 0, 0], [0, 4, 0, 0, 0]], r"prediction, row 1 \(0, 4, 0, 0, 0\): the class .* 0..3"),
        ([[-1, 0, 0, 0, 0]], "the frame must be"),
        ([[0.5, 0, 0, 0, 0]], "the frame must be"),
        ([[0, 1.5, 0, 0, 0]], "the class must be"),
        ([[0, 0, 0, 181, 0]], "the azimuth must be"),
        ([[0, 0, 0, 0, -91]], "the elevation must be"),
        ([[0, 0, 0, np.nan, 0]], "must be finite"),
    ],
)
def test_bad_rows_are_named(bad, message):
    with pytest.raises(MetricsError, match=message):
        count([], bad, CLASSES)


def test_the_nearest_of_several_label_rows_counts():
    table = np.array(rows([0, 1], 2, azimuth=30) + rows([0], 2, azimuth=100, track=1) + rows([5], 1), dtype=np.int64)
    doa = np.zeros((3, 2, 3))
    doa[..., 0] = 1  # to the front
    assert nearest_angle_deg(table, doa, (1, 2)) == pytest.approx(
        np.array([[np.inf, 30], [np.inf, 30], [np.inf, np.inf]])
    )


def test_bootstrap_interval_of_a_share_is_that_of_the_binomial():
    """960 recordings, each found or not with chance 0.7: the recall's interval is known in closed form."""
    found, missed = count(rows(SECOND), rows(SECOND), CLASSES), count(rows(SECOND), [], CLASSES)
    recordings = [found] * 42 * 16 + [missed] * 18 * 16
    interval = bootstrap_interval(recordings, np.random.default_rng(0), n=4000)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 960)
    assert interval["lr_recall"] == pytest.approx((0.7 - half, 0.7 + half), abs=half / 10)
    assert interval["er_20"] == pytest.approx((0.3 - half, 0.3 + half), abs=half / 10)
    assert set(interval) == set(METRICS) == {field.name for field in dataclasses.fields(Scores)}


def test_bootstrap_of_equal_recordings_is_a_point():
    counts = [count(rows(SECOND), rows(SECOND, azimuth=10), CLASSES)] * 5
    interval = bootstrap_interval(counts, np.random.default_rng(0), n=50)
    assert interval["le_cd"] == pytest.approx((10, 10))
    with pytest.raises(MetricsError, match="no recording"):
        bootstrap_interval([], np.random.default_rng(0))
