"""The DCASE folder: what is written is read, and what is missing is named."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from offline.dataset import (
    DCASE2021_CLASSES,
    STARSS_CLASSES,
    content_digest,
    list_quiet,
    list_recordings,
    read_classes,
    read_metadata,
    within,
    write_classes,
    write_metadata,
)
from offline.files import audio_blocks, sound_info
from seldrt.config import DCASE2020_CLASSES, ConfigError

rows = st.lists(
    st.tuples(
        st.integers(0, 5999),
        st.integers(0, 40),
        st.integers(0, 4),
        st.integers(-180, 179),
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


# Two frames, the second with two sources of one class, as the data of each year has them.
YEARS = {
    "2020": "0,1,0,-50,30\n1,1,0,-49,30\n1,1,1,10,-20\n",
    "2021": "0,1,0,-50,30\n1,1,0,-49,30\n1,1,1,10,-20\n",
    "2022": "0,     1,  0,  -50,  30\n1,     1,  0,  -49,  30\n1,     1,  1,   10, -20\n",
    "2023 with distance": "0,1,0,-50,30,180\n1,1,0,-49,30,181\n1,1,1,10,-20,243\n",
    "2024 of floats": "0,1,0,-50.3,29.8,180.0\r\n1,1,0,-49.0,30.0,181.2\r\n1,1,1,10.0,-20.0,243.0\r\n",
    "with a header": "\ufeffFrame,class,source,azimuth,elevation\n0,1,0,-50,30\n1,1,0,-49,30\n1,1,1,10,-20\n\n",
}


@pytest.mark.parametrize("year", YEARS)
def test_the_labels_of_every_year_are_read(tmp_path, year):
    path = tmp_path / "a.csv"
    path.write_bytes(YEARS[year].encode())
    assert read_metadata(path).tolist() == [[0, 1, 0, -50, 30], [1, 1, 0, -49, 30], [1, 1, 1, 10, -20]]


def test_cartesian_directions_are_not_taken_for_degrees(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("0,1,0,0.642,-0.766,0.0\n1,1,0,0.0,0.6,0.8\n")
    with pytest.raises(ConfigError, match=r"a\.csv: holds directions as x, y, z; expected azimuth and elevation"):
        read_metadata(path)


@pytest.mark.parametrize(
    "line",
    ["0,1,0,4", "frame,class,track,azimuth,elevation", "1,1,0,0,0,1,1", "1,1,0,,0"],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "a.csv"
    path.write_text(f"0,1,0,4,5\n{line}\n")
    with pytest.raises(ConfigError, match=r"a\.csv, line 2: expected frame,class,track,azimuth,elevation"):
        read_metadata(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-1,0,0,0,0", "frame is -1, it must be 0 to"),
        ("1e30,0,0,0,0", r"frame is 1e\+30"),
        ("5000000000,1,0,0,0", r"frame is 5e\+09"),
        ("1,-1,0,0,0", "class is -1"),
        ("1,1e30,0,0,0", "class is"),
        ("1,0,-1e30,0,0", "track is"),
        ("1,1,0,nan,0", "azimuth is nan, it must be -360 to 360"),
        ("1,1,0,inf,0", "azimuth is inf"),
        ("1,1,0,370,0", "azimuth is 370"),
        ("1,1,0,0,110", "elevation is 110, it must be -90 to 90"),
        ("0.6,1,0,4,5", "frame is 0.6, it must be a whole number$"),
        ("1,1.5,0,4,5", "class is 1.5, it must be a whole number$"),
        ("1,1,-0.25,4,5", "track is -0.25, it must be a whole number$"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, line, said):
    path = tmp_path / "a.csv"
    path.write_text(f"0,1.0,0,4.5,5\n{line}\n")
    with pytest.raises(ConfigError, match=rf"a\.csv, line 2: {said}"):
        read_metadata(path)


def test_azimuths_of_any_turn_are_wrapped(tmp_path):
    path = tmp_path / "a.csv"
    azimuths = (270, -90, 180, -180, 360, -360, 179.4, 179.6, -180.4, -181, 0)
    path.write_text("".join(f"{frame},0,0,{azimuth},0\n" for frame, azimuth in enumerate(azimuths)))
    assert read_metadata(path)[:, 3].tolist() == [-90, -90, -180, -180, 0, 0, 179, -180, -180, 179, 0]


def make_dataset(base, names, suffix=".wav", split="dev", arrays=("foa",)):
    for name in names:
        for array in arrays:
            (base / f"{array}_{split}" / f"{name}{suffix}").parent.mkdir(parents=True, exist_ok=True)
            (base / f"{array}_{split}" / f"{name}{suffix}").touch()
        (base / f"metadata_{split}" / f"{name}.csv").parent.mkdir(parents=True, exist_ok=True)
        (base / f"metadata_{split}" / f"{name}.csv").touch()


def test_recordings_are_listed_by_fold_and_strays_passed_over(tmp_path):
    make_dataset(tmp_path, ["fold1_room1_mix001_ov1", "fold2_room1_mix002_ov2", "._fold1_room1_mix001_ov1"])
    make_dataset(tmp_path, ["fold3_room0_mix1000_ov1"], ".FLAC")
    (tmp_path / "foa_dev" / "notes.wav").write_bytes(b"")
    (tmp_path / "metadata_dev" / "notes.txt").write_bytes(b"")
    assert [(r.name, r.fold, r.overlap) for r in list_recordings(tmp_path)] == [
        ("fold1_room1_mix001_ov1", 1, 1),
        ("fold2_room1_mix002_ov2", 2, 2),
        ("fold3_room0_mix1000_ov1", 3, 1),
    ]
    only = list_recordings(tmp_path, folds=(2,))
    assert [r.audio.name for r in only] == ["fold2_room1_mix002_ov2.wav"]
    assert only[0].metadata == tmp_path / "metadata_dev" / "fold2_room1_mix002_ov2.csv"
    (tmp_path / "metadata_dev" / "notes.csv").write_bytes(b"")
    with pytest.raises(ConfigError, match="without names like fold1_room1_mix001_ov1: notes; rename both"):
        list_recordings(tmp_path)


def names_of_2020():
    """Eight of the names: folds 1 to 6 to develop with, 7 and 8 to evaluate."""
    return {
        "dev": [f"fold{fold}_room1_mix00{fold}_ov{1 + fold % 2}" for fold in range(1, 7)],
        "eval": ["fold7_room1_mix001_ov1", "fold8_room2_mix002_ov2"],
    }


def test_the_folds_of_2020_are_training_validation_and_test(tmp_path):
    for split, names in names_of_2020().items():
        make_dataset(tmp_path, names, split=split, arrays=("foa", "mic"))
    for folder in ("foa_dev", "mic_dev", "metadata_dev", "foa_eval"):
        (tmp_path / folder / "._fold1_room1_mix001_ov1.csv").write_bytes(b"AppleDouble")
        (tmp_path / folder / ".DS_Store").touch()
        (tmp_path / folder / "README.md").touch()
    for folds, count in (((3, 4, 5, 6), 4), ((2,), 1), ((1,), 1)):
        found = list_recordings(tmp_path, "mic", folds)
        assert [recording.fold for recording in found] == list(folds)
        assert len(found) == count
        assert {recording.array for recording in found} == {"mic"}
        assert {recording.audio.parent.name for recording in found} == {"mic_dev"}
    assert [recording.fold for recording in list_recordings(tmp_path, split="eval")] == [7, 8]
    assert read_classes(tmp_path) == list(DCASE2020_CLASSES)


def test_evaluation_recordings_may_have_no_labels_and_no_fold(tmp_path):
    make_dataset(tmp_path, ["mix001", "mix002"], split="eval")
    assert [(r.name, r.fold, r.overlap) for r in list_recordings(tmp_path, split="eval")] == [
        ("mix001", 0, None),
        ("mix002", 0, None),
    ]
    (tmp_path / "metadata_eval" / "mix002.csv").unlink()
    with pytest.raises(ConfigError, match=r"metadata_eval: labels are missing: mix002"):
        list_recordings(tmp_path, split="eval")
    (tmp_path / "metadata_eval" / "mix001.csv").unlink()
    assert [recording.metadata for recording in list_recordings(tmp_path, split="eval")] == [None, None]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (
            ["dev-train/fold1_room1_mix001", "dev-val/fold5_room1_mix001", "dev-test/fold6_room1_mix001"],
            DCASE2021_CLASSES,
        ),
        (["dev-train-sony/fold3_room21_mix001", "dev-test-tau/fold4_room2_mix001"], STARSS_CLASSES),
    ],
)
def test_the_folders_of_later_years_are_searched_and_tell_the_classes(tmp_path, names, classes):
    make_dataset(tmp_path, names, arrays=("foa", "mic"))
    found = list_recordings(tmp_path)
    assert [recording.audio.parent.name + "/" + recording.name for recording in found] == sorted(
        names, key=lambda n: n.split("/")[1]
    )
    assert {recording.overlap for recording in found} == {None}
    assert read_classes(tmp_path) == list(classes)


def test_the_class_lists_are_those_of_the_tasks():
    assert (len(DCASE2021_CLASSES), len(STARSS_CLASSES)) == (12, 13)
    assert [name for name in DCASE2020_CLASSES if name not in DCASE2021_CLASSES] == ["running_engine", "burning_fire"]
    assert (DCASE2021_CLASSES[3], DCASE2021_CLASSES[11]) == ("barking_dog", "piano")
    assert (STARSS_CLASSES[1], STARSS_CLASSES[12]) == ("male_speech", "knock")
    assert all(re.fullmatch("[a-z_]+", name) for name in DCASE2021_CLASSES + STARSS_CLASSES)


def test_classes_that_cannot_be_known_are_asked_for(tmp_path):
    make_dataset(tmp_path, ["fold1_room1_mix001"])
    with pytest.raises(ConfigError, match=r"which classes\?.*write a classes\.json"):
        read_classes(tmp_path)


def test_the_classes_of_an_evaluation_set_by_itself_are_asked_for(tmp_path):
    """Those of 2021 and later would else be counted by the names of 2020."""
    make_dataset(tmp_path, ["eval-test/mix001"], split="eval")
    with pytest.raises(ConfigError, match=r"which classes\?.*write a classes\.json"):
        read_classes(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: has no folder foa_dev; there is no such folder at all"):
        list_recordings(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="has no folder foa_dev; give the one that holds foa_dev and metadata_dev"):
        list_recordings(tmp_path)
    for part in ("foa_dev.z01", "foa_dev.zip"):
        (tmp_path / part).touch()
    with pytest.raises(ConfigError, match=r"has no folder foa_dev; unpack foa_dev\.z01, foa_dev\.zip there"):
        list_recordings(tmp_path)
    (tmp_path / "foa_dev").mkdir()
    with pytest.raises(ConfigError, match="no recording named like"):
        list_recordings(tmp_path)
    make_dataset(tmp_path, [f"fold1_room1_mix{i:03d}_ov1" for i in range(9)])
    with pytest.raises(ConfigError, match="no recording of fold 5"):
        list_recordings(tmp_path, folds=(5,))
    with pytest.raises(ConfigError, match="has no folder mic_dev; it has foa_dev, metadata_dev"):
        list_recordings(tmp_path, "mic")
    with pytest.raises(ConfigError, match=r"has no folder foa_dev; .* has$"):
        list_recordings(tmp_path.parent)
    with pytest.raises(ConfigError, match="it holds files, give the folder above it"):
        list_recordings(tmp_path / "foa_dev")


@pytest.mark.parametrize(
    ("folder", "suffix", "said"), [("metadata_dev", "csv", "labels"), ("foa_dev", "wav", "recordings")]
)
def test_a_partial_folder_gets_a_list_of_what_is_missing(tmp_path, folder, suffix, said):
    names = [f"fold{fold}_room1_mix{i:03d}_ov1" for fold in (1, 2) for i in range(8)]
    make_dataset(tmp_path, names)
    for name in names[:7]:
        (tmp_path / folder / f"{name}.{suffix}").unlink()
    with pytest.raises(ConfigError, match=rf"{folder}: {said} are missing: {', '.join(names[:5])} and 2 more$"):
        list_recordings(tmp_path)
    assert len(list_recordings(tmp_path, folds=(2,))) == 8


def test_a_recording_that_is_there_twice_is_refused(tmp_path):
    make_dataset(tmp_path, ["fold1_room1_mix001_ov1"])
    (tmp_path / "foa_dev" / "fold1_room1_mix001_ov1.flac").touch()
    with pytest.raises(ConfigError, match="has fold1_room1_mix001_ov1 twice"):
        list_recordings(tmp_path)


def test_classes(tmp_path):
    assert read_classes(tmp_path) == list(DCASE2020_CLASSES)
    write_classes(tmp_path, ["hum", "click"])
    assert read_classes(tmp_path) == ["hum", "click"]
    for text, said in (
        ('{"hum": 1}', "not a list of class names"),
        ('["hum", "door bell"]', r"classes\.json: the class name 'door bell' cannot be used: it may have 1 to 64 of"),
        ('["../hum"]', "cannot be used"),
        ('["hum", "hum"]', "gives a name twice; each class has one of its own"),
        ("[]", "gives no names"),
    ):
        (tmp_path / "classes.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_classes(tmp_path)


def write_one(base, samples, subtype="PCM_16", suffix=".wav", rows=((0, 1, 0, 4, 5),)):
    path = base / "foa_dev" / f"fold1_room1_mix001_ov1{suffix}"
    path.parent.mkdir(parents=True)
    soundfile.write(path, samples, 24000, subtype=subtype)
    write_metadata(base / "metadata_dev" / "fold1_room1_mix001_ov1.csv", rows)
    return content_digest(list_recordings(base))


def test_the_digest_of_a_dataset_is_that_of_its_sound_and_labels(tmp_path):
    samples = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, (5000, 4)) * 2**15) / 2**15
    first = write_one(tmp_path / "a", samples)
    assert write_one(tmp_path / "b", samples, suffix=".flac") == first
    assert write_one(tmp_path / "c", samples, rows=((0, 1, 0, 5, 5),)) != first
    assert write_one(tmp_path / "turned", samples, rows=((0, 1, 0, -356, 5),)) == first
    (recording,) = list_recordings(tmp_path / "a")
    for change in ({"name": "fold1_room1_mix002_ov1"}, {"array": "mic"}):
        assert content_digest([replace(recording, **change)]) != first
    soundfile.write(recording.audio, samples, 48000, subtype="PCM_16")
    assert content_digest([recording]) != first
    samples[-1, 3] += 2**-15
    assert write_one(tmp_path / "d", samples) != first


def test_quiet_scenes_have_no_labels(tmp_path):
    samples = np.zeros((2400, 4))
    write_one(tmp_path / "quiet", samples, rows=())
    write_one(tmp_path / "loud", samples)
    assert len(list_quiet([tmp_path / "quiet"])) == 1
    with pytest.raises(ConfigError, match=r"mix001_ov1\.csv: has labels; quiet scenes"):
        list_quiet([tmp_path / "quiet", tmp_path / "loud"])


def test_labels_beyond_the_end_count_for_nothing():
    assert within(np.array([[frame, 1, 0, 0, 0] for frame in (0, 9, 10, 11)]), 10)[:, 0].tolist() == [0, 9]


def test_metadata_is_whole_numbers(tmp_path):
    path = tmp_path / "a.csv"
    write_metadata(path, np.array([[1, 2, 0, -180, 45]]))
    assert path.read_text() == "1,2,0,-180,45\n"


def test_audio_is_read_in_blocks(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (30 * 800 + 5, 4)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 800, subtype="FLOAT")
    blocks = list(audio_blocks(tmp_path / "a.wav", 800))
    assert [len(block) for block in blocks] == [8000, 8000, 8000, 5]
    np.testing.assert_array_equal(np.concatenate(blocks), samples)


def test_broken_audio_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.wav: not a readable sound file"):
        list(audio_blocks(tmp_path / "none.wav", 800))


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "at 12.500 s, channel 3, a sample that is no number"), (32768.0, "a sample of 32768: full scale is 1")],
)
def test_what_is_no_sample_is_told_with_its_place(tmp_path, value, said):
    samples = np.zeros((30 * 800, 4), np.float32)
    samples[10_000:10_020, 2] = value
    soundfile.write(tmp_path / "a.wav", samples, 800, subtype="FLOAT")
    with pytest.raises(ConfigError, match=rf"a\.wav: .*{said}"):
        list(audio_blocks(tmp_path / "a.wav", 800))
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (24000, 4)), 24000)
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(ConfigError, match=r"a\.flac: (ends .* early|not a readable)") as error:
        list(audio_blocks(path, 24000))
    assert "\n" not in str(error.value)


def test_a_recording_that_does_not_say_how_long_it_is_is_told(tmp_path):
    """As those that are written into a pipe, or whose writer had no time to end them."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((24000, 4)), 24000)
    head = bytearray(path.read_bytes())
    head[21] &= 0xF0
    head[22:42] = bytes(20)  # their number, and the digest
    path.write_bytes(head)
    for read in (lambda: list(audio_blocks(path, 24000)), lambda: sound_info(path)):
        with pytest.raises(ConfigError, match=r"a\.flac: does not say how long it is, .*`sox IN OUT` mends it"):
            read()


def test_a_row_that_never_ends_is_told(tmp_path):
    (tmp_path / "a.csv").write_text('"' + "9" * 140_000 + '",1,0,0,0\n')
    with pytest.raises(ConfigError, match=r"a\.csv: is no table \(field larger than .*expected frame,class"):
        read_metadata(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("x" * 100_000 + "\n")
    with pytest.raises(ConfigError, match=r"line 1: expected .*, found x{80}$"):
        read_metadata(tmp_path / "a.csv")


def test_side_files_that_are_not_utf8_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("frame,class,track,azimuth,elevation\n0,Hündin,0,0,0\n", encoding="latin-1")
    with pytest.raises(ConfigError, match=r"a\.csv: is not UTF-8; expected frame,class"):
        read_metadata(tmp_path / "a.csv")
    (tmp_path / "classes.json").write_text('["Hündin"]', encoding="latin-1")
    with pytest.raises(ConfigError, match=r"classes\.json: not a list of class names \(.* can't decode"):
        read_classes(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="names of Windows are no bytes")
def test_a_dataset_in_a_folder_that_is_not_utf8_is_refused(tmp_path):
    base = tmp_path / os.fsdecode(b"d\xfc")
    (base / "foa_dev").mkdir(parents=True)
    (base / "foa_dev" / "fold1_room1_mix001_ov1.wav").touch()
    with pytest.raises(ConfigError, match=r"d\\udcfc/foa_dev/fold1_\S+': the name is not UTF-8; rename it$"):
        list_recordings(base)
