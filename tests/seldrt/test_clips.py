"""A sound file of each event: what is in it, what it is called, and how the folder stays small."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.bank import read_bank
from seldrt.config import ClipsConfig, SeldrtError
from seldrt.detection import Clock, Event, EventChange, Source, StreamInfo
from seldrt.runtime.aside import Behind
from seldrt.runtime.capture import Block
from seldrt.runtime.clips import Clip, ClipFolder, ClipSink, beam
from seldrt.runtime.daemon import Daemon, stream_info
from seldrt.runtime.folders import FolderError
from seldrt.spatial import foa_gains, unit_vector
from tests.disk import full_disk
from tests.seldrt.energy_pipeline import LABEL, PIANO, SAMPLE_RATE, EnergyPipeline, noise, two_pianos
from tests.seldrt.test_cli import SMALL, seldrt
from tests.seldrt.test_daemon import Script, blocks_of

INFO = StreamInfo(source="roof", classes=EnergyPipeline.classes, sample_rate=SAMPLE_RATE, samples_per_label=LABEL)
NOON = Clock(1_780_315_200_250_000_000, SAMPLE_RATE)  # 2026-06-01T12:00:00.25Z, by `date -d`
LEFT, RIGHT = "00000.500s_az+090_el+10_p0.10.flac", "00001.800s_az-090_el-20_p0.10.flac"


def clips_of(blocks: list[Block], **changes: Any) -> list[Clip]:
    """What is cut out of a stream that the small pipeline listens to."""
    clips: list[Clip] = []
    pipeline = EnergyPipeline()
    sink = ClipSink(INFO, None, ClipsConfig(**changes), pipeline.latency_samples, clips.append)
    Daemon(pipeline, Script(blocks), stream_info(pipeline, "roof"), [sink]).run()
    return clips


def a_clip(second: int = 0, samples: int = 2400, dated: bool = True) -> Clip:
    source = Source(class_id=PIANO, track=0, azimuth_deg=-12.4, elevation_deg=3.5, confidence=0.876, onset_sample=0)
    change = EventChange(event_id=0, phase="offset", sample=LABEL, duration_samples=LABEL, source=source)
    clock = Clock(NOON.origin_ns * dated + second * 1_000_000_000, SAMPLE_RATE)
    x = np.random.default_rng(second).standard_normal(samples) / 10
    return Clip(INFO.event(change, clock), x.astype(np.float32), SAMPLE_RATE, dated)


@given(st.floats(-180, 179), st.floats(-90, 90))
def test_a_cardioid_hears_what_is_in_front_and_not_what_is_behind(azimuth_deg: float, elevation_deg: float) -> None:
    mono = np.random.default_rng(1).standard_normal(100)
    wave = (mono[:, None] * foa_gains(unit_vector(azimuth_deg, elevation_deg))).astype(np.float32)
    np.testing.assert_allclose(beam(wave, 7, [(0, azimuth_deg, elevation_deg)]), mono, atol=1e-5)
    np.testing.assert_allclose(beam(wave, 7, [(0, azimuth_deg + 180, -elevation_deg)]), 0, atol=1e-5)
    flat = (mono[:, None] * foa_gains(unit_vector(azimuth_deg + 90, 0))).astype(np.float32)
    np.testing.assert_allclose(beam(flat, 7, [(0, azimuth_deg, elevation_deg)]), mono / 2, atol=1e-5)


def test_it_follows_what_moves() -> None:
    """40 degrees a second, told twice a second: never more than 1 % weaker, where a fixed one loses it."""
    seconds = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    wave = foa_gains(unit_vector(40 * seconds, 0)).astype(np.float32)
    places = [(round(t * SAMPLE_RATE), 40 * t, 0.0) for t in np.arange(0, 4.1, 0.5)]
    assert beam(wave, 0, places).min() > 0.99
    assert beam(wave, 0, places[:1]).min() < 0.1


def test_a_clip_holds_the_event_and_a_little_around_it() -> None:
    x = two_pianos()
    clips = clips_of(blocks_of(x), before_s=0.25, after_s=0.1)
    assert [(clip.event.phase, clip.event.class_) for clip in clips] == [("offset", "piano")] * 2
    for clip, start_s, end_s, azimuth_deg, elevation_deg in zip(
        clips, (0.25, 1.55), (1.3, 3.0), (90, -90), (10, -20), strict=True
    ):
        part = x[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        np.testing.assert_allclose(clip.samples, part[:, 0], atol=1e-4)  # alone, it is all that sounds
        assert clip.event.azimuth_deg == pytest.approx(azimuth_deg, abs=0.1)
        assert clip.event.elevation_deg == pytest.approx(elevation_deg, abs=0.1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=30))
def test_however_the_stream_is_cut_the_clips_are_the_same(sizes: list[int]) -> None:
    x = np.concatenate([noise(2.2, 40, 0), noise(0.3, 0, 0) * 0, noise(0.4, -60, 30)])
    kept = {"longest_s": 0.7, "before_s": 0.0, "after_s": 0.3}
    cuts = np.cumsum([0, *sizes, len(x)])
    blocks = [Block(int(a), x[a:b]) for a, b in pairwise(cuts) if a < len(x)]
    for one, other in zip(clips_of(blocks, **kept), clips_of(blocks_of(x), **kept), strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)
        assert one.event == other.event


def test_of_a_long_event_the_beginning_is_kept_while_it_goes_on() -> None:
    clips: list[Clip] = []
    pipeline, x = EnergyPipeline(), noise(30.0, 20, 0)
    sink = ClipSink(INFO, None, ClipsConfig(longest_s=2.0), pipeline.latency_samples, clips.append)
    seen: list[int] = []

    class Ear(Script):
        def blocks(self, sample_rate: int) -> Any:
            for block in blocks_of(x):
                yield block
                seen.append(len(clips))

    Daemon(pipeline, Ear([]), stream_info(pipeline, "roof"), [sink]).run()
    (clip,) = clips
    assert len(clip.samples) == round(2.5 * SAMPLE_RATE)
    assert seen.index(1) * 480 < 3.2 * SAMPLE_RATE
    held = sum(map(len, sink._sound._blocks))
    assert held < 6 * SAMPLE_RATE  # not half a minute


def test_a_loss_ends_a_clip_and_nothing_of_both_sides_is_joined() -> None:
    before, after = noise(1.0, 90, 0), noise(1.0, -90, 0)
    first, second = clips_of(blocks_of(before) + blocks_of(after, first=60_000), after_s=2.0, before_s=2.0)
    np.testing.assert_allclose(first.samples, before[:, 0], atol=1e-4)
    np.testing.assert_allclose(second.samples, after[:, 0], atol=1e-4)


def test_its_name_says_what_where_and_when(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path / "new" / "clips")))
    clip = a_clip()
    folder.keep(clip)
    folder.keep(a_clip(dated=False))
    dated, undated = sorted((tmp_path / "new" / "clips").rglob("*.*"), reverse=True)
    assert dated.parts[-3:] == ("piano", "roof_20260601", "120000.250Z_az-012_el+04_p0.88.flac")
    assert undated.parts[-3:] == ("piano", "roof", "00000.000s_az-012_el+04_p0.88.flac")
    with soundfile.SoundFile(dated) as file:
        assert (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE, 1, "PCM_24")
        assert (file.title, file.date) == ("piano", "2026-06-01T12:00:00.250000+00:00")
        assert file.comment == "roof: azimuth -12.4, elevation 3.5, confidence 0.88, 100 ms"
        np.testing.assert_allclose(file.read(), clip.samples, atol=2**-23)


def test_the_oldest_make_room_and_what_is_not_a_clip_stays(tmp_path: Path) -> None:
    own = tmp_path / "piano" / "mine" / "grand.flac"
    own.parent.mkdir(parents=True)
    soundfile.write(own, np.random.default_rng(0).standard_normal(400_000) / 10, SAMPLE_RATE)
    own_bytes = own.read_bytes()
    config = ClipsConfig(dir=str(tmp_path), max_mb=1)
    folder = ClipFolder(config)
    for second in range(12):  # of 140 kB each
        if second == 6:
            folder = ClipFolder(config)  # the next day, in the same folder
        folder.keep(a_clip(second, 60_000))
    left = sorted((tmp_path / "piano" / "roof_20260601").iterdir())
    assert left[-1].name.startswith("120011.250Z")
    assert 4 <= len(left) <= 7
    assert sum(path.stat().st_size for path in left) <= 1_000_000
    assert [path.name[:6] for path in left] == [f"1200{second:02}" for second in range(12 - len(left), 12)]
    assert own.read_bytes() == own_bytes


def test_a_full_disk_is_one_line_and_leaves_no_half_clip(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    with full_disk(most=6000), pytest.raises(FolderError, match="the clip is not kept: File too large"):
        folder.keep(a_clip())  # of 6775 bytes: only the very end finds no room
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    folder.keep(a_clip())  # there is room again


def waited_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_slow_disk_holds_nobody_up_and_trouble_is_told_until_it_is_over() -> None:
    goes_on, done = threading.Event(), []

    def work(number: int) -> None:
        goes_on.wait(20)
        if number == 1:
            raise SeldrtError("there is no room")
        done.append(number)

    behind = Behind(work, "test", room=2)
    began = time.monotonic()
    behind.give(0)
    waited_for(behind._waiting.empty)  # it is being worked on
    for number in (1, 2, 3):
        behind.give(number)
    assert time.monotonic() - began < 10
    assert behind.complaint() == "the disk is too slow, some are left out"
    goes_on.set()
    waited_for(lambda: 2 in done)
    behind.give(1)
    waited_for(lambda: behind.complaint() == "there is no room")
    behind.give(4)
    behind.close()
    assert behind.complaint() == ""
    assert done == [0, 2, 4]


def test_what_fails_is_a_complaint_of_the_daemon() -> None:
    said: list[str] = []
    pipeline = EnergyPipeline()
    sink = ClipSink(INFO, None, ClipsConfig(), 0, lambda clip: None, lambda: "no room left")
    daemon = Daemon(pipeline, Script(blocks_of(two_pianos())), stream_info(pipeline, "roof"), [sink], tell=said.append)
    daemon.run()
    assert "degraded: clips: no room left" in said


def test_replay_fills_a_folder_that_networks_can_learn_from(tmp_path: Path) -> None:
    recording, clips = tmp_path / "garden.wav", tmp_path / "clips"
    soundfile.write(recording, two_pianos(), SAMPLE_RATE, subtype="FLOAT")
    command = ("replay", recording, "--fast", "--no-publish", "--clips", clips)
    code, _, errors = seldrt(*command, program=SMALL)
    assert code == 0, errors
    assert f"keeping clips in {clips}, at most 1000 MB" in errors
    assert sorted(path.name for path in (clips / "piano" / "garden").iterdir()) == [LEFT, RIGHT]
    bytes_before = {path: path.read_bytes() for path in clips.rglob("*.flac")}
    assert seldrt(*command, "--block-ms", "137", program=SMALL)[0] == 0
    assert {path: path.read_bytes() for path in clips.rglob("*.flac")} == bytes_before
    code, _, errors = seldrt(*command, "--start", "2026-06-01T12:00Z", program=SMALL)
    assert code == 0, errors
    (clips / "distractor").mkdir()  # what a person does who has listened to them
    (clips / "piano" / "garden" / RIGHT).rename(clips / "distractor" / RIGHT)
    bank = read_bank(clips)
    assert sorted(clip.group for clip in bank.clips["piano"]) == ["garden", "garden_20260601", "garden_20260601"]
    assert [clip.path for clip in bank.distractors] == [f"distractor/{RIGHT}"]


def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_heard(tmp_path: Path) -> None:
    recording, file = tmp_path / "garden.wav", tmp_path / "file"
    soundfile.write(recording, two_pianos(), SAMPLE_RATE)
    file.touch()
    code, _, errors = seldrt("replay", recording, "--fast", "--no-publish", "--clips", file, program=SMALL)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert f"cannot keep clips in {file}: " in errors
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "piano").touch()  # where a folder has to be
    command = ("replay", recording, "--fast", "--no-publish", "--quiet", "--clips", tmp_path / "clips")
    code, _, errors = seldrt(*command, program=SMALL)
    assert code == 2, errors
    assert "the clip is not kept: Not a directory" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [("max_mb", 0, "max_mb is 0"), ("before_s", -1.0, "before_s is -1"), ("longest_s", 0.0, "longest_s is 0")],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ClipsConfig(**{name: value})


def test_events_of_the_table_are_those_of_the_clips(tmp_path: Path) -> None:
    event: Event = a_clip().event
    assert event.class_ == "piano"
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    for _ in range(2):
        folder.keep(a_clip())  # replayed again: the same file
    assert len(list(tmp_path.rglob("*.flac"))) == 1
    assert os.listdir(tmp_path) == ["piano"]
