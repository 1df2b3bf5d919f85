"""Files that are there as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TRIES, PAUSE_S = 20 if os.name == "nt" else 1, 0.1  # to take the place of a file


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name to write a file under: it gets its own when the block ends, and is removed when that fails.

    The `OSError` of a full disk names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")  # two may write it at once
    try:
        yield partial
        _replace(partial, path)
    except OSError as error:
        if error.filename in (str(partial), partial) or (error.filename is None and error.errno in NO_ROOM):
            raise _naming(path, error) from None
        raise
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Before long work: `OSError` when no file ``path`` could be made. Folders on the way are."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _naming(path, error) from None


def _replace(partial: Path, path: Path) -> None:
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
