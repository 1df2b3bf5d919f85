"""Sounds made by rule follow the rules."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import soundfile

from offline import alarms
from offline.arrays import SAMPLE_RATE


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


@pytest.mark.parametrize("label", alarms.KINDS)
def test_sounds_are_finite_peak_at_3_db_below_full_scale_and_differ(label: str) -> None:
    sounds = [alarms.make(label, np.random.default_rng(seed)) for seed in range(40)]
    for sound in sounds:
        assert sound.dtype == np.float32
        assert 0.1 * SAMPLE_RATE < len(sound) <= 12 * SAMPLE_RATE
        assert np.abs(sound).max() == pytest.approx(10 ** (-3 / 20), rel=1e-5)
    assert len({sound.tobytes() for sound in sounds}) == 40


def test_the_same_seed_writes_the_same_files(tmp_path) -> None:
    for folder in ("first", "second"):
        alarms.write(tmp_path / folder, 2, seed=5)
    written = sorted((tmp_path / "first").rglob("*.flac"))
    assert [path.parent.name for path in written] == ["alarm"] * 2 + ["ringing_phone"] * 2
    for path in written:
        again = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert soundfile.read(path)[0].tolist() == soundfile.read(again)[0].tolist()
