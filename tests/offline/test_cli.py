"""Mistakes at the offline commands; what they do when all is well: test_own_sounds.py."""

import subprocess
import sys
from pathlib import Path

import pytest


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
