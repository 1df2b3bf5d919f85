"""Calibration: it begins where the model is, and never ends worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from offline.calibrate import Trials, calibrate
from offline.dataset import Recording, write_metadata
from seldrt.config import ConfigError, PostprocessConfig
from tests.models import small_model

CLASSES = ("clap", "voice", "bell")


def trials(seld: Callable[[PostprocessConfig], float]) -> Any:
    return SimpleNamespace(scores=lambda settings: SimpleNamespace(seld=seld(settings)))


def quiet(what: str, scores: object) -> None:
    """Nobody looks on."""


def test_it_begins_with_the_models_own_thresholds() -> None:
    own = PostprocessConfig(sad_threshold=0.37, sed_thresholds=(0.31, 0.42, 0.53))
    away = trials(lambda s: float(np.abs(np.subtract(s.sed_thresholds, own.sed_thresholds)).sum()))
    assert calibrate(away, own, 3, quiet) == own


def test_one_threshold_for_all_becomes_one_a_class() -> None:
    best = (0.43, 0.7, 0.43)
    away = trials(lambda s: float(np.abs(np.subtract(s.sed_thresholds, best)).sum()))
    assert calibrate(away, PostprocessConfig(sed_thresholds=(0.43,)), 3, quiet).sed_thresholds == best


def test_calibrating_again_never_makes_it_worse() -> None:
    def seld(settings: PostprocessConfig) -> float:
        """Another landscape with smoothing than without, which is how the search looks at it."""
        sign = 1 if settings.doa_smoothing else -1
        return sign * (sum(settings.sed_thresholds) + settings.sad_threshold)

    settings = PostprocessConfig(sed_thresholds=(0.25,), sad_threshold=0.45)
    scores = [seld(PostprocessConfig(sed_thresholds=(0.25,) * 3, sad_threshold=0.45))]
    for _ in range(3):
        settings = calibrate(trials(seld), settings, 3, quiet)
        scores.append(seld(settings))
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("shape", "rate"), [((4800, 2), 24000), ((4800, 4), 48000)])
def test_other_rates_and_channels_are_refused_in_one_line(tmp_path: Path, shape: tuple[int, int], rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(shape), rate)
    write_metadata(tmp_path / "a.csv", [])
    recording = Recording("a", tmp_path / "a.wav", tmp_path / "a.csv", 1, 1)
    with pytest.raises(ConfigError, match=rf"a\.wav has {shape[1]} channels at {rate} Hz; expected 4 at 24000 Hz"):
        Trials(small_model(), [recording], CLASSES)
