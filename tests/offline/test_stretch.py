"""Stretched recordings: as long as asked for, at the same pitch, from the same place, with labels that follow."""

from __future__ import annotations

import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from numpy.typing import NDArray

from offline import dataset
from offline.cli import main
from offline.stretch import stretched, stretched_labels
from seldrt.spatial import angle_deg, foa_gains, unit_vector
from tests.offline.stores import write_recording

RATE = 24000
TRUE = unit_vector(60.0, 20.0)


def two_sources(seed: int = 0) -> NDArray[np.floating]:
    """Noise from one direction and other noise, 6 dB weaker, from the far side (n, 4)."""
    rng = np.random.default_rng(seed)
    near, far = rng.standard_normal((2, 2 * RATE, 1))
    return 0.05 * (near * foa_gains(TRUE) + 0.5 * far * foa_gains(unit_vector(-100.0, -20.0)))


def direction(samples: NDArray[np.floating]) -> NDArray[np.floating]:
    """Where the energy comes from on the whole: mean of W times X, Y, Z."""
    w, y, z, x = samples.T
    flow = np.array([w @ x, w @ y, w @ z])
    return flow / np.linalg.norm(flow)


@pytest.mark.parametrize("rate", [0.9, 1.1])
def test_directions_stay_where_a_vocoder_of_each_channel_turns_them(rate: float) -> None:
    recording = two_sources()
    before = direction(recording)
    ours = stretched(recording, rate)
    each = np.stack([librosa.effects.time_stretch(c, rate=rate) for c in recording.T.copy()], axis=1)
    assert angle_deg(direction(ours), before) < 0.5
    assert angle_deg(direction(each), before) > 6
    assert ours.shape == each.shape == (round(len(recording) / rate), 4)


def test_one_channel_is_stretched_as_librosa_does() -> None:
    sweep = 0.3 * librosa.chirp(fmin=200, fmax=4000, sr=RATE, duration=2.0)
    ours = stretched(np.repeat(sweep[:, None], 4, axis=1), 0.8)[:, 0]
    theirs = librosa.effects.time_stretch(sweep, rate=0.8)
    levels = [np.abs(librosa.stft(y)) for y in (ours, theirs)]
    assert levels[0].shape == levels[1].shape
    inner = [level[:, 5:-5] for level in levels]
    assert np.linalg.norm(inner[0] - inner[1]) < 0.1 * np.linalg.norm(inner[1])


def test_pitch_and_level_stay() -> None:
    tone = 0.2 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)
    slow = stretched(np.repeat(tone[:, None], 4, axis=1), 0.9)[4800:-4800, 0]
    spectrum = np.abs(np.fft.rfft(slow * np.hanning(len(slow))))
    assert abs(np.fft.rfftfreq(len(slow), 1 / RATE)[spectrum.argmax()] - 1000) < 1
    theirs = librosa.effects.time_stretch(tone, rate=0.9)[4800:-4800]
    np.testing.assert_allclose(slow.std(), theirs.std(), rtol=0.03)


def test_labels_follow_the_sound() -> None:
    rows = np.array([(frame, 1, 0, 10 * frame, 5) for frame in range(10, 20)])
    for rate, first, last in ((0.5, 20, 39), (2.0, 5, 9), (1.0, 10, 19)):
        moved = stretched_labels(rows, round(40 / rate), rate)
        assert (moved[0, 0], moved[-1, 0], len(moved)) == (first, last, last - first + 1)
        np.testing.assert_array_equal(moved[:, 3], 10 * ((moved[:, 0] + 0.5) * rate).astype(int))


def test_overlapping_events_and_silence_keep_their_rows() -> None:
    rows = np.array([(0, 1, 0, 0, 0), (0, 2, 1, 9, 9), (3, 1, 0, 0, 0)])
    assert stretched_labels(rows, 8, 0.5)[:, :2].tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [6, 1], [7, 1]]
    assert stretched_labels(rows[:0], 8, 0.5).shape == (0, 5)


def test_a_dataset_is_stretched_with_its_labels(tmp_path: Path) -> None:
    base, out = tmp_path / "data", tmp_path / "slow"
    samples = two_sources()
    write_recording(base, "fold3_room1_mix001_ov1", samples, [(frame, 0, 0, 60, 20) for frame in range(20)])
    dataset.write_classes(base, ["noise"])
    arguments = ["stretch", "--data", str(base), "--out", str(out), "--rate", "0.8"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    (recording,) = dataset.list_recordings(out)
    assert (recording.name, recording.fold) == ("fold3_room1_mix001_ov1", 3)
    heard, rate = soundfile.read(recording.audio)
    assert (rate, len(heard)) == (RATE, round(len(samples) / 0.8))
    assert angle_deg(direction(heard), direction(samples)) < 0.5
    assert recording.metadata is not None
    assert dataset.read_metadata(recording.metadata)[:, 0].tolist() == list(range(25))
    assert dataset.read_classes(out) == ["noise"]


def test_a_recording_shorter_than_the_window_is_stretched() -> None:
    x = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    assert stretched(x, 0.8).shape == (1250, 4)
    assert stretched(x[:1], 2.0).shape == (0, 4)
    np.testing.assert_allclose(stretched(x, 1.0), x, atol=1e-4)


@pytest.mark.parametrize(("rate", "out", "said"), [("3", "b", "rate 3.0 is too far"), ("0.9", "a", "another --out")])
def test_what_cannot_be_stretched_is_refused(tmp_path: Path, rate: str, out: str, said: str) -> None:
    arguments = ["stretch", "--data", str(tmp_path / "a"), "--out", str(tmp_path / out), "--rate", rate]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_folder_holds_one_rate_of_one_dataset(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_recording(tmp_path / name, "fold3_room1_mix001_ov1", two_sources()[: RATE // 2], [(0, 0, 0, 60, 20)])
    out = tmp_path / "slow"

    def run(data: str, rate: str) -> tuple[int, str]:
        given = ["stretch", "--data", str(tmp_path / data), "--out", str(out), "--rate", rate]
        result = CliRunner().invoke(main, given)
        return result.exit_code, result.output

    assert run("a", "0.9")[0] == run("a/../a", "0.9")[0] == 0
    record = (out / "stretch.json").read_bytes()
    for data, rate in (("a", "1.5"), ("b", "0.9")):
        told = f"{out}: holds {tmp_path / 'a'} at rate 0.9; go on with that, or give another --out"
        assert run(data, rate) == (2, f"offline: {told}\n")
    assert (out / "stretch.json").read_bytes() == record
    (out / "stretch.json").write_text("{")
    code, text = run("a", "0.9")
    assert (code, text.count("\n")) == (2, 1)
    assert f"{out}/stretch.json: does not say what was stretched" in text


def test_a_folder_that_cannot_be_written_down_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    place.mkdir()
    monkeypatch.chdir(place)
    write_recording(Path("a"), "fold3_room1_mix001_ov1", two_sources()[: RATE // 2], [(0, 0, 0, 60, 20)])
    result = CliRunner().invoke(main, ["stretch", "--data", "a", "--out", "b", "--rate", "0.9"])
    assert (result.exit_code, "is not UTF-8; rename it" in result.output) == (2, True)
    assert not Path("b").exists()
