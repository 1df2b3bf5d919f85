"""Medians and gates against scipy, smoothed directions against motions in closed form, tracks by example."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace
from scipy.ndimage import median_filter
from scipy.signal import medfilt
from scipy.spatial.transform import Rotation
from scipy.special import expit, logit

from seldrt.config import ConfigError, PipelineConfig, PostprocessConfig, override
from seldrt.postprocess import Tracker, activity_stage, adjusted, median_labels, postprocess_stage
from seldrt.smoothing import doa_stage, spread_deg
from seldrt.spatial import angle_deg, azimuth_elevation, normalized, unit_vector
from seldrt.stream import Map, run
from tests.contracts import AsArrays, assert_streaming_law

CLASSES = ("dog", "phone", "piano")
CONFIG = PostprocessConfig(
    sad_median_labels=5, sed_median_labels=(1, 3, 9), sed_thresholds=(0.3, 0.5, 0.6), doa_window_labels=9
)


def estimates(n: int = 80, seed: int = 0, classes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, classes, 5)).astype(np.float32)
    x[..., 0] = rng.uniform(0.3, 1, (n, 1))
    x[..., 1] = rng.uniform(size=(n, classes))
    return x


def active(doa: np.ndarray, on: np.ndarray | None = None) -> np.ndarray:
    """One class that is active (or where ``on``) at these directions (n, 3)."""
    x = np.zeros((len(doa), 1, 5))
    x[:, 0, 0] = 1 if on is None else on
    x[:, 0, 1] = 0.9
    x[:, 0, 2:] = doa
    return x


def smoothed(doa: np.ndarray, config: PostprocessConfig = CONFIG, on: np.ndarray | None = None) -> np.ndarray:
    y = run(doa_stage(config), active(doa, on))
    assert y is not None
    return y[:, 0, 2:]


def motion(speed_deg_per_s: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """A great circle at constant speed, anywhere on the sphere: (n, 3) at 10 Hz."""
    start = normalized(rng.standard_normal(3))
    heading = normalized(np.cross(start, rng.standard_normal(3)))
    angle = np.radians(speed_deg_per_s / 10) * np.arange(n)[:, None]
    return np.cos(angle) * start + np.sin(angle) * heading


def noisy(doa: np.ndarray, deg: float, rng: np.random.Generator) -> np.ndarray:
    """With an error of ``deg`` degrees (standard deviation) along each of two axes, and any length."""
    error = np.radians(deg) * rng.standard_normal(doa.shape)
    return (doa + error) * rng.uniform(0.2, 3, (len(doa), 1))


# Activity


def test_activity_is_scipys_median_filter_and_a_threshold():
    x = estimates()
    y = run(activity_stage(CONFIG, CLASSES), x)
    for c, (length, threshold) in enumerate(zip((1, 3, 9), (0.3, 0.5, 0.6), strict=True)):
        sad, sed = medfilt(x[:, c, 0], 5), medfilt(x[:, c, 1], length)
        np.testing.assert_array_equal(y[:, c, 0], (sad > 0.5) & (sed > threshold))
        np.testing.assert_allclose(y[:, c, 1], sed)
    np.testing.assert_array_equal(y[..., 2:], x[..., 2:])
    assert y.dtype == np.float32


@given(
    arrays(np.float32, (25, 1), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    st.sampled_from([1, 3, 5, 7]),
    st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0]),
)
def test_a_median_above_the_threshold_is_a_majority_of_decisions_above_it(sed, length, threshold):
    """Ties included: so it does not matter whether probabilities or decisions are filtered."""
    x = np.ones((25, 1, 5), np.float32)
    x[..., 1] = sed
    config = PostprocessConfig(sad_median_labels=1, sed_median_labels=(length,), sed_thresholds=(threshold,))
    y = run(activity_stage(config, CLASSES[:1]), x)
    decisions = (sed[:, 0] > threshold).astype(int)
    np.testing.assert_array_equal(y[:, 0, 0], median_filter(decisions, length, mode="constant"))


@given(
    arrays(np.float32, (30, 2), elements=st.sampled_from([0.1, 0.3, 0.45, 0.6, 0.9])),
    arrays(np.float32, 30, elements=st.sampled_from([0.2, 0.8])),
    st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    st.sampled_from([0, 1, 4]),
)
def test_an_active_class_holds_on_and_reaches_back_above_a_share_of_its_threshold(sed, sad, hold, lookback):
    x = np.zeros((30, 2, 5), np.float32)
    x[..., 0], x[..., 1] = sad[:, None], sed
    config = PostprocessConfig(sed_median=False, sed_thresholds=(0.5,), sed_hold=hold, sed_lookback_labels=lookback)
    expected = np.zeros((30, 2))
    for c in range(2):
        on = False
        for t in range(30):
            before, on = on, sad[t] > 0.5 and sed[t, c] > np.float32(0.5 * hold if on else 0.5)
            expected[t, c] = on
            for earlier in range(t - 1, max(t - 1 - lookback, -1), -1) if on and not before else ():
                if not (sad[earlier] > 0.5 and sed[earlier, c] > np.float32(0.5 * hold)):
                    break
                expected[earlier, c] = 1
    stage = activity_stage(config, CLASSES[:2])
    assert stage.latency == lookback
    np.testing.assert_array_equal(run(stage, x)[..., 0], expected)
    assert_streaming_law(lambda: activity_stage(config, CLASSES[:2]), x, atol=0, nan=False)


def test_the_gate_needs_both_probabilities_above_their_thresholds():
    x = np.zeros((4, 1, 5), np.float32)
    x[:, 0, 0] = 0.5, 0.6, 0.6, 0.1
    x[:, 0, 1] = 0.9, 0.9, 0.3, 0.9
    y = run(activity_stage(PostprocessConfig(sed_median=False, sed_thresholds=(0.3,)), CLASSES[:1]), x)
    assert y[:, 0, 0].tolist() == [0, 1, 0, 0]


def test_the_latency_is_half_the_longest_filter_and_nothing_without_filters():
    assert activity_stage(CONFIG, CLASSES).latency == 4
    assert activity_stage(replace(CONFIG, sed_median=False), CLASSES).latency == 0
    assert activity_stage(PostprocessConfig(sad_median_labels=7), CLASSES).latency == 3
    assert doa_stage(PostprocessConfig(doa_window_labels=9)).latency == 4
    assert doa_stage(PostprocessConfig(doa_smoothing=False)).latency == 0
    assert postprocess_stage(CONFIG, CLASSES).latency == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed_thresholds": (0.5, 0.5)}, "sed_thresholds: 2 values for 3 classes"),
        ({"sed_thresholds": ()}, "sed_thresholds: 0 values"),
        ({"sed_median_labels": (3, 3, 3, 3)}, "sed_median_labels: 4 values for 3 classes"),
    ],
)
def test_settings_that_do_not_fit_the_classes(change, message):
    with pytest.raises(ConfigError, match=message):
        postprocess_stage(replace(PostprocessConfig(), **change), CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed_thresholds": (0.2, 1.5)}, "sed_thresholds is 0.2, 1.5: it must be 0 to 1"),
        ({"sad_threshold": -0.1}, "sad_threshold is -0.1: it must be 0 to 1"),
        ({"sed_hold": float("nan")}, "sed_hold is nan: it must be 0 to 1"),
        ({"sed_median_labels": (4,)}, "sed_median_labels is 4: it must be odd, 1 to 601"),
        ({"sad_median_labels": -1}, "sad_median_labels is -1: it must be odd"),
        ({"doa_window_labels": 8}, "doa_window_labels is 8: it must be odd"),
        ({"doa_history_labels": -1}, "doa_history_labels is -1: it must be 0 to 601"),
        ({"sed_lookback_labels": -1}, "sed_lookback_labels is -1: it must be 0 to 601"),
        ({"speeds_deg_per_s": (0.0, -10.0)}, "speeds_deg_per_s is 0.0, -10.0: it must be finite and not negative"),
        ({"max_speed_deg_per_s": -1.0}, "max_speed_deg_per_s is -1.0: it must be finite"),
        ({"max_speed_deg_per_s": float("inf")}, "max_speed_deg_per_s is inf: it must be finite"),
        ({"doa_window_labels": 100_000_001}, "doa_window_labels is 100000001: it must be odd, 1 to 601"),
        ({"sad_median_labels": 603}, "sad_median_labels is 603: it must be odd, 1 to 601"),
    ],
)
def test_settings_that_cannot_be_used(change, message):
    with pytest.raises(ConfigError, match=f"^flags or environment: {re.escape(message)}"):
        override(PostprocessConfig(), **change)


def test_median_lengths_from_mean_durations():
    assert median_labels((0, 4, 11.9, 12, 20, 28, 36, 900)) == (1, 1, 3, 3, 5, 7, 9, 9)
    assert median_labels((20,), share=0.5, longest=7) == (7,)
    for wrong in (float("nan"), -1.0):
        with pytest.raises(ConfigError):
            median_labels((4.0, wrong))


# Directions


@pytest.mark.parametrize("speed", [0, 5, 15, 30, 45, 60])
def test_a_clean_motion_at_any_speed_is_left_alone(speed):
    doa = motion(speed, 40, np.random.default_rng(speed))
    assert angle_deg(smoothed(doa), doa).max() < 1e-6


@pytest.mark.parametrize("speeds", [(0.0, 10.0, 20.0, 40.0), ()])
@pytest.mark.parametrize("speed", [0, 10, 20, 40])
def test_noise_shrinks_by_the_root_of_the_window(speed, speeds):
    rng = np.random.default_rng(speed)
    config = PostprocessConfig(doa_window_labels=9, doa_history_labels=0, speeds_deg_per_s=speeds)
    before, after, ends = [], [], []
    for _ in range(20):
        doa = motion(speed, 60, rng)
        heard = noisy(doa, 3.0, rng)
        error = angle_deg(smoothed(heard, config), doa)
        before.append(angle_deg(heard, doa) ** 2)
        after.append(error[4:-4] ** 2)
        ends.append(np.concatenate([error[:2], error[-2:]]) ** 2)
    assert np.sqrt(np.mean(before) / np.mean(after)) == pytest.approx(3.0, rel=0.15)
    assert np.mean(ends) < 0.75 * np.mean(before)


@pytest.mark.parametrize("speeds", [(0.0,), ()])
def test_noise_shrinks_further_with_history(speeds):
    """As the error of a least-squares line at its label frame: of known slope, and of any."""
    config = PostprocessConfig(doa_window_labels=5, doa_history_labels=18, speeds_deg_per_s=speeds)
    labels = np.arange(-20, 3)
    variance = 1 / 23 + (0 if speeds else labels.mean() ** 2 / (23 * labels.var()))
    rng = np.random.default_rng(0)
    still = np.tile(unit_vector(100, -30), (5000, 1))
    heard = noisy(still, 3.0, rng)
    before, after = (angle_deg(doa, still)[20:-2] ** 2 for doa in (heard, smoothed(heard, config)))
    assert after.mean() / before.mean() == pytest.approx(variance, rel=0.2)


def test_directions_count_more_where_the_class_is_sure_and_sounds_alone():
    x = np.zeros((40, 2, 5))
    x[:, 0, :2] = 1
    x[..., 2:] = unit_vector(0, 0)
    x[10:20, 0, 2:] = unit_vector(18, 0)
    errors = []
    for confidence, beside in ((1.0, 0), (0.2, 0), (1.0, 1), (0.2, 1)):
        x[10:20, 0, 1], x[10:20, 1, :2] = confidence, beside
        errors.append(angle_deg(run(doa_stage(PostprocessConfig()), x)[22:28, 0, 2:], unit_vector(0, 0)).mean())
    assert errors[0] > max(errors[1:3])
    assert min(errors[1:3]) > errors[3] > 0


def test_large_noise_shrinks_too():
    rng = np.random.default_rng(0)
    doa = motion(20, 400, rng)
    heard = noisy(doa, 12.0, rng)
    assert angle_deg(smoothed(heard), doa).mean() < 0.5 * angle_deg(heard, doa).mean()


def test_a_source_faster_than_any_known_speed_is_followed_at_the_fastest():
    doa = unit_vector(np.arange(-40, 50, 10.0), 0)  # 100 degrees a second
    azimuth, _ = azimuth_elevation(smoothed(doa, PostprocessConfig(doa_window_labels=9)))
    assert azimuth[4] == pytest.approx(0, abs=1e-6)
    assert (np.diff(azimuth) > 0).all()


def test_without_known_speeds_the_fastest_is_the_limit():
    doa = unit_vector(np.arange(-40, 50, 10.0), 0)  # 100 degrees a second
    config = PostprocessConfig(doa_window_labels=9, speeds_deg_per_s=(), max_speed_deg_per_s=40.0)
    known = replace(config, speeds_deg_per_s=(40.0,))
    np.testing.assert_allclose(smoothed(doa, config), smoothed(doa, known), atol=1e-6)


def test_the_order_of_the_speeds_does_not_matter():
    heard = noisy(motion(20, 60, np.random.default_rng(0)), 5.0, np.random.default_rng(1))
    in_any, in_order = (replace(CONFIG, speeds_deg_per_s=s) for s in ((20.0, 40.0, 0.0, 10.0), (0.0, 10.0, 20.0, 40.0)))
    np.testing.assert_array_equal(smoothed(heard, in_any), smoothed(heard, in_order))


@pytest.mark.parametrize("length", [1, 2])
def test_a_short_excursion_is_outvoted(length):
    doa = np.tile(unit_vector(10, 5), (30, 1))
    doa[12 : 12 + length] = unit_vector(130, -20)
    assert angle_deg(smoothed(doa), unit_vector(10, 5)).max() < 0.1


@pytest.mark.parametrize("jump_deg", [60, 90, 179, 180])
def test_a_jump_to_another_source_makes_no_phantom_between(jump_deg):
    rng = np.random.default_rng(jump_deg)
    doa = unit_vector(np.repeat([0, jump_deg], 20), 0)
    heard = noisy(doa, 4.0, rng)
    slow = replace(CONFIG, doa_history_labels=0, max_speed_deg_per_s=40.0)
    assert angle_deg(smoothed(heard, slow), doa).max() < 10
    with_history = smoothed(heard)
    nearest = np.minimum(*(angle_deg(with_history, unit_vector(azimuth, 0)) for azimuth in (0, jump_deg)))
    assert np.sum(nearest > 10) <= 2
    assert nearest.max() < 20
    assert angle_deg(with_history[30:], doa[30:]).max() < 10  # it takes half a second to a second


def test_an_event_is_not_mixed_with_the_one_before_a_gap():
    first, second = np.tile(unit_vector(0, 0), (10, 1)), np.tile(unit_vector(25, 0), (10, 1))
    on = np.ones(22)
    on[10:12] = 0
    doa = np.concatenate([first, np.tile(unit_vector(-170, 0), (2, 1)), second])
    y = smoothed(doa, on=on)
    assert angle_deg(y[:10], first).max() < 1e-6
    assert angle_deg(y[12:], second).max() < 1e-6
    np.testing.assert_array_equal(y[10:12], doa[10:12])


def test_a_gap_of_one_label_frame_is_bridged():
    rng = np.random.default_rng(0)
    doa = motion(10, 200, rng)
    on = np.arange(200) % 4 > 0
    heard = noisy(doa, 5.0, rng)
    heard[~on] = -doa[~on]
    error = angle_deg(smoothed(heard, on=on), doa)[on]
    assert error.mean() < 0.5 * angle_deg(heard, doa)[on].mean()


@pytest.mark.parametrize("centre", [(-180, 0), (0, 90), (77, -90), (180, 45)])
def test_the_wrap_and_the_poles_are_directions_like_others(centre):
    rng = np.random.default_rng(1)
    heard = noisy(np.tile(unit_vector(*centre), (60, 1)), 5.0, rng)
    assert angle_deg(smoothed(heard), unit_vector(*centre)).max() < 8


def test_unknown_directions_do_not_pull():
    doa = np.tile(unit_vector(40, 10), (20, 1))
    doa[::3] = 0
    assert angle_deg(smoothed(doa), unit_vector(40, 10)).max() < 1e-6
    np.testing.assert_array_equal(smoothed(np.zeros((20, 3))), 0)


def test_a_single_label_frame_keeps_its_direction():
    doa = np.tile(unit_vector(40, 10), (9, 1))
    np.testing.assert_allclose(normalized(smoothed(doa, on=np.arange(9) == 3)[3]), unit_vector(40, 10), atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_a_turned_scene_gives_the_turned_result(seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(rng=rng).as_matrix()
    heard = noisy(motion(rng.choice([0, 10, 20, 40]), 30, rng), 10.0, rng)
    heard[rng.integers(0, 30, 6)] = rng.standard_normal((6, 3))
    on = rng.uniform(size=30) > 0.2
    np.testing.assert_allclose(smoothed(heard @ turn.T, on=on), smoothed(heard, on=on) @ turn.T, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_directions_have_a_length_and_the_rest_is_untouched(seed):
    x = estimates(40, seed)
    x[..., 0] = np.random.default_rng(seed).uniform(size=(40, 3)) > 0.3
    y = run(doa_stage(CONFIG), x)
    on = x[..., 0] > 0
    length = np.linalg.norm(y[on][:, 2:], axis=-1)
    assert np.all((length > 0.009) & (length <= 1))
    np.testing.assert_array_equal(y[~on], x[~on])
    np.testing.assert_array_equal(y[..., :2], x[..., :2])


@pytest.mark.parametrize("off_deg", [0.0, 4.0, 12.0])
def test_the_spread_is_how_far_directions_lie_from_their_motion(off_deg):
    """To one side and the other of a source that stands: as many degrees, but for the two label frames of the prior."""
    heard = unit_vector(off_deg * (-1.0) ** np.arange(60), 0)
    within = 0.9 * (CONFIG.doa_window_labels + CONFIG.doa_history_labels)  # so sure, see `smoothed`
    cosine = within * np.cos(np.radians(off_deg)) + 2 * np.cos(np.radians(3))
    expected_deg = np.degrees(np.arccos(cosine / (within + 2)))
    assert spread_deg(smoothed(heard))[30] == pytest.approx(expected_deg, abs=0.05 * off_deg + 1e-6)
    assert spread_deg(smoothed(motion(20, 60, np.random.default_rng(3))))[30] < 1.5


def test_of_a_single_label_frame_nothing_is_said_of_its_spread():
    doa = np.tile(unit_vector(40, 10), (9, 1))
    spread = spread_deg(smoothed(doa, on=np.isin(np.arange(9), [1, 5, 6, 7])))
    assert np.isnan(spread[1])
    assert np.all(spread[5:8] < 3)


def test_two_label_frames_say_nothing_of_their_spread():
    spread = spread_deg(smoothed(np.tile(unit_vector(40, 10), (9, 1)), on=np.isin(np.arange(9), [1, 2, 6, 7, 8])))
    assert np.isnan(spread[1:3]).all()
    assert np.isfinite(spread[6:9]).all()


@pytest.mark.parametrize("on", [True, False])
def test_the_spread_is_told_where_directions_are_smoothed(on: bool) -> None:
    y = run(postprocess_stage(replace(CONFIG, doa_smoothing=on), CLASSES), estimates(200))
    assert y is not None
    told = [s.spread_deg for frame in Tracker(2400).push(y) for s in frame.sources]
    assert any(spread is not None for spread in told) == on
    assert all(spread is None or 0 <= spread <= 90 for spread in told)


def test_without_smoothing_directions_pass():
    x = estimates()
    y = run(doa_stage(replace(CONFIG, doa_smoothing=False)), x)
    np.testing.assert_array_equal(y[..., :2], x[..., :2])
    np.testing.assert_allclose(normalized(y[..., 2:]), normalized(x[..., 2:]), atol=1e-6)
    assert np.isnan(spread_deg(y[..., 2:])).all()


# Tracks


def frames_of(on: list[str], tracker: Tracker | None = None) -> list[list[tuple[int, int]]]:
    """(class, track) in each label frame of these patterns, one a class: '#' is active."""
    x = np.zeros((len(on[0]), len(on), 5), np.float32)
    x[..., 0] = np.array([[mark == "#" for mark in row] for row in on]).T
    return [[(s.class_id, s.track) for s in f.sources] for f in (tracker or Tracker(2400)).push(x)]


def test_a_track_lasts_from_onset_to_offset():
    assert frames_of(["##..#", ".###."]) == [[(0, 0)], [(0, 0), (1, 1)], [(1, 1)], [(1, 1)], [(0, 2)]]


def test_a_gap_of_one_label_frame_does_not_end_a_track_and_two_do():
    assert frames_of(["#.#..#"]) == [[(0, 0)], [], [(0, 0)], [], [], [(0, 1)]]


def test_label_frames_carry_index_sample_onset_and_direction():
    x = np.zeros((5, 2, 5), np.float32)
    x[2:, 1] = [1, 0.75, *(3 * unit_vector(-90, 30))]
    frames = Tracker(2400).push(x)
    assert [(f.index, f.sample) for f in frames] == [(k, 2400 * k) for k in range(5)]
    assert frames[1].sources == []
    (source,) = frames[4].sources
    assert (source.class_id, source.track, source.onset_sample, source.confidence) == (1, 0, 4800, 0.75)
    assert (source.azimuth_deg, source.elevation_deg) == pytest.approx((-90, 30), abs=1e-4)


def test_the_direction_of_a_zero_vector_is_the_front():
    x = np.zeros((1, 1, 5), np.float32)
    x[..., 0] = 1
    (source,) = Tracker(2400).push(x)[0].sources
    assert (source.azimuth_deg, source.elevation_deg) == (0, 0)


def test_nothing_is_said_of_sectors_to_ignore() -> None:
    """Who walks through one is two tracks; others are not touched."""
    azimuths = [0.0, 15.0, 30.0, 45.0, 60.0, 75.0]
    x = np.zeros((6, 2, 5), np.float32)
    x[..., 0] = 1
    x[:, 0, 2:] = unit_vector(azimuths, 0.0)
    x[:, 1, 2:] = unit_vector(-90.0, 0.0)
    frames = Tracker(2400, ignore=[(20, 61), (150, -150)]).push(x)
    said = [[(s.class_id, s.track, round(s.azimuth_deg)) for s in frame.sources] for frame in frames]
    away = [(1, 1, -90)]
    assert said == [[(0, 0, 0), *away], [(0, 0, 15), *away], away, away, away, [(0, 2, 75), *away]]


def test_a_flushed_tracker_counts_from_the_start():
    tracker = Tracker(2400)
    frames_of(["##"], tracker)
    assert tracker.flush() == []
    assert frames_of(["#"], tracker) == [[(0, 0)]]
    assert tracker.push(np.zeros((1, 1, 5)))[0].index == 1


# The law, and the price


@pytest.mark.parametrize(
    "config", [CONFIG, PostprocessConfig(sed_median=False, doa_smoothing=False), PostprocessConfig()]
)
def test_the_streaming_law(config):
    x = estimates(100)
    assert_streaming_law(lambda: activity_stage(config, CLASSES), x, atol=0)
    assert_streaming_law(lambda: postprocess_stage(config, CLASSES), x)


def test_the_streaming_law_of_directions():
    x = estimates(100)
    x[..., 0] = np.random.default_rng(2).uniform(size=(100, 3)) > 0.3
    assert_streaming_law(lambda: doa_stage(CONFIG), x)
    assert isinstance(doa_stage(replace(CONFIG, doa_smoothing=False)), Map)


def test_the_streaming_law_of_tracks():
    x = estimates(100)
    x[..., 0] = np.random.default_rng(3).uniform(size=(100, 3)) > 0.4
    assert_streaming_law(lambda: AsArrays(Tracker(2400), classes=3), x, atol=0)


def test_a_corrected_confidence_is_told_and_changes_nothing_else() -> None:
    config = replace(CONFIG, confidence_slopes=(0.5, 1.0, 2.0), confidence_offsets=(0.0, -1.0, 1.0))
    x = estimates(400)
    before, after = (run(postprocess_stage(c, CLASSES), x) for c in (CONFIG, config))
    assert before is not None
    assert after is not None
    expected = expit(logit(before[..., 1].astype(float)) * [0.5, 1, 2] + [0, -1, 1])
    np.testing.assert_allclose(after[..., 1], expected, atol=1e-5)
    np.testing.assert_array_equal(np.delete(after, 1, -1), np.delete(before, 1, -1))
    with pytest.raises(ConfigError, match="confidence_slopes: 2 values for 3 classes"):
        postprocess_stage(replace(config, confidence_slopes=(1.0, 2.0)), CLASSES)


@pytest.mark.parametrize("change", [{"confidence_slopes": (0.5,)}, {"confidence_offsets": (-1.0,)}])
def test_a_slope_or_an_offset_alone_is_told_too(change: dict[str, tuple[float, ...]]) -> None:
    x = estimates(100)
    before, after = (run(postprocess_stage(c, CLASSES), x)[..., 1] for c in (CONFIG, replace(CONFIG, **change)))
    assert (np.abs(after - before) > 0.01).any()


# --- what a user wants of it -----------------------------------------------------------------------------------------


@given(st.floats(0.01, 100), st.floats(0.01, 0.99))
def test_a_sensitivity_divides_the_odds_that_a_threshold_asks_for(sensitivity: float, threshold: float) -> None:
    given = replace(CONFIG, sed_thresholds=(threshold,))
    wanted = PipelineConfig(sensitivity={"all": sensitivity, "phone": 1.0})
    odds = [p / (1 - p) for p in adjusted(given, CLASSES, wanted, {}).sed_thresholds]
    expected = threshold / (1 - threshold)
    np.testing.assert_allclose(odds, [expected / sensitivity, expected, expected / sensitivity], rtol=1e-6)


def test_only_some_classes_are_reported_and_these_as_before() -> None:
    y = run(postprocess_stage(CONFIG, CLASSES), estimates(400))
    assert y is not None
    before = [
        [(s.azimuth_deg, s.confidence, s.onset_sample) for s in frame.sources if s.class_id == 1]
        for frame in Tracker(2400).push(y)
    ]
    after = Tracker(2400, np.array([False, True, False])).push(y)
    assert [[(s.azimuth_deg, s.confidence, s.onset_sample) for s in frame.sources] for frame in after] == before
    tracks = [source.track for frame in after for source in frame.sources]
    assert list(dict.fromkeys(tracks)) == list(range(max(tracks) + 1))


def test_settings_change_what_they_name_and_nothing_else() -> None:
    as_it_is = PipelineConfig()
    assert adjusted(CONFIG, CLASSES, as_it_is, {"doa_window_labels": 3}) == replace(CONFIG, doa_window_labels=3)
    assert adjusted(CONFIG, CLASSES, as_it_is, {}) == CONFIG


def test_who_is_in_a_hurry_waits_for_nothing_and_the_rest_stays() -> None:
    config = replace(CONFIG, sed_lookback_labels=2)
    assert postprocess_stage(config, CLASSES).latency == 10
    made = adjusted(config, CLASSES, PipelineConfig(quick=True), {})
    assert postprocess_stage(made, CLASSES).latency == 0
    assert made.sed_thresholds == config.sed_thresholds
    assert adjusted(config, CLASSES, PipelineConfig(quick=True), {"doa_window_labels": 3}).doa_window_labels == 3


def test_a_class_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="the model has no class 'cat'; it has dog, phone, piano"):
        adjusted(CONFIG, CLASSES, PipelineConfig(sensitivity={"dog": 1.0, "cat": 2.0}), {})
