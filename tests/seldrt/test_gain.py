"""The automatic gain: quiet recordings come out like loud ones, loud ones as they are, and events do not move it."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from seldrt import features, gain
from seldrt.config import FeatureConfig
from seldrt.stream import run
from tests.contracts import assert_streaming_law

CONFIG = replace(features.PRESETS["compact"], n_mels=16)
RATE = CONFIG.sample_rate
LOUD = slice(0, 4)  # log-mel of all channels
INTENSITY = [features.FEATURE_NAMES.index(name) for name in features.INTENSITY]


def room(seconds: float, background_dbfs: float, event_dbfs: float | None = None) -> np.ndarray:
    """White noise of that level, from nowhere; one second in five from the left and louder, if wanted."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((round(seconds * RATE), 4)) * 10 ** (background_dbfs / 20)
    if event_dbfs is not None:
        event = rng.standard_normal(len(x)) * 10 ** (event_dbfs / 20) * (np.arange(len(x)) // RATE % 5 == 2)
        x += event[:, None] * [1.0, 1.0, 0.0, 0.0]
    return x.astype(np.float32)


def heard(x: np.ndarray, config: FeatureConfig = CONFIG) -> np.ndarray:
    y = run(features.features_stage(config), x)
    assert y is not None
    return y


def levels(x: np.ndarray) -> np.ndarray:
    """Mean log-mel of W in dB, a second each."""
    y = heard(x)[:, 0].mean(axis=1)
    return y[: len(y) // 100 * 100].reshape(-1, 100).mean(axis=1)


def test_the_streaming_law_holds() -> None:
    x = room(1.0, -80, -50)[: 240 * 70 + 77]
    assert_streaming_law(lambda: features.features_stage(CONFIG), x, hop=240)


@pytest.mark.parametrize("quieter_db", [10, 30, 45])
def test_a_quiet_recording_comes_out_like_a_loud_one(quieter_db: float) -> None:
    loud = room(15, gain.BACKGROUND_DBFS, -30)
    quiet = loud * np.float32(10 ** (-quieter_db / 20))
    plain = heard(loud, replace(CONFIG, max_gain_db=0))
    np.testing.assert_allclose(heard(quiet)[200:, LOUD], plain[200:, LOUD], atol=1.0)
    np.testing.assert_allclose(heard(quiet)[200:, INTENSITY], plain[200:, INTENSITY], atol=1e-3)


@pytest.mark.parametrize("background_dbfs", [-60, -40, -20])
def test_a_loud_recording_comes_out_as_it_is(background_dbfs: float) -> None:
    x = room(5, background_dbfs)
    np.testing.assert_array_equal(heard(x), heard(x, replace(CONFIG, max_gain_db=0)))


def test_the_level_is_that_of_w() -> None:
    """Whatever the other channels have: a sound from the front is not in Y."""
    front = room(5, gain.BACKGROUND_DBFS) * np.float32([1, 0, 0, 0])
    plain = heard(front, replace(CONFIG, max_gain_db=0))
    np.testing.assert_allclose(heard(front * np.float32(0.1))[200:, 0], plain[200:, 0], atol=1.0)


def test_never_more_than_the_limit() -> None:
    limited, more = (heard(room(3, -105), replace(CONFIG, max_gain_db=db))[100:, 0] for db in (10, 20))
    np.testing.assert_allclose(more - limited, 10, atol=0.01)


def test_digital_silence_is_silence_and_says_nothing_of_the_background() -> None:
    nothing = np.zeros((3 * RATE, 4), np.float32)
    np.testing.assert_array_equal(heard(nothing), heard(nothing, replace(CONFIG, max_gain_db=0)))
    x = room(5, -40)
    after = heard(np.concatenate([nothing, x]))[350:]
    np.testing.assert_allclose(after, heard(x)[50:], atol=0.1)


def test_events_do_not_move_it() -> None:
    quiet = room(20, -85)
    with_events = levels(room(20, -85, -40))
    between = np.arange(20) % 5 != 2
    between[:5] = False  # an event was heard before there was a background to speak of
    between[np.arange(20) % 5 == 3] = False  # windows that the event still reaches into
    np.testing.assert_allclose(with_events[between], levels(quiet)[between], atol=0.5)


def test_a_sound_of_half_a_minute_does_not_move_it_but_a_louder_background_does_within_a_minute() -> None:
    """And six seconds after it has ended, a quiet one is raised again."""
    quiet, loud = room(20, -85), room(60, -45)
    moved = levels(np.concatenate([quiet, loud, quiet]))
    raised_db = moved - np.concatenate([levels(quiet), levels(loud), levels(quiet)])
    np.testing.assert_allclose(raised_db[[*range(1, 20), *range(87, 100)]], 0, atol=1.0)
    np.testing.assert_allclose(raised_db[21:50], 20, atol=1.0)
    np.testing.assert_allclose(raised_db[75:80], 0, atol=1.0)


@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_the_level_is_that_of_the_samples_without_offset_and_rumble(offset: float) -> None:
    x = room(1, -50) + np.float32(offset)
    x += np.float32(0.01) * np.sin(2 * np.pi * 20 * np.arange(len(x)) / RATE).astype(np.float32)[:, None]
    spectra = features.stft(x, CONFIG)
    window_energy = float((np.hanning(CONFIG.win_length + 1)[:-1] ** 2).sum())
    measured = gain.levels_dbfs(spectra[:, 0], CONFIG, window_energy)
    assert abs(10 * np.log10(np.mean(10 ** (measured / 10))) + 50) < 0.5
