"""Files that are there as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seldrt.config import ConfigError, SeldrtError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TRIES, PAUSE_S = 20 if os.name == "nt" else 1, 0.1  # to take the place of a file


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name to write a file under: it gets its own when the block ends, and is removed when that fails.

    The `OSError` of a full disk names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unused_name(path)
    try:
        yield partial
        replace(partial, path)
    except OSError as error:
        if error.filename in (str(partial), partial) or (error.filename is None and error.errno in NO_ROOM):
            raise _naming(path, error) from None
        raise
    finally:
        partial.unlink(missing_ok=True)


def unused_name(path: Path) -> Path:
    """A hidden one beside ``path``, for what is to take its place when it is whole: two may write it at once."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


def try_out(folder: Path) -> None:
    """`OSError` when no file can be made there.

    `tempfile` would not end: on Windows it takes the refusal for a name that is taken, and has two billion others.
    """
    probe = unused_name(folder / "probe")
    probe.open("xb").close()
    with suppress(OSError):
        probe.unlink()


def check_writable(path: Path) -> None:
    """Before long work: `OSError` when no file ``path`` could be made. Folders on the way are."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        try_out(path.parent)
    except OSError as error:
        raise _naming(path, error) from None


def check_utf8(path: str | Path, kind: type[SeldrtError] = ConfigError) -> None:
    """An error of that ``kind`` for a name that neither the sound library nor JSON can take."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise kind(f"{str(path)!a}: the name is not UTF-8; rename it") from None


def replace(partial: Path, path: Path) -> None:
    """Patiently: on Windows it is refused while a virus scanner, say, looks into one of them."""
    for tries_left in reversed(range(TRIES)):
        try:
            partial.replace(path)
            return
        except PermissionError:
            if not tries_left:
                raise
            time.sleep(PAUSE_S)


def _naming(path: Path, error: OSError) -> OSError:
    return OSError(error.errno, error.strerror or str(error), str(path))
