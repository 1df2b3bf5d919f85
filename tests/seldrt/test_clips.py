"""A sound file of each event: what is in it, what it is called, and how the folder stays small."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.bank import read_bank
from seldrt.config import ClipsConfig
from seldrt.detection import Clock, StreamInfo
from seldrt.findings import ActiveSource, EventChange
from seldrt.runtime import background
from seldrt.runtime.background import BackgroundWorker
from seldrt.runtime.capture import Block
from seldrt.runtime.clip_folder import Clip, ClipFolder, find_clip, kept_clips
from seldrt.runtime.clips import ClipSink, beam
from seldrt.runtime.daemon import Daemon, stream_info
from seldrt.runtime.folders import FolderError, kept_bytes
from seldrt.spatial import foa_gains, unit_vector
from tests.disk import full_disk
from tests.processes import SMALL, WITH_MICROPHONE, seldrt, start, until
from tests.seldrt.energy_pipeline import LABEL, PIANO, SAMPLE_RATE, EnergyPipeline, noise, two_pianos
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
    source = ActiveSource(
        class_id=PIANO, track=0, azimuth_deg=-12.4, elevation_deg=3.5, confidence=0.876, onset_sample=0
    )
    change = EventChange(event_id=0, phase="offset", sample=LABEL, duration_samples=LABEL, source=source)
    clock = Clock(NOON.origin_ns * dated + second * 1_000_000_000, SAMPLE_RATE)
    x = np.random.default_rng(abs(second)).standard_normal(samples) / 10
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


def test_of_other_classes_nothing_is_kept() -> None:
    blocks = blocks_of(np.concatenate([noise(1.0, 40, 0), np.zeros((SAMPLE_RATE, 4), np.float32)]))
    (clip,) = clips_of(blocks)
    assert len(clips_of(blocks, only=("piano", clip.event.class_))) == 1
    assert not clips_of(blocks, only=("male_speech",))


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
    held = sum(len(block) for _, block in sink._sound._blocks)
    assert held < 6 * SAMPLE_RATE  # not half a minute


def test_a_clip_says_where_its_class_was_surest_and_leaves_nothing_behind() -> None:
    clips: list[Clip] = []
    sink = ClipSink(INFO, None, ClipsConfig(), 0, clips.append)
    block, x = np.empty((2 * SAMPLE_RATE, 4), np.float32), noise(2.0, 90, 0)
    block[:] = x
    sink.heard(0, block)
    block[:] = 0  # a device uses its buffer again
    for phase, label, azimuth_deg, confidence in (
        ("onset", 0, 80, 0.3),
        ("update", 5, 90, 0.9),
        ("offset", 10, 100, 0.5),
    ):
        told = ActiveSource(
            class_id=PIANO, track=0, azimuth_deg=azimuth_deg, elevation_deg=0.0, confidence=confidence, onset_sample=0
        )
        change = EventChange(event_id=0, phase=phase, sample=label * LABEL, duration_samples=label * LABEL, source=told)
        sink.event(change)
    (clip,) = clips
    assert (clip.event.phase, clip.event.azimuth_deg, clip.event.confidence) == ("offset", 90.0, 0.9)
    assert np.abs(clip.samples).max() > 0
    assert sink._sound.between(-5, 10)[0] == 0  # what was before the stream is not there
    assert not sink._lives


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
    (own.parent / "x_az+000_el+00_p0.50.flac").symlink_to("/nowhere")
    (tmp_path / "piano" / "roof_20250101" / "y_az+000_el+00_p0.50.flac").mkdir(parents=True)
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path), max_mb=10))
    folder.keep(a_clip(-86_400 * 2))
    (tmp_path / "alarm" / "h3_20260101").mkdir(parents=True)
    cut_off = tmp_path / "alarm" / "h3_20260101" / ".000000.000Z_az+000_el+00_p0.50.flac.0123456789ab.part"
    cut_off.write_bytes(bytes(300_000))
    os.utime(cut_off, (1e9, 1e9))
    for second in range(14):  # of 1.4 MB each
        if second == 6:
            folder = ClipFolder(ClipsConfig(dir=str(tmp_path), max_mb=10))  # the next day, in the same folder
        folder.keep(a_clip(second, 600_000))
    left = sorted((tmp_path / "piano" / "roof_20260601").iterdir())
    assert left[-1].name.startswith("120013.250Z")
    assert 5 <= len(left) <= 7
    assert sum(path.stat().st_size for path in left) <= 10_000_000
    assert [path.name[:6] for path in left] == [f"1200{second:02}" for second in range(14 - len(left), 14)]
    assert own.read_bytes() == own_bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["piano"]  # nothing empty is left
    assert sorted(path.name for path in (tmp_path / "piano").iterdir()) == ["mine", "roof_20250101", "roof_20260601"]


def test_the_folder_stays_small_whoever_begins_anew_each_day(tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    for second in range(40):
        ClipFolder(ClipsConfig(dir=str(tmp_path / "clips"), max_mb=10)).keep(a_clip(second, 200_000))  # of 0.5 MB
    assert 9_000_000 < kept_bytes(kept_clips(tmp_path / "clips")) <= 10_000_000
    (tmp_path / "clips" / "piano").rename(bank)
    (tmp_path / "clips" / "piano").symlink_to(bank)  # what stands elsewhere is not ours to take away
    before = sorted(bank.rglob("*.flac"))
    for second in range(3):
        ClipFolder(ClipsConfig(dir=str(tmp_path / "clips"), max_mb=10)).keep(a_clip(100 + second, 200_000))
    assert set(before) <= set(bank.rglob("*.flac"))


def test_the_oldest_is_the_one_that_was_written_first_whatever_its_class(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    old, new = a_clip(2), a_clip(1)
    new.event.class_ = "alarm"
    for seconds, clip in ((1e9, old), (1e9 + 1, new)):
        folder.keep(clip)
        (path,) = (tmp_path / clip.event.class_).rglob("*.flac")
        os.utime(path, (seconds, seconds))
    assert [path.parts[-3] for path in kept_clips(tmp_path)] == ["piano", "alarm"]


def test_a_clip_is_kept_though_it_is_all_that_fits(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path), max_mb=10))
    for second in range(2):
        folder.keep(a_clip(second, 6_000_000))  # of 14 MB
        (path,) = tmp_path.rglob("*.flac")
        assert path.name.startswith(f"12000{second}")


def test_several_daemons_share_a_folder(tmp_path: Path) -> None:
    """Each makes room while the others write: nobody fails, and the folder stays small."""
    failures: list[Exception] = []

    def fill(first: int) -> None:
        try:
            folder = ClipFolder(ClipsConfig(dir=str(tmp_path), max_mb=10))
            for second in range(first, first + 86_400 * 40, 86_400):  # a folder a day
                folder.keep(a_clip(second, 60_000))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=fill, args=(first,)) for first in (0, 3600, 7200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert kept_bytes(kept_clips(tmp_path)) < 12_000_000


def test_what_is_louder_than_full_scale_is_turned_down(tmp_path: Path) -> None:
    clip = a_clip()
    ClipFolder(ClipsConfig(dir=str(tmp_path), max_mb=10)).keep(clip._replace(samples=clip.samples * 20))
    (path,) = tmp_path.rglob("*.flac")
    with soundfile.SoundFile(path) as file:
        peak = np.abs(clip.samples).max()
        np.testing.assert_allclose(file.read(), clip.samples / peak, atol=2**-22)
        assert file.comment.endswith(f", {20 * np.log10(20 * peak):.1f} dB over full scale, turned down")


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path / "stick")))
    (tmp_path / "stick").rmdir()
    with pytest.raises(FolderError, match="stick: is gone"):
        folder.keep(a_clip())
    assert not (tmp_path / "stick").exists()


def test_a_full_disk_is_one_line_and_leaves_no_half_clip(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    with full_disk(most=6000), pytest.raises(FolderError, match="the clip is not kept: File too large"):
        folder.keep(a_clip())  # of 6775 bytes: only the very end finds no room
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    folder.keep(a_clip())  # there is room again


def test_on_a_full_disk_the_oldest_clips_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those of others nothing is taken, and where nothing can be taken it is told."""
    foreign, write, disk_bytes = tmp_path / "holiday.mp4", Path.write_bytes, 12_000_000
    foreign.write_bytes(bytes(3_000_000))

    def free() -> int:
        return disk_bytes - sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    def written(path: Path, content: bytes) -> int:
        if len(content) > free():
            write(path, content[: free()])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", written)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))  # of others: a quota
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    for second in range(12):  # of 1.4 MB each
        folder.keep(a_clip(second, 600_000))
    left = sorted((tmp_path / "piano" / "roof_20260601").iterdir())
    assert [path.name[:6] for path in left] == [f"1200{second:02}" for second in range(12 - len(left), 12)]
    assert 4 <= len(left) <= 6
    for path in left:
        path.unlink()
    disk_bytes = 3_000_500
    with pytest.raises(FolderError, match="the clip is not kept: No space left on device"):
        folder.keep(a_clip(20))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["holiday.mp4"]


@pytest.mark.parametrize(("error", "samples"), [(errno.EIO, 2400), (errno.ENOSPC, 60_000)])
def test_where_nothing_would_help_nothing_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, samples: int
) -> None:
    """A disk that has failed, and one that all of the clips would leave too little room on."""
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    for second in range(4):
        folder.keep(a_clip(second))
    before = kept_clips(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=OSError(error, os.strerror(error))))
    with pytest.raises(FolderError, match=f"the clip is not kept: {os.strerror(error)}"):
        folder.keep(a_clip(4, samples))
    assert kept_clips(tmp_path) == before


def test_on_a_small_disk_the_folder_stays_smaller_than_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=12_000_000 - kept_bytes(kept_clips(tmp_path)))

    monkeypatch.setattr("shutil.disk_usage", usage)
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    for second in range(14):
        folder.keep(a_clip(second, 600_000))
        assert kept_bytes(kept_clips(tmp_path)) < 12_000_000
    assert kept_bytes(kept_clips(tmp_path)) > 8_000_000


def test_clips_of_a_clock_that_was_wrong_are_the_oldest(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path), max_mb=10))
    now_s = time.time()
    for second, changed_s in ((0, now_s + 9e8), (1, now_s - 100), (2, now_s - 50), (3, now_s + 30)):
        folder.keep(a_clip(second, 600_000))
        (path,) = tmp_path.rglob(f"12000{second}*")
        os.utime(path, (changed_s, changed_s))
    assert [path.name[5] for path in kept_clips(tmp_path)] == ["0", "1", "2", "3"]
    for second in range(4, 8):
        folder.keep(a_clip(second, 600_000))
    assert not list(tmp_path.rglob("120000*"))
    assert list(tmp_path.rglob("120003*"))


def test_a_slow_disk_holds_nobody_up_and_no_error_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, done = threading.Event(), []

    def work(number: int) -> None:
        goes_on.wait(20)
        if number in (1, 5):
            raise [ValueError, FolderError][number == 1]("there is no room" if number == 1 else "")
        done.append(number)

    worker = BackgroundWorker(work, "test", room=2)
    began = time.monotonic()
    worker.give(0)
    until(worker._waiting.empty)  # it is being worked on
    for number in (1, 2, 3):
        worker.give(number)
    assert time.monotonic() - began < 10
    assert worker.complaint() == "the disk is too slow, some are left out"
    goes_on.set()
    until(lambda: 2 in done)
    assert worker.complaint() == "there is no room"  # though the next one was done
    worker.give(5)
    worker.give(4)
    worker.close()
    assert worker.complaint() == "ValueError"
    assert done == [0, 2, 4]
    monkeypatch.setattr(background, "RECENT_S", 0.0)
    assert worker.complaint() == ""


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
    with pytest.raises(FolderError, match="cannot keep clips in a"):
        ClipFolder(ClipsConfig(dir="a\0b"))
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
    [("max_mb", 9, "max_mb is 9"), ("before_s", -1.0, "before_s is -1"), ("longest_s", 0.0, "longest_s is 0")],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ClipsConfig(**{name: value})


def test_the_time_of_a_clip_is_the_one_that_was_told_first() -> None:
    """The clock follows the drift of the device while an event goes on."""
    clips: list[Clip] = []
    drift_ns = iter(range(0, 10**9, 3_000_000))
    pipeline = EnergyPipeline()
    sink = ClipSink(INFO, lambda: Clock(NOON.origin_ns + next(drift_ns), SAMPLE_RATE), ClipsConfig(), 0, clips.append)
    Daemon(pipeline, Script(blocks_of(two_pianos())), stream_info(pipeline, "roof"), [sink]).run()
    assert clips[0].event.onset_ns == NOON.origin_ns + 500_000_000


def test_what_breaks_off_is_kept_at_once_and_joined_to_nothing() -> None:
    x, seen, clips = noise(2.0, 90, 0), [], []
    cut = 7 * LABEL

    class Unplugged(Script):
        def blocks(self, sample_rate: int) -> Any:
            yield from blocks_of(x[:cut])
            yield Block(cut, x[:0], breaks_off=True)
            seen.append(len(clips))
            yield from blocks_of(x[cut:], first=cut)  # without a loss

    pipeline = EnergyPipeline()
    sink = ClipSink(INFO, None, ClipsConfig(), pipeline.latency_samples, clips.append)
    Daemon(pipeline, Unplugged([]), stream_info(pipeline, "roof"), [sink]).run()
    assert seen == [1]
    for clip, part in zip(clips, (x[:cut], x[cut:]), strict=True):
        np.testing.assert_allclose(clip.samples, part[:, 0], atol=1e-4)


def test_a_damaged_recording_gives_the_clips_of_what_was_heard(tmp_path: Path) -> None:
    recording, clips = tmp_path / "garden.flac", tmp_path / "clips"
    soundfile.write(recording, np.concatenate([two_pianos()[:, :], noise(30.0, 0, 0)]), SAMPLE_RATE)
    content = bytearray(recording.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 5000] = bytes(5000)
    recording.write_bytes(content)
    table = tmp_path / "table.csv"
    command = ("replay", recording, "--fast", "--no-publish", "--quiet", "--clips", clips, "--csv", table)
    code, _, errors = seldrt(*command, program=SMALL)
    assert code == 2, errors
    onsets = [line.split(",")[1] for line in table.read_text().splitlines()[1:]]
    assert sorted(path.name.split("s_")[0].lstrip("0") for path in clips.rglob("*.flac")) == [
        onset.removeprefix("0") for onset in onsets
    ]
    assert len(onsets) == 3


def test_run_keeps_clips_and_tells_the_last_that_is_lost(tmp_path: Path) -> None:
    """A daemon with a fake device: its clips have the times of its table; a failure at the very end is told, too."""
    clips, table = tmp_path / "clips", tmp_path / "table.csv"
    command = ("run", "--device", "h3", "--mic", "ambix", "--source", "roof", "--no-publish", "--clips", clips)
    process = start(*command, "--csv", table, program=WITH_MICROPHONE)
    assert process.stderr is not None
    while "offset" not in process.stderr.readline():
        assert process.poll() is None
    until(lambda: list(clips.rglob("*.flac")))
    (first,) = clips.rglob("*.flac")
    while "onset" not in process.stderr.readline():
        assert process.poll() is None
    shutil.rmtree(clips)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert f"clips: {clips}: is gone" in errors
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    day, time_of_day = rows[0][1].split("T")
    assert first.parts[-3:-1] == ("piano", f"roof_{day.replace('-', '')}")
    assert first.name.startswith(time_of_day.replace(":", "") + "_az+090_el+10")
    first.parent.mkdir(parents=True)
    first.touch()
    onset_ms = round(datetime.fromisoformat(rows[0][1]).timestamp() * 1000)
    assert find_clip(clips, "piano", "roof", onset_ms) == first


def test_a_clip_that_is_there_is_replaced(tmp_path: Path) -> None:
    folder = ClipFolder(ClipsConfig(dir=str(tmp_path)))
    for _ in range(2):
        folder.keep(a_clip())  # a recording that is replayed again
    assert len(list(tmp_path.rglob("*.*"))) == 1
