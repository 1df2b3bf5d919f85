"""Feature stores: what the streaming feature stage says of each recording, and the targets beside it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from offline import dataset, targets
from offline.cli import main
from offline.extract import Store, extract
from seldrt.config import ConfigError
from seldrt.features import FEATURE_NAMES, features_stage
from seldrt.stream import run
from tests.disk import full_disk
from tests.models import FEATURES
from tests.offline.stores import LABEL, RATE, write_recording


def test_a_store_holds_each_recording_cut_to_whole_label_frames(tones: Path) -> None:
    manifest = Store(tones / "train.store").manifest
    assert manifest.features == FEATURES
    assert manifest.classes == ("low", "high")
    assert [(r.name, r.fold, r.overlap) for r in manifest.recordings] == [
        (f"fold1_room1_mix{i:03d}_ov2", 1, 2) for i in range(4)
    ]
    assert [(r.first_label, r.labels) for r in manifest.recordings] == [(120 * i, 120) for i in range(4)]


def test_the_features_are_those_of_the_stage_to_float16(tones: Path) -> None:
    store = Store(tones / "train.store")
    assert store.features.shape == (4800, len(FEATURE_NAMES), FEATURES.n_mels)
    assert store.features.dtype == np.float16
    for place, recording in zip(store.manifest.recordings, dataset.list_recordings(tones / "train"), strict=True):
        samples, _ = soundfile.read(recording.audio, dtype="float32")
        expected = run(features_stage(FEATURES), samples[: place.labels * LABEL], block=777)
        assert expected is not None
        frames = slice(place.first_label * 10, (place.first_label + place.labels) * 10)
        rounding = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float32)
        assert (np.abs(store.features[frames] - expected) <= rounding).all()


def test_the_targets_are_those_of_the_labels(tones: Path) -> None:
    store = Store(tones / "val.store")
    rows = [dataset.read_metadata(r.metadata) for r in dataset.list_recordings(tones / "val") if r.metadata]
    expected = [targets.frame_targets(r, 90, 2) for r in rows]
    np.testing.assert_array_equal(store.sed, np.concatenate([t.sed for t in expected]))
    np.testing.assert_array_equal(store.doa_mask, np.concatenate([t.doa_mask for t in expected]))
    np.testing.assert_allclose(store.doa, np.concatenate([t.doa for t in expected]), atol=1e-3)
    np.testing.assert_allclose(store.manifest.mean_event_labels, targets.mean_event_labels(rows, 2))


def test_a_label_of_270_degrees_is_one_of_minus_90(tmp_path: Path) -> None:
    for azimuth in (270, -90):
        base = tmp_path / str(azimuth)
        write_recording(base, "fold1_room1_mix001_ov1", np.zeros((RATE, 4)), [(2, 0, 0, azimuth, 0)])
        extract(base, base / "store", FEATURES)
    one, other = (Store(tmp_path / name / "store").doa for name in ("270", "-90"))
    assert one.tobytes() == other.tobytes()
    np.testing.assert_allclose(one[2, 0], [0, -1, 0], atol=1e-6)


def test_an_impulse_stands_where_its_label_says(tmp_path: Path) -> None:
    for index, label in enumerate((7, 20)):
        samples = np.zeros((3 * RATE, 4))
        samples[label * LABEL + LABEL // 2 + 100] = 0.9
        write_recording(tmp_path / "data", f"fold1_room1_mix{index:03d}_ov1", samples, [(label, 0, 0, 0, 0)])
    dataset.write_classes(tmp_path / "data", ["click"])
    extract(tmp_path / "data", tmp_path / "store", FEATURES, workers=2)
    store = Store(tmp_path / "store")
    level = store.features[:, FEATURE_NAMES.index("log_mel_w")].astype(np.float32).mean(axis=1)
    loud = np.flatnonzero(level > -90)
    np.testing.assert_array_equal(np.unique(loud // 10), [7, 30 + 20])
    np.testing.assert_array_equal(np.flatnonzero(store.sed[:, 0]), [7, 30 + 20])
    # Frame k covers the 480 samples that end at (k + 1) * 240: these two hear the middle of label frame 7.
    np.testing.assert_array_equal(loud, [75, 76, 505, 506])


def test_other_rates_and_channels_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write_recording(tmp_path, "fold1_room1_mix001_ov1", np.zeros((RATE, 2)), [])
    with pytest.raises(ConfigError, match=r"mix001_ov1\.flac has 2 channels at 24000 Hz; expected 4 at 24000 Hz$"):
        extract(tmp_path, tmp_path / "store", FEATURES)
    soundfile.write(path, np.zeros((RATE, 1)), 48000)
    with pytest.raises(ConfigError, match=r"has 1 channel at 48000 Hz; expected 4 at 24000 Hz$"):
        extract(tmp_path, tmp_path / "store", FEATURES)
    soundfile.write(path, np.zeros((RATE, 4)), 48000)
    with pytest.raises(ConfigError, match=r"has 4 channels at 48000 Hz; .*; `sox IN -r 24000 OUT` converts it"):
        extract(tmp_path, tmp_path / "store", FEATURES)


def test_what_is_no_store_is_refused(tmp_path: Path, tones: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no feature store .*make one with `offline extract`"):
        Store(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no feature store"):
        Store(tmp_path)


@pytest.mark.parametrize("name", ["features.npy", "targets.npz"])
def test_a_store_whose_parts_do_not_fit_is_refused(tmp_path: Path, tones: Path, name: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(tones / "train.store", store)
    shutil.copy(tones / "val.store" / name, store)
    with pytest.raises(ConfigError, match=r"store is no feature store \(\w+ do not fit manifest\.json\)"):
        Store(store)
    (store / name).write_bytes((store / name).read_bytes()[:999])
    with pytest.raises(ConfigError, match="store is no feature store"):
        Store(store)


def test_a_broken_recording_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole, broken = (
        write_recording(tmp_path, f"fold1_room1_mix00{i}_ov1", rng.uniform(-0.5, 0.5, (RATE, 4)), []) for i in (1, 2)
    )
    broken.write_bytes(whole.read_bytes()[:80_000])
    with pytest.raises(ConfigError, match=r"mix002_ov1\.flac: (ends .* early|not a readable)"):
        extract(tmp_path, tmp_path / "store", FEATURES)
    assert list((tmp_path / "store").iterdir()) == []
    broken.write_bytes(b"no sound")
    with pytest.raises(ConfigError, match=r"mix002_ov1\.flac: not a readable sound file"):
        extract(tmp_path, tmp_path / "store", FEATURES)
    soundfile.write(broken, np.zeros((LABEL - 1, 4)), RATE)
    with pytest.raises(ConfigError, match=r"mix002_ov1\.flac: is shorter than a label frame"):
        extract(tmp_path, tmp_path / "store", FEATURES)


def test_a_store_of_other_recordings_is_not_replaced(tmp_path: Path, tones: Path) -> None:
    shutil.copytree(tones / "val.store", tmp_path / "store")
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    write_recording(tmp_path / "other", "fold3_room1_mix001_ov1", np.zeros((RATE, 4)), [(0, 0, 0, 0, 0)])
    dataset.write_classes(tmp_path / "other", ("low", "high"))
    with pytest.raises(ConfigError, match=r"store: holds the features of other recordings; choose another --out"):
        extract(tmp_path / "other", tmp_path / "store", FEATURES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before
    extract(tones / "val", tmp_path / "store", FEATURES)  # the same again
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before
    (tmp_path / "store" / "manifest.json").write_text("torn")
    extract(tmp_path / "other", tmp_path / "store", FEATURES)
    assert [r.name for r in Store(tmp_path / "store").manifest.recordings] == ["fold3_room1_mix001_ov1"]


def test_what_a_killed_run_left_goes_after_a_day(tmp_path: Path) -> None:
    """Before, it may be that of a living one."""
    write_recording(tmp_path / "data", "fold1_room1_mix001_ov1", np.zeros((RATE, 4)), [])
    store = tmp_path / "store"
    store.mkdir()
    living, killed, else_s = (store / f".{name}.part" for name in ("features.npy.1", "features.npy.2", "mine.npy.3"))
    for path in (living, killed, else_s):
        path.touch()
    for path in (killed, else_s):
        os.utime(path, (time.time() - 90_000,) * 2)
    extract(tmp_path / "data", store, FEATURES)
    assert set(store.glob(".*")) == {living, else_s}
    assert Store(store).features.shape[0] == 100


def test_a_full_disk_is_told_by_the_name_of_the_store(tmp_path: Path) -> None:
    write_recording(tmp_path / "data", "fold1_room1_mix001_ov1", np.zeros((10 * RATE, 4)), [])
    with full_disk():
        result = CliRunner().invoke(
            main, ["extract", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "store")]
        )
    assert (result.exit_code, result.stderr) == (
        2,
        f"offline: {tmp_path}/store/features.npy: cannot be written: File too large\n",
    )
    assert list((tmp_path / "store").iterdir()) == []


def test_the_bar_is_on_stderr_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recording(tmp_path / "data", "fold1_room1_mix001_ov1", np.zeros((RATE, 4)), [])
    command = ["extract", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "store")]
    result = CliRunner().invoke(main, command)
    assert (result.stdout, result.stderr) == (f"{tmp_path}/store: 1 recordings, 0 minutes\n", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if on a terminal
    result = CliRunner().invoke(main, command)
    assert result.stdout == f"{tmp_path}/store: 1 recordings, 0 minutes\n"
    assert "features" in result.stderr
    monkeypatch.delenv("FORCE_COLOR")
    path.write_bytes(b"no sound")
    assert CliRunner().invoke(main, command).output.startswith(f"offline: {path}: not a readable sound file")
