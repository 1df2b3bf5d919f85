"""Features against librosa, scipy and plane waves in closed form."""

import librosa
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seldrt import features, medians
from seldrt.config import ConfigError, FeatureConfig, override
from seldrt.spatial import foa_gains, unit_vector
from seldrt.stream import run
from tests.contracts import assert_streaming_law

SMALL = FeatureConfig(n_fft=512, n_mels=32, hpss_kernel=7)


def noise(samples: int, channels: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hop_length": 120}, "must be 100 ms at sample_rate"),
        ({"win_length": 4096}, "needs 0 < hop_length <= win_length <= n_fft"),
        ({"win_length": 120}, "needs 0 < hop_length <= win_length <= n_fft"),
        ({"hpss_kernel": 30}, "hpss_kernel must be odd"),
        ({"f_max_hz": 12001.0}, "needs 0 <= f_min_hz < f_max_hz <= sample_rate / 2"),
        ({"f_min_hz": 12000.0}, "needs 0 <= f_min_hz < f_max_hz <= sample_rate / 2"),
        ({"max_gain_db": -1.0}, "max_gain_db is -1.0: it must be 0 to 100"),
        ({"max_rumble_cut_db": 101.0}, "max_rumble_cut_db is 101.0: it must be 0 to 100"),
        ({"sample_rate": 4000, "hop_length": 40, "f_max_hz": 2000.0, "max_rumble_cut_db": 6.0}, "needs a sample_rate"),
        ({"n_mels": 1025}, "n_mels is 1025: it must be 1 to 1024, half of n_fft"),
    ],
)
def test_features_that_cannot_be_computed_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(FeatureConfig(), **change)


@pytest.mark.parametrize("preset", features.PRESETS)
def test_stft_equals_scipys(preset: str) -> None:
    config = features.PRESETS[preset]
    x = noise(4800)
    window = scipy.signal.get_window("hann", config.win_length)
    expected = scipy.signal.ShortTimeFFT(
        window, config.hop_length, config.sample_rate, mfft=config.n_fft, phase_shift=None
    )
    ours = features.stft(x, config)
    for k in (0, 3, len(ours) - 1):
        segment = x[k * config.hop_length : k * config.hop_length + config.win_length]
        theirs = np.fft.rfft(segment.T.astype(float) * expected.win, config.n_fft)
        np.testing.assert_allclose(ours[k], theirs, atol=2e-4)


def test_frame_k_ends_at_the_end_of_hop_k() -> None:
    config = SMALL
    x = np.zeros((config.hop_length * 12, 4), np.float32)
    x[config.hop_length * 8 - config.hop_length // 2] = 1  # heard from hop 7 on, for win / hop frames
    levels = run(features.features_stage(config), x)[:, 0].max(axis=1)
    assert list(np.nonzero(levels > -80)[0]) == [7, 8]


@pytest.mark.parametrize("preset", features.PRESETS)
def test_mel_filters_equal_librosas(preset: str) -> None:
    config = features.PRESETS[preset]
    expected = librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min_hz,
        fmax=config.f_max_hz,
    )
    np.testing.assert_allclose(features.mel_filters(config), expected, atol=1e-6)


def test_log_mel_equals_librosas() -> None:
    config = features.PRESETS["paper"]
    x = noise(12000, 1)[:, 0]
    power = np.abs(librosa.stft(x, n_fft=2048, hop_length=240, win_length=480, center=False)) ** 2
    mel = librosa.feature.melspectrogram(S=power, sr=24000, n_mels=256, fmax=12000)
    # librosa centres the window in n_fft samples, so its frame 0 begins (2048 - 480) / 2 samples in.
    ours = features.log_mel(features.power(features.stft(x[784:, None], config))[:, 0], config)
    expected = librosa.power_to_db(mel, amin=1e-10, top_db=None).T
    np.testing.assert_allclose(ours[: len(expected)], expected, atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(9, 40), st.integers(1, 300)), elements=st.floats(0, 8, width=16)),
    st.sampled_from([1, 3, 9]),
)
def test_compiled_median_equals_its_definition_to_the_bit(x: np.ndarray, size: int) -> None:
    pytest.importorskip("numba")
    expected = medians.running_median_numpy(x, size)
    assert medians.running_median_compiled(x, size).tobytes() == np.ascontiguousarray(expected).tobytes()


def test_median_equals_scipys() -> None:
    x = noise(80, 500)
    expected = scipy.ndimage.median_filter(x, size=(31, 1))[15:-15]
    np.testing.assert_array_equal(medians.running_median(x, 31), expected)


def test_hpss_equals_librosas_inside() -> None:
    config = FeatureConfig(n_fft=512, n_mels=32)
    spectra = features.stft(noise(24000, 4), config)
    harmonic, percussive = features.harmonic_percussive(features.power(spectra), config)
    for channel in range(2):
        expected = librosa.decompose.hpss(spectra[:, channel].T, kernel_size=31, power=2.0)
        for ours, theirs in zip((harmonic, percussive), expected, strict=True):
            np.testing.assert_allclose(ours[:, channel], np.abs(theirs.T[15:-15]) ** 2, rtol=2e-3, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-180, 179.9), st.floats(-90, 90), st.integers(0, 1000))
def test_intensity_points_at_a_plane_wave(azimuth_deg: float, elevation_deg: float, seed: int) -> None:
    doa = unit_vector(azimuth_deg, elevation_deg)
    wave = noise(2400, 1, seed) * foa_gains(doa).astype(np.float32)
    flow = features.intensity(features.stft(wave, SMALL), SMALL)
    np.testing.assert_allclose(flow[:, :3], np.broadcast_to(doa[:, None] / 2, flow[:, :3].shape), atol=1e-4)
    np.testing.assert_allclose(flow[:, 3:], 0, atol=1e-4)


def test_plus_90_degrees_is_left_and_positive_y() -> None:
    wave = noise(2400, 1) * foa_gains(unit_vector(90, 0)).astype(np.float32)
    rows = run(features.features_stage(SMALL), wave)
    mean = rows[4:].mean(axis=(0, 2))
    assert mean[features.FEATURE_NAMES.index("active_y")] == pytest.approx(0.5, abs=1e-3)
    assert abs(mean[features.FEATURE_NAMES.index("active_x")]) < 1e-3


def test_a_standing_wave_is_reactive() -> None:
    t = np.arange(4800) / 24000
    pressure, velocity = np.cos(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 1000 * t)
    samples = np.stack([pressure, 0 * t, 0 * t, velocity], axis=1).astype(np.float32)
    flow = features.intensity(features.stft(samples, SMALL), SMALL)
    band = np.abs(features.mel_filters(SMALL)[:, round(1000 / 24000 * 512)]).argmax()
    assert abs(flow[:, 0, band]).max() < 0.01
    np.testing.assert_allclose(flow[:, 3, band], -0.5, atol=0.01)


@pytest.mark.parametrize("hpss_time", ["centred", "trailing"])
def test_the_stage_keeps_the_streaming_law(hpss_time: str) -> None:
    config = FeatureConfig(n_fft=512, n_mels=16, hpss_kernel=5, hpss_time=hpss_time)
    assert_streaming_law(lambda: features.features_stage(config), noise(240 * 21 + 77), hop=240)


def test_silence_is_what_the_stage_says_of_silence() -> None:
    rows = run(features.features_stage(SMALL), np.zeros((2400, 4), np.float32))
    np.testing.assert_array_equal(rows, np.broadcast_to(features.silence(SMALL), rows.shape))
    assert np.isfinite(rows).all()


def test_trailing_harmonics_have_no_latency_and_centred_ones_150_ms() -> None:
    assert features.features_stage(features.PRESETS["compact"]).latency == 0
    assert features.features_stage(features.PRESETS["paper"]).latency == 15 * 240


@pytest.mark.parametrize("n_mels", [0, 100_000])
def test_more_bands_than_bins_are_refused(n_mels: int) -> None:
    with pytest.raises(ConfigError, match=f"n_mels is {n_mels}: it must be 1 to 512, half of n_fft"):
        override(FeatureConfig(n_fft=1024), n_mels=n_mels)
