"""Recordings and microphones as sources: the same samples for any cut, exact indices, and clear refusals."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr

from seldrt.config import SeldrtError
from seldrt.microphones import profile
from seldrt.runtime.capture import Block, CaptureError, ClockFit, Microphone, Recording
from seldrt.runtime.devices import find_input, list_inputs
from tests.seldrt import fake_sounddevice

RATE = 24000
AMBIX = profile("ambix")
X = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE + 1234, 4)).astype(np.float32)


def write(path: Path, x: np.ndarray = X, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, x, rate, subtype=subtype)
    return path


def joined(blocks: Iterator[Block]) -> np.ndarray:
    """All samples, after a check that no index is skipped."""
    parts, end = [], 0
    for block in blocks:
        assert block.sample == end
        assert block.samples.dtype == np.float32
        end += len(block.samples)
        parts.append(block.samples)
    return np.concatenate(parts)


def heard(path: Path, block_ms: int = 20, speed: float | None = None, mic: str = "ambix") -> np.ndarray:
    recording = Recording(path, profile(mic), speed, block_ms)
    try:
        return joined(recording.blocks(RATE))
    finally:
        recording.close()


def test_a_recording_comes_as_it_is(tmp_path: Path) -> None:
    np.testing.assert_array_equal(heard(write(tmp_path / "a.wav")), X)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_any_block_size_gives_the_same_bits_at_any_rate(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", rate=rate)
    whole = soxr.resample(X, rate, RATE)
    for block_ms in (1, 20, 333, 10_000):
        np.testing.assert_array_equal(heard(path, block_ms), whole)


def test_flac_and_24_bits_are_read(tmp_path: Path) -> None:
    np.testing.assert_allclose(heard(write(tmp_path / "a.flac", subtype="PCM_24")), X, atol=2**-23)


def test_the_microphone_profile_is_applied(tmp_path: Path) -> None:
    np.testing.assert_array_equal(heard(write(tmp_path / "a.wav"), mic="fuma"), profile("fuma").to_foa(X))


def test_the_pace_is_real_time_or_a_multiple_and_the_samples_are_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", X[: RATE // 2])
    start_s = time.monotonic()
    np.testing.assert_array_equal(heard(path, speed=2.0), X[: RATE // 2])
    assert 0.25 <= time.monotonic() - start_s < 10


def test_a_paced_recording_has_a_plausible_clock_and_gives_turns(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "a.wav", X), AMBIX, 4.0, block_ms=1000)
    before_ns, empty = time.time_ns(), 0
    for block in recording.blocks(RATE):
        clock = recording.clock()
        assert before_ns <= clock.ns(0) <= time.time_ns()
        assert clock.ns(RATE) - clock.ns(0) == 1_000_000_000
        empty += not len(block.samples)
        if len(block.samples):  # no sample is handed on before its time
            assert recording.arrived_ns(block.sample + len(block.samples)) <= time.time_ns() + 1_000_000
    assert empty >= 2  # 1 s at fourfold speed is longer than a turn
    recording.close()


def test_stop_ends_a_recording_soon(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "a.wav"), AMBIX, 0.01)
    blocks = recording.blocks(RATE)
    next(blocks)
    recording.stop()
    start_s = time.monotonic()
    joined(blocks)
    assert time.monotonic() - start_s < 10
    recording.close()


def test_what_cannot_be_heard_is_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("missing.wav", None, "no such file"),
        ("empty.wav", b"", "the file is empty"),
        ("text.wav", b"not a sound at all, but long enough to look for a header", "not a sound file"),
        ("naked.raw", b"0123456789" * 100, "not a sound file .*samplerate must be specified"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CaptureError, match=message) as caught:
            Recording(path, AMBIX)
        assert "\n" not in str(caught.value)
    with pytest.raises(CaptureError, match="not a file"):
        Recording(tmp_path, AMBIX)
    for channels in (1, 2, 6):
        with pytest.raises(CaptureError, match=f"{channels} channels?; needs 4"):
            Recording(write(tmp_path / "few.wav", np.zeros((100, channels))), AMBIX)
    with pytest.raises(CaptureError, match="holds no samples"):
        Recording(write(tmp_path / "none.wav", X[:0]), AMBIX)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_truncated_recording_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CaptureError, match="truncated"):
        Recording(path, AMBIX)


def test_a_wav_of_a_stream_that_never_knew_its_length_is_heard(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", subtype="PCM_16")
    whole = path.read_bytes()
    at = whole.index(b"data") + 4
    path.write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
    assert len(heard(path)) == len(X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused_with_their_time(tmp_path: Path, bad: float) -> None:
    x = np.concatenate([X] * 4)
    x[3 * RATE, 2] = bad
    with pytest.raises(CaptureError, match=r"at 3\.000 s"):
        Recording(write(tmp_path / "a.wav", x), AMBIX)


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    monkeypatch.setattr(fake_sounddevice, "SPEED", 5.0)
    return fake_sounddevice


def test_devices_are_found_by_number_name_or_part_of_it(sounddevice: ModuleType) -> None:
    assert [device.number for device in list_inputs()] == [0, 1, 3]
    for wanted in ("h3-vr", "0", "ZOOM H3-VR: usb audio (hw:1,0)", "hw:1"):
        assert find_input(wanted).number == 0


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Soundfield", r"no input device 'Soundfield'; devices with 4 or more channels: 0 'Zoom H3-VR.*3 'UMC404HD"),
        ("", "no input device ''"),
        ("usb", "fits several: 0 'Zoom.*, 3 'UMC404HD.*number"),
        ("Built-in", "Built-in Microphone has 2 input channels, 4 are needed; devices that do: 0"),
        ("2", "no input device '2'"),
    ],
)
def test_devices_that_do_not_fit_are_refused(sounddevice: ModuleType, wanted: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        find_input(wanted)


def test_a_rate_the_device_refuses_is_told(sounddevice: ModuleType) -> None:
    with pytest.raises(CaptureError, match=r"cannot open UMC404HD.*96000 Hz: Invalid sample rate"):
        Microphone("UMC", AMBIX)


def test_missing_portaudio_is_told_with_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SeldrtError, match="libportaudio2"):
        list_inputs()
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # type: ignore[arg-type]
    with pytest.raises(SeldrtError, match=r"pip install 'seldrt\[live\]'"):
        list_inputs()


@pytest.mark.parametrize("device_rate", [24000, 48000])
def test_a_microphone_gives_what_was_captured_and_ends_cleanly(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, device_rate: int
) -> None:
    monkeypatch.setattr(sounddevice, "SOUND", X)
    microphone = Microphone("h3", AMBIX, device_rate=device_rate)
    parts, end = [], 0
    for block in microphone.blocks(RATE):
        assert block.sample == end
        end += len(block.samples)
        parts.append(block.samples)
        if end > len(X):
            microphone.stop()
    microphone.close()
    captured = np.concatenate(parts)
    device_frames = np.zeros((round(len(captured) * device_rate / RATE), 4), np.float32)
    device_frames[: len(X)] = X
    expected = device_frames if device_rate == RATE else soxr.resample(device_frames, device_rate, RATE)
    np.testing.assert_allclose(captured, expected, atol=1e-6)
    assert microphone.overruns == 0


def test_a_reader_that_sleeps_loses_whole_blocks_at_known_indices(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.arange(1, 20 * 24000 + 1, dtype=np.float32)[:, None].repeat(4, axis=1)
    monkeypatch.setattr(sounddevice, "SOUND", ramp)
    microphone = Microphone("h3", AMBIX, ring_s=1.0, device_rate=24000)
    gaps, end = 0, 0
    for block in microphone.blocks(RATE):
        assert block.sample >= end
        gaps += block.sample > end
        np.testing.assert_array_equal(block.samples[:, 0], ramp[block.sample :][: len(block.samples), 0])
        end = block.sample + len(block.samples)
        if not gaps and end > 4800:
            time.sleep(0.5)  # 2.5 s of sound
        if gaps and end > 5 * 24000:
            microphone.stop()
    microphone.close()
    assert gaps == microphone.overruns >= 1


def test_overflow_flags_are_counted(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounddevice, "OVERFLOW_AT", 2)
    microphone = Microphone("h3", AMBIX)
    for block in microphone.blocks(RATE):
        if block.sample > RATE // 2:
            microphone.stop()
    microphone.close()
    assert microphone.overruns == 1


def test_a_device_that_dies_is_told(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounddevice, "DIES_AT", 10)
    microphone = Microphone("h3", AMBIX)
    with pytest.raises(CaptureError, match="stopped delivering"):
        for _ in microphone.blocks(RATE):
            pass
    microphone.close()


@pytest.mark.parametrize(("method", "message"), [("start", "cannot start"), ("stop", "the device failed")])
def test_an_error_of_portaudio_is_told(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str, message: str
) -> None:
    monkeypatch.setattr(sounddevice, "FAILS", method)
    microphone = Microphone("h3", AMBIX)
    microphone.stop()
    with pytest.raises(CaptureError, match=rf"Zoom.*: {message}: Error at {method}: Unanticipated host error"):
        list(microphone.blocks(RATE))
    microphone.close()


def test_the_clock_is_plausible_before_anything_was_captured(sounddevice: ModuleType) -> None:
    microphone = Microphone("h3", AMBIX)
    assert 0 <= time.time_ns() - microphone.clock().ns(0) < 60e9
    microphone.close()


def test_the_clock_fit_follows_the_device_and_not_the_jitter() -> None:
    rng = np.random.default_rng(0)
    true_rate, start_ns = 48000 * (1 + 50e-6), 1_700_000_000_000_000_000  # 50 ppm fast
    fit, worst_ns = ClockFit(48000), 0.0
    for block in range(1, 50 * 600):
        frames = block * 960
        captured_ns = start_ns + round(frames / true_rate * 1e9)
        fit.note(frames, captured_ns + round(rng.exponential(3e6)))
        if frames > 48000:
            worst_ns = max(worst_ns, abs(fit.origin_ns + frames * 1e9 / 48000 - captured_ns))
    assert worst_ns < 2e6  # though callbacks jitter by 3 ms and more, and the device gained 30 ms
