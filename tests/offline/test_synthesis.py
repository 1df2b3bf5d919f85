"""Folders of scenes: the same however they are made, and mistakes told in one line."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from offline import cli
from offline.arrays import SAMPLE_RATE
from offline.bank import bank_digest, read_bank
from offline.cluster import ray_results
from offline.config import SceneConfig
from offline.dataset import content_digest, list_recordings, read_classes, read_metadata, write_classes
from offline.scenes import plan_scene
from offline.synthesis import FoldManifest, Job, make_scene, write_fold_manifest
from offline.workers import WorkerError, results, worker_pool
from seldrt.config import ConfigError
from tests.offline.sounds import CLASSES


def invoke(*arguments):
    return CliRunner().invoke(cli.main, ["synthesize", *map(str, arguments)])


def digests(base):
    files = (path for path in sorted(base.rglob("*")) if path.is_file())
    return {str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command_writes_the_same_dataset_with_any_number_of_workers(sounds, tmp_path):
    options = ("--events", sounds, "--scenes", 3, "--seconds", 4, "--fold", 2, "--format", "both")
    for workers in (1, 2):
        result = invoke(*options, "--out", tmp_path / str(workers), "--workers", workers)
        assert result.exit_code == 0, result.output
        assert "3 scenes of 4 s made, 0 were there" in result.output
    first = digests(tmp_path / "1")
    assert len(first) == 1 + 3 * 4 + 1  # classes; audio, labels and plan of each; what the fold was made from
    assert first == digests(tmp_path / "2")

    victim = next((tmp_path / "1" / "foa_dev").glob("*.flac"))
    victim.unlink()
    assert "1 scenes of 4 s made, 2 were there" in invoke(*options, "--out", tmp_path / "1").output
    assert first == digests(tmp_path / "1")

    other = invoke(*options, "--out", tmp_path / "1", "--seed", 5)
    assert (other.exit_code, "fold 2 has seed 0" in other.output) == (2, True)

    recordings = list_recordings(tmp_path / "1", "mic")
    assert [recording.fold for recording in recordings] == [2, 2, 2]
    audio, rate = soundfile.read(recordings[0].audio)
    assert (rate, audio.shape) == (SAMPLE_RATE, (4 * SAMPLE_RATE, 4))
    assert read_classes(tmp_path / "1") == ["hum", "knock", "noise"]
    assert read_metadata(recordings[0].metadata)[:, 0].max() < 40


@pytest.mark.parametrize(
    ("settings_text", "arguments", "message"),
    [
        ("", ["--events", "nowhere"], "nowhere: no such folder"),
        ("[scenes]\nsecond = 3\n", [], "unknown key 'second'"),
        ("[scenes]\nsnr_db = [30, 6]\n", [], "snr_db is 30, 6: it must have its smaller value first"),
        ("", ["--seconds", "nan"], "seconds is nan: it must lie in 1..86400"),
        ("", ["--seconds", "inf"], "seconds is inf: it must lie in 1..86400"),
        ("[scenes", [], "config.toml: "),
        ("[scene]\nseconds = 3\n", [], "config.toml: unknown key 'scene'; known: scenes, features, network, train"),
        ("scenes = 3\n", [], "config.toml: scenes: expected a section, got a whole number"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(sounds, tmp_path, settings_text, arguments, message):
    (tmp_path / "config.toml").write_text(settings_text)
    common = (
        "--events",
        sounds,
        "--out",
        tmp_path / "out",
        "--scenes",
        1,
        "--config",
        tmp_path / "config.toml",
    )
    result = invoke(*common, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_damaged_plan_is_named(sounds, tmp_path):
    path = tmp_path / "manifests" / "fold1_room1_mix001_ov1.json"
    path.parent.mkdir()
    for text in ('{"seed": [1', "{}", "[]"):
        path.write_text(text)
        result = invoke("--events", sounds, "--out", tmp_path, "--scenes", 1)
        assert result.exit_code == 2
        assert f"offline: {path}: is no plan of a scene; remove it" in result.output
        assert result.output.count("\n") == 1


def test_a_worker_names_the_clip_that_holds_no_numbers_and_nothing_else_is_said(tmp_path):
    for name, value in (("bell", 0.1), ("knock", np.nan)):
        (tmp_path / "events" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "events" / name / "a.wav", np.full(24000, value), SAMPLE_RATE, subtype="FLOAT")
    result = invoke(
        "--events", tmp_path / "events", "--out", tmp_path / "o", "--scenes", 2, "--seconds", 10, "--workers", 2
    )
    said = f"offline: {tmp_path}/events/knock/a.wav: holds samples that are no numbers; remove it\n"
    assert (result.exit_code, result.output) == (2, said)


def test_a_dataset_keeps_its_classes(sounds, tmp_path):
    (tmp_path / "classes.json").write_text('["hum", "noise"]')
    result = invoke("--events", sounds, "--out", tmp_path, "--scenes", 1)
    assert result.exit_code == 2
    assert "has no class knock" in result.output


def test_a_changed_plan_replaces_the_scene(bank, tmp_path):
    write_classes(tmp_path, sorted(CLASSES))

    def make(seconds, formats, audio_format="flac"):
        config = SceneConfig(seconds=seconds)
        return make_scene(Job(bank, tmp_path, config, CLASSES, formats, audio_format, 1, 0), 0)

    def suffixes():
        return sorted(path.parent.name + path.suffix for path in tmp_path.rglob("fold1*"))

    assert make(2, ("foa", "mic"))[1]
    assert not make(2, ("mic",))[1]
    assert make(2, ("foa",), "wav")[1]
    assert suffixes() == ["foa_dev.wav", "manifests.json", "metadata_dev.csv", "mic_dev.flac"]
    assert make(3, ("mic",))[1]
    assert suffixes() == ["manifests.json", "metadata_dev.csv", "mic_dev.flac"]


# --- what a fold is ------------------------------------------------------------------------------------------------


def fold_manifest(base, fold=1):
    return msgspec.json.decode((base / "manifests" / f"fold{fold}.json").read_bytes(), type=FoldManifest)


def make_fold(bank, out, audio_format="flac", seed=0, **settings):
    write_classes(out, sorted(CLASSES))
    job = Job(bank, out, SceneConfig(seconds=2, **settings), CLASSES, ("foa",), audio_format, 1, seed)
    for index in range(2):
        make_scene(job, index)
    return write_fold_manifest(job)


def test_a_fold_says_what_it_was_made_from_and_what_came_out(bank, tmp_path):
    first = make_fold(bank, tmp_path / "a")
    assert fold_manifest(tmp_path / "a") == first
    assert first.content == {"foa": content_digest(list_recordings(tmp_path / "a"))}
    assert (first.scenes, first.seed, first.settings) == (2, 0, SceneConfig(seconds=2))
    assert first.bank == bank_digest(bank)
    assert make_fold(bank, tmp_path / "a") == first
    assert make_fold(bank, tmp_path / "b", "wav") == first  # the container is no matter
    others = [make_fold(bank, tmp_path / "c", room="open"), make_fold(bank, tmp_path / "d", seed=1)]
    assert len({first.recipe, *(other.recipe for other in others)}) == 3
    assert len({first.content["foa"], *(other.content["foa"] for other in others)}) == 3


def test_validation_scenes_hold_no_sound_of_the_training_scenes(tmp_path):
    for name in ("bell", "knock"):
        (tmp_path / name).mkdir()
        for i in range(5):
            soundfile.write(tmp_path / name / f"{name}{i}.wav", np.full(4800, 0.1), SAMPLE_RATE)
    heard = {}
    for part in ("train", "validation"):
        bank = read_bank(tmp_path, part)
        plans = [plan_scene(SceneConfig(), bank, {"bell": 0, "knock": 1}, 0, index) for index in range(4)]
        heard[part] = {event.clip for plan in plans for event in plan.events}
    assert heard["validation"]
    assert len(heard["train"]) + len(heard["validation"]) == 10
    assert not heard["train"] & heard["validation"]


# --- engines -------------------------------------------------------------------------------------------------------


def make_job(bank, out):
    write_classes(out, sorted(CLASSES))
    return Job(bank, out, SceneConfig(seconds=2), CLASSES, ("foa",), "flac", 1, 0)


def make_or_die(job, index):
    """`make_scene`, but the first process that writes scene 1 is killed in the midst of its sound, after another."""
    died = job.out / "died"
    if index != 1 or died.exists():
        return make_scene(job, index)
    while not list(job.out.glob("manifests/*.json")):
        time.sleep(0.01)
    died.touch()

    def write(path, content):
        with open(path, "wb") as file:
            file.write(content[:1000])
        os.kill(os.getpid(), signal.SIGKILL)

    Path.write_bytes = write
    return make_scene(job, index)


@pytest.fixture(scope="module")
def expected(bank, tmp_path_factory):
    """The bytes of three scenes, made one after the other."""
    out = tmp_path_factory.mktemp("expected")
    job = make_job(bank, out)
    for index in range(3):
        make_scene(job, index)
    return digests(out)


def made(out):
    return {name: digest for name, digest in digests(out).items() if name != "died" and not name.endswith(".part")}


def test_a_killed_worker_is_told_in_one_line_and_nothing_is_lost(bank, tmp_path, expected):
    job = make_job(bank, tmp_path)
    with pytest.raises(WorkerError, match=r"a worker process was killed.*run the command again"):
        list(results(make_or_die, job, range(3), 2))
    assert made(tmp_path) != expected
    first, second, _ = sorted(results(make_or_die, job, range(3), 2))
    assert (first[1], second[1]) == (False, True)  # scene 0 was there, scene 1 was not
    assert made(tmp_path) == expected
    assert len(list_recordings(tmp_path)) == 3  # what the killed process left is no recording


def process_of(job, item):
    return job, item, os.getpid()


@pytest.mark.parametrize(("items", "workers", "apart"), [("ab", 1, False), ("a", 2, False), ("ab", 2, True)])
def test_where_one_process_will_do_it_is_this_one(items, workers, apart):
    done = sorted(results(process_of, "job", items, workers))
    assert [each[:2] for each in done] == [("job", item) for item in items]
    assert ({os.getpid()} != {each[2] for each in done}) == apart
    assert list(results(process_of, "job", (), workers)) == []


def test_a_process_that_dies_in_any_pool_is_told_in_one_line():
    with pytest.raises(WorkerError, match="a worker process was killed"), worker_pool(1) as pool:
        pool.submit(os._exit, 1).result()


def test_no_pool_is_larger_than_windows_can_have_it(monkeypatch):
    sizes = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers, *_):
            sizes.append(workers)
            super().__init__(1)

    monkeypatch.setattr("offline.workers.ProcessPoolExecutor", Pool)
    for platform in ("win32", "linux"):
        monkeypatch.setattr(sys, "platform", platform)
        with worker_pool(100):
            pass
    assert sizes == [61, 100]


def test_a_worker_that_does_not_see_the_folder_says_so(bank, tmp_path):
    job = make_job(bank, tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(ConfigError, match=f"is not seen from {socket.gethostname()}; all machines must share --out"):
        make_scene(job, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'seldrt[ray]'")
@pytest.mark.timeout(180)
def test_ray_makes_the_same_bytes_also_when_a_worker_is_killed(bank, tmp_path, expected, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = make_job(bank, tmp_path)
    scenes = list(ray_results(make_or_die, job, range(3), 2))
    assert (tmp_path / "died").exists()
    assert sorted(name for name, _ in scenes) == sorted({Path(n).stem for n in expected if n.startswith("foa_dev")})
    assert made(tmp_path) == expected
    # A mistake of the user is his, wherever it came to light.
    (tmp_path / "classes.json").unlink()
    with pytest.raises(ConfigError, match="all machines must share --out"):
        list(ray_results(make_scene, job, range(1), 1))


@pytest.mark.skipif(os.name == "nt", reason="names of Windows are no bytes")
def test_a_folder_that_is_not_utf8_is_refused_before_any_work(sounds, tmp_path):
    result = invoke("--events", sounds, "--out", tmp_path / os.fsdecode(b"d\xfc") / "data", "--scenes", 1)
    assert result.exit_code == 2
    assert result.output.endswith("/d\\udcfc/data': the name is not UTF-8; rename it\n")
    assert not list(tmp_path.iterdir())


def test_without_ray_the_engine_says_how_to_get_it(sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = invoke("--events", sounds, "--out", tmp_path, "--scenes", 1, "--engine", "ray")
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == "offline: ray is not installed: pip install 'seldrt[ray]'"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are found as Linux shows them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command_that_is_killed(tmp_path, number):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\nfrom offline.workers import worker_pool\n"
        "def work(_):\n    print(os.getpid(), flush=True)\n    time.sleep(100)\n"
        "if __name__ == '__main__':\n    with worker_pool(2) as pool: list(pool.map(work, range(2)))\n"
    )
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True, env=env)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    process.stdout.read()  # ends when the last of them has
    assert process.wait(20) == -number
    deadline_s = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
