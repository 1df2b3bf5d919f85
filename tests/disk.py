"""Disks that are full, and files that others hold, as far as a test can have them."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seldrt import files


@contextmanager
def full_disk(most: int = 10_000) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: EFBIG where a full disk has ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def hold_files(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """So often no file takes another name, as on Windows while a virus scanner looks into it; three tries are made."""
    refusals, replace = [PermissionError(13, "in use")] * times, os.replace

    def refused(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(files, "TRIES", 3)
    monkeypatch.setattr(files, "PAUSE_S", 0.0)
