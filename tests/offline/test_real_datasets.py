"""A folder in exactly the format of TAU-NIGENS SSE 2020, from `offline synthesize`, through extraction and metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from offline import cli
from offline.arrays import SAMPLE_RATE
from offline.bank import class_order, read_bank
from offline.config import SceneConfig
from offline.dataset import content_digest, list_recordings, read_classes, read_metadata
from offline.estimates import Job as Heard
from offline.estimates import estimates_of
from offline.evaluate import measure
from offline.extract import Store, extract
from offline.synthesis import Job, make_scene
from seldrt import checkpoint, features
from seldrt.config import DCASE2020_CLASSES, ConfigError
from tests.models import FEATURES, small_model

TRAIN, VALIDATION, TEST = (3, 4, 5, 6), (2,), (1,)


@pytest.fixture(scope="module")
def tau(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folds 1 to 6 in *_dev, 7 and 8 in *_eval, and strays; recordings of 3 s, but for one."""
    base = tmp_path_factory.mktemp("tau")
    rng = np.random.default_rng(0)
    for name in DCASE2020_CLASSES:
        path = base / "sounds" / name / "a.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, rng.uniform(-0.3, 0.3, 12000), SAMPLE_RATE)
    bank = read_bank(base / "sounds")
    indices, _ = class_order(sorted(bank.clips))
    data = base / "data"
    data.mkdir()
    (data / "classes.json").write_text("[]")
    config = SceneConfig(seconds=3, room="open", gap_s=(0.1, 0.3), snr_db=(30, 30))
    for fold in range(1, 9):
        make_scene(Job(bank, data, config, indices, ("foa", "mic"), "wav", fold, 0), fold % 2)
    for array in ("foa", "mic", "metadata"):
        (data / f"{array}_eval").mkdir()
        for path in (data / f"{array}_dev").glob("fold[78]*"):
            path.rename(data / f"{array}_eval" / path.name)
        (data / f"{array}_dev" / "._fold1_room1_mix001_ov1.csv").write_bytes(b"AppleDouble")
    for array in ("foa", "mic"):
        path = next((data / f"{array}_dev").glob("fold3*"))
        soundfile.write(path, soundfile.read(path)[0][:50000], SAMPLE_RATE, subtype="PCM_16")
    (data / "classes.json").unlink()
    shutil.rmtree(data / "manifests")
    return data


@pytest.mark.parametrize("array", ["foa", "mic"])
def test_the_training_folds_become_a_store(tau: Path, tmp_path: Path, array: str) -> None:
    command = [
        "extract",
        "--data",
        tau,
        "--out",
        tmp_path / "store",
        "--format",
        array,
        "--config",
        tmp_path / "c.toml",
    ]
    (tmp_path / "c.toml").write_text("[features]\nn_fft = 512\nn_mels = 32\nhpss_kernel = 5\nwin_length = 480\n")
    folds = [word for fold in TRAIN for word in ("--fold", fold)]
    result = CliRunner().invoke(cli.main, list(map(str, command + folds)))
    assert result.exit_code == 0, result.output
    store = Store(tmp_path / "store")
    assert store.manifest.classes == DCASE2020_CLASSES
    assert [recording.fold for recording in store.manifest.recordings] == list(TRAIN)
    assert [recording.overlap for recording in store.manifest.recordings] == [2, 1, 2, 1]
    assert [recording.labels for recording in store.manifest.recordings] == [20, 30, 30, 30]
    assert store.sed.sum() > 20
    assert np.isfinite(store.features).all()


def test_both_formats_tell_the_networks_the_same_directions(tau: Path, tmp_path: Path) -> None:
    """The intensity features of the mic format, through its profile, lie near those of the FOA format."""
    stores = []
    for array in ("foa", "mic"):
        extract(tau, tmp_path / array, FEATURES, array=array, folds=VALIDATION)
        stores.append(Store(tmp_path / array))
    low = slice(4, 12)  # mel bands from about 300 Hz to 1.2 kHz, where the sphere is small
    channels = [features.FEATURE_NAMES.index(f"active_{axis}") for axis in "xyz"]
    x_y_z = [stored.features[:, channels, low].astype(float) for stored in stores]
    active = np.repeat(stores[0].sed.any(axis=1), FEATURES.frames_per_label)
    foa, mic = (values[active].ravel() for values in x_y_z)
    assert np.corrcoef(foa, mic)[0, 1] > 0.9


def test_the_test_fold_is_measured(tau: Path) -> None:
    """Labels as predictions are perfect; those of another fold's names are asked for."""
    recordings = list_recordings(tau, folds=TEST)
    report = measure(recordings, tau / "metadata_dev", read_classes(tau), np.random.default_rng(0))
    assert (report.overall.scores.er_20, report.overall.scores.f_20, report.overall.scores.le_cd) == (0, 1, 0)
    evaluation = list_recordings(tau, split="eval")
    assert [recording.fold for recording in evaluation] == [7, 8]
    with pytest.raises(ConfigError, match=r"metadata_dev: has no fold7.*\.csv \(2 of 2 missing\)"):
        measure(evaluation, tau / "metadata_dev", read_classes(tau), np.random.default_rng(0))


def test_labels_after_the_end_of_a_short_recording_are_no_harm(tau: Path) -> None:
    (short,) = list_recordings(tau, folds=(3,))
    assert short.metadata is not None
    assert read_metadata(short.metadata)[:, 0].max() > 20
    report = measure([short], tau / "metadata_dev", read_classes(tau), np.random.default_rng(0))
    assert report.overall.scores.f_20 == 1


def test_a_model_hears_both_formats(tau: Path, tmp_path: Path) -> None:
    """`offline evaluate` of the test fold, by the daemon's own chain: what the sphere hears is found as FOA."""
    model = small_model(classes=DCASE2020_CLASSES)
    checkpoint.save(model, tmp_path / "model.safetensors")
    for array in ("foa", "mic"):
        command = ["evaluate", "--data", tau, "--fold", 1, "--format", array, "--model", tmp_path / "model.safetensors"]
        result = CliRunner().invoke(cli.main, list(map(str, [*command, "--out", tmp_path / array])))
        assert result.exit_code == 0, result.output
    digests = [json.loads((tmp_path / array / "metrics.json").read_text())["data"] for array in ("foa", "mic")]
    assert digests == [content_digest(list_recordings(tau, array, TEST)) for array in ("foa", "mic")]
    for array in ("foa", "mic"):
        (recording,) = list_recordings(tau, array, TEST)
        (said,) = estimates_of(Heard(tmp_path / "model.safetensors", (recording,)))
        assert len(said) == 30
