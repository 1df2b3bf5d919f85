"""The files that findings are written to."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from seldrt.config import SeldrtError
from seldrt.files import try_out

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]


class OutputError(SeldrtError):
    """A file that cannot be written."""


class TextFile:
    """Lines of text as they come, for a file that can be read meanwhile; the path ``-`` is stdout.

    The file is new and begins with ``heading``, or it is one that is there, to ``add`` to, on a new line. When that is
    moved away, deleted or emptied, as logrotate does, it is begun anew. `OutputError` when it cannot be opened, is
    written by another program that begins it anew, or would be begun anew while another adds to it; and for a full disk
    unless there may be room later: when it is added to.
    """

    def __init__(self, path: str, heading: bytes = b"", add: bool = False) -> None:
        self._path, self._heading = path, heading
        self._add, self.is_stdout = add, path == "-"
        self._open()
        self._follows = add and not self.is_stdout and self._file.seekable()
        with suppress(OutputError) if add and not self.is_stdout else nullcontext():
            self.write(b"")

    def _open(self) -> None:
        self._file = open_output(self._path)
        if not self.is_stdout and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            _claim(self._file, self._path, alone=not self._add)
            if not self._add:
                self._file.truncate(0)
                self._file.seek(0)
        self._has_begun = False  # what was written is in the file
        is_new = self.is_stdout or not self._file.seekable() or not self._file.tell()
        self._owed = self._heading if is_new else b"\n" if _is_torn(self._path) else b""

    def write(self, line: bytes) -> None:
        """`OutputError` when there is no room; what was refused is whole lines, and the next may find room again."""
        if self._follows and self._was_moved():
            self.close()
            self._open()
        elif self._follows and self._has_begun and not os.fstat(self._file.fileno()).st_size:
            self._has_begun, self._owed = False, self._heading
        try:
            self._file.write(self._owed + line)
            self._owed = b""
            self._file.flush()
            self._has_begun = True
        except BrokenPipeError:  # the reader of stdout has gone
            raise
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def _was_moved(self) -> bool:
        try:
            return self._file.closed or not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except OSError as error:  # a folder that cannot be looked into, say, is no reason to close what is open
            return error.errno in (errno.ENOENT, errno.ESTALE)

    def close(self) -> None:
        if not self.is_stdout:
            with suppress(OSError):  # what could not be written was told by then
                self._file.close()


def check_outputs(dcase: str | None, others: Sequence[str | None], read: Mapping[Path, str]) -> None:
    """`OutputError` when an output cannot be written, is another output, or is ``read``: files, and what they are."""
    taken = dict(read)
    if dcase == "-":
        raise OutputError("--dcase -: give the table a file name; it appears when the stream ends")
    if others.count("-") > 1:
        raise OutputError("-: stdout can take one output only; give the others file names")
    for output in (dcase, *others):
        if output is None or output == "-":
            continue
        path = Path(output)
        for other, what in taken.items():
            if _same(path, other):
                raise OutputError(f"{output}: the output is {what}; choose another name")
        if path.is_dir() or (path.exists() and not path.is_file() and output is dcase):
            raise OutputError(f"{output}: cannot be written: it is a folder or a device")
        try:
            if path.is_file():
                path.open("ab").close()
            elif not path.exists():
                try_out(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from None
        taken[path] = "also another output"


def open_output(path: str) -> BinaryIO:
    """A file to add bytes to; ``-`` is stdout; `OutputError` when it cannot be made."""
    if path == "-":
        return sys.stdout.buffer
    try:
        return open(path, "ab")
    except OSError as error:
        raise cannot_write(path, error) from None


def _claim(file: BinaryIO, path: str, alone: bool) -> None:
    """As long as it is open, the file is for this program ``alone``, or for all who add to it; `OutputError` else."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(f"{path}: another seldrt is writing it; choose another name") from None
    except OSError:  # there are file systems without
        pass


def cannot_write(path: str | Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def _is_torn(path: str) -> bool:
    """Whether a file ends in the middle of a line, as a full disk or a power cut leaves it."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
    return False


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b) or (a.exists() and b.exists() and a.samefile(b))
