"""From a folder of sounds to a model that runs: every offline command, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

NETWORK = """
[features]
n_fft = 512
win_length = 480
n_mels = 32
hpss_kernel = 5

[network]
stem_width = 8
widths = [8, 8, 16, 16]
converted = [8, 8, 8, 8]
guidance_width = 8
trellis_hidden = 4
chunk_frames = 100

[train]
steps_per_epoch = 3
batch_size = 2
epochs = 2
"""


def offline(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "offline.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def done(*arguments: object) -> str:
    result = offline(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes and a distractor: hiss, whistle, and rumble."""
    folder = tmp_path_factory.mktemp("own")
    rng, t = np.random.default_rng(0), np.arange(36000) / 24000
    for split in ("train", "val"):
        for i in range(3):
            sounds = {
                "hiss": rng.standard_normal(len(t)) * 0.2,
                "whistle": np.sin(2 * np.pi * (1500 + 200 * i) * t) * 0.3,
                "distractor": np.cumsum(rng.standard_normal(len(t) * 4)) * 1e-3,
            }
            for name, sound in sounds.items():
                path = folder / "sounds" / split / name / f"{i}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.clip(sound, -1, 1), 24000)
    (folder / "small.toml").write_text(NETWORK)
    return folder


@pytest.mark.timeout(600)
def test_own_sounds_become_a_model_that_runs(folder: Path) -> None:
    config = folder / "small.toml"
    for split, fold in (("train", 3), ("val", 1)):
        done(
            "synthesize", "--events", folder / "sounds" / split, "--out", folder / split, "--fold", fold,
            "--scenes", 2, "--seconds", 12, "--seed", fold,
        )  # fmt: skip
        done("extract", "--data", folder / split, "--out", folder / f"{split}.store", "--config", config)
    for task in ("sad", "sed", "doae"):
        done(
            "train", task, "--store", folder / "train.store", "--validation", folder / "val.store",
            "--out", folder / task, "--config", config,
        )  # fmt: skip
        lines = (folder / task / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    parts = [folder / task / "best.safetensors" for task in ("sad", "sed", "doae")]
    done("merge", *parts, "--out", folder / "m.safetensors")
    done("calibrate", folder / "m.safetensors", "--data", folder / "val", "--out", folder / "c.safetensors")
    done("evaluate", "--data", folder / "val", "--model", folder / "c.safetensors", "--out", folder / "evaluation")
    report = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert [row["name"] for row in report["classes"]] == ["hiss", "whistle"]

    recording = next((folder / "val" / "foa_dev").glob("*ov2*"))
    table = folder / "heard.csv"
    command = [sys.executable, "-m", "seldrt", "replay", recording, "--fast", "--no-publish"]
    command += ["--model", folder / "c.safetensors", "--dcase", table]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    # The daemon says what the evaluation counted, but for rounding at a threshold.
    counted = (folder / "evaluation" / f"{recording.stem}.csv").read_text().splitlines()
    heard = table.read_text().splitlines()
    cells = [{tuple(line.split(",")[:2]) for line in lines} for lines in (counted, heard)]
    assert len(cells[0] ^ cells[1]) <= max(2, 0.02 * len(cells[0]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["synthesize", "--events", "nowhere", "--out", "o", "--scenes", "1"], "nowhere"),
        (["extract", "--data", "nowhere", "--out", "o"], "foa_dev"),
        (["extract", "--data", "nowhere", "--out", "o", "--preset", "huge"], "huge"),
        (["train", "sed", "--store", "nowhere", "--validation", "x", "--out", "o"], "no feature store"),
        (["train", "sed", "--store", "x", "--validation", "x", "--out", "o", "--preset", "huge"], "huge"),
        (["merge", "nowhere.safetensors", "--out", "o"], "nowhere.safetensors"),
        (["calibrate", "nowhere.safetensors", "--data", "x", "--out", "o"], "nowhere.safetensors"),
        (["evaluate", "--data", "nowhere", "--model", "x", "--out", "o"], "nowhere"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "offline.cli", *arguments],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
