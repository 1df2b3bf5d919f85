"""Scenes as sound: labels, levels and backgrounds are as planned."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.signal

from offline.arrays import SAMPLE_RATE, array_named
from offline.bank import read_clip
from offline.config import SceneConfig, read_section
from offline.plans import NO_CLASS, Background, Colour, MixedIn, Trajectory, Wind
from offline.rendering import dry_signal, label_rows, render
from offline.scenes import plan_scene
from seldrt.config import decode
from seldrt.spatial import angle_deg, unit_vector
from tests.offline.sounds import CLASSES, QUIET, make_event, one_event

FOA = array_named("foa")
TREBLE = scipy.signal.butter(8, 4000, "high", fs=SAMPLE_RATE, output="sos")


def intensity(audio, frames):
    """Active intensity vectors (len(frames), 3) of label frames of FOA audio."""
    blocks = audio[: len(audio) // 2400 * 2400].reshape(-1, 2400, 4)[frames]
    return np.stack([np.sum(blocks[..., 0] * blocks[..., i], axis=1) for i in (3, 1, 2)], axis=1)


@pytest.mark.parametrize(
    ("begin", "end", "frames"),
    [
        (0, 2400, [0]),
        (1200, 3600, [0, 1]),  # half of each
        (1201, 3599, [0]),  # half of none: the frame of the middle
        (1199, 7201, [0, 1, 2]),
        (100, 200, [0]),
        (4000, 9601, [2, 3]),
    ],
)
def test_a_label_frame_counts_when_the_event_covers_half_of_it(begin, end, frames):
    rows = label_rows(make_event(Trajectory((10.4, -20.6))), begin, end)
    assert [row[0] for row in rows] == (frames if (begin, end) != (1201, 3599) else [1])
    assert {row[1:] for row in rows} == {(2, 0, 10, -21)}


def test_azimuths_stay_in_range():
    azimuths = {row[3] for row in label_rows(make_event(Trajectory((179.0, 0.0), turn_deg_per_s=1.0)), 0, 48000)}
    assert azimuths == {179, -180, -179}


@pytest.mark.parametrize("speed", [0.0, -10.0, 20.0, 40.0])
def test_labels_point_where_the_intensity_points(bank, speed):
    """In a free field, against the FOA intensity of each label frame that is wholly inside the event."""
    config = SceneConfig(seconds=8, room="anechoic", snr_db=(80, 80), **QUIET)
    path = Trajectory((150.0, 20.0), turn_deg_per_s=speed / np.cos(np.radians(20)), speed_deg_per_s=abs(speed))
    scene = one_event(plan_scene(config, bank, CLASSES, 0, 0), make_event(path))
    audio, rows = render(scene, bank, FOA)
    inside = rows[1:-1]
    assert rows[0, 0] == 10
    assert len(rows) in (50, 51)
    error = angle_deg(intensity(audio, inside[:, 0]), unit_vector(inside[:, 3], inside[:, 4]))
    assert error.max() < 1.2  # rounding to whole degrees alone gives up to 0.7
    if speed:
        measured = angle_deg(*intensity(audio, inside[[0, 40], 0])) / 4
        turned = angle_deg(*path.doa([1.0, 5.0])) / 4
        assert measured == pytest.approx(turned, abs=0.3)


def test_reverberant_labels_point_at_the_direct_sound(bank):
    scene = plan_scene(SceneConfig(seconds=8, room="room", rt60_s=(0.2, 0.2), **QUIET), bank, CLASSES, 0, 0)
    event = make_event(Trajectory((-70.0, 10.0)), distance_m=0.9)
    audio, rows = render(one_event(scene, event), bank, FOA)
    error = angle_deg(intensity(audio, rows[:, 0]), unit_vector(rows[:, 3], rows[:, 4]))
    assert np.median(error) < 12


def test_labels_wait_for_the_sound_to_travel(bank):
    scene = plan_scene(SceneConfig(seconds=8, room="anechoic", **QUIET), bank, CLASSES, 0, 0)
    event = make_event(Trajectory((0.0, 0.0)), distance_m=18.0)  # 52 ms: more than half a frame
    _, rows = render(one_event(scene, event), bank, FOA)
    assert rows[0, 0] == 11


def test_labels_end_with_the_scene_and_distractors_have_none(bank):
    scene = plan_scene(SceneConfig(seconds=3, room="anechoic", **QUIET), bank, CLASSES, 0, 0)
    _, rows = render(one_event(scene, make_event(Trajectory((0.0, 0.0)))), bank, FOA)
    assert (rows[:, 0].min(), rows[:, 0].max()) == (10, 29)
    _, rows = render(one_event(scene, make_event(Trajectory((0.0, 0.0)), label=NO_CLASS)), bank, FOA)
    assert rows.shape == (0, 5)


# --- levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["foa", "mic"])
@pytest.mark.parametrize("snr_db", [6.0, 20.0])
def test_the_measured_snr_is_the_planned_one(bank, name, snr_db):
    config = SceneConfig(seconds=8, snr_db=(snr_db, snr_db), peak_dbfs=(-6, -6), **QUIET)
    scene = one_event(plan_scene(config, bank, CLASSES, 4, 0), make_event(Trajectory((30.0, 0.0)), level_db=3.0))
    audio, rows = render(scene, bank, array_named(name))
    assert np.abs(audio).max() == pytest.approx(10 ** (-6 / 20))
    power = np.mean(audio[: len(audio) // 2400 * 2400].reshape(-1, 2400 * 4) ** 2, axis=1)
    noise, both = np.mean(power[:9]), np.mean(power[rows[1:-1, 0]])
    assert 10 * np.log10((both - noise) / noise) == pytest.approx(snr_db, abs=1.0)


@pytest.mark.parametrize("level_db", [0.0, 15.0])
def test_wind_is_as_loud_as_planned_and_unlike_in_any_two_channels(bank, level_db):
    plan = Wind(level_db, corner_hz=80.0, slope_db_per_octave=12.0, gust_db=6.0, gust_s=2.0)
    config = SceneConfig(seconds=20, snr_db=(20.0, 20.0), **QUIET)
    calm = one_event(plan_scene(config, bank, CLASSES, 4, 0), make_event(Trajectory((30.0, 0.0))))
    (audio, rows), (windy, windy_rows) = (
        render(scene, bank, FOA) for scene in (calm, msgspec.structs.replace(calm, wind=plan))
    )
    np.testing.assert_array_equal(rows, windy_rows)
    event = slice(rows[1, 0] * 2400, rows[-1, 0] * 2400)
    gain = np.median(
        scipy.signal.sosfilt(TREBLE, windy, axis=0)[event, 0] / scipy.signal.sosfilt(TREBLE, audio, axis=0)[event, 0]
    )
    wind = windy / gain - audio
    event_db = 10 * np.log10(np.mean(audio[event] ** 2))
    assert 10 * np.log10(np.mean(wind**2)) - event_db == pytest.approx(level_db, abs=1.0)
    assert np.abs(np.corrcoef(wind.T) - np.eye(4)).max() < 0.1
    hz, power = scipy.signal.welch(wind[:, 0], SAMPLE_RATE, nperseg=4800)
    falls = 10 * np.log10(power[hz == 320] / power[hz == 640])
    assert falls == pytest.approx(12.0, abs=1.5)
    seconds = np.sqrt(np.mean(wind[:, 0].reshape(20, -1) ** 2, axis=1))
    assert 20 * np.log10(seconds.max() / seconds.min()) > 6


def test_channels_have_the_gains_of_the_plan(bank):
    scene = plan_scene(SceneConfig(seconds=3, room="anechoic", **QUIET), bank, CLASSES, 0, 0)
    unequal = msgspec.structs.replace(scene, channel_gains_db=(0.0, 3.0, -3.0, 1.0))
    even, odd = (render(one, bank, FOA)[0].std(axis=0) for one in (scene, unequal))
    gains_db = 20 * np.log10(odd / even)
    assert gains_db - gains_db[0] == pytest.approx([0.0, 3.0, -3.0, 1.0], abs=0.01)


def test_the_background_is_diffuse(bank):
    """The mean of many backgrounds: no direction, and a third of W's power on each axis."""
    covariance = np.zeros((4, 4))
    for index in range(6):
        scene = plan_scene(SceneConfig(seconds=6, **QUIET), bank, CLASSES, 8, index)
        still = msgspec.structs.replace(scene.background, sensor_db=-60.0)
        audio, _ = render(msgspec.structs.replace(scene, events=(), background=still), bank, FOA)
        covariance += audio.T @ audio / np.sum(audio[:, 0] ** 2) / 6
    np.testing.assert_allclose(covariance, np.diag([1, 1 / 3, 1 / 3, 1 / 3]), atol=0.12)


def test_a_background_needs_no_bank(bank):
    bare = msgspec.structs.replace(bank, steady=(), distractors=())
    scene = plan_scene(SceneConfig(seconds=3), bare, CLASSES, 0, 1)
    assert isinstance(scene.background, Background)
    audio, _ = render(scene, bare, FOA)
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() <= 1


def test_repeats_and_speed(bank):
    event = make_event(Trajectory((0.0, 0.0)), clip="knock/knock_0.wav", seconds=1.0, repeats_s=(0.7,))
    dry = dry_signal(event, bank)
    assert len(dry) == SAMPLE_RATE
    np.testing.assert_array_equal(dry[: SAMPLE_RATE * 3 // 10], dry[SAMPLE_RATE * 7 // 10 :])
    assert not dry[SAMPLE_RATE * 3 // 10 : SAMPLE_RATE * 7 // 10].any()
    quick = dry_signal(make_event(Trajectory((0.0, 0.0)), seconds=2.0, colour=Colour(speed=1.1)), bank)
    assert len(quick) == pytest.approx(2 * SAMPLE_RATE, abs=2)


def test_a_clip_is_cut_where_the_plan_says(bank):
    event = make_event(Trajectory((0.0, 0.0)), seconds=2.0, clip_start_s=1.5)
    dry, clip = dry_signal(event, bank), read_clip(Path(bank.folder) / event.clip)
    begin = SAMPLE_RATE * 3 // 2
    np.testing.assert_array_equal(dry[1000:-1000], clip[begin + 1000 : begin + 2 * SAMPLE_RATE - 1000])


def test_a_spectrum_is_tilted_and_gets_a_bump(bank):
    still = Trajectory((0.0, 0.0))
    coloured = Colour(tilt_db_per_octave=2.0, bump_hz=500.0, bump_db=4.0)
    sounds = [dry_signal(make_event(still, colour=colour), bank) for colour in (Colour(), coloured)]
    frequency, power = scipy.signal.welch(np.stack(sounds), SAMPLE_RATE, nperseg=4096)
    gain_db = 10 * np.log10(power[1] / power[0])
    for hz, expected in ((250, -2.6), (500, 2.0), (1000, 1.4), (4000, 4.0), (11000, 6.0)):
        assert gain_db[np.abs(frequency - hz).argmin()] == pytest.approx(expected, abs=0.5), hz


def test_a_clip_between_two_corners_keeps_what_lies_between(bank):
    still = Trajectory((0.0, 0.0))
    plain, narrow = (
        dry_signal(make_event(still, colour=colour), bank)
        for colour in (Colour(), Colour(lowpass_hz=3400.0, highpass_hz=300.0))
    )
    frequency, power = scipy.signal.welch(np.stack([plain, narrow]), SAMPLE_RATE, nperseg=4096)
    gain_db = 10 * np.log10(power[1] / power[0])
    for hz, expected in ((100, -57.2), (300, -3.0), (1000, 0.0), (3400, -3.0)):  # Butterworth of order 6
        assert gain_db[np.abs(frequency - hz).argmin()] == pytest.approx(expected, abs=2), hz


# --- switches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sphere", "tetrahedron"])
def test_labels_point_where_encoded_capsules_point(bank, kind):
    config = SceneConfig(seconds=8, room="anechoic", snr_db=(60, 60), microphone=kind, **QUIET)
    event = make_event(Trajectory((70.0, -25.0), turn_deg_per_s=10.0), colour=Colour(lowpass_hz=1500.0))
    scene = one_event(plan_scene(config, bank, CLASSES, 0, 0), event)
    assert scene.capsules.kind == kind
    audio, rows = render(scene, bank, FOA)
    assert audio.shape == (8 * SAMPLE_RATE, 4)
    assert np.abs(audio).max() == pytest.approx(10 ** (scene.peak_dbfs / 20), rel=1e-3)
    inside = rows[1:-1]
    error = angle_deg(intensity(audio, inside[:, 0]), unit_vector(inside[:, 3], inside[:, 4]))
    assert np.median(error) < 4
    np.testing.assert_array_equal(rows, render(msgspec.structs.replace(scene, capsules=None), bank, FOA)[1])


def test_the_mic_format_knows_no_other_capsules(bank):
    config = SceneConfig(seconds=3, microphone="tetrahedron", **QUIET)
    scene = plan_scene(config, bank, CLASSES, 0, 0)
    plain = msgspec.structs.replace(scene, capsules=None)
    mic = array_named("mic")
    np.testing.assert_array_equal(render(scene, bank, mic)[0], render(plain, bank, mic)[0])


@pytest.mark.parametrize(
    "knocks", [{"clip": "hum/hum_1.wav"}, {"clip": "knock/knock_0.wav", "seconds": 3.3, "repeats_s": (3.0,)}]
)
def test_a_distractor_lies_under_the_event_at_its_level(bank, knocks):
    alone = make_event(Trajectory((0.0, 0.0)), **knocks)
    under = MixedIn("distractor/distractor_0.wav", 0.7, -12.0)
    carried = dry_signal(msgspec.structs.replace(alone, mixed_in=under), bank) - dry_signal(alone, bank)
    level_db = 20 * np.log10(np.std(carried) / np.std(dry_signal(alone, bank)))
    assert level_db == pytest.approx(-12, abs=0.2)
    loop = read_clip(Path(bank.folder) / under.clip)
    # It is that clip: the correlation has one clear peak.
    correlation = np.abs(np.fft.irfft(np.fft.rfft(carried) * np.conj(np.fft.rfft(loop, len(carried)))))
    assert correlation.max() > 10 * np.median(correlation)


def test_babble_changes_the_background_and_nothing_else(bank):
    config = SceneConfig(seconds=8, room="open", snr_db=(10, 10), sensor_db=(-40, -40), **QUIET)
    event = make_event(Trajectory((30.0, 0.0)))
    quiet = one_event(plan_scene(config, bank, CLASSES, 4, 0), event)
    babbling = msgspec.structs.replace(config, babble_probability=1.0)
    babble = one_event(plan_scene(babbling, bank, CLASSES, 4, 0), event)
    assert len({clip for stream in babble.background.streams for clip in stream.babble}) == 2
    assert all(len(stream.babble) == 4 for stream in babble.background.streams)
    (audio, rows), (_, quiet_rows) = render(babble, bank, FOA), render(quiet, bank, FOA)
    np.testing.assert_array_equal(rows, quiet_rows)
    power = np.mean(audio[: len(audio) // 2400 * 2400].reshape(-1, 2400 * 4) ** 2, axis=1)
    noise, both = np.mean(power[:9]), np.mean(power[rows[1:-1, 0]])
    assert 10 * np.log10((both - noise) / noise) == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize("name", ["realistic", "varied"])
def test_everything_at_once_sounds(bank, name):
    """The settings of configs/*.toml, as they ship, for the classes of this bank."""
    path = Path(__file__).parents[2] / "configs" / f"{name}.toml"
    config = decode(read_section(path, "scenes") | {"seconds": 8.0}, SceneConfig, str(path))
    config = msgspec.structs.replace(
        config, class_speed={name: config.class_speed.get(name, (0.7, 1.4)) for name in bank.clips}
    )
    assert all(value != getattr(SceneConfig(), name) for name, value in read_section(path, "scenes").items())
    labelled = 0
    for index in range(3):
        audio, rows = render(plan_scene(config, bank, CLASSES, 1, index), bank, FOA)
        assert np.isfinite(audio).all()
        assert 0 < np.abs(audio).max() <= 1
        labelled += len(rows)
    assert labelled
