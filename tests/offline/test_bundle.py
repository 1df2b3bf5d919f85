"""The bundle for a machine without network: what is in it, how large it may be, and that its command works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from msgspec.structs import replace

from offline import bundle, cli
from offline.config import TRAIN_PRESETS, TrainConfig, section
from offline.extract import Manifest, StoredRecording
from offline.train import train
from seldrt import features, networks
from seldrt.config import ConfigError, NetworkConfig
from seldrt.description import describe

TINY = """
[scenes]
seconds = 6.0
room = "anechoic"
max_event_s = 2.0

[network]
chunk_frames = 40
lookahead_labels = 1
stem_width = 4
widths = [4, 4, 4, 4]
converted = [4, 4, 4, 4]
guidance_width = 4

[train]
steps_per_epoch = 2
batch_size = 2
"""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes and something else, one sound each, to train and to validate with."""
    folder = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("hum", "knock", "distractor"):
            (folder / split / name).mkdir(parents=True)
            soundfile.write(folder / split / name / f"{name}.flac", 0.1 * rng.standard_normal(24000 * 6), 24000)
    (folder / "index.csv").write_text("id,group\n")
    return folder


def no_wheels(folder: Path, python: str) -> None:
    """The Python of the tests has everything."""


def run_folder(base: Path, task: str, *files: str) -> Path:
    (base / task).mkdir(parents=True)
    for name in files:
        (base / task / name).write_bytes(name.encode())
    return base / task


def test_a_bundle_holds_sources_sounds_wheels_and_the_command(bank: Path, tmp_path: Path) -> None:
    asked = []

    def fetch(folder: Path, python: str) -> None:
        asked.append(python)
        (folder / "some.whl").write_bytes(b"PK")

    sizes = bundle.pack(bank, tmp_path / "bundle", python="3.13", fetch=fetch)
    found = {str(path.relative_to(tmp_path / "bundle")) for path in (tmp_path / "bundle").rglob("*.*")}
    assert asked == ["3.13"]
    assert {
        "run.sh",
        "sources/seldrt/networks/heads.py",
        "sources/offline/train.py",
        "sounds/train/hum/hum.flac",
        "sounds/val/knock/knock.flac",
        "sounds/index.csv",
        "wheels/some.whl",
    } <= found
    assert not any(name.endswith((".pyc", ".safetensors")) for name in found)
    assert set(sizes) == {"run.sh", "sources", "sounds", "wheels"}
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_runs_travel_whole_or_as_their_best_weights(bank: Path, tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path, "sed", "best.safetensors", "last.pt", "log.jsonl", "events.out"),
        run_folder(tmp_path, "doae", "best.safetensors", "last.pt.aa", "last.pt.ab"),
    ]
    out = tmp_path / "bundle"
    bundle.pack(bank, out, runs=runs, fetch=no_wheels)
    assert {str(path.relative_to(out / "runs")) for path in (out / "runs").rglob("*.*")} == {
        *("sed/best.safetensors", "sed/last.pt", "sed/log.jsonl"),
        *("doae/best.safetensors", "doae/last.pt.aa", "doae/last.pt.ab"),
    }
    bundle.pack(bank, out, runs=runs, weights_only=True, fetch=no_wheels)
    assert sorted(path.name for path in (out / "runs").rglob("*.*")) == ["best.safetensors"] * 2
    with pytest.raises(ConfigError, match=r"no run of a network, a folder sad, sed, doae with best\.safetensors"):
        bundle.pack(bank, out, runs=[tmp_path], fetch=no_wheels)


def test_too_large_a_bundle_is_refused_in_one_line_and_the_old_one_stays(bank: Path, tmp_path: Path) -> None:
    def fetch(folder: Path, python: str) -> None:
        with open(folder / "huge.whl", "wb") as file:
            file.truncate(70 * 2**20)

    out = tmp_path / "bundle"
    bundle.pack(bank, out, fetch=no_wheels)
    with pytest.raises(ConfigError, match=r"would be 7\d\.\d MiB \(.*wheels 70\.0\), 60 are allowed"):
        bundle.pack(bank, out, fetch=fetch)
    assert (out / "run.sh").is_file()
    assert not list((out / "wheels").iterdir())
    assert list(tmp_path.iterdir()) == [out]


def test_mistakes_are_told_in_one_line(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="has no folder train"):
        bundle.pack(tmp_path, tmp_path / "bundle", fetch=no_wheels)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.sh").write_text("mine")
    with pytest.raises(ConfigError, match="is there and no bundle"):
        bundle.pack(bank, tmp_path / "mine", fetch=no_wheels)
    bundle.pack(bank, tmp_path / "old", fetch=no_wheels)
    (tmp_path / "old" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there and no bundle"):
        bundle.pack(bank, tmp_path / "old", fetch=no_wheels)
    assert (tmp_path / "mine" / "run.sh").read_text() == (tmp_path / "old" / "thesis.txt").read_text() == "mine"
    monkeypatch.setattr(bundle, "PACKAGES", ("numpy",))
    monkeypatch.setattr(bundle, "PLATFORMS", ("amiga",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = CliRunner().invoke(cli.main, ["bundle", "--events", str(bank), "--out", str(tmp_path / "bundle")])
    assert done.exit_code == 2
    assert done.output.startswith("offline: the wheels cannot be fetched: ERROR: No matching distribution")
    assert done.output.count("\n") == 1


def begin_run(folder: Path, settings: Path) -> None:
    """One epoch of the tiny network on noise, its last.pt in two parts as a large one comes back."""
    config = features.PRESETS["compact"]
    rng = np.random.default_rng(0)
    labels, classes = 40, ("hum", "knock")
    recordings = (StoredRecording("noise", 1, 1, 0, labels),)
    store: Any = SimpleNamespace(
        folder=folder,
        manifest=Manifest(config, classes, (1.0, 1.0), recordings),
        features=rng.standard_normal((labels * 10, len(features.FEATURE_NAMES), config.n_mels)).astype(np.float16),
        sed=rng.integers(0, 2, (labels, 2)).astype(np.float32),
        doa=np.zeros((labels, 2, 3), np.float32),
        doa_mask=np.zeros((labels, 2), np.float32),
    )
    network = section(NetworkConfig, networks.PRESETS, "compact", settings, "network")
    recipe = section(TrainConfig, TRAIN_PRESETS, "compact", settings, "train")
    train("sed", [store], [store], folder, network, replace(recipe, epochs=1))
    whole = (folder / "last.pt").read_bytes()
    (folder / "last.pt.aa").write_bytes(whole[:10_000])
    (folder / "last.pt.ab").write_bytes(whole[10_000:])
    (folder / "last.pt").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a folder away")
@pytest.mark.parametrize("linked", [False, True])
def test_the_command_works_in_no_folder_of_somebody_else(tmp_path: Path, linked: bool) -> None:
    """Nor where a link of theirs leads; they would know its name."""
    work, target = tmp_path / "work", tmp_path / "target"
    target.mkdir()
    if linked:
        work.symlink_to(target)
    else:
        work.mkdir()
    os.chown(work, 65534, -1, follow_symlinks=False)
    variables = {"WORK": str(work), "OUT": str(tmp_path / "out"), "PYTHON": "false"}
    done = subprocess.run(
        ["bash", str(Path(bundle.__file__).with_name("bundle.sh"))], env=os.environ | variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"WORK {work} is a folder of somebody else: give another one\n"
    assert not list(work.iterdir())


def test_the_command_makes_extracts_and_goes_on_training(bank: Path, tmp_path: Path) -> None:
    settings, out = tmp_path / "tiny.toml", tmp_path / "bundle"
    settings.write_text(TINY)
    begin_run(tmp_path / "sed", settings)
    bundle.pack(bank, out, config=settings, runs=[tmp_path / "sed"], fetch=no_wheels)
    variables = {
        **{"MINUTES": "3", "SCENES": "2", "VALIDATION_SCENES": "1", "TASKS": "sed", "EPOCHS": "2", "WORKERS": "1"},
        **{"PYTHON": sys.executable, "WORK": str(tmp_path / "work"), "OUT": "results", "OMP_NUM_THREADS": "1"},
    }
    done = subprocess.run(
        ["bash", str(out / "run.sh")],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    results = tmp_path / "results"
    description = describe(results / "sed" / "best.safetensors")
    assert description.classes == ("hum", "knock")
    assert description.networks["sed"][0].widths == (4, 4, 4, 4)
    assert (results / "sed" / "last.pt").is_file()
    with tarfile.open(results / "logs.tar.gz") as logs:
        log = logs.extractfile("logs/sed.jsonl")
        assert log is not None
        assert [json.loads(line)["epoch"] for line in log] == [1, 2]
