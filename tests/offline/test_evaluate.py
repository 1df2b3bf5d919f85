"""Recordings to CSVs to a report: what the daemon says, measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from rich.console import Console

from offline import estimates
from offline.cli import main
from offline.dataset import Recording, content_digest, list_recordings, read_metadata, write_metadata
from offline.estimates import prediction_rows
from offline.evaluate import Measured, measure, write_report
from offline.metrics import count
from offline.report.terminal import cells, tables
from seldrt import checkpoint
from seldrt.config import ConfigError, PipelineConfig, PostprocessConfig
from seldrt.pipeline import open_pipeline
from seldrt.runtime.demo import demo_files
from tests.models import small_model

CLASSES = ("dog", "phone", "piano")
RATE = 24000


def write_recording(base: Path, name: str, rows: list, samples: np.ndarray | None = None) -> None:
    """Labels, and by default 3 s of noise."""
    if samples is None:
        samples = np.random.default_rng(0).normal(0, 0.1, (3 * RATE, 4))
    (base / "foa_dev").mkdir(parents=True, exist_ok=True)
    soundfile.write(base / "foa_dev" / f"{name}.wav", samples, RATE, subtype="PCM_16")
    write_metadata(base / "metadata_dev" / f"{name}.csv", rows)


def event(class_id: int, first: int, last: int, azimuth: int, track: int = 0) -> list:
    return [[frame, class_id, track, azimuth, 0] for frame in range(first, last)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    base = tmp_path / "dataset"
    write_recording(base, "fold1_room1_mix001_ov1", event(0, 0, 10, 30) + event(1, 10, 20, -170))
    write_recording(base, "fold1_room1_mix002_ov2", event(2, 5, 25, 90))
    (base / "classes.json").write_bytes(msgspec.json.encode(CLASSES))
    return base


def found_by(dataset: Path, out: Path) -> list[Recording]:
    """Its recordings, for which ``out`` then holds predictions: those of the second are 40 degrees off."""
    recordings = list_recordings(dataset)
    for recording, off_deg in zip(recordings, (0, 40), strict=True):
        write_metadata(out / f"{recording.name}.csv", read_metadata(recording.metadata) + [0, 0, 0, off_deg, 0])
    return recordings


def test_recordings_to_report(dataset, tmp_path):
    out = tmp_path / "out"
    recordings = found_by(dataset, out)
    report = measure(recordings, out, CLASSES, np.random.default_rng(0))

    perfect, misplaced = report.by_overlap["ov1"].scores, report.by_overlap["ov2"].scores
    assert (perfect.er_20, perfect.f_20, perfect.le_cd, perfect.lr_cd) == pytest.approx((0, 1, 0, 1))
    assert (misplaced.er_20, misplaced.f_20, misplaced.le_cd, misplaced.lr_cd) == pytest.approx((1, 0, 40, 1))
    assert report.overall.recordings == 2
    assert report.overall.scores.er_20 == pytest.approx(3 / 5)
    low, high = report.overall.intervals["er_20"]
    assert (low, high) == pytest.approx((0, 1))
    assert report.by_overlap["ov1"].intervals is None
    assert [(c.name, c.reference, c.missed, c.misplaced, c.false) for c in report.classes] == [
        ("dog", 1, 0, 0, 0),
        ("phone", 1, 0, 0, 0),
        ("piano", 3, 0, 3, 0),
    ]
    events = report.events
    assert (events.true, events.found, events.false) == (3, 3, 0)
    assert events.median_angle_deg == pytest.approx(0, abs=1e-6)
    one = report.recordings["fold1_room1_mix002_ov2"]
    assert one.scores == misplaced
    assert (one.events.true, one.events.found, one.events.minutes) == (1, 1, 0.05)
    assert report.data == content_digest(recordings)


def test_what_lies_beyond_the_end_of_a_recording_counts_for_nothing(dataset, tmp_path):
    recordings = found_by(dataset, tmp_path / "out")
    before = measure(recordings, tmp_path / "out", CLASSES, np.random.default_rng(0))
    for path, class_id in ((recordings[0].metadata, 0), (tmp_path / "out" / f"{recordings[0].name}.csv", 1)):
        write_metadata(path, [*read_metadata(path), (30, class_id, 0, 0, 0)])  # it lasts 30 label frames
    after = measure(recordings, tmp_path / "out", CLASSES, np.random.default_rng(0))
    assert (after.overall, after.classes, after.events) == (before.overall, before.classes, before.events)


def test_labels_and_predictions_of_another_turn_are_measured_as_those_of_this_one(dataset, tmp_path):
    recordings = found_by(dataset, tmp_path / "out")
    report = measure(recordings, tmp_path / "out", CLASSES, np.random.default_rng(0))
    for path in (*(tmp_path / "out").iterdir(), *(recording.metadata for recording in recordings)):
        rows = read_metadata(path)
        rows[:, 3] -= 360 * np.where(rows[:, 3] < 0, -1, 1)
        write_metadata(path, rows)
        assert np.abs(rows[:, 3]).max() > 180
    assert measure(recordings, tmp_path / "out", CLASSES, np.random.default_rng(0)) == report


def test_the_report_as_text_and_json(dataset, tmp_path):
    recordings = found_by(dataset, tmp_path)
    report = measure(recordings, tmp_path, (*CLASSES, "silent"), np.random.default_rng(0))
    console = Console(width=160, record=True, file=(tmp_path / "text").open("w"))
    console.print(tables(report))
    text = console.export_text()
    assert "ov2" in text
    assert "3 of 3 events found, 2 of these within 20 degrees; 0.0 degrees off" in text
    assert content_digest(recordings) in text
    assert "0 false events, 0.00 a minute" in text
    once = msgspec.structs.replace(report, events=msgspec.structs.replace(report.events, false=1))
    assert "1 false event, 0.00 a minute" in tables(once).renderables
    write_report(report, tmp_path / "sub" / "metrics.json")
    stored = msgspec.json.decode((tmp_path / "sub" / "metrics.json").read_bytes())
    assert stored["overall"]["scores"]["er_20"] == pytest.approx(0.6)
    assert stored["classes"][3] == {
        "name": "silent",
        "scores": None,
        "reference": 0,
        "missed": 0,
        "misplaced": 0,
        "false": 0,
    }


@pytest.mark.parametrize("said", [[], event(0, 3, 4, 10)])
def test_where_nothing_was_to_be_found_there_are_no_figures(tmp_path, said):
    for name in ("fold1_room1_mix001_ov1", "fold1_room1_mix002_ov1"):
        write_recording(tmp_path, name, [])
        write_metadata(tmp_path / "said" / f"{name}.csv", said)
    report = measure(list_recordings(tmp_path), tmp_path / "said", CLASSES, np.random.default_rng(0))
    assert report.overall == report.by_overlap["ov1"] == Measured(2, None, None)
    assert {one.scores for one in report.recordings.values()} == {None}
    assert report.events.false == 2 * bool(said)
    assert cells(report.overall.scores) == ["-"] * 6
    assert cells(count(event(0, 3, 4, 10), [], 3).scores())[:2] == ["1.000", "0.0"]


def test_predictions_that_cannot_be_measured(dataset, tmp_path):
    recordings = list_recordings(dataset)
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"no fold1_room1_mix001_ov1.csv \(2 of 2 missing\)"):
        measure(recordings, tmp_path, CLASSES, rng)
    for recording in recordings:
        write_metadata(tmp_path / f"{recording.name}.csv", [[0, 3, 0, 0, 0]])
    with pytest.raises(ConfigError, match=r"mix001_ov1.csv, prediction, row 0 .* 0..2"):
        measure(recordings, tmp_path, CLASSES, rng)
    with pytest.raises(ConfigError, match="no labels"):
        measure([msgspec.structs.replace(recordings[0], metadata=None)], tmp_path, CLASSES, rng)
    with pytest.raises(ConfigError, match="no recording"):
        measure([], tmp_path, CLASSES, rng)


def run_cli(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.parametrize("out", ["metadata_dev", "foa_dev/new", "link"])
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_labels_and_recordings_are_never_overwritten(dataset: Path, model: Path, command: str, out: str) -> None:
    (dataset / "link").symlink_to(dataset / "metadata_dev")
    labels = (dataset / "metadata_dev" / "fold1_room1_mix001_ov1.csv").read_bytes()
    before = sorted(dataset.rglob("*"))
    given = [command, "--data", str(dataset), "--model", str(model), "--out", str(dataset / out)]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"offline: {dataset / out}: would overwrite what lies in {dataset}/")
    assert sorted(dataset.rglob("*")) == before
    assert (dataset / "metadata_dev" / "fold1_room1_mix001_ov1.csv").read_bytes() == labels


def test_the_command_measures_existing_predictions(dataset, tmp_path):
    code, text = run_cli("--data", dataset, "--predictions", dataset / "metadata_dev", "--out", tmp_path)
    assert (code, "0.000" in text) == (0, True)
    assert (tmp_path / "metrics.json").is_file()
    code, _ = run_cli("--data", dataset, "--predictions", dataset / "metadata_dev", "--fold", 1)
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "nowhere"], "nowhere: has no fold1"),
        (["--predictions", "nowhere", "--model", "x"], "--model"),
        (["--predictions", "nowhere", "--fold", "7"], "fold 7"),
        (["--model", "nowhere"], "--out"),
        (["--model", "nowhere", "--out", "x"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(dataset, arguments, message):
    code, text = run_cli("--data", dataset, *arguments)
    assert code == 2
    assert message in text.splitlines()[-1]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model with random weights."""
    path = tmp_path / "small.safetensors"
    everything = PostprocessConfig(sad_threshold=0.0, sed_thresholds=(0.1,))
    checkpoint.save(small_model(classes=CLASSES, postprocess=everything), path)
    return path


def test_the_command_runs_a_model_and_workers_change_nothing(dataset, model, tmp_path):
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        code, text = run_cli("--data", dataset, "--model", model, "--out", out, "--workers", workers)
        assert code == 0, text
    for name in ("fold1_room1_mix001_ov1.csv", "fold1_room1_mix002_ov2.csv"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()
    assert len(read_metadata(tmp_path / "out1" / "fold1_room1_mix001_ov1.csv"))


def test_what_the_networks_said_is_kept(dataset, model, tmp_path, monkeypatch):
    given = ["--data", dataset, "--model", model, "--cache", tmp_path / "kept", "--out"]
    code, text = run_cli(*given, tmp_path / "first")
    assert code == 0, text
    monkeypatch.setattr(estimates, "_compute", None)
    code, again = run_cli(*given, tmp_path / "second")
    assert (code, again) == (0, text)
    code, text = run_cli(*given[:-3], "--out", model)  # a file; told before the work
    assert (code, text) == (2, f"offline: {model}: File exists\n")


@pytest.mark.parametrize("quick", [False, True])
def test_what_is_measured_is_what_the_daemon_says(tmp_path: Path, quick: bool) -> None:
    samples = soundfile.read(demo_files()[0], 20 * RATE + 999, dtype="float32")[0]
    pipeline = open_pipeline(PipelineConfig(model="light", quick=quick), {})
    write_recording(tmp_path, "fold1_room1_mix001_ov1", [], samples)
    (tmp_path / "classes.json").write_bytes(msgspec.json.encode(pipeline.classes))
    code, text = run_cli("--data", tmp_path, "--model", "light", "--out", tmp_path / "out", *["--quick"] * quick)
    assert code == 0, text
    frames = [frame for i in range(0, len(samples), 1111) for frame in pipeline.push(samples[i : i + 1111])]
    expected = prediction_rows(frames + pipeline.flush(), pipeline.classes, pipeline.classes)
    found = read_metadata(tmp_path / "out" / "fold1_room1_mix001_ov1.csv")
    assert len(found) > 50
    np.testing.assert_array_equal(found[:, :3], expected[:, :3])
    np.testing.assert_allclose(found[:, 3:], expected[:, 3:], atol=1)  # other engines and blocks round differently


def test_a_sensitivity_reports_less_or_more(dataset: Path, model: Path, tmp_path: Path) -> None:
    rows = {}
    for sensitivity in ("0.001", "1", "1000,phone=0.001"):
        out = tmp_path / sensitivity
        code, text = run_cli("--data", dataset, "--model", model, "--out", out, "--sensitivity", sensitivity)
        assert code == 0, text
        rows[sensitivity] = np.concatenate([read_metadata(path)[:, 1] for path in sorted(out.glob("*.csv"))])
        stored = msgspec.json.decode((out / "metrics.json").read_bytes())
        thresholds = stored["postprocess"]["sed_thresholds"]
        assert (stored["model"], len(set(thresholds))) == ("small", 1 + ("," in sensitivity))
    dog, phone = (CLASSES.index(name) for name in ("dog", "phone"))
    count = {key: np.bincount(classes.astype(int), minlength=3) for key, classes in rows.items()}
    assert count["0.001"].sum() < count["1"].sum()
    assert count["1000,phone=0.001"][dog] >= count["1"][dog]
    assert count["1000,phone=0.001"][phone] == count["0.001"][phone] < count["1"][phone]
    code, text = run_cli("--data", dataset, "--model", model, "--out", tmp_path / "x", "--sensitivity", "0")
    assert code == 2
    assert "sensitivity 0.0 of all: use 0.001 to 1000" in text.splitlines()[-1]
