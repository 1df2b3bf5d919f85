"""Scenes: planned from a seed, rendered as labelled."""

from __future__ import annotations

import csv
import hashlib
import shutil
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from offline import cli
from offline.arrays import SAMPLE_RATE, array_named
from offline.bank import class_order, read_bank, read_clip
from offline.config import SceneConfig
from offline.dataset import list_recordings, read_classes, read_metadata
from offline.scenes import NO_CLASS, Background, Colour, Event, Scene, Trajectory, plan_scene
from offline.synthesis import Job, dry_signal, label_rows, make_scene, render
from seldrt.config import DCASE2020_CLASSES, ConfigError
from seldrt.spatial import angle_deg, azimuth_elevation, unit_vector

FOA = array_named("foa")
CLASSES = {"hum": 0, "knock": 1, "noise": 2}
QUIET = {"imperfections": False, "vary": False, "distractor_probability": 0.0}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny bank: noises of several lengths, one steady distractor, and an index that groups two clips."""
    base = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    lengths = {"hum": (4.0, 6.0), "knock": (0.3, 0.5), "noise": (1.5, 5.0), "distractor": (2.0, 6.0)}
    for name, seconds in lengths.items():
        (base / "events" / name).mkdir(parents=True)
        for i, length in enumerate(seconds):
            sound = 0.3 * rng.standard_normal(round(length * SAMPLE_RATE)).clip(-3, 3)
            soundfile.write(base / "events" / name / f"{name}_{i}.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    with (base / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "group"), ("hum_0", "fridge"), ("hum_1", "fridge")])
    return base / "events"


@pytest.fixture(scope="session")
def bank(folder):
    return read_bank(folder)


def intensity(audio, frames):
    """Active intensity vectors (len(frames), 3) of label frames of FOA audio."""
    blocks = audio[: len(audio) // 2400 * 2400].reshape(-1, 2400, 4)[frames]
    return np.stack([np.sum(blocks[..., 0] * blocks[..., i], axis=1) for i in (3, 1, 2)], axis=1)


def one_event(plan: Scene, event: Event) -> Scene:
    return msgspec.structs.replace(plan, events=(event,))


# --- the bank --------------------------------------------------------------------------------


def test_the_bank_knows_groups_distractors_and_steady_sounds(bank):
    assert sorted(bank.clips) == ["hum", "knock", "noise"]
    assert {clip.group for clip in bank.clips["hum"]} == {"fridge"}
    assert {clip.group for clip in bank.clips["knock"]} == {"knock_0", "knock_1"}
    assert [clip.path for clip in bank.steady] == ["distractor/distractor_1.wav"]


def test_a_folder_without_sounds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_bank(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no class folder with sounds"):
        read_bank(tmp_path)
    (tmp_path / "hum").mkdir()
    (tmp_path / "hum" / "a.wav").write_bytes(b"not audio")
    with pytest.raises(ConfigError, match=r"a\.wav: not a readable sound file"):
        read_bank(tmp_path)
    soundfile.write(tmp_path / "hum" / "a.wav", np.zeros(0), SAMPLE_RATE)
    with pytest.raises(ConfigError, match=r"a\.wav: holds no sound"):
        read_bank(tmp_path)


def test_a_class_that_cannot_stand_in_a_topic_is_refused(folder, tmp_path):
    (tmp_path / "events" / "dog bark").mkdir(parents=True)
    shutil.copy(folder / "hum" / "hum_0.wav", tmp_path / "events" / "dog bark")
    result = invoke("--events", tmp_path / "events", "--out", tmp_path / "out", "--scenes", 1)
    assert result.exit_code == 2
    assert "class folder 'dog bark' cannot stand in a topic" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_silence_around_a_clip_is_cut_and_its_rate_converted(tmp_path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(48000) / 48000)
    soundfile.write(tmp_path / "tone.wav", np.concatenate([np.zeros(24000), tone, np.zeros(9600)]), 48000)
    clip = read_clip(tmp_path / "tone.wav")
    assert len(clip) == pytest.approx(SAMPLE_RATE, abs=480)
    spectrum = np.abs(np.fft.rfft(clip))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(clip) == pytest.approx(1000, abs=2)


def test_class_order_is_that_of_dcase_for_its_classes_under_any_alias():
    folders = sorted({*DCASE2020_CLASSES, "phone"} - {"ringing_phone"})
    indices, names = class_order(folders)
    assert names == list(DCASE2020_CLASSES)
    assert indices["phone"] == names.index("ringing_phone")
    assert class_order(["b", "a"]) == ({"b": 1, "a": 0}, ["a", "b"])


# --- plans --------------------------------------------------------------------------------


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
    assert render(scene, bank, FOA)[1].shape == (0, 5)
    with pytest.raises(ConfigError, match="no folder named distractor"):
        plan_scene(config, msgspec.structs.replace(bank, distractors=()), CLASSES, 1, 0)


# --- labels --------------------------------------------------------------------------------


def make_event(path, clip="noise/noise_1.wav", seconds=5.0, **changes):
    still = Event(
        label=2,
        layer=0,
        clip=clip,
        clip_start_s=0.0,
        onset_s=1.0,
        seconds=seconds,
        repeats_s=(),
        colour=Colour(),
        level_db=0.0,
        distance_m=2.0,
        path=path,
    )
    return msgspec.structs.replace(still, **changes)


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


# --- levels --------------------------------------------------------------------------------


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


# --- the command --------------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(cli.main, ["synthesize", *map(str, arguments)])


def digests(base):
    files = (path for path in sorted(base.rglob("*")) if path.is_file())
    return {str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command_writes_the_same_dataset_with_any_number_of_workers(folder, tmp_path):
    options = ("--events", folder, "--scenes", 3, "--seconds", 4, "--fold", 2, "--format", "both")
    for workers in (1, 2):
        result = invoke(*options, "--out", tmp_path / str(workers), "--workers", workers)
        assert result.exit_code == 0, result.output
        assert "3 scenes of 4 s made, 0 were there" in result.output
    first = digests(tmp_path / "1")
    assert len(first) == 1 + 3 * 4
    assert first == digests(tmp_path / "2")

    victim = next((tmp_path / "1" / "foa_dev").glob("*.flac"))
    victim.unlink()
    assert "1 scenes of 4 s made, 2 were there" in invoke(*options, "--out", tmp_path / "1").output
    assert first == digests(tmp_path / "1")

    other = invoke(*options, "--out", tmp_path / "1", "--seed", 5)
    assert (other.exit_code, "fold 2 has seed 0" in other.output) == (2, True)

    recordings = list_recordings(tmp_path / "1", "mic")
    assert [recording.fold for recording in recordings] == [2, 2, 2]
    audio, rate = soundfile.read(recordings[0].audio)
    assert (rate, audio.shape) == (SAMPLE_RATE, (4 * SAMPLE_RATE, 4))
    assert read_classes(tmp_path / "1") == ["hum", "knock", "noise"]
    assert read_metadata(recordings[0].metadata)[:, 0].max() < 40


@pytest.mark.parametrize(
    ("settings_text", "arguments", "message"),
    [
        ("", ["--events", "nowhere"], "nowhere: no such folder"),
        ("[scenes]\nsecond = 3\n", [], "unknown field `second`"),
        ("[scenes]\nsnr_db = [30, 6]\n", [], "snr_db needs its smaller value first"),
        ("[scenes", [], "config.toml: "),
        ("[scene]\nseconds = 3\n", [], "config.toml: unknown key 'scene'; known: scenes, features, network, train"),
        ("scenes = 3\n", [], "config.toml: Expected `object`, got `int` - at `$.scenes`"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, tmp_path, settings_text, arguments, message):
    (tmp_path / "config.toml").write_text(settings_text)
    common = (
        "--events",
        folder,
        "--out",
        tmp_path / "out",
        "--scenes",
        1,
        "--config",
        tmp_path / "config.toml",
    )
    result = invoke(*common, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_dataset_keeps_its_classes(folder, tmp_path):
    (tmp_path / "classes.json").write_text('["hum", "noise"]')
    result = invoke("--events", folder, "--out", tmp_path, "--scenes", 1)
    assert result.exit_code == 2
    assert "has no class knock" in result.output


def test_a_changed_plan_replaces_the_scene(bank, tmp_path):
    def make(seconds, formats, audio_format="flac"):
        config = SceneConfig(seconds=seconds)
        return make_scene(Job(bank, tmp_path, config, CLASSES, formats, audio_format, 1, 0), 0)

    def suffixes():
        return sorted(path.parent.name + path.suffix for path in tmp_path.rglob("fold1*"))

    assert make(2, ("foa", "mic"))[1]
    assert not make(2, ("mic",))[1]
    assert make(2, ("foa",), "wav")[1]
    assert suffixes() == ["foa_dev.wav", "manifests.json", "metadata_dev.csv", "mic_dev.flac"]
    assert make(3, ("mic",))[1]
    assert suffixes() == ["manifests.json", "metadata_dev.csv", "mic_dev.flac"]
