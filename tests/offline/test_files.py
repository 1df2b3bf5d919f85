"""Files: whole or not at all, whoever holds them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from offline.files import write_file
from seldrt.files import try_out, whole
from tests.disk import hold_files


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    write_file(tmp_path / "sub" / "a", b"old")

    def fail() -> None:
        with whole(tmp_path / "sub" / "a") as partial:
            partial.write_bytes(b"new, but not wh")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "sub").iterdir()] == [("a", b"old")]


@pytest.mark.parametrize(
    ("code", "of", "named"),
    [
        (errno.EACCES, "partial", "a"),
        *((full, None, "a") for full in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        (errno.EIO, None, None),
        (errno.ENOSPC, "another", "another"),
    ],
)
def test_an_error_names_the_file_that_was_wanted(tmp_path, code, of, named):
    def fail() -> None:
        with whole(tmp_path / "a") as partial:
            names = {"partial": str(partial), "another": str(tmp_path / "another"), None: None}
            raise OSError(code, "why", names[of])

    with pytest.raises(OSError, match="why") as refusal:
        fail()
    assert (refusal.value.errno, refusal.value.filename) == (code, named and str(tmp_path / named))


def test_a_file_that_is_looked_into_is_replaced_a_little_later(tmp_path, monkeypatch):
    hold_files(monkeypatch, times=2)
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    hold_files(monkeypatch, times=3)
    with pytest.raises(PermissionError):
        write_file(tmp_path / "a", b"newer")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_a_folder_is_tried_out_without_a_trace(tmp_path, monkeypatch):
    try_out(tmp_path)
    assert not list(tmp_path.iterdir())

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):
        try_out(tmp_path)
