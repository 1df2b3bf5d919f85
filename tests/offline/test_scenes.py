"""Plans of scenes: drawn from a seed, within their rules."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.config import SceneConfig
from offline.plans import NO_CLASS
from offline.scenes import plan_scene
from seldrt.config import ConfigError
from seldrt.spatial import angle_deg, azimuth_elevation
from tests.offline.sounds import CLASSES


@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_plan_keeps_the_rules(bank, seed, index):
    config = SceneConfig(seconds=30)
    scene = plan_scene(config, bank, CLASSES, seed, index)
    assert scene == plan_scene(config, bank, CLASSES, seed, index)
    assert scene.overlap == 1 + index % 2
    targets = [event for event in scene.events if event.label != NO_CLASS]
    for layer in range(2):
        events = [event for event in targets if event.layer == layer]
        assert layer < scene.overlap or not events
        for before, after in pairwise(events):
            assert after.onset_s - before.onset_s - before.seconds >= config.gap_s[0] - 0.01
    for event in scene.events:
        assert event.onset_s + event.seconds <= config.seconds + 0.01
        assert event.path.turn_deg_per_s == 0 or event.seconds > config.moving_min_s
        doas = event.path.doa(np.linspace(0, event.seconds, 200))
        highest = config.max_elevation_deg if scene.room.diffuse else config.open_max_elevation_deg
        assert np.abs(azimuth_elevation(doas)[1]).max() <= highest + 0.01
        places = np.array(scene.room.array_m) + event.distance_m * doas
        assert (places > 0.1).all()
        assert (places < np.array(scene.room.size_m) - 0.1).all()
        assert 0.5 <= event.distance_m <= config.distance_m[1] + 0.001


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_moving_sources_move_at_a_stated_speed(bank, seed):
    for event in plan_scene(SceneConfig(moving_probability=1.0), bank, CLASSES, seed, 1).events:
        doas = event.path.doa(np.arange(0, event.seconds, 0.05))
        speed = angle_deg(doas[1:], doas[:-1]) / 0.05
        expected = event.path.speed_deg_per_s
        np.testing.assert_allclose(speed, expected, rtol=0.01, atol=1e-6)
        assert expected in ((0, 10, 20, 40) if event.seconds <= 3 else (10, 20, 40))


def test_scenes_of_distractors_have_no_labels(bank):
    config = SceneConfig(seconds=10, distractors_only=True)
    scene = plan_scene(config, bank, CLASSES, 1, 0)
    assert scene.events
    assert all(event.label == NO_CLASS for event in scene.events)
    with pytest.raises(ConfigError, match="no folder named distractor"):
        plan_scene(config, msgspec.structs.replace(bank, distractors=()), CLASSES, 1, 0)


def test_the_defaults_mean_the_same_scenes_for_ever(bank):
    """Numbers of the first release: validation scenes of other days stay comparable."""
    scene = plan_scene(SceneConfig(seconds=12), bank, CLASSES, 3, 1)
    assert scene.name == "fold1_room2_mix002_ov2"
    assert [(event.clip, event.onset_s, event.level_db) for event in scene.events] == [
        ("noise/noise_0.wav", 0.625, -5.1),
        ("noise/noise_0.wav", 2.157, -5.91),
        ("hum/hum_0.wav", 2.834, -1.698),
        ("hum/hum_0.wav", 5.918, -0.006),
        ("distractor/distractor_0.wav", 8.154, 5.744),
        ("noise/noise_1.wav", 8.445, -1.731),
        ("hum/hum_0.wav", 10.574, -5.495),
    ]
    assert (scene.background.snr_db, scene.background.sensor_db, scene.peak_dbfs) == (12.943, -20.075, -9.105)
    assert (scene.capsules, scene.channel_gains_db) == (None, (-0.494, -0.302, 0.409, -0.092))
    assert not {"capsules", "mixed_in", "babble", "wind"} & set(msgspec.json.encode(scene).decode().split('"'))


def plans(bank, scenes=12, **changes):
    config = SceneConfig(**{"seconds": 60.0, "distractor_probability": 0.0, **changes})
    return [plan_scene(config, bank, CLASSES, 5, index) for index in range(scenes)]


def test_near_events_are_louder_by_the_inverse_of_the_distance(bank):
    events = [event for scene in plans(bank, level_by_distance=True, level_spread_db=0.0) for event in scene.events]
    distances = np.array([event.distance_m for event in events])
    levels = np.array([event.level_db for event in events])
    np.testing.assert_allclose(levels, -20 * np.log10(distances / 2.0), atol=0.01)  # 0 dB at sqrt(0.8 * 5) m
    assert np.ptp(levels) > 6


def same_class_share(scenes):
    """Of the events of the second layer that begin over one of the first, how many are of its class."""
    pairs = [
        (below.label, above.label)
        for scene in scenes
        for above in scene.events
        for below in scene.events
        if above.layer == 1 and below.layer == 0 and below.onset_s <= above.onset_s < below.onset_s + below.seconds
    ]
    assert len(pairs) > 30
    return np.mean([below == above for below, above in pairs])


def test_speeds_and_low_passes_are_those_of_the_class(bank):
    speeds = {"knock": (0.5, 2.0), "distractor": (2.5, 2.6)}
    scenes = plans(bank, 20, class_speed=speeds, lowpass_probability=0.6, lowpass_hz=(2000.0, 3000.0))
    events = [event for scene in scenes for event in scene.events]
    knocks = [event.colour.speed for event in events if event.label == CLASSES["knock"]]
    assert 0.5 <= min(knocks) < 0.7
    assert 1.4 < max(knocks) <= 2
    assert np.median(knocks) == pytest.approx(1, abs=0.15)  # as often slower as faster
    assert all(2.5 <= event.colour.speed <= 2.6 for event in events if event.label == NO_CLASS)
    assert all(0.9 <= event.colour.speed <= 1.1 for event in events if event.label == CLASSES["hum"])
    cutoffs = [event.colour.lowpass_hz for event in events]
    assert np.mean([cutoff is not None for cutoff in cutoffs]) == pytest.approx(0.6, abs=0.1)
    assert all(2000 <= cutoff <= 3000 for cutoff in cutoffs if cutoff)


def test_some_clips_lose_their_low_frequencies_where_that_is_asked(bank):
    scenes = plans(bank, 20, highpass_probability=0.4, highpass_hz=(300.0, 400.0))
    cutoffs = [event.colour.highpass_hz for scene in scenes for event in scene.events]
    assert np.mean([bool(cutoff) for cutoff in cutoffs]) == pytest.approx(0.4, abs=0.1)
    assert all(300 <= cutoff <= 400 for cutoff in cutoffs if cutoff)


def test_a_class_that_is_not_there_has_no_speed(bank):
    with pytest.raises(ConfigError, match="has no folder drum, which class_speed names"):
        plans(bank, 1, class_speed={"drum": (0.5, 2.0)})


def test_overlapping_events_of_one_class_come_as_often_as_asked(bank):
    assert same_class_share(plans(bank, 20)) == pytest.approx(1 / 3, abs=0.2)
    assert same_class_share(plans(bank, 20, same_class_probability=0.5)) == pytest.approx(2 / 3, abs=0.2)
    assert same_class_share(plans(bank, 20, same_class_probability=1.0)) == 1


def test_distractors_mixed_in_and_babble_come_as_often_as_asked(bank):
    scenes = plans(bank, 40, mixed_in_probability=0.4, babble_probability=0.5)
    carried = [event.mixed_in for scene in scenes for event in scene.events]
    assert np.mean([under is not None for under in carried]) == pytest.approx(0.4, abs=0.1)
    assert all(-25 <= under.level_db <= -10 and "distractor" in under.clip for under in carried if under)
    babbles = [bool(scene.background.streams[0].babble) for scene in scenes]
    assert 10 < sum(babbles) < 30
    for scene in scenes:
        assert {bool(stream.babble) for stream in scene.background.streams} in ({True}, {False})
        assert all("distractor" in clip for stream in scene.background.streams for clip in stream.babble)


@pytest.mark.parametrize("name", ["mixed_in_probability", "babble_probability"])
def test_unlabelled_sounds_that_are_missing_are_named(bank, name):
    bare = msgspec.structs.replace(bank, distractors=(), unlabelled=())
    with pytest.raises(ConfigError, match=rf"has no folder named .*distractor, which {name} needs"):
        plans(bare, 1, **{name: 0.5})


def test_capsules_lie_within_their_ranges(bank):
    wanted = {"capsule_radius_m": (0.01, 0.015), "pattern_error": 0.1, "delay_error_us": 5.0, "low_cut_hz": (10, 40)}
    scenes = plans(bank, 30, microphone="mixed", seconds=5, **wanted)
    kinds = {scene.capsules.kind if scene.capsules else "ideal" for scene in scenes}
    assert kinds == {"ideal", "sphere", "tetrahedron"}
    for capsules in filter(None, (scene.capsules for scene in scenes)):
        tetrahedron = capsules.kind == "tetrahedron"
        assert 0.01 <= capsules.radius_m <= 0.015 if tetrahedron else capsules.radius_m == 0.042
        assert all(abs(a - 0.5) <= (0.1 if tetrahedron else 0) for a in capsules.patterns)
        assert all(abs(delay) <= 5 for delay in capsules.delays_us)
        assert all(10 <= corner <= 40 for corner in capsules.low_cuts_hz)
        assert len(set(capsules.delays_us)) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"babble_probability": 1.1}, "babble_probability is 1.1: it must lie in 0..1"),
        ({"mixed_in_db": (-5.0, -10.0)}, "mixed_in_db is -5, -10: it must have its smaller value first"),
        ({"capsule_radius_m": (0.0, 0.01)}, "capsule_radius_m is 0, 0.01: it must lie in 0.002..0.05"),
        ({"pattern_error": 0.4}, "pattern_error is 0.4: it must lie in 0..0.25"),
        ({"low_cut_hz": (10.0, 1000.0)}, "low_cut_hz is 10, 1000: it must lie in 0..500"),
        ({"lowpass_hz": (100.0, 1000.0)}, "lowpass_hz is 100, 1000: it must lie in 500..20000"),
        ({"highpass_hz": (100.0, 2000.0)}, "highpass_hz is 100, 2000: it must lie in 20..1000"),
        ({"class_speed": {"knock": (2.0, 0.5)}}, "speed of knock is 2, 0.5: it must have its smaller value first"),
        ({"class_speed": {"knock": (0.1, 0.5)}}, "speed of knock is 0.1, 0.5: it must lie in 0.25..4"),
        ({"max_event_s": -1.0}, "max_event_s is -1: it must lie in 0.1..86400"),
        ({"gap_s": (-5.0, -4.0)}, "gap_s is -5, -4: it must lie in 0..86400"),
        ({"speeds_deg_per_s": (10.0, -20.0)}, "speeds_deg_per_s is 10, -20: it must lie in 0..360"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        SceneConfig(**changes)


NUMBERS = {
    name: value for name, value in msgspec.structs.asdict(SceneConfig()).items() if isinstance(value, float | tuple)
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_every_number_must_be_finite(name, wrong):
    value = (wrong, wrong) if isinstance(NUMBERS[name], tuple) else wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong}.*: it must lie in "):
        SceneConfig(**{name: value})
