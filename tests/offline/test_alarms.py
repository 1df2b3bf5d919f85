"""Sounds made by rule follow the rules."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import soundfile

from offline import alarms
from offline.arrays import SAMPLE_RATE
from offline.bank import read_bank
from tests.disk import full_disk


def sounding_s(sound: np.ndarray) -> list[float]:
    """Durations of the beeps and pauses of a sound in turn, beginning with a beep."""
    envelope = scipy.ndimage.maximum_filter1d(np.abs(sound), 96) > 0.2 * np.abs(sound).max()
    changes = np.flatnonzero(np.diff(envelope.astype(int)))
    return list(np.diff([-1, *changes, len(sound) - 1]) / SAMPLE_RATE)


def test_smoke_alarms_have_the_temporal_three_pattern() -> None:
    for seed in range(30):
        sound = alarms.smoke_alarm(np.random.default_rng(seed))
        frequencies_hz, power = scipy.signal.periodogram(sound, SAMPLE_RATE)
        assert 2700 <= frequencies_hz[power.argmax()] <= 3600
        spans_s = sounding_s(sound)
        if spans_s[0] > 0.3:
            np.testing.assert_allclose(spans_s[:6], [0.5, 0.5, 0.5, 0.5, 0.5, 1.5], atol=0.02)
        else:
            np.testing.assert_allclose(spans_s[:7], [0.1] * 7, atol=0.02)


def test_low_smoke_alarms_are_square_at_520_hz_in_the_same_pattern() -> None:
    for seed in range(10):
        sound = alarms.low_smoke_alarm(np.random.default_rng(seed))
        frequencies_hz, power = scipy.signal.periodogram(sound, SAMPLE_RATE)
        assert frequencies_hz[power.argmax()] == pytest.approx(520, rel=0.06)
        third = np.abs(frequencies_hz - 3 * frequencies_hz[power.argmax()]) < 20
        assert power[third].sum() > 0.01 * power.sum()
        np.testing.assert_allclose(sounding_s(sound)[:6], [0.5, 0.5, 0.5, 0.5, 0.5, 1.5], atol=0.02)


def strongest_hz(sound: np.ndarray) -> np.ndarray:
    """The strongest frequency of each twentieth of a second."""
    frequencies_hz, _, levels = scipy.signal.spectrogram(sound, SAMPLE_RATE, nperseg=2400, noverlap=1200)
    return frequencies_hz[levels.argmax(axis=0)]


def test_a_motor_siren_winds_up_and_down() -> None:
    for seed in range(10):
        hz = strongest_hz(alarms.motor_siren(np.random.default_rng(seed)))
        peak = hz.argmax()
        assert hz[: max(len(hz) // 20, 1)].min() < 0.5 * hz[peak] > hz[-1]


def test_alerts_are_short_and_klaxons_rough() -> None:
    for seed in range(20):
        assert len(alarms.alert(np.random.default_rng(seed))) <= 1.9 * SAMPLE_RATE
        sound = alarms.klaxon(np.random.default_rng(seed))
        frequencies_hz, power = scipy.signal.periodogram(sound, SAMPLE_RATE)
        one_tone = np.abs(frequencies_hz / frequencies_hz[power.argmax()] - 1) < 0.1
        assert power[~one_tone].sum() > 0.3 * power.sum()


def test_sirens_sweep() -> None:
    for seed in range(10):
        sound = alarms.siren(np.random.default_rng(seed))
        _, _, levels = scipy.signal.spectrogram(sound, SAMPLE_RATE, nperseg=512, noverlap=256)
        strongest = levels.argmax(axis=0)
        assert strongest.max() > strongest.min()


def test_a_bell_rings_at_each_blow_and_fades() -> None:
    sound = alarms.struck(np.random.default_rng(0), 10, 2.0, 1, 0.5)
    power = scipy.signal.sosfiltfilt(scipy.signal.butter(2, 40, fs=SAMPLE_RATE, output="sos"), sound**2)
    blows, _ = scipy.signal.find_peaks(power, prominence=0.1 * power.max(), distance=SAMPLE_RATE // 20)
    assert len(blows) == pytest.approx(20, abs=2)
    assert np.square(sound[-1200:]).mean() < 0.01 * np.square(sound[:1200]).mean()


@pytest.mark.parametrize("kind", [kind for kinds in alarms.KINDS.values() for kind in kinds])
def test_sounds_are_finite_peak_at_3_db_below_full_scale_and_differ(kind) -> None:
    sounds = [alarms.make(kind, np.random.default_rng(seed)) for seed in range(20)]
    for sound in sounds:
        assert sound.dtype == np.float32
        assert 0.1 * SAMPLE_RATE < len(sound) <= 12 * SAMPLE_RATE
        assert np.abs(sound).max() == pytest.approx(10 ** (-3 / 20), rel=1e-5)
    assert len({sound.tobytes() for sound in sounds}) == 20


def test_the_same_seed_writes_the_same_files(tmp_path) -> None:
    for folder in ("first", "second"):
        alarms.write(tmp_path / folder, 2, seed=5)
    written = sorted((tmp_path / "first").rglob("*.flac"))
    assert [path.parent.parent.name for path in written] == ["alarm"] * 2 + ["ringing_phone"] * 2
    for path in written:
        again = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert soundfile.read(path)[0].tolist() == soundfile.read(again)[0].tolist()


def test_a_full_disk_is_told_and_leaves_no_torn_sound(tmp_path) -> None:
    with full_disk(), pytest.raises(OSError, match=r"alarm_made_5_000\.flac"):
        alarms.write(tmp_path, 1, seed=5)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_many_count_as_few_recordings_and_each_kind_is_in_both_parts(tmp_path) -> None:
    kinds = len(alarms.ALARMS)
    alarms.write(tmp_path, 2 * kinds * kinds, seed=1)
    parts = {part: read_bank(tmp_path, part).clips["alarm"] for part in ("train", "validation")}
    groups = {part: {clip.group for clip in clips} for part, clips in parts.items()}
    assert len(groups["train"] | groups["validation"]) == kinds
    for clips in parts.values():
        numbers = [int(clip.path.rpartition("_")[2].removesuffix(".flac")) for clip in clips]
        assert {number % kinds for number in numbers} == set(range(kinds))
