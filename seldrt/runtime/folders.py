"""Folders of bounded size, in which the oldest files make room for new ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from seldrt.config import SeldrtError
from seldrt.files import try_out

NO_ROOM_BYTES = 1_000_000
FUTURE_NS = 60_000_000_000  # dated so much later than now, files are of a clock that was wrong: the oldest


class FolderError(SeldrtError):
    """A folder that nothing can be kept in."""


def writable_folder(name: str, what: str) -> Path:
    """The folder, made for its owner only where it is missing.

    `FolderError` ("cannot ``what``") when nothing can be written to it.
    """
    folder = Path(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what people said may lie there
        try_out(folder)
    except FileExistsError:
        raise FolderError(f"cannot {what} {folder}: it is a file, not a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise FolderError(f"cannot {what} {folder}: {getattr(error, 'strerror', None) or error}") from None
    return folder


def size_bytes(path: Path) -> int:
    """Of a file; 0 when it was taken away, is a link to nowhere, or is not for us to see."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def changed_ns(path: Path) -> int:
    """When a file was changed last; 0 where `size_bytes` is."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def kept_bytes(files: Iterable[Path]) -> int:
    """What files take."""
    return sum(map(size_bytes, files))


def fitting_bytes(folder: Path, kept: int, most: int) -> int:
    """How many bytes may be kept in a folder that holds ``kept``: ``most``, or on a small disk nine tenths of its room.

    Room is what is free and what would be if nothing were kept; the last tenth is for others.
    """
    return min(most, (kept + shutil.disk_usage(folder).free) * 9 // 10)


def surplus(oldest_first: Iterable[Path], room_bytes: int) -> Iterator[Path]:
    """The oldest of these files that must go so that the rest fits."""
    sizes = {path: size_bytes(path) for path in oldest_first}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if total <= room_bytes:
            return
        total -= size
        yield path


def why_not(error: Exception, folder: Path) -> str:
    """Why writing there failed: the sound library only knows that it did."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < NO_ROOM_BYTES:
            return "no room left"
    return getattr(error, "strerror", None) or "it can no longer be written to"
