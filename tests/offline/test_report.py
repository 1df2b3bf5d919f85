"""The report: its figures are those of `offline evaluate`, and a second one computes no network again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from PIL import Image

from offline import dataset, estimates
from offline.cli import main
from offline.report.findings import SMOOTHING
from seldrt import checkpoint
from seldrt.config import PostprocessConfig
from tests.models import WINDOWED, small_model

LISTENING = PostprocessConfig(sad_threshold=0.1, sed_thresholds=(0.4,), sed_median_labels=(3,))
TABLES = ("table1", "classes", "losses", "errors", "confusions", "confidence", "spread")
TABLES += ("recordings", "latency", "learning")
PICTURES = ("table1", "classes", "losses", "confusions", "outcomes", "directions", "latency", "learning")


@pytest.fixture(scope="module")
def folder(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for name, network in (("causal", {}), ("windowed", {"network": WINDOWED})):
        model = small_model(classes=("low", "high"), postprocess=LISTENING, **network)
        checkpoint.save(model, folder / f"{name}.safetensors")
    shutil.copytree(tones / "val", folder / "quiet")
    for path in (folder / "quiet" / "metadata_dev").iterdir():
        dataset.write_metadata(path, [])
    lines = [{"epoch": n, "loss": 1 / n, "val_loss": 2 / n, "mean_error_deg": 90 / n} for n in (1, 2, 3)]
    logs = {"run": lines, "broken": [*lines, [4]], "strange": [{"epoch": 1, "loss": "low"}]}
    for name, log in logs.items():
        (folder / name).mkdir()
        (folder / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def run_cli(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_whole_report(tones: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model, out = tones / "val", folder / "causal.safetensors", folder / "out"
    arguments = [
        "report", "--data", data, "--model", model, "--baseline", folder / "windowed.safetensors",
        "--quiet", folder / "quiet", "--run", folder / "run",
    ]  # fmt: skip
    code, text = run_cli(*arguments, "--out", out)
    assert code == 0, text
    assert {path.stem for path in out.glob("*.csv")} == set(TABLES)
    for name in PICTURES:
        with Image.open(out / f"{name}.png") as image:
            assert min(image.size) > 150
    digest = dataset.content_digest(dataset.list_recordings(data))
    said = (out / "report.md").read_text()
    assert digest in said
    assert all(f"({name}.png)" in said for name in PICTURES)

    sure = [(float(row["confidence"]), float(row["right"])) for row in table(out / "confidence.csv")]
    assert any(0 < right < 1 for _, right in sure)
    assert all(0 <= share <= 1 for row in sure for share in row)
    assert "On average a confidence is off by" in said
    exact = [(float(row["spread_deg"]), float(row["median_deg"])) for row in table(out / "spread.csv")]
    assert all(0 <= spread <= 90 and 0 <= error <= 180 for spread, error in exact)
    assert "| spread deg | label frames | median error deg | more than 20 deg % |" in said

    rows = table(out / "table1.csv")
    assert [(row["system"], row["output"]) for row in rows] == [
        ("windowed", "offline"),
        ("windowed", "streamed"),
        *[("causal", "streamed = offline")] * 4,
    ]
    # The same by `offline evaluate`, from CSVs on disk.
    reports = []
    for row, given in ((rows[4], "--no-doa-smoothing"), (rows[5], "--doa-smoothing")):
        code, text = run_cli("evaluate", "--data", data, "--model", model, "--out", folder / "evaluation", given)
        assert code == 0, text
        reports.append(json.loads((folder / "evaluation" / "metrics.json").read_text()))
        scores, ends = reports[-1]["overall"]["scores"], reports[-1]["overall"]["intervals"]
        for name, value in scores.items():
            assert float(row[name]) == pytest.approx(value, abs=1e-4)
            assert [float(row[f"{name}_{end}"]) for end in ("low", "high")] == pytest.approx(ends[name], abs=1e-4)
    assert [row["post-processing"] for row in rows[2:]] == list(SMOOTHING)
    assert reports[0]["overall"] != reports[1]["overall"]
    assert reports[1]["data"] == digest
    alone = {name: one["events"] for name, one in reports[1]["recordings"].items()}
    for row in table(out / "recordings.csv"):
        told = alone[row["recording"]]
        assert [int(row[name]) for name in ("events", "found", "false")] == [told["true"], told["found"], told["false"]]

    own = {row["latency_s"] for row in table(out / "latency.csv") if row["varied"] == "as calibrated"}
    assert own == {"0.6"}  # 100 ms to fill the frame, 200 ms look-ahead, 100 ms medians, 200 ms smoothing
    assert {row["system"] for row in table(out / "losses.csv")} == {"causal", "windowed"}
    assert [row["loss"] for row in table(out / "learning.csv")] == ["1.0", "0.5", "0.3333333333333333"]

    def computed_again(job: estimates.Job, index: int) -> None:
        raise AssertionError("this is known")

    monkeypatch.setattr(estimates, "_compute", computed_again)
    code, text = run_cli(*arguments, "--cache", out / "estimates", "--out", folder / "again")
    assert code == 0, text
    for name in (*TABLES, "report"):
        suffix = ".md" if name == "report" else ".csv"
        assert (folder / "again" / name).with_suffix(suffix).read_bytes() == (out / name).with_suffix(
            suffix
        ).read_bytes()

    loaded = checkpoint.load(model)
    loaded.description = replace(loaded.description, card={"calibration": {"data": digest}})
    checkpoint.save(loaded, folder / "fitted.safetensors")
    fitted = ["report", "--data", data, "--model", folder / "fitted.safetensors", "--cache", out / "estimates"]
    code, text = run_cli(*fitted, "--out", folder / "fitted")
    assert code == 0, text
    caveat = "**The thresholds of this model were chosen on these very scenes"
    assert caveat in (folder / "fitted" / "report.md").read_text()
    assert caveat not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quiet", "{data}"], "has labels; quiet scenes"),
        (["--data", "{folder}/quiet"], "no class ever sounds in its labels"),
        (["--run", "{folder}"], "has no log.jsonl"),
        (["--model", "{folder}/causal.safetensors"] * 2, "give each model once"),
        (["--model", "nowhere"], "'nowhere' was not found"),
        (["--run", "{folder}/broken"], "broken/log.jsonl: not the log of a training, an epoch a line"),
        (["--run", "{folder}/strange"], "strange/log.jsonl: not the log of a training, an epoch a line"),
        (
            ["--model", "compact"],
            "lacks classes of the model: alarm, crying_baby, crash, barking_dog, running_engine and 9 more (it has low",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tones: Path, folder: Path, arguments: list[str], message: str) -> None:
    given = [argument.format(data=tones / "val", folder=folder) for argument in arguments]
    code, text = run_cli("report", "--data", tones / "val", "--out", folder / "never", *given)
    assert code == 2
    assert message in text.splitlines()[-1]
    assert not (folder / "never").exists()
