"""Keys on disk: made once, private, and checked before they are used."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import zmq
import zmq.auth

from seldrt.config import ConfigError
from seldrt.keys import KeysError, load_allowed, load_client, load_public, load_server, make_keys
from seldrt.runtime.sockets import Gate
from tests.disk import hold_files

ROOT = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_private_and_in_the_format_of_pyzmq(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    made = make_keys(folder, "laptop")
    assert {str(path.relative_to(folder)) for path in made} == {
        "server.key",
        "server.key_secret",
        "clients/laptop.key",
        "laptop.key_secret",
    }
    assert {path for path in folder.rglob("*") if path.is_file()} == set(made)
    assert mode(folder) == mode(folder / "clients") == 0o700
    assert {mode(path) for path in made if path.suffix == ".key_secret"} == {0o600}
    assert {mode(path) for path in made if path.suffix == ".key"} == {0o644}
    public, secret = zmq.auth.load_certificate(folder / "laptop.key_secret")
    assert secret is not None
    assert zmq.curve_public(secret) == public == load_public(folder / "clients" / "laptop.key")
    assert load_allowed(folder) == ({"laptop": public}, [])
    assert load_client(folder / "laptop.key_secret", folder / "server.key").server == load_server(folder).public


def test_nothing_is_replaced_unless_it_is_asked_for(tmp_path: Path) -> None:
    make_keys(tmp_path, "laptop")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key*")}
    with pytest.raises(KeysError, match="exists; choose another name, or replace it with --overwrite"):
        make_keys(tmp_path, "laptop")
    make_keys(tmp_path, "phone")
    assert {path: path.read_bytes() for path in before} == before
    make_keys(tmp_path, "laptop", overwrite=True)
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    assert changed == {"laptop.key", "laptop.key_secret"}
    with pytest.raises(KeysError, match="server"):
        make_keys(tmp_path, "server")


def test_the_key_of_a_client_that_made_its_own_pair_is_not_replaced(tmp_path: Path) -> None:
    make_keys(tmp_path, "laptop")
    (tmp_path / "laptop.key_secret").unlink()  # it is on the laptop only
    with pytest.raises(KeysError, match=r"clients/laptop\.key: exists"):
        make_keys(tmp_path, "laptop")
    (tmp_path / "server.key_secret").unlink()  # as on the laptop
    with pytest.raises(KeysError, match=r"server\.key: exists"):
        make_keys(tmp_path, "phone")


def test_a_secret_key_outlives_the_public_one_that_was_taken_out(tmp_path: Path) -> None:
    make_keys(tmp_path, "laptop")
    secret = (tmp_path / "laptop.key_secret").read_bytes()
    (tmp_path / "clients" / "laptop.key").unlink()
    with pytest.raises(KeysError, match=r"laptop\.key_secret: exists"):
        make_keys(tmp_path, "laptop")
    assert (tmp_path / "laptop.key_secret").read_bytes() == secret


def test_the_daemons_own_keys_can_be_made_alone(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "keys", "server")
    assert [path.name for path in made] == ["server.key", "server.key_secret"]
    assert load_allowed(tmp_path / "keys") == ({}, [])


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a.b", "a b"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name of a key"):
        make_keys(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    make_keys(tmp_path, "laptop")
    secret, server = tmp_path / "laptop.key_secret", tmp_path / "server.key"
    with pytest.raises(KeysError, match="no folder of keys; make one with `seldrt keys new"):
        load_server(tmp_path / "nothing")
    with pytest.raises(KeysError, match="no folder of keys"):
        load_server(Path("a\0b"))
    with pytest.raises(KeysError, match="missing, or no key file"):
        load_client(tmp_path / "nothing.key_secret", server)
    with pytest.raises(KeysError, match="holds no secret key"):
        load_client(server, server)
    for mode in (0o640, 0o604):
        secret.chmod(mode)
        with pytest.raises(KeysError, match="others can read this secret key; do `chmod 600"):
            load_client(secret, server)
    secret.chmod(0o600)
    text = secret.read_text()
    for broken in (
        "",
        "curve\n",
        'public-key: "abc"\n',
        "public-key",
        text.replace('secret-key = "', 'secret-key = "x'),
        f'public-key = "{"#" * 40}"\n',  # more than 32 bits to five letters
    ):
        secret.write_text(broken)
        with pytest.raises(KeysError):
            load_client(secret, server)
    other = zmq.curve_keypair()[1].decode()
    lines = [f'secret-key = "{other}"' if "secret-key" in line else line for line in text.splitlines()]
    secret.write_text("\n".join(lines))
    with pytest.raises(KeysError, match="do not belong together"):
        load_client(secret, server)
    (tmp_path / "clients" / "odd.key").write_text("hello")
    (tmp_path / "clients" / "README").write_text("hello")
    (tmp_path / "clients" / "phone.key_secret").write_text(text)  # put there by mistake
    allowed, damaged = load_allowed(tmp_path)
    assert list(allowed) == ["laptop"]
    assert damaged == [f"{tmp_path}/clients/odd.key: missing, or no key file"]
    (tmp_path / "clients" / "odd.key").write_text("public-key")  # half a file
    assert load_allowed(tmp_path) == (allowed, damaged)
    assert load_server(tmp_path)  # the daemon comes back all the same


def test_a_key_that_a_virus_scanner_holds_gets_its_place_or_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_files(monkeypatch, times=2)
    made = make_keys(tmp_path, "server")
    hold_files(monkeypatch, times=3)
    with pytest.raises(KeysError, match="in use"):
        make_keys(tmp_path, "laptop")
    assert sorted(tmp_path.iterdir()) == sorted([*made, tmp_path / "clients"])


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_keys(tmp_path, "laptop")
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "laptop.key_secret") == 0o600


def test_a_broken_file_beside_the_keys_lets_nobody_in_who_was_taken_out(tmp_path: Path, context: zmq.Context) -> None:
    make_keys(tmp_path, "alice")
    make_keys(tmp_path, "bob")
    gate = Gate(context, tmp_path)
    alice, bob = (tmp_path / "clients" / f"{name}.key" for name in ("alice", "bob"))
    keys = [load_public(path) for path in (alice, bob)]
    gate._read_folder()
    assert [gate.callback("", key) for key in keys] == [True, True]
    (tmp_path / "clients" / "note.key").write_text("half a key")
    alice.unlink()
    gate._read_folder()
    assert [gate.callback("", key) for key in keys] == [False, True]
    gate.close()


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    make_keys(tmp_path, "laptop")
    for part in (tmp_path, tmp_path / "clients"):
        part.chmod(0o777)
        with pytest.raises(KeysError, match=f"^{part}: others can let themselves in; do `chmod o-w {part}`$"):
            load_server(tmp_path)
        part.chmod(0o775)
        assert load_server(tmp_path)


def test_while_no_more_files_can_be_opened_who_was_allowed_still_is(tmp_path: Path, context: zmq.Context) -> None:
    make_keys(tmp_path, "laptop")
    key = load_public(tmp_path / "clients" / "laptop.key")
    gate = Gate(context, tmp_path)
    gate._read_folder()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        gate._read_folder()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert gate.callback("", key)
    (tmp_path / "clients" / "laptop.key").unlink()
    gate._read_folder()
    assert not gate.callback("", key)
    gate.close()


def test_a_key_for_which_there_is_no_open_file_left_is_not_taken_for_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path, "laptop")

    def no_more(_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("zmq.auth.load_certificate", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        load_allowed(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOTDIR, errno.EACCES])
def test_where_no_key_can_be_seen_nobody_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    make_keys(tmp_path, "laptop")
    key = tmp_path / "clients" / "laptop.key"
    refusal = OSError(error, os.strerror(error))
    with monkeypatch.context() as one:
        one.setattr("zmq.auth.load_certificate", Mock(side_effect=refusal))
        assert load_allowed(tmp_path) == ({}, [f"{key}: {refusal.strerror}"])
    monkeypatch.setattr("os.listdir", Mock(side_effect=refusal))
    assert load_allowed(tmp_path) == ({}, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
def test_keys_of_somebody_else_are_told_in_one_line(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", "laptop")
    os.seteuid(65534)
    try:
        with pytest.raises(KeysError, match="Permission denied; the daemon must be able to read its keys"):
            load_server(tmp_path / "keys")
    finally:
        os.seteuid(0)


def seldrt(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seldrt", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    done = seldrt("keys", "new", "laptop", "--dir", folder)
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == sorted(str(path) for path in folder.rglob("*.key*"))
    assert "--key laptop.key_secret --server-key server.key" in done.stderr
    done = seldrt("keys", "list", "--dir", folder)
    assert done.stdout == f"laptop  {load_public(folder / 'clients' / 'laptop.key').decode()}\n"
    for arguments, told in (
        (("keys", "new", "laptop", "--dir", folder), "--overwrite"),
        (("keys", "list", "--dir", tmp_path), "no folder of keys"),
        (("listen", "--key", folder / "laptop.key_secret"), "belong together"),
        (("listen", "--connect", "ipc://x", "--key", "a", "--server-key", "none", "--server-key", "b"), "2 keys for 1"),
        (
            ("listen", "--connect", "nonsense", "--key", "nowhere", "--server-key", "none"),
            "cannot connect to 'nonsense'",
        ),
        (("listen", "--key", folder / "server.key", "--server-key", folder / "server.key"), "holds no secret key"),
        (("replay", "--demo", "--bind", "tcp://127.0.0.1:*", "--curve-keys", tmp_path), "no folder of keys"),
    ):
        done = seldrt(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert told in done.stderr
