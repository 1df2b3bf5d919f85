"""The DCASE folder: what is written is read, and what is missing is named."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.dataset import (
    audio_blocks,
    list_recordings,
    read_audio,
    read_classes,
    read_metadata,
    whole,
    write_classes,
    write_file,
    write_metadata,
)
from seldrt.config import DCASE2020_CLASSES, ConfigError

rows = st.lists(
    st.tuples(
        st.integers(0, 5999),
        st.integers(0, 40),
        st.integers(0, 4),
        st.integers(-180, 180),
        st.integers(-90, 90),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def csv_path(tmp_path_factory):
    return tmp_path_factory.mktemp("metadata") / "fold1_room1_mix001_ov1.csv"


@given(rows)
@settings(max_examples=50, deadline=None)
def test_metadata_round_trip(csv_path, written):
    write_metadata(csv_path, written)
    assert [tuple(row) for row in read_metadata(csv_path)] == written


def test_the_distance_column_of_later_years_is_dropped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("0,1,0,-50,30,120\n1,1,0,-50,30,121\n\n")
    assert read_metadata(path).tolist() == [[0, 1, 0, -50, 30], [1, 1, 0, -50, 30]]


@pytest.mark.parametrize("line", ["0,1,0,4", "frame,class,track,azimuth,elevation", "1,1,0,0,0,1,1", "-1,0,0,0,0"])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "a.csv"
    path.write_text(f"0,1,0,4,5\n{line}\n")
    with pytest.raises(ConfigError, match=r"a\.csv, line 2: expected frame,class,track,azimuth,elevation"):
        read_metadata(path)


def make_dataset(base, names, suffix=".wav"):
    for folder in ("foa_dev", "metadata_dev"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (base / "foa_dev" / f"{name}{suffix}").touch()
        (base / "metadata_dev" / f"{name}.csv").touch()


def test_recordings_are_listed_by_fold_and_strays_passed_over(tmp_path):
    make_dataset(tmp_path, ["fold1_room1_mix001_ov1", "fold2_room1_mix002_ov2", "._fold1_room1_mix001_ov1", "notes"])
    make_dataset(tmp_path, ["fold3_room0_mix1000_ov1"], ".flac")
    assert [(r.name, r.fold, r.overlap) for r in list_recordings(tmp_path)] == [
        ("fold1_room1_mix001_ov1", 1, 1),
        ("fold2_room1_mix002_ov2", 2, 2),
        ("fold3_room0_mix1000_ov1", 3, 1),
    ]
    only = list_recordings(tmp_path, folds=(2,))
    assert [r.audio.name for r in only] == ["fold2_room1_mix002_ov2.wav"]
    assert only[0].metadata == tmp_path / "metadata_dev" / "fold2_room1_mix002_ov2.csv"


def test_subfolders_of_later_years_are_searched(tmp_path):
    for folder, suffix in (("foa_dev", ".wav"), ("metadata_dev", ".csv")):
        (tmp_path / folder / "dev-train").mkdir(parents=True)
        (tmp_path / folder / "dev-train" / f"fold3_room21_mix001{suffix}").touch()
    (found,) = list_recordings(tmp_path)
    assert (found.fold, found.overlap) == (3, None)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match="has no folder foa_dev"):
        list_recordings(tmp_path)
    make_dataset(tmp_path, [])
    with pytest.raises(ConfigError, match="no recording named like"):
        list_recordings(tmp_path)
    make_dataset(tmp_path, ["fold1_room1_mix001_ov1"])
    with pytest.raises(ConfigError, match="no recording of fold 5"):
        list_recordings(tmp_path, folds=(5,))
    (tmp_path / "metadata_dev" / "fold1_room1_mix001_ov1.csv").unlink()
    with pytest.raises(ConfigError, match=r"no fold1_room1_mix001_ov1\.csv \(1 are missing\)"):
        list_recordings(tmp_path)


def test_classes(tmp_path):
    assert read_classes(tmp_path) == list(DCASE2020_CLASSES)
    write_classes(tmp_path, ["hum", "click"])
    assert read_classes(tmp_path) == ["hum", "click"]
    (tmp_path / "classes.json").write_text('{"hum": 1}')
    with pytest.raises(ConfigError, match="not a list of class names"):
        read_classes(tmp_path)


def test_metadata_is_whole_numbers(tmp_path):
    path = tmp_path / "a.csv"
    write_metadata(path, np.array([[1, 2, 0, -180, 45]]))
    assert path.read_text() == "1,2,0,-180,45\n"


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    write_file(tmp_path / "sub" / "a", b"old")

    def fail() -> None:
        with whole(tmp_path / "sub" / "a") as partial:
            partial.write_bytes(b"new, but not wh")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "sub").iterdir()] == [("a", b"old")]


def test_audio_is_read_in_blocks_and_whole(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (30 * 800 + 5, 4)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 800, subtype="FLOAT")
    assert [len(block) for block in audio_blocks(tmp_path / "a.wav", 800)] == [8000, 8000, 8000, 5]
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 800), samples)


def test_broken_audio_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.wav: not a readable sound file"):
        read_audio(tmp_path / "none.wav", 800)
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (24000, 4)), 24000)
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(ConfigError, match=r"a\.flac: (ends .* early|not a readable)") as error:
        read_audio(path, 24000)
    assert "\n" not in str(error.value)
