"""The rumble filter: wind and hum are turned down to what is usual, all else and all directions stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
from msgspec.structs import replace

from seldrt import features, rumble
from seldrt.config import ConfigError, FeatureConfig, decode
from seldrt.stream import run
from tests.contracts import assert_streaming_law

CONFIG = replace(features.PRESETS["compact"], max_gain_db=0.0)
OFF = replace(CONFIG, max_rumble_cut_db=0.0)
RATE = CONFIG.sample_rate
HZ = np.fft.rfftfreq(CONFIG.n_fft, 1 / RATE)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """White noise from the left."""
    return np.random.default_rng(seed).standard_normal((round(seconds * RATE), 1)) * [0.01, 0.01, 0.0, 0.0]


def wind(seconds: float, level: float) -> np.ndarray:
    band = scipy.signal.butter(2, [20, 80], "bandpass", fs=RATE, output="sos")
    x = scipy.signal.sosfilt(band, np.random.default_rng(1).standard_normal((round(seconds * RATE), 4)), axis=0)
    return x * (level / x.std())


def filtered(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectra before and after, from the fourth second on."""
    spectra = features.stft(x, CONFIG)
    after = run(rumble.rumble_stage(CONFIG), spectra, 10)
    assert after is not None
    return spectra[400:], after[400:]


def band_db(spectra: np.ndarray, low_hz: float, high_hz: float, channel: int = 0) -> float:
    inside = (low_hz <= HZ) & (high_hz > HZ)
    return float(10 * np.log10(np.mean(np.abs(spectra[:, channel, inside]) ** 2)))


def test_the_streaming_law_holds() -> None:
    x = (noise(2) + wind(2, 0.3))[: 240 * 170 + 77].astype(np.float32)
    assert_streaming_law(lambda: features.features_stage(CONFIG), x, hop=240)


@pytest.mark.parametrize("level", [0.3, 1.0, 10.0])
def test_wind_comes_down_to_what_is_usual_whatever_it_was(level: float) -> None:
    before, after = filtered(noise(12) + wind(12, level))
    middle = band_db(after, *rumble.MIDDLE_HZ)
    for band, (low_hz, high_hz) in enumerate([(20, 60), (60, 110)]):
        over_db = band_db(after, low_hz, high_hz) - middle - 2.5  # as much is the mean of noise above its mean in dB
        assert over_db == pytest.approx(rumble.USUAL_DB[band], abs=4)
        assert band_db(before, low_hz, high_hz) > band_db(after, low_hz, high_hz) + 3


@pytest.mark.parametrize("level", [0.0, 0.015])
def test_what_is_usual_stays_as_it_is(level: float) -> None:
    x = noise(8) + wind(8, 1.0) * level
    before, after = filtered(x)
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(run(features.features_stage(CONFIG), x), run(features.features_stage(OFF), x))


def test_nothing_above_and_no_direction_changes_in_wind() -> None:
    before, after = filtered(noise(8) + wind(8, 1.0))
    above = slice(int(np.searchsorted(HZ, rumble.EDGES_HZ[-1])), None)
    np.testing.assert_array_equal(after[..., above], before[..., above])
    np.testing.assert_allclose(features.intensity(after, CONFIG), features.intensity(before, CONFIG), atol=1e-3)


def test_a_knock_keeps_its_lows_and_what_lasts_loses_them_within_seconds() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 90 * np.arange(8 * RATE) / RATE)[:, None] * [1.0, 1.0, 0.0, 0.0]
    short = tone * ((np.arange(len(tone)) // (RATE // 10) == 45)[:, None])
    before, after = filtered(noise(8) + short)
    loudest = np.abs(before[:, 0, 4]).argmax()
    assert 20 * np.log10(np.abs(before[loudest, 0, 4]) / np.abs(after[loudest, 0, 4])) < 2
    before, after = filtered(noise(8) + tone)
    assert band_db(before, 60, 110) - band_db(after, 60, 110) > 20


@pytest.mark.parametrize("wave", [np.sin, scipy.signal.square])
@pytest.mark.parametrize("hz", [262, 440, 520])
def test_a_tone_that_lasts_stays(hz: float, wave: Callable[[np.ndarray], np.ndarray]) -> None:
    """An alarm, a telephone, a held note."""
    tone = 0.2 * wave(2 * np.pi * hz * np.arange(8 * RATE) / RATE)[:, None] * [1.0, 1.0, 0.0, 0.0]
    before, after = filtered(0.1 * noise(8) + tone)
    strongest = np.abs(before[:, 0]).mean(axis=0).argmax()
    lost = 20 * np.log10(np.abs(before[:, 0, strongest]) / np.abs(after[:, 0, strongest]))
    assert lost.max() < 1


def test_wind_is_gone_within_a_second() -> None:
    spectra = features.stft(noise(4) + wind(4, 1.0), CONFIG)
    after = run(rumble.rumble_stage(CONFIG), spectra)
    assert after is not None
    cut_db = [band_db(x, 20, 60) for x in (spectra[50:100], after[50:100], after[300:])]
    assert cut_db[0] - cut_db[1] > 0.7 * (cut_db[0] - cut_db[2]) > 10


def test_the_levels_are_those_of_w() -> None:
    before, after = filtered((noise(8) + wind(8, 1.0)) * [1.0, 0.0, 0.0, 0.0])
    assert band_db(before, 20, 60) - band_db(after, 20, 60) > 15


def test_a_quiet_place_is_raised_in_wind_too() -> None:
    """The gain hears what the rumble filter has left."""
    x = 0.005 * noise(8) + wind(8, 0.003)
    raised, plain = (run(features.features_stage(config), x) for config in (features.PRESETS["compact"], CONFIG))
    assert raised is not None
    assert plain is not None
    assert (raised - plain)[400:, 0, -20:].min() > 10


def test_never_more_than_the_limit() -> None:
    limited = replace(CONFIG, max_rumble_cut_db=6.0)
    x = features.stft(noise(8) + wind(8, 1.0), CONFIG)
    after = run(rumble.rumble_stage(limited), x)
    assert after is not None
    lost = 20 * np.log10(np.abs(x[400:, 0, 1:20]) / np.abs(after[400:, 0, 1:20]))
    assert lost.max() == pytest.approx(6.0, abs=0.01)


def test_digital_silence_stays_silent() -> None:
    nothing = np.zeros((2 * RATE, 4), np.float32)
    np.testing.assert_array_equal(
        run(features.features_stage(CONFIG), nothing), features.silence(CONFIG)[None].repeat(200, 0)
    )


@pytest.mark.parametrize("config", [features.PRESETS["paper"], FeatureConfig(n_fft=512, max_rumble_cut_db=60.0)])
def test_coarser_and_finer_spectra_will_do(config: FeatureConfig) -> None:
    config = replace(config, max_rumble_cut_db=60.0)
    spectra = features.stft(noise(6) + wind(6, 1.0), config)
    after = run(rumble.rumble_stage(config), spectra)
    assert after is not None
    low = np.fft.rfftfreq(config.n_fft, 1 / RATE) < 60
    before_db, after_db = (10 * np.log10(np.mean(np.abs(x[400:, 0, low]) ** 2)) for x in (spectra, after))
    assert before_db - after_db > 15


@pytest.mark.parametrize("given", [{"n_fft": 120, "win_length": 120, "hop_length": 120, "frames_per_label": 20}])
def test_spectra_that_are_too_coarse_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"max_rumble_cut_db needs .* an n_fft of sample_rate / 100"):
        decode(given | {"n_mels": 40, "max_rumble_cut_db": 60.0}, FeatureConfig, "[features]")
