"""What a device gave is on disk to the bit, in files that replay, within the room it was given."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from seldrt.config import CaptureConfig, RecordConfig
from seldrt.findings import LabelFrame
from seldrt.inference import Estimator
from seldrt.microphones import profile
from seldrt.pipeline import Pipeline
from seldrt.runtime import recorder as recorder_module
from seldrt.runtime.daemon import Daemon, stream_info
from seldrt.runtime.folders import FolderError
from seldrt.runtime.microphone import Microphone
from seldrt.runtime.recorder import Recorder, as_int32, is_24_bit, kept_files
from seldrt.runtime.recording import Recording
from seldrt.runtime.sinks import Sink
from tests.disk import hold_files
from tests.models import small_model
from tests.seldrt import energy_pipeline, fake_sounddevice

ROOT = Path(__file__).parents[2]
RATE = 8000
LABEL = RATE // 10
T0_NS = 1_795_370_723_123_456_789  # 2026-11-22T18:05:23.123456789Z, says date -u -d @1795370723
MIC = '[capture]\nmic = "fuma"\n'
LOUDEST = 2**23 - 1


def integers(frames: int, bits: int = 24) -> np.ndarray:
    """Samples (frames, 4) of a converter of so many bits, as PortAudio gives them; loudest and quietest included."""
    k = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (frames, 4))
    k[:3] = [[-(2 ** (bits - 1))] * 4, [2 ** (bits - 1) - 1] * 4, [-1, 0, 1, 0]]
    return (k / 2 ** (bits - 1)).astype(np.float32)


def keep(folder: Path, x: np.ndarray, cuts: list[int] | None = None, first: int = 0, **limits: float) -> dict[str, str]:
    """Records x in pieces; the complaints."""
    recorder = Recorder(RecordConfig(dir=str(folder), **limits), "roof", MIC, "H3-VR")  # type: ignore[arg-type]
    start = 0
    for size in [*(cuts or []), len(x)]:
        piece = x[start : start + size]
        recorder.keep(first + start, piece, RATE, T0_NS + start * 1_000_000_000 // RATE)
        start += len(piece)
    recorder.close()
    return recorder.complaints()


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav"))


def first_sample(path: Path) -> int:
    """The device's sample that a kept file begins with, from its tags."""
    return int(soundfile.SoundFile(path).comment.split()[-4])


def read(path: Path) -> np.ndarray:
    x: np.ndarray = soundfile.read(path, dtype="float32", always_2d=True)[0]
    return x


@pytest.mark.parametrize("bits", [16, 24])
def test_what_a_converter_gives_is_kept_to_the_bit(tmp_path: Path, bits: int) -> None:
    x = integers(3 * RATE, bits)
    assert keep(tmp_path, x, [160] * 100) == {}
    (path,) = kept(tmp_path)
    np.testing.assert_array_equal(read(path), x)
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_24", RATE)
    assert path.name == "roof_20261122T180523.123Z.flac"
    file = soundfile.SoundFile(path)
    assert (file.title, file.date) == ("roof", "2026-11-22T18:05:23.123456789Z")
    assert file.comment == "device H3-VR; frame 0 of the stream"
    settings_text = path.with_suffix(".toml").read_text()
    assert settings_text == f"# seldrt replay {path.name} --config {path.stem}.toml\n{MIC}"


@pytest.mark.parametrize("odd", [1 / 3, 1.5, 1.0, -1.0001, 2.0**-24])
def test_what_24_bits_cannot_hold_is_kept_as_float(tmp_path: Path, odd: float) -> None:
    x = integers(RATE)
    x[5000, 2] = odd
    keep(tmp_path, x, [500] * 10)
    paths = kept(tmp_path)
    assert [path.suffix for path in paths] == [".flac", ".wav"]
    np.testing.assert_array_equal(np.concatenate([read(path) for path in paths]), x)
    assert soundfile.info(paths[1]).subtype == "FLOAT"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20))
def test_24_bits_are_told_from_floats(values: list[float]) -> None:
    x = np.array(values, np.float32)
    whole = [v * 2**23 == int(v * 2**23) and -(2**23) <= v * 2**23 <= LOUDEST for v in map(float, x)]
    assert is_24_bit(x) == all(whole)
    if all(whole):
        np.testing.assert_array_equal(as_int32(x) / 2.0**31, x)


def test_files_are_cut_at_whole_label_frames_and_nothing_is_missing_between(tmp_path: Path) -> None:
    x = integers(round(3.55 * RATE))
    keep(tmp_path, x, [777, 1, 3000, 12_345], file_s=1.0)
    paths = kept(tmp_path)
    parts = [read(path) for path in paths]
    assert [len(part) for part in parts] == [RATE, RATE, RATE, round(0.55 * RATE)]
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert [path.name[5:24] for path in paths] == [f"20261122T1805{s}.123" for s in (23, 24, 25, 26)]
    assert [soundfile.SoundFile(p).comment.split("; ")[1].split()[1] for p in paths] == ["0", "8000", "16000", "24000"]


def test_a_loss_begins_a_new_file(tmp_path: Path) -> None:
    x = integers(RATE)
    recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", "", "H3-VR")
    recorder.keep(0, x[:1000], RATE, T0_NS)
    recorder.keep(1000, x[1000:1500], RATE, T0_NS)
    recorder.keep(2000, x[2000:2500], RATE, T0_NS + 250_000_000)
    recorder.close()
    before, after = kept(tmp_path)
    np.testing.assert_array_equal(read(before), x[:1500])
    np.testing.assert_array_equal(read(after), x[2000:2500])
    assert soundfile.SoundFile(after).comment.endswith("frame 2000 of the stream")


def test_another_rate_begins_a_new_file(tmp_path: Path) -> None:
    recorder, x = Recorder(RecordConfig(dir=str(tmp_path)), "roof", "", "H3-VR"), integers(RATE)
    recorder.keep(0, x, RATE, T0_NS)
    recorder.keep(RATE, x, 2 * RATE, T0_NS + 1_000_000_000)
    recorder.close()
    assert [soundfile.info(path).samplerate for path in kept(tmp_path)] == [RATE, 2 * RATE]


@pytest.mark.parametrize("step_s", [-3600, 1.5, 56 * 365 * 86_400])
def test_a_clock_that_is_set_begins_a_new_file_with_the_next_label_frame(tmp_path: Path, step_s: float) -> None:
    x, at = integers(3 * RATE), 1100
    recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", MIC, "H3-VR")
    for start in range(0, len(x), at):
        shift_ns = round(step_s * 1e9) if start >= 10 * at else start * 20_000  # before that, drift
        recorder.keep(start, x[start : start + at], RATE, T0_NS + start * 1_000_000_000 // RATE + shift_ns)
    recorder.close()
    first, second = sorted(kept(tmp_path), key=first_sample)
    begins = -(-10 * at // LABEL) * LABEL
    assert first_sample(second) == begins
    np.testing.assert_array_equal(np.concatenate([read(first), read(second)]), x)
    told = datetime.strptime(second.name[5:24], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()
    assert told == pytest.approx(T0_NS / 1e9 + begins / RATE + step_s, abs=0.01)


def test_files_of_a_clock_that_was_wrong_are_the_oldest(tmp_path: Path) -> None:
    """One that was in the future, and one that is in the past now: what comes is not what is deleted."""
    for year in (2020, 2021, 2030, 2031):
        (tmp_path / f"roof_{year}0101T000000.000Z.flac").write_bytes(bytes(3_000_000))
    assert [path.name[5:9] for path in kept_files(tmp_path, T0_NS)] == ["2030", "2031", "2020", "2021"]
    assert [path.name[5:9] for path in kept_files(tmp_path, 0)] == ["2020", "2021", "2030", "2031"]
    now = time.time_ns()
    for offset_s in (-10, 30, 90):  # within a minute, clocks of two computers may differ
        path = tmp_path / f"roof_{datetime.fromtimestamp(now / 1e9 + offset_s, UTC):%Y%m%dT%H%M%S}.000Z.wav"
        path.write_bytes(bytes(offset_s + 11))
    assert [path.stat().st_size - 11 for path in kept_files(tmp_path) if path.suffix == ".wav"] == [90, -10, 30]
    keep(tmp_path, integers(RATE), max_mb=10)
    assert [path.name[5:9] for path in kept(tmp_path) if path.suffix == ".flac"] == ["2020", "2021", "2026"]


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], int]:
    """Makes the disk of ``tmp_path`` one of so many bytes; what is free on it is returned."""

    def used() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    def make(size_bytes: int) -> int:
        usage = lambda _: SimpleNamespace(free=max(size_bytes - used(), 0))  # noqa: E731
        monkeypatch.setattr("shutil.disk_usage", usage)
        return size_bytes - used()

    return make


def test_on_a_small_disk_the_oldest_make_room_before_it_is_full(
    tmp_path: Path, small_disk: Callable[[int], int]
) -> None:
    x = np.tile(integers(20 * RATE), (15, 1))  # 29 MB
    other = tmp_path / "holiday.mp4"
    other.write_bytes(bytes(3_000_000))
    disk_bytes = 18_000_000
    recorder = Recorder(RecordConfig(dir=str(tmp_path), max_mb=1000), "roof", MIC, "H3-VR")
    least = disk_bytes
    for start in range(0, len(x), RATE):
        least = min(least, small_disk(disk_bytes))
        recorder.keep(start, x[start : start + RATE], RATE, T0_NS + start * 1_000_000_000 // RATE)
        while recorder._taken_frames < start + RATE:
            time.sleep(0.001)
    recorder.close()
    assert 1_000_000 < least < 4_000_000
    assert not recorder.complaints()
    sound = np.concatenate([read(path) for path in kept(tmp_path)])
    assert len(sound) > 100 * RATE
    np.testing.assert_array_equal(sound, x[-len(sound) :])
    assert other.stat().st_size == 3_000_000


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a disk")
def test_on_a_disk_that_others_fill_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    monkeypatch.setattr(recorder_module, "PAUSE_S", 0.0)
    try:
        x = np.tile(integers(20 * RATE), (15, 1))  # 29 MB
        recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", MIC, "H3-VR")
        for start in range(0, len(x), RATE):
            if start == 200 * RATE:
                with suppress(OSError), open(tmp_path / "other", "wb", buffering=0) as other:
                    while True:
                        other.write(bytes(100_000))
            recorder.keep(start, x[start : start + RATE], RATE, T0_NS + start * 1_000_000_000 // RATE)
            while recorder._taken_frames < start + RATE:
                time.sleep(0.001)
        recorder.close()
        assert not recorder.complaints()
        last = kept(tmp_path)[-1]
        np.testing.assert_array_equal(read(last), x[first_sample(last) :])
        assert (tmp_path / "other").stat().st_size > 10_000_000
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_the_folder_stays_within_its_size_and_the_oldest_go(tmp_path: Path) -> None:
    x = np.tile(integers(20 * RATE), (10, 1))  # 19 MB of noise, which does not compress
    other = tmp_path / "roof_20250101T000000.000Z.mp3"
    other.write_bytes(bytes(3_000_000))  # not ours: neither counted nor touched
    stale = [tmp_path / f"cellar_20250101T000000.000Z.{name}" for name in ("flac.part", "toml")]
    for path in stale:
        path.write_bytes(bytes(1000))
    recorder = Recorder(RecordConfig(dir=str(tmp_path), max_mb=10), "roof", MIC, "H3-VR")
    most = 0
    for start in range(0, len(x), RATE):
        recorder.keep(start, x[start : start + RATE], RATE, T0_NS + start * 1_000_000_000 // RATE)
        while recorder._taken_frames < start + RATE:
            time.sleep(0.001)
        files = [path for path in tmp_path.iterdir() if path != other]
        most = max(most, sum(path.stat().st_size for path in files))
    recorder.close()
    assert 8_000_000 < most <= 10_000_000
    left = kept(tmp_path)
    sound = np.concatenate([read(path) for path in left])
    np.testing.assert_array_equal(sound, x[-len(sound) :])
    assert sorted(path.stem for path in tmp_path.glob("*.toml")) == [path.stem for path in left]
    assert other.exists()
    assert not any(path.exists() for path in stale)


@contextmanager
def no_file_above(size_bytes: int) -> Iterator[None]:
    """What a full disk looks like to a program: writing fails. (Python ignores the signal that comes with it.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_ends_the_recording_only(tmp_path: Path) -> None:
    with no_file_above(200_000):
        told = keep(tmp_path, integers(10 * RATE), [RATE] * 9)
    assert re.search(r"nothing is recorded, detection goes on: \w+", told["recording"])
    assert not kept(tmp_path)
    assert len(list(tmp_path.glob("*.flac.part"))) == 1


def test_files_that_cannot_be_begun_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "PAUSE_S", 0.0)
    with no_file_above(1):
        told = keep(tmp_path, integers(3 * RATE), [RATE] * 2)
    assert "nothing is recorded, detection goes on" in told["recording"]
    assert not list(tmp_path.iterdir())


def test_whatever_fails_is_told_and_tried_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> object:
        raise ValueError("by chance")

    monkeypatch.setattr(recorder_module, "PAUSE_S", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(recorder_module, "KeptFile", make)
        assert "nothing is recorded, detection goes on" in keep(tmp_path, integers(RATE))["recording"]
    with monkeypatch.context() as broken:
        broken.setattr(recorder_module.KeptFile, "write", make)
        assert "nothing is recorded, detection goes on" in keep(tmp_path, integers(RATE))["recording"]
    assert not list(tmp_path.iterdir())
    assert not keep(tmp_path, integers(RATE))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_on_which_nothing_works_for_a_while_is_recorded_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recorder_module, "PAUSE_S", 0.0)
    recorder, x = Recorder(RecordConfig(dir=str(tmp_path)), "roof", MIC, "H3-VR"), integers(3 * RATE)

    def second(number: int) -> None:
        recorder.keep(number * RATE, x[number * RATE :][:RATE], RATE, T0_NS + number * 1_000_000_000)
        while recorder._taken_frames < recorder._given_frames and recorder._thread.is_alive():
            time.sleep(0.001)

    second(0)
    with monkeypatch.context() as broken:
        broken.setattr(recorder_module.KeptFile, "write", fail)
        broken.setattr(soundfile.SoundFile, "close", fail)
        for name in ("stat", "unlink"):
            broken.setattr(Path, name, fail)
        second(1)
    assert recorder.complaints()["recording"].endswith("nothing is recorded, detection goes on: Input/output error")
    second(2)
    recorder.close()
    assert not recorder.complaints()
    np.testing.assert_array_equal(read(*kept(tmp_path)), x[2 * RATE :])


def test_a_file_that_cannot_be_looked_at_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, **more: bool) -> os.stat_result:
        if path.suffix == ".part":
            raise PermissionError(13, "Permission denied", str(path))
        return os.stat(path, **more)

    monkeypatch.setattr(Path, "stat", refused)
    x = integers(3 * RATE)
    assert not keep(tmp_path, x, [RATE] * 2)
    np.testing.assert_array_equal(read(*kept(tmp_path)), x)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_recorder_that_has_ended_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module.Recorder, "_succeeds", lambda *_: 1 / 0)
    told = keep(tmp_path, integers(RATE))["recording"]
    assert told.endswith(": the recorder has ended (ZeroDivisionError('division by zero')); start seldrt anew")


def test_a_file_that_another_program_holds_costs_nothing_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = integers(3 * RATE)
    hold_files(monkeypatch, times=2)
    assert not keep(tmp_path / "briefly", x, [RATE] * 2, file_s=1.0)
    assert len(kept(tmp_path / "briefly")) == 3
    hold_files(monkeypatch, times=3)
    assert not keep(tmp_path / "long", x, [RATE] * 2, file_s=1.0)
    (part,) = (tmp_path / "long").glob("*.flac.part")
    np.testing.assert_array_equal(np.concatenate([read(path) for path in (part, *kept(tmp_path / "long"))]), x)
    assert len(list((tmp_path / "long").glob("*.toml"))) == 3


def test_settings_with_names_that_are_not_utf8_are_kept_byte_by_byte(tmp_path: Path) -> None:
    recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", 'mic = "\udcff.toml"\n', "H3-VR")
    recorder.keep(0, integers(RATE), RATE, T0_NS)
    recorder.close()
    assert not recorder.complaints()
    (beside,) = tmp_path.glob("*.toml")
    assert beside.read_bytes().endswith(b'mic = "\xff.toml"\n')


def test_when_the_disk_has_room_again_another_file_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "PAUSE_S", 0.2)
    x = integers(20 * RATE)
    recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", MIC, "H3-VR")

    def second(number: int) -> None:
        frames = x[number * RATE :][:RATE]
        recorder.keep(number * RATE, frames, RATE, T0_NS + number * 1_000_000_000)
        while recorder._taken_frames < recorder._given_frames:
            time.sleep(0.001)

    with no_file_above(200_000):
        for number in range(10):
            second(number)
    assert "detection goes on" in recorder.complaints()["recording"]
    time.sleep(0.3)
    for number in range(10, 20):
        second(number)
    assert not recorder.complaints()
    recorder.close()
    (file,) = kept(tmp_path)
    np.testing.assert_array_equal(read(file), x[10 * RATE :])


def test_what_a_killed_daemon_leaves_can_be_replayed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from tests.seldrt.test_recorder import *\n"
        "recorder = Recorder(RecordConfig(dir=sys.argv[1]), 'roof', MIC, 'H3-VR'); x = integers(20 * RATE)\n"
        "[recorder.keep(i, x[i : i + RATE], RATE, T0_NS + i * 10**9 // RATE) for i in range(0, len(x), RATE)]\n"
        "while recorder._taken_frames < len(x): time.sleep(0.01)\n"
        "print('kept', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "kept\n"
    process.kill()
    process.communicate()
    (part,) = tmp_path.glob("*.flac.part")
    source = Recording(part, profile("ambix"), None)
    assert 15 < source.length_s <= 20
    sound = np.concatenate([block.samples for block in source.blocks(RATE)])
    np.testing.assert_array_equal(sound, integers(20 * RATE)[: len(sound)])
    assert len(sound) == round(source.length_s * RATE)
    source.close()


def test_files_that_others_take_away_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "PAUSE_S", 0.0)
    (tmp_path / "roof_20250101T000000.000Z.flac").symlink_to(tmp_path / "nowhere")
    x = integers(30 * RATE)
    recorder = Recorder(RecordConfig(dir=str(tmp_path), file_s=10.0), "roof", MIC, "H3-VR")
    for start in range(0, len(x), RATE):
        recorder.keep(start, x[start : start + RATE], RATE, T0_NS + start * 1_000_000_000 // RATE)
        while recorder._taken_frames < recorder._given_frames:
            time.sleep(0.001)
        if start == 5 * RATE:
            (part,) = tmp_path.glob("*.part")
            part.unlink()
    assert "the file was deleted while it was written; another one is begun" in recorder.complaints()["recording"]
    recorder.close()
    first, *_, last = [path for path in kept(tmp_path) if path.exists()]
    assert first_sample(first) == 6 * RATE
    np.testing.assert_array_equal(read(last), x[first_sample(last) :])
    assert {path.stem for path in tmp_path.glob("*.toml")} == {path.stem for path in kept(tmp_path) if path.exists()}


def test_after_a_file_that_was_deleted_another_begins_with_a_label_frame(tmp_path: Path) -> None:
    x, label, into_it = integers(RATE), RATE // 10, RATE // 20
    recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", MIC, "H3-VR")
    for start, end in ((0, label + into_it), (label + into_it, RATE)):
        recorder.keep(start, x[start:end], RATE, T0_NS + start * 1_000_000_000 // RATE)
        while recorder._taken_frames < recorder._given_frames:
            time.sleep(0.001)
        for part in tmp_path.glob("*.part") if start == 0 else ():
            part.unlink()
    recorder.close()
    np.testing.assert_array_equal(read(*kept(tmp_path)), x[2 * label :])


def test_no_file_grows_larger_than_its_format_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "WAV_LIMIT_BYTES", 100_000)
    x = integers(2 * RATE) / 3
    assert not keep(tmp_path, x.astype(np.float32))
    assert len(kept(tmp_path)) > 1
    assert all(path.suffix == ".wav" and path.stat().st_size < 130_000 for path in kept(tmp_path))


def test_an_old_file_that_cannot_be_deleted_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, one that somebody listens to."""
    held = tmp_path / "roof_20250101T000000.000Z.flac"
    held.write_bytes(bytes(1_000_000))
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path == held:
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    stale = tmp_path / "roof_20250102T000000.000Z.flac"
    stale.write_bytes(bytes(9_000_000))
    x = integers(2 * RATE)
    assert not keep(tmp_path, x, max_mb=10)
    assert held.exists()
    assert not stale.exists()
    np.testing.assert_array_equal(read(kept(tmp_path)[-1]), x)


def test_what_is_being_written_is_kept_though_a_clock_that_was_set_back_makes_it_the_oldest(tmp_path: Path) -> None:
    later = tmp_path / "roof_20990101T000000.000Z.flac"
    later.write_bytes(bytes(9_500_000))
    x = integers(2 * RATE)
    assert not keep(tmp_path, x, max_mb=10)
    (path,) = kept(tmp_path)
    np.testing.assert_array_equal(read(path), x)


def test_a_disk_that_does_not_keep_up_leaves_a_gap_and_the_memory_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, go_on = integers(40 * RATE), threading.Event()
    write = recorder_module.KeptFile.write
    monkeypatch.setattr(recorder_module.KeptFile, "write", lambda *a: go_on.wait(20) and write(*a))
    recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", MIC, "H3-VR")
    for start in range(0, 30 * RATE, RATE):
        recorder.keep(start, x[start : start + RATE], RATE, T0_NS + start * 1_000_000_000 // RATE)
    go_on.set()
    while recorder._taken_frames < recorder._given_frames:
        time.sleep(0.001)
    recorder.keep(30 * RATE, x[30 * RATE :], RATE, T0_NS + 30_000_000_000)
    recorder.close()
    before, after = kept(tmp_path)
    np.testing.assert_array_equal(read(before), x[: 21 * RATE])
    np.testing.assert_array_equal(read(after), x[30 * RATE :])
    assert "too slow" in recorder.complaints()["recording"]
    monkeypatch.setattr(recorder_module, "RECENT_S", 0.0)
    assert not recorder.complaints()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/recordings")):
        with pytest.raises(FolderError, match="cannot record to "):
            Recorder(RecordConfig(dir=str(folder)), "roof", MIC, "H3-VR")


class Frames(Sink):
    def __init__(self) -> None:
        self.said: list[LabelFrame] = []

    def frame(self, frame: LabelFrame) -> None:
        self.said.append(frame)


def heard(source: Microphone | Recording) -> list[LabelFrame]:
    """The label frames of a source that listens with a small model of real networks."""
    frames, pipeline = Frames(), Pipeline(Estimator(small_model(), "cpu"), "small")
    Daemon(pipeline, source, stream_info(pipeline, "roof"), [frames]).run()
    return frames.said


def later(frame: LabelFrame, frames: int) -> LabelFrame:
    """The frame as it would be in a stream that began so many label frames before."""
    sources = [replace(source, onset_sample=source.onset_sample + frames * 2400) for source in frame.sources]
    return replace(frame, index=frame.index + frames, sample=frame.sample + frames * 2400, sources=sources)


def test_what_was_kept_replays_to_the_bit_also_after_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stretch without loss is a file, and its label frames are those that the daemon gave."""
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    monkeypatch.setattr(fake_sounddevice, "MANUAL", True)
    fake_sounddevice.reset()
    x = energy_pipeline.noise(6.0, 60, 10, 48000) * np.linspace(0.1, 2, 6 * 48000, dtype=np.float32)[:, None]
    x = (np.rint(x * 2**23) / 2**23).astype(np.float32)
    microphone = Microphone(CaptureConfig(device="h3", ring_s=1.0), lambda _: profile("fuma"))
    microphone.keeper = recorder = Recorder(RecordConfig(dir=str(tmp_path)), "roof", "", "H3-VR")
    live: list[LabelFrame] = []
    daemon = threading.Thread(target=lambda: live.extend(heard(microphone)))
    daemon.start()
    (stream,), ring = fake_sounddevice.streams, microphone._input.ring
    assert ring is not None
    while not stream.active and daemon.is_alive():
        time.sleep(0.01)
    second = 48000
    sizes = [1009] * 95 + [3 * second] + [1009] * 70  # 2 s in pieces, 3 s at once into a ring of 1 s, 1.5 s in pieces
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        stream.deliver(x[start : start + size])
        while ring.available and daemon.is_alive():
            time.sleep(0.001)
    microphone.stop()
    daemon.join()
    microphone.close()
    recorder.close()
    # Not by their names: delivered faster than in real time, sounds have no times of capture to speak of.
    (nothing, before), (first, after) = sorted((first_sample(path), path) for path in kept(tmp_path))
    assert nothing == first % 4800 == 0
    assert 2 * second < first < 5 * second
    assert sum(bool(frame.sources) for frame in live) > 10
    replayed = heard(Recording(before, profile("fuma"), None))
    assert live[: len(replayed)] == replayed
    replayed = [later(frame, first // 4800) for frame in heard(Recording(after, profile("fuma"), None))]
    assert len(live) < live[-1].index + 1
    assert [without_tracks(frame) for frame in live[-len(replayed) :]] == [without_tracks(frame) for frame in replayed]


def without_tracks(frame: LabelFrame) -> LabelFrame:
    """Numbers of tracks go on after a loss."""
    return replace(frame, sources=[replace(source, track=0) for source in frame.sources])


def test_run_records_and_replay_gives_the_same(tmp_path: Path) -> None:
    """The command line, in processes of their own: the JSON lines of the day, and those of the file that was kept."""
    program = (
        "import sys, numpy; from tests.seldrt import energy_pipeline, fake_sounddevice as fake\n"
        "fake.SOUND = numpy.rint(energy_pipeline.two_pianos(48000) * 2**15)[:, [0, 3, 1, 2]] / 2**15\n"
        "fake._NOISE = numpy.rint(fake._NOISE * 2**15) / 2**15\n"
        "sys.modules['sounddevice'] = fake; energy_pipeline.main()"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")}
    common = ["--no-publish", "--jsonl"]
    arguments = ["run", "--device", "h3", "--mic", "fuma", "--record", str(tmp_path / "kept"), *common, "live.jsonl"]
    arguments += ["--source", "roof", "--record-max-mb", "100000000", "--clips", str(tmp_path / "clips")]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=env | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    offsets = 0
    started = ""
    while offsets < 2:
        line = process.stderr.readline()
        assert line, "it ended"
        offsets += "offset" in line
        started += line
    both = r"note: --record \S+kept and --clips \S+clips: the disk has room for \d+ MB, not for 100001000; the oldest"
    assert re.search(both, started)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    (path,) = kept(tmp_path / "kept")
    assert path.with_suffix(".toml").read_text().endswith('[publisher]\nsource = "roof"\n')
    command = path.with_suffix(".toml").read_text().splitlines()[0].removeprefix("# seldrt ").split()
    done = subprocess.run(
        [sys.executable, "-m", "tests.seldrt.energy_pipeline", *command, "--fast", *common, tmp_path / "replay.jsonl"],
        cwd=path.parent, capture_output=True, text=True, env=env | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    live, replayed = ((tmp_path / name).read_text() for name in ("live.jsonl", "replay.jsonl"))
    assert live.count('"offset"') == 2
    assert '"source":"roof"' in replayed
    of_the_day = re.compile(r'"(t_capture|onset)_s":[0-9.e+-]+')  # UNIX time there, since the beginning here
    assert of_the_day.sub("", live) == of_the_day.sub("", replayed)
