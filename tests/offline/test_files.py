"""Files: whole or not at all, whoever holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline.files import write_file
from seldrt import files
from seldrt.files import whole


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    write_file(tmp_path / "sub" / "a", b"old")

    def fail() -> None:
        with whole(tmp_path / "sub" / "a") as partial:
            partial.write_bytes(b"new, but not wh")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "sub").iterdir()] == [("a", b"old")]


def test_a_file_that_is_looked_into_is_replaced_a_little_later(tmp_path, monkeypatch):
    """What a virus scanner does on Windows."""
    refusals, replace = [PermissionError(13, "in use")] * 2, Path.replace

    def busy(path: Path, target: Path) -> Path:
        if refusals:
            raise refusals.pop()
        return replace(path, target)

    monkeypatch.setattr(files, "PAUSE_S", 0.0)
    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(files, "TRIES", 3)
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    refusals += [PermissionError(13, "in use")] * 3
    with pytest.raises(PermissionError):
        write_file(tmp_path / "a", b"newer")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]
