"""CURVE keys: who may listen to a daemon, and how a client knows that it is the right daemon.

A folder of keys, in the certificate format of `zmq.auth`:

    server.key            public key of the daemon; every client needs it
    server.key_secret     its secret key; stays here
    clients/NAME.key      public key of a client: it may listen, as long as this file is here
    NAME.key_secret       secret key of a client that was made here; move it to the client

A client can also make its own pair, and only its public key is copied to ``clients/``. Secret keys are of mode 0600.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from pathlib import Path
from typing import NamedTuple

import zmq
import zmq.auth
from zmq.utils import z85

from seldrt.config import SeldrtError
from seldrt.detection import check_name
from seldrt.files import replace, unused_name

SERVER = "server"
CLIENTS = "clients"
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)


class KeysError(SeldrtError):
    """A key, or a folder of keys, that cannot be used."""


class KeyPair(NamedTuple):
    """The two halves of a CURVE key, as Z85 text."""

    public: bytes
    secret: bytes


class ClientKeys(NamedTuple):
    """What a client needs: its own pair, and the public key of the daemon."""

    own: KeyPair
    server: bytes


def make_keys(folder: Path, name: str, overwrite: bool = False) -> list[Path]:
    """Makes the pair of a client, or of the daemon when the name is ``server``, and the daemon's when it has none.

    The files that are new; `KeysError` when one exists and ``overwrite`` is not set, or the folder is not writable.
    """
    check_name(name, "name of a key")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for part in (folder, folder / CLIENTS):  # one that was there before keeps the mode that somebody gave it
            part.mkdir(mode=0o700, exist_ok=True)
        made = [] if name == SERVER or (folder / f"{SERVER}.key_secret").exists() else _make(folder, SERVER, overwrite)
        return made + _make(folder, name, overwrite)
    except OSError as error:
        raise KeysError(f"{error.filename or folder}: {error.strerror or error}") from None


def load_server(folder: Path) -> KeyPair:
    """The daemon's own pair; `KeysError` when the folder is not complete, or everybody may write to it."""
    try:
        complete = (folder / f"{SERVER}.key_secret").exists()
        os.listdir(folder / CLIENTS if complete else folder)  # what may not be looked into, looks empty to a glob
    except (FileNotFoundError, ValueError):  # the latter of a name that no file can have
        complete = False
    except OSError as error:
        raise KeysError(f"{error.filename}: {error.strerror}; the daemon must be able to read its keys") from None
    if not complete:
        raise KeysError(f"{folder}: no folder of keys; make one with `seldrt keys new CLIENT --dir {folder}`")
    for part in (folder, folder / CLIENTS):
        if os.name == "posix" and part.stat().st_mode & stat.S_IWOTH:
            raise KeysError(f"{part}: others can let themselves in; do `chmod o-w {part}`")
    return load_pair(folder / f"{SERVER}.key_secret")


def load_allowed(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """The public keys of the clients that may listen now, by name, and which files are none, and why.

    A file that is no key lets nobody in, and keeps nobody else in or out. `OSError` when they cannot be read now, as
    when too many files are open: then nothing is known of them.
    """
    allowed: dict[str, bytes] = {}
    damaged: list[str] = []
    try:
        names = os.listdir(folder / CLIENTS)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        names = []
    for path in sorted(folder / CLIENTS / name for name in names if name.endswith(".key")):
        try:
            allowed[path.stem] = load_public(path)
        except KeysError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_MORE_FILES:
                raise error.__cause__ from None
            damaged.append(str(error))
    return allowed, damaged


def load_client(own: str | Path, server: str | Path) -> ClientKeys:
    """A client's secret file and the daemon's public one."""
    return ClientKeys(load_pair(own), load_public(server))


def load_public(path: str | Path) -> bytes:
    """The public key in a file."""
    return _load(path)[0]


def load_pair(path: str | Path) -> KeyPair:
    """The pair in a secret file, which no one else may be able to read."""
    public, secret = _load(path)
    if secret is None:
        raise KeysError(f"{path}: holds no secret key; give the file that ends with .key_secret")
    if os.name == "posix" and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise KeysError(f"{path}: others can read this secret key; do `chmod 600 {path}`")
    if zmq.curve_public(secret) != public:
        raise KeysError(f"{path}: its two halves do not belong together; make a new pair")
    return KeyPair(public, secret)


def _make(folder: Path, name: str, overwrite: bool) -> list[Path]:
    public = folder / f"{SERVER}.key" if name == SERVER else folder / CLIENTS / f"{name}.key"
    secret = folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists() and not overwrite:
            raise KeysError(f"{path}: exists; choose another name, or replace it with --overwrite")
    fresh = unused_name(folder / name)
    fresh.mkdir(mode=0o700)  # only its owner can look into it
    try:
        made = map(Path, zmq.auth.create_certificates(fresh, name))
        for file, path, mode in zip(made, (public, secret), (0o644, 0o600), strict=True):
            file.chmod(mode)
            replace(file, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return [public, secret]


def _load(path: str | Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError, IndexError) as error:  # the latter of a line without "="
        told = error.strerror if isinstance(error, OSError) else None
        raise KeysError(f"{path}: {told or 'missing, or no key file'}") from error
    for key in (public, secret):
        if key is not None and not _is_key(key):
            raise KeysError(f"{path}: not a CURVE key: it must be 40 characters of Z85")
    return public, secret


def _is_key(key: bytes) -> bool:
    try:
        return len(z85.decode(key)) == 32
    except (KeyError, ValueError, struct.error):
        return False
