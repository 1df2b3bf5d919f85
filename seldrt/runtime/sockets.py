"""Sockets that others connect to: where they may be bound, who is let in, and how they bear what comes.

They bind to this machine only, unless every client has to show a key (CURVE), or it is asked for in so many words:
what a microphone hears about the people around it is private.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import zmq
from zmq.auth import Authenticator

from seldrt.connection import KEEPALIVE, is_port
from seldrt.detection import WireError
from seldrt.keys import KeyPair, load_allowed, load_server

LINGER_MS = 500
HANDSHAKES = 20  # let in, a turn
OPTIONS = (
    (zmq.LINGER, LINGER_MS),
    # What others send is taken a few messages at a time, so that a flood waits at its sender and not in our memory.
    # libzmq counts the credentials of a CURVE client as one that is never read. Whoever has more waiting, sends a
    # heartbeat of his own and goes, may end this process (see `KEEPALIVE`).
    (zmq.RCVHWM, 5),
    (zmq.SNDBUF, 1 << 15),  # bytes; what waits there, on a slow link, comes late and not lost
    (zmq.MAXMSGSIZE, 1024),
    *KEEPALIVE,
    (zmq.TCP_MAXRT, 30_000),  # ms without an acknowledgement: that client is no more
    (zmq.HANDSHAKE_IVL, 10_000),  # who connects and says nothing is put out; a bad link takes seconds
)


class Gate:
    """Lets in the clients whose public keys lie in a folder of keys, see `seldrt.keys`; `KeysError` when it is none.

    It answers in the daemon's thread, when `attend` is called. It must be made before the sockets that it guards are
    bound: libzmq lets everybody in where no one answers.
    """

    def __init__(self, context: zmq.Context, folder: Path) -> None:
        self.server: KeyPair = load_server(folder)
        self._folder = folder
        self._authenticator = Authenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=self)
        self._allowed: set[bytes] = set()

    def attend(self) -> None:
        """Answers those who knock; a key that was added to the folder, or taken away, counts from now on."""
        knocking = self._authenticator.zap_socket
        for turn in range(HANDSHAKES):
            if not knocking.poll(0):
                break
            if turn == 0:
                self._read_folder()
            answer = self._authenticator.handle_zap_message(knocking.recv_multipart())
            with suppress(StopIteration):  # a coroutine only in form: it waits for nothing
                answer.send(None)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether the client with this public key may come in; what the authenticator asks."""
        return key in self._allowed

    def _read_folder(self) -> None:
        with suppress(OSError):  # no files can be opened: strangers hold too many connections; who was allowed still is
            self._allowed = set(load_allowed(self._folder)[0].values())

    def close(self) -> None:
        self._authenticator.stop()


class Bound:
    """A bound ZeroMQ socket. ``url`` is ``tcp://HOST:PORT`` (port ``*`` takes any free one) or ``ipc://PATH``.

    `WireError` when the address is taken, is none, or can be reached from outside with neither a gate nor
    ``insecure_bind``; it names the ``flag`` that gave the address.
    """

    def __init__(
        self,
        context: zmq.Context,
        kind: int,
        url: str,
        gate: Gate | None,
        insecure_bind: bool,
        flag: str,
        *options: tuple[int, int],
    ) -> None:
        check_address(url, insecure_bind or gate is not None)
        if url.startswith("ipc://"):
            _check_path(url.removeprefix("ipc://"), flag)
        self._path: str | None = None  # of the socket file that is ours
        self.zmq = context.socket(kind)
        for option, value in (*OPTIONS, (zmq.IPV6, int("[" in url)), *options):
            self.zmq.setsockopt(option, value)
        if gate is not None:
            self.zmq.curve_server = True
            self.zmq.curve_publickey, self.zmq.curve_secretkey = gate.server
        try:
            with _for_the_owner_only() if url.startswith("ipc://") else nullcontext():
                self.zmq.bind(url)
        except zmq.ZMQError as error:
            self.zmq.close(0)
            raise WireError(_bind_failed(url, flag, error)) from None
        self.endpoint: str = self.zmq.getsockopt_string(zmq.LAST_ENDPOINT)
        path = self.endpoint.removeprefix("ipc://")
        if path != self.endpoint and not path.startswith("@"):
            self._path = path

    def close(self) -> None:
        """Ends it; the last messages have half a second to leave while the context ends."""
        self.zmq.close(LINGER_MS)

    def remove_file(self) -> None:
        """Clears a socket file away, when the context has ended and the file cannot be that of a successor."""
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)


@contextmanager
def _for_the_owner_only() -> Iterator[None]:
    """What is made meanwhile, by whatever thread, is a file for its owner only, from its first moment."""
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


def check_address(url: str, open_to_others: bool) -> None:
    """`WireError` for an address that is none or, unless it may be, what others can reach."""
    transport, _, place = url.partition("://")
    if transport == "ipc" and place and "\0" not in place:  # libzmq reads no further, and would replace another file
        if not zmq.has("ipc"):
            raise WireError(f"cannot bind {url}: this system has no ipc; use tcp://127.0.0.1:PORT")
        return
    host, _, port = place.rpartition(":")
    if transport != "tcp" or not host or not (port == "*" or is_port(port)):
        raise WireError(f"cannot bind {url!r}: use tcp://HOST:PORT or ipc://PATH")
    if not (is_loopback(host) or open_to_others):
        raise WireError(
            f"refused to bind {url}: others on the network could listen; use tcp://127.0.0.1:PORT or ipc://PATH, "
            "or --curve-keys (`seldrt keys new`), or add --insecure-bind if you want exactly that"
        )


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine, for itself alone."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def is_address(host: str) -> bool:
    """Whether it is an IP address, IPv6 with or without brackets."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _check_path(path: str, flag: str) -> None:
    """ZeroMQ silently replaces whatever lies at the path: refuse a file, and a socket that someone serves."""
    if path.startswith("@") or not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise WireError(f"cannot bind ipc://{path}: a file of that name exists; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) != errno.ECONNREFUSED:  # that of a dead daemon refuses
            raise WireError(_in_use(f"ipc://{path}", flag))


def _bind_failed(url: str, flag: str, error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return _in_use(url, flag)
    return f"cannot bind {url}: {os.strerror(error.errno) if error.errno else error}"


def _in_use(url: str, flag: str) -> str:
    return f"cannot bind {url}: in use; stop the other daemon or choose another {flag}"
