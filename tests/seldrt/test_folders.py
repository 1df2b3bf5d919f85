"""Folders of bounded size: who must go, how much fits, and what is said when nothing can be kept."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seldrt.runtime.folders import (
    FolderError,
    changed_ns,
    fitting_bytes,
    kept_bytes,
    size_bytes,
    surplus,
    why_not,
    writable_folder,
)


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(-1, 40))
def test_of_the_oldest_no_more_go_than_must(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], room: int
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    files = [folder / str(number) for number in range(len(sizes))]
    for path, size in zip(files, sizes, strict=True):
        path.write_bytes(bytes(size))
    gone = []
    for path in surplus(files, room):
        path.unlink()
        gone.append(path)
    assert gone == files[: len(gone)]
    assert kept_bytes(files) == sum(sizes[len(gone) :])
    assert kept_bytes(files) <= room or gone == files
    assert not gone or sum(sizes[len(gone) - 1 :]) > room


def test_of_a_small_disk_a_tenth_is_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7_000_000, total=10**12))
    assert fitting_bytes(tmp_path, 3_000_000, 10**9) == 9_000_000
    assert fitting_bytes(tmp_path, 3_000_000, 5_000_000) == 5_000_000


def test_what_cannot_be_seen_takes_no_room(tmp_path: Path) -> None:
    for name, target in (("nowhere", "/no/such"), ("itself", tmp_path / "itself")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "there").write_bytes(bytes(1000))
    os.utime(tmp_path / "there", ns=(1, 10**18))
    assert [size_bytes(tmp_path / name) for name in ("there", "nowhere", "itself", "there/x")] == [1000, 0, 0, 0]
    assert [changed_ns(tmp_path / name) for name in ("there", "nowhere", "itself", "there/x")] == [10**18, 0, 0, 0]


def test_a_folder_is_made_or_refused_in_words(tmp_path: Path) -> None:
    for _ in range(2):
        assert writable_folder(f"{tmp_path}/a/b", "record to").is_dir()
    assert os.name != "posix" or stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    for name, said in (
        (f"{tmp_path}/file", "it is a file, not a folder"),
        (f"{tmp_path}/file/x", "Not a directory"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(FolderError) as error:
            writable_folder(name, "record to")
        assert str(error.value) == f"cannot record to {name}: {said}"
    with pytest.raises(FolderError, match=r"^cannot record to /proc: [\w ]+$"):  # is there, but takes no files
        writable_folder("/proc", "record to")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "file"]


def test_why_nothing_can_be_written_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error, silent = OSError(errno.EIO, "Input/output error"), RuntimeError("sound library: 7")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=999_999))
    assert why_not(error, tmp_path) == why_not(silent, tmp_path) == "no room left"
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert why_not(error, tmp_path) == "Input/output error"
    monkeypatch.undo()
    assert why_not(silent, tmp_path / "gone") == "it can no longer be written to"
