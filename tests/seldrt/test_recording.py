"""Recordings as sources: the same samples for any cut, exact indices, and clear refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from seldrt.microphones import profile
from seldrt.runtime.capture import Block
from seldrt.runtime.devices import CaptureError
from seldrt.runtime.recording import Recording

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


@pytest.mark.parametrize("rate", [RATE, 48000])
def test_one_that_loops_is_one_stream_until_it_is_stopped(tmp_path: Path, rate: int) -> None:
    """That of the recording twice in one file; the resampler knows no end between them."""
    recording = Recording(write(tmp_path / "once.wav", X, rate), AMBIX, speed=None, block_ms=7, loops=True)
    samples = joined(stopped_after(recording, 2.5 * len(X) * RATE / rate))
    recording.close()
    expected = heard(write(tmp_path / "twice.wav", np.concatenate([X, X]), rate))
    count = len(expected) * 9 // 10  # what comes after reaches that far back at most
    np.testing.assert_array_equal(samples[:count], expected[:count])


def stopped_after(recording: Recording, count: float) -> Iterator[Block]:
    for block in recording.blocks(RATE):
        yield block
        if block.sample > count:
            recording.stop()


def test_stop_ends_a_recording_soon(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "a.wav"), AMBIX, 0.01)
    blocks = recording.blocks(RATE)
    next(blocks)
    recording.stop()
    start_s = time.monotonic()
    joined(blocks)
    assert time.monotonic() - start_s < 10
    assert 0 < recording.played_s < recording.length_s == pytest.approx(len(X) / RATE)
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
    for rate in (1, 7999, 768_001):
        with pytest.raises(CaptureError, match=f"its sample rate is {rate} Hz; it must lie in 8000 to 768000 Hz"):
            Recording(write(tmp_path / "odd.wav", rate=rate), AMBIX)
    with pytest.raises(CaptureError, match="holds no samples"):
        Recording(write(tmp_path / "none.wav", X[:0]), AMBIX)


def test_for_a_folder_the_recordings_in_it_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=f"{tmp_path}: a folder, not a file; with no recordings directly in it$"):
        Recording(tmp_path, AMBIX)
    (tmp_path / "a.txt").touch()
    (tmp_path / "one.WAV").touch()
    with pytest.raises(CaptureError, match=rf"give the recordings in it: {tmp_path}/\*.WAV$"):
        Recording(tmp_path, AMBIX)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_truncated_recording_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CaptureError, match="truncated"):
        Recording(path, AMBIX)


def test_who_lost_its_power_while_recording_is_told_what_saves_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a b.wav", subtype="PCM_16")
    whole = path.read_bytes()
    at = whole.index(b"data") + 4
    for content in (whole[:at] + bytes(4) + whole[at + 4 :], whole[:-5000]):
        path.write_bytes(content)
        with pytest.raises(
            CaptureError, match=r"`sox --ignore-length '/.*/a b.wav' 'mended_a b.wav'` saves what is there"
        ):
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


def test_four_channels_of_a_wider_recording_are_heard(tmp_path: Path) -> None:
    wide = np.concatenate([np.zeros_like(X), X], axis=1)
    recording = Recording(write(tmp_path / "wide.wav", wide), AMBIX, None, channels=(5, 6, 8, 7))
    np.testing.assert_array_equal(joined(recording.blocks(RATE)), X[:, [0, 1, 3, 2]])
    recording.close()
    with pytest.raises(CaptureError, match="8 channels; needs 4: name them with --channels"):
        Recording(tmp_path / "wide.wav", AMBIX)
    with pytest.raises(CaptureError, match="8 channels; channel 9 is asked for"):
        Recording(tmp_path / "wide.wav", AMBIX, channels=(6, 7, 8, 9))
