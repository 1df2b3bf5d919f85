"""What several tests share, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline.bank import Bank, read_bank
from offline.extract import extract
from tests.models import FEATURES
from tests.offline.sounds import write_bank
from tests.offline.stores import write_tones


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two datasets of tones, `train` and `val`, and their feature stores `train.store`, `val.store`."""
    base = tmp_path_factory.mktemp("tones")
    for seed, (name, recordings, seconds) in enumerate([("train", 4, 12.07), ("val", 2, 9.0)]):
        write_tones(base / name, recordings, seconds, seed)
        extract(base / name, base / f"{name}.store", FEATURES)
    return base


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bank: hum, knock, noise and distractor, two clips each."""
    return write_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="session")
def bank(sounds: Path) -> Bank:
    """That bank, read."""
    return read_bank(sounds)
