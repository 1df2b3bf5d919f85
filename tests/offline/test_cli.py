"""Mistakes and interruptions at the offline commands; what they do when all is well: test_own_sounds.py."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

from offline import cli
from seldrt import checkpoint
from seldrt.config import PostprocessConfig
from seldrt.description import describe
from seldrt.models import shipped
from seldrt.postprocess import median_labels
from tests.models import CAUSAL, small_model
from tests.offline.stores import write_tones

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["synthesize", "--events", "nowhere", "--out", "o", "--scenes", "1"], "nowhere"),
        (["extract", "--data", "nowhere", "--out", "o"], "foa_dev"),
        (["extract", "--data", "nowhere", "--out", "o", "--preset", "huge"], "huge"),
        (["train", "sed", "--store", "nowhere", "--validation", "x", "--out", "o"], "no feature store"),
        (["train", "sed", "--store", "x", "--validation", "x", "--out", "o", "--preset", "huge"], "huge"),
        (
            ["train", "sed", "--store", "x", "--validation", "x", "--out", "o", "--start", "no.pth"],
            "no.pth: no such file",
        ),
        (["merge", "nowhere.safetensors", "--out", "o"], "nowhere.safetensors"),
        (["merge", "nowhere.safetensors", "--out", "o", "--weight", "1", "--weight", "2"], "2 times for 1 checkpoints"),
        (["calibrate", "nowhere.safetensors", "--data", "x", "--out", "o"], "nowhere.safetensors"),
        (["evaluate", "--data", "nowhere", "--model", "x", "--out", "o"], "nowhere"),
        (["evaluate", "--data", "nowhere", "--out", "o", "--fold", "-1"], "-1 is not in the range x>=0"),
        (["report", "--data", "nowhere", "--out", "o", "--fold", "-1"], "-1 is not in the range x>=0"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "offline.cli", *arguments],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_keeps_its_steps_and_says_how_to_go_on(
    tones: Path, tmp_path: Path, wish: signal.Signals
) -> None:
    settings = tmp_path / "small.toml"
    settings.write_text("[network]\nchunk_frames = 60\nlookahead_labels = 1\n[train]\nsteps_per_epoch = 10000\n")
    stores = ["--store", str(tones / "train.store"), "--validation", str(tones / "val.store")]
    command = [sys.executable, "-m", "offline.cli", "train", "sad", *stores, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*command, "--config", str(settings)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("run/events*")):  # the logs are opened right before the first step
        assert process.poll() is None
    process.send_signal(wish)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    steps = int(re.findall(r"and (\d+) steps", errors)[0])
    how = "--resume goes on" if steps else "the same command starts over"
    begun = "42 epochs; each ends with a line here\n"
    assert re.fullmatch(rf"{begun}stopped, 0 of \d+ epochs and \d+ steps are done: {how}\n", errors), errors
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True) if steps else {"step": 0}
    assert state["step"] == steps < 10000
    assert out == ("" if not steps else f"{tmp_path}/run/best.safetensors\n")


def test_a_preset_beside_a_model_to_begin_with_is_refused(tmp_path: Path) -> None:
    checkpoint.save(small_model(), tmp_path / "first.safetensors")
    command = ["train", "sed", "--store", "x", "--validation", "x", "--out", "o", "--preset", "paper"]
    result = CliRunner().invoke(cli.main, [*command, "--start", str(tmp_path / "first.safetensors")])
    assert result.exit_code == 2
    assert "--preset paper: the network has the shape of --start" in result.stderr


def test_recordings_to_learn_from_are_none_to_validate_with(tones: Path, tmp_path: Path) -> None:
    shutil.copytree(tones / "train.store", tmp_path / "again.store")
    command = ["train", "sed", "--store", str(tones / "train.store"), "--out", str(tmp_path / "run")]
    command += ["--validation", str(tones / "val.store"), "--validation", str(tmp_path / "again.store")]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 2
    assert "to learn from and to validate with: fold1_" in result.stderr
    assert "give --validation a store of others" in result.stderr
    (tmp_path / "folds.toml").write_text("[train]\nfolds = [1]\nvalidation_folds = [77]\n")
    result = CliRunner().invoke(cli.main, [*command, "--config", str(tmp_path / "folds.toml")])
    assert "to learn from and to validate with" not in result.stderr


def test_a_model_is_merged_once(tmp_path: Path) -> None:
    checkpoint.save(small_model(), tmp_path / "a.safetensors")
    path = str(tmp_path / "a.safetensors")
    result = CliRunner().invoke(cli.main, ["merge", path, path, "--out", str(tmp_path / "b.safetensors")])
    assert result.exit_code == 2
    assert "a.safetensors: is given twice; --weight makes its networks count more" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["train", "sed", "--store", "x", "--validation", "x", "--out", "o", "--time-budget"],
        ["synthesize", "--events", "x", "--out", "o", "--time-budget"],
        ["calibrate", "x", "--data", "x", "--out", "o", "--max-false-per-minute"],
    ],
)
def test_an_option_that_is_no_number_is_refused(command: list[str]) -> None:
    result = CliRunner().invoke(cli.main, [*command, "nan"])
    assert result.exit_code == 2
    assert f"Invalid value for '{command[-1]}': 'nan' is no number" in result.stderr


def test_blend_says_of_what_it_was_made(tmp_path: Path) -> None:
    for seed in (1, 2):
        checkpoint.save(small_model(seed=seed), tmp_path / f"{seed}.safetensors")
    ends = [str(tmp_path / "1.safetensors"), str(tmp_path / "2.safetensors")]
    out = tmp_path / "blend.safetensors"
    for share, code in (("0.25", 0), ("1.5", 2)):
        result = CliRunner().invoke(cli.main, ["blend", *ends, "--share", share, "--out", str(out)])
        assert result.exit_code == code, result.output
    assert describe(out).card["sed"]["blend"] == {"with": "1", "share": 0.25}
    result = CliRunner().invoke(cli.main, ["blend", "compact", ends[1], "--out", str(out)])
    assert result.exit_code == 2
    assert "compact.safetensors knows other classes: without 'clap', 'voice', 'bell'; also 'alarm'" in result.stderr


@pytest.mark.parametrize("command", ["merge", "calibrate", "blend"])
def test_what_is_no_model_is_not_overwritten(tmp_path: Path, command: str) -> None:
    model, notes = tmp_path / "a.safetensors", tmp_path / "README.md"
    checkpoint.save(small_model(), model)
    notes.write_text("mine")
    more = {"merge": ["--no-graph"], "calibrate": ["--data", "x"], "blend": [str(model)]}[command]
    result = CliRunner().invoke(cli.main, [command, str(model), *more, "--out", str(notes)])
    assert result.exit_code == 2
    said = f"offline: {notes} is there and no model that can be read: give another --out, or remove it\n"
    assert result.stderr == said
    assert notes.read_text() == "mine"
    if command != "calibrate":
        assert CliRunner().invoke(cli.main, [command, str(model), *more, "--out", str(model)]).exit_code == 0


def test_merge_takes_models_that_ship_and_says_what_to_give_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "merged"
    result = CliRunner().invoke(cli.main, ["merge", "light", "--no-graph", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert describe(out).classes == describe(shipped()["light"]).classes
    for told in (f"{tmp_path} is a folder; give a .safetensors file", f"give {tmp_path}/best.safetensors"):
        result = CliRunner().invoke(cli.main, ["merge", str(tmp_path), "--out", str(tmp_path / "m")])
        assert (result.exit_code, told in result.stderr) == (2, True)
        checkpoint.save(small_model(), tmp_path / "best.safetensors")


def test_a_file_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    checkpoint.save(small_model(), tmp_path / "a.safetensors")
    result = CliRunner().invoke(cli.main, ["merge", str(tmp_path / "a.safetensors"), "--out", "/proc/model"])
    assert (result.exit_code, result.stderr) == (2, "offline: /proc/model: No such file or directory\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_one_line_that_says_what_a_repeat_does(tmp_path: Path, workers: str) -> None:
    """As a terminal does it: the signal goes to the workers, too, and while they start."""
    write_tones(tmp_path / "data", 40, 20.0, 0)
    given = ["extract", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "store"), "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "offline.cli", *given], cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0
    )
    while not list(tmp_path.glob("store/.features.npy.*")):  # made right before the workers are
        assert process.poll() is None
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "stopped: running the same command again starts over\n")
    assert list((tmp_path / "store").iterdir()) == []


def test_another_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    program = (
        "import time\nfrom offline.workers import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    with worker_pool(2) as pool:\n"
        "        jobs = [pool.submit(time.sleep, 300) for _ in range(8)]\n"
        "        print('begun', flush=True)\n"
        "        jobs[0].result()\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, process_group=0,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(2):
        time.sleep(1.5)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0


@pytest.mark.parametrize("shown", [[], ["--help"]])
def test_without_a_command_it_says_which_there_are(shown: list[str]) -> None:
    result = CliRunner().invoke(cli.main, shown)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "synthesize" in result.stdout


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_merge_refuses_what_is_no_weight(tmp_path: Path, weight: str) -> None:
    checkpoint.save(small_model(), tmp_path / "model.safetensors")
    given = ["merge", str(tmp_path / "model.safetensors"), "--weight", weight, "--out", str(tmp_path / "merged")]
    result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 2
    assert f"weight is {float(weight)}: it must be finite and above 0" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--focus", "8"], "focus_labels need representation"),
        (["--views", "9"], "9 is not in the range 1<=x<=8"),
    ],
)
def test_merge_refuses_what_the_directions_cannot_have(tmp_path: Path, change: list[str], said: str) -> None:
    checkpoint.save(small_model(replace(CAUSAL, representation="azel")), tmp_path / "model.safetensors")
    given = ["merge", str(tmp_path / "model.safetensors"), *change, "--out", str(tmp_path / "merged")]
    result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "merged").exists()


def test_merge_gives_the_medians_of_the_mean_durations_to_what_was_not_calibrated(tmp_path: Path) -> None:
    model = small_model(postprocess=PostprocessConfig())
    model.description = replace(model.description, mean_event_labels=(2.0, 12.0, 60.0))
    checkpoint.save(model, tmp_path / "a.safetensors")
    command = ["merge", str(tmp_path / "a.safetensors"), "--no-graph", "--out", str(tmp_path / "b")]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    assert describe(tmp_path / "b").postprocess.sed_median_labels == median_labels((2.0, 12.0, 60.0))


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ([], True),
        (["--views", "4"], False),
        (["--weight", "2"], False),
        (["--max-gain", "50"], False),
        (["--max-rumble-cut", "60"], False),
    ],
)
def test_a_calibrated_model_keeps_its_settings_and_only_figures_that_hold(
    tmp_path: Path, change: list[str], holds: bool
) -> None:
    model = small_model()
    model.description = replace(model.description, card={"calibration": {"er_20": 0.4}})
    checkpoint.save(model, tmp_path / "a.safetensors")
    command = ["merge", str(tmp_path / "a.safetensors"), "--no-graph", "--out", str(tmp_path / "b"), *change]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    made = describe(tmp_path / "b")
    assert made.postprocess == model.description.postprocess
    assert ("calibration" in made.card, "calibrated for other networks" in result.stderr) == (holds, not holds)
    wanted = {"--max-gain": "max_gain_db", "--max-rumble-cut": "max_rumble_cut_db"}
    changed = {wanted[change[0]]: float(change[1])} if change and change[0] in wanted else {}
    assert made.features == replace(model.description.features, **changed)


@pytest.mark.parametrize("command", ["merge", "calibrate"])
def test_a_model_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path, command: str) -> None:
    checkpoint.save(small_model(), tmp_path / "a.safetensors")
    (tmp_path / "folder").mkdir()
    given = [command, str(tmp_path / "a.safetensors"), "--out", str(tmp_path / "folder")]
    if command == "calibrate":
        write_tones(tmp_path / "data", 1, 1.0, 0)
        given += ["--data", str(tmp_path / "data")]
    result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("s a directory")
    assert not list(tmp_path.glob(".*"))


def test_merge_says_what_is_missing(tmp_path: Path) -> None:
    model = small_model()
    model.description = replace(model.description, networks={"sad": model.description.networks["sad"]})
    model.networks = {"sad": model.networks["sad"]}
    checkpoint.save(model, tmp_path / "sad.safetensors")
    result = CliRunner().invoke(cli.main, ["merge", str(tmp_path / "sad.safetensors"), "--out", str(tmp_path / "m")])
    assert result.exit_code == 0
    assert "sed and doae must be merged, too" in result.stderr


def test_extract_says_what_it_made_and_which_labels_do_not_fit(tmp_path: Path) -> None:
    write_tones(tmp_path / "data", 2, 3.0, 0)
    command = ["extract", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "store")]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"{tmp_path}/store: 2 recordings, 0 minutes"
    for row, said in (("3,99,0,10,0", "labels hold class 99"), ("3,0,0,400,0", "line 1: azimuth is 400")):
        first = sorted((tmp_path / "data" / "metadata_dev").iterdir())[0]
        first.write_text(f"{row}\n")
        result = CliRunner().invoke(cli.main, command)
        assert result.exit_code == 2
        assert f"{first}" in result.stderr
        assert said in result.stderr
