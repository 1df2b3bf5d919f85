"""The README's "Your own sounds", command by command, to a model that tells two sounds apart and left from right."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.signal
import soundfile
from click.testing import CliRunner, Result

from offline import cli
from seldrt.spatial import angle_deg, foa_gains, unit_vector

RATE = 24000
# Small enough for a minute of one core; everything else is as it ships.
SMALL = """
[scenes]
seconds = 20.0
room = "open"
gap_s = [0.4, 2.0]
snr_db = [15.0, 30.0]
moving_probability = 0.0
distance_m = [1.0, 3.0]

[features]
n_fft = 512
win_length = 480
n_mels = 32
hpss_kernel = 5

[network]
stem_width = 16
widths = [16, 16, 24, 24]
blocks = 1
converted = [16, 16, 16, 16]
guidance_width = 16
trellis_hidden = 8
chunk_frames = 200
lookahead_labels = 2
dropout = 0.0

[train]
steps_per_epoch = 30
batch_size = 8
epochs = 6
cycle_epochs = 6
learning_rate = 3e-3
"""
FORMATS = ("wav", "flac", "ogg", "aiff", "mp3")


def offline(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


def done(*arguments: object) -> str:
    result = offline(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def whistle(rate: int, seconds: float, hz: float) -> np.ndarray:
    """A tone with overtones that wavers."""
    t = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * hz * t + 3 * np.sin(2 * np.pi * 6 * t)
    return 0.3 * (np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))


def spray(rate: int, seconds: float, bursts_hz: float, seed: int) -> np.ndarray:
    """Noise that comes in bursts."""
    t = np.arange(round(rate * seconds)) / rate
    return 0.2 * np.random.default_rng(seed).standard_normal(len(t)) * (np.sin(2 * np.pi * bursts_hz * t) > -0.3)


def write_sounds(folder: Path) -> None:
    """Ten short recordings of each class, in five formats, of two rates, some in stereo."""
    for i in range(10):
        suffix, seconds = FORMATS[i % len(FORMATS)], 1.2 + 0.1 * i
        sounds = {
            "whistle": (44100, whistle(44100, seconds, 1000 + 100 * i)),
            "spray": (16000, spray(16000, seconds, 5 + 0.7 * i, i)),
        }
        for name, (rate, sound) in sounds.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            stereo = np.stack([sound, 0.5 * sound], axis=1)
            soundfile.write(folder / name / f"{name} {i}.{suffix}", stereo if i % 2 else sound, rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user, with the model that the commands of the README make of his sounds."""
    folder = tmp_path_factory.mktemp("own")
    write_sounds(folder / "my_sounds")
    small = folder / "small.toml"
    small.write_text(SMALL)
    for data, part, fold, seed, scenes in (("train", "train", 3, 1, 12), ("val", "validation", 1, 2, 6)):
        done(
            *("synthesize", "--events", folder / "my_sounds", "--part", part, "--out", folder / data),
            *("--scenes", scenes, "--fold", fold, "--seed", seed, "--config", small),
        )
        done("extract", "--data", folder / data, "--out", folder / f"{data}.store", "--config", small)
    for task in ("sad", "sed", "doae"):
        done(
            *("train", task, "--store", folder / "train.store", "--validation", folder / "val.store"),
            *("--out", folder / "runs" / task, "--config", small),
        )
    parts = [folder / "runs" / task / "best.safetensors" for task in ("sad", "sed", "doae")]
    done("merge", *parts, "--out", folder / "merged.safetensors")
    done("calibrate", folder / "merged.safetensors", "--data", folder / "val", "--out", folder / "my_model.safetensors")
    return folder


@pytest.mark.timeout(900)
def test_a_model_of_ones_own_sounds_tells_which_and_left_from_right(folder: Path) -> None:
    """A recording that no part of `offline` made: new whistles and sprays, panned by the ambisonic formula alone."""
    scene = [("whistle", 90), ("spray", -90), ("whistle", -90), ("spray", 90)]
    white = np.random.default_rng(9).standard_normal((20 * RATE, 4))
    recording = 0.004 * scipy.signal.lfilter([1], [1, -0.9], white, axis=0)  # diffuse, falling with frequency
    for i, (name, azimuth_deg) in enumerate(scene):
        sound = whistle(RATE, 2.0, 1450) if name == "whistle" else spray(RATE, 2.0, 8.0, 99)
        begin = (2 + 4 * i) * RATE
        recording[begin : begin + len(sound)] += sound[:, None] * foa_gains(unit_vector(azimuth_deg, 0))
    soundfile.write(folder / "new.wav", 0.3 * recording, RATE)
    command = [sys.executable, "-m", "seldrt", "replay", "new.wav", "--fast", "--no-publish"]
    command += ["--model", "my_model.safetensors", "--dcase", "heard.csv", "--jsonl", "heard.jsonl"]
    subprocess.run(command, check=True, timeout=120, cwd=folder, env=environment())
    with (folder / "heard.csv").open(newline="") as file:
        heard = np.array([list(map(int, row)) for row in csv.reader(file)]).reshape(-1, 5)
    classes, found = ("spray", "whistle"), 0
    for i, (name, azimuth_deg) in enumerate(scene):
        first = 10 * (2 + 4 * i)
        within = heard[(heard[:, 0] >= first) & (heard[:, 0] < first + 20)]
        ours = within[within[:, 1] == classes.index(name)]
        assert len(ours), f"{name} at {azimuth_deg} is not heard"
        found += len(ours)
        assert len(within) - len(ours) <= 8
        error_deg = angle_deg(unit_vector(ours[:, 3], ours[:, 4]), unit_vector(azimuth_deg, 0))
        assert np.median(error_deg) < 60, f"{name} at {azimuth_deg}: {np.median(error_deg):.0f} degrees off"
    assert found >= 32  # of 80 frames
    assert np.sum((heard[:, 0] < 18) | (heard[:, 0] > 170)) <= 12  # of 48 silent frames
    names = {d["class"] for line in (folder / "heard.jsonl").read_text().splitlines()
             for d in json.loads(line).get("detections", ())}  # fmt: skip
    assert names == set(classes)


def environment() -> dict[str, str]:
    """Of a process that finds the two packages from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.timeout(900)
def test_the_daemon_says_what_the_evaluation_counted(folder: Path) -> None:
    data, out = folder / "val", folder / "evaluation"
    told = done("evaluate", "--data", data, "--model", folder / "my_model.safetensors", "--out", out)
    assert "the thresholds of this model were chosen on these very scenes" in told
    told = done("evaluate", "--data", data, "--model", folder / "merged.safetensors", "--out", folder / "before")
    assert "very scenes" not in told
    report = json.loads((out / "metrics.json").read_text())
    assert [row["name"] for row in report["classes"]] == ["spray", "whistle"]
    assert report["overall"]["scores"]["f_20"] > 0.1
    recording = sorted((data / "foa_dev").iterdir())[0]
    command = [sys.executable, "-m", "seldrt", "replay", recording, "--fast", "--no-publish"]
    command += ["--model", folder / "my_model.safetensors", "--dcase", folder / "replayed.csv"]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    counted = (out / f"{recording.stem}.csv").read_text().splitlines()
    replayed = (folder / "replayed.csv").read_text().splitlines()
    cells = [{tuple(line.split(",")[:2]) for line in lines} for lines in (counted, replayed)]
    # Equal but for rounding at a threshold.
    assert len(cells[0] ^ cells[1]) <= max(2, 0.02 * len(cells[0]))


@pytest.mark.timeout(900)
def test_validation_was_made_of_other_recordings_than_training(folder: Path) -> None:
    heard = {}
    for part in ("train", "val"):
        plans = [msgspec.json.decode(path.read_bytes()) for path in (folder / part / "manifests").glob("*_mix*.json")]
        heard[part] = {event["clip"] for plan in plans for event in plan["events"]}
    assert {clip.split("/")[0] for clip in heard["val"]} == {"spray", "whistle"}
    assert not heard["train"] & heard["val"]


@pytest.mark.parametrize("out", ["my_sounds", "my_sounds/scenes", "data/../my_sounds/whistle"])
def test_scenes_are_not_made_among_the_sounds(tmp_path: Path, out: str) -> None:
    write_sounds(tmp_path / "my_sounds")
    before = sorted(tmp_path.rglob("*"))
    result = offline("synthesize", "--events", tmp_path / "my_sounds", "--out", tmp_path / out, "--scenes", 1)
    assert result.exit_code == 2
    assert "lies in the sounds of --events, where each folder is a class; give another --out" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda sounds: [path.unlink() for path in (sounds / "spray").iterdir()], "spray: is empty; put sounds"),
        (lambda sounds: (sounds / "spray" / "x.wav").write_bytes(b"RIFF"), "x.wav: not a readable sound file"),
        (lambda sounds: (sounds / "spray" / "memo.m4a").touch(), "memo.m4a: .m4a cannot be read; convert it"),
        (lambda sounds: (sounds / "spray").rename(sounds.parent / "elsewhere"), "has only the class whistle"),
        (lambda sounds: [path.unlink() for path in sorted((sounds / "spray").iterdir())[1:]], "spray: has one source"),
        (lambda sounds: (sounds / "spray").rename(sounds / "my spray"), "_ -; rename it to my_spray"),
        (
            lambda sounds: soundfile.write(sounds / "spray" / "x.wav", [0.0] * 4800, 24000),
            "x.wav: holds nothing but sil",
        ),
    ],
)
def test_mistakes_with_ones_sounds_get_one_clear_line(tmp_path: Path, spoil, said: str) -> None:
    write_sounds(tmp_path / "my_sounds")
    spoil(tmp_path / "my_sounds")
    result = offline(
        *("synthesize", "--events", tmp_path / "my_sounds", "--part", "train"),
        *("--out", tmp_path / "data", "--scenes", 1),
    )
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()
