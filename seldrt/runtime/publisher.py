"""Messages out over ZeroMQ.

An XPUB socket: a slow subscriber loses messages (and sees it by `seq`) and never holds the daemon up. It binds to
this machine only, unless told otherwise: what a microphone hears about the people around it is private.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import stat
import time
from collections import Counter
from contextlib import suppress

import zmq

from seldrt.detection import AnyMessage, WireError, encode, topic

HIGH_WATER_MARK = 100  # messages, a subscriber: 10 s of frames
LINGER_MS = 500


class Publisher:
    """A bound socket that numbers, dates and sends messages.

    ``url`` is ``tcp://HOST:PORT`` (port ``*`` takes any free one) or ``ipc://PATH``. `WireError` when the address is
    taken, is none, or can be reached from outside and ``insecure_bind`` is not set.
    """

    def __init__(self, url: str, insecure_bind: bool = False) -> None:
        _check(url, insecure_bind)
        self._path: str | None = None  # of the socket file that is ours
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        for option, value in (
            (zmq.SNDHWM, HIGH_WATER_MARK),
            (zmq.LINGER, LINGER_MS),
            (zmq.XPUB_VERBOSE, 1),  # tell of every subscriber, also of the second one of a topic
            (zmq.MAXMSGSIZE, 4096),  # of what comes in: subscriptions
            (zmq.IPV6, int("[" in url)),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.HEARTBEAT_IVL, 2000),
            (zmq.HEARTBEAT_TIMEOUT, 6000),
        ):
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(url)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(_bind_failed(url, error)) from None
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        path = self.endpoint.removeprefix("ipc://")
        if path != self.endpoint and not path.startswith("@"):
            os.chmod(path, 0o600)
            self._path = path
        self._seq: Counter[type] = Counter()
        self._epoch = secrets.randbits(53)  # also exact where all numbers are doubles

    def send(self, message: AnyMessage) -> None:
        """Numbers and dates the message, and sends it; never waits."""
        message.seq, message.epoch, message.t_pub_ns = self._seq[type(message)], self._epoch, time.time_ns()
        self._seq[type(message)] += 1
        self._socket.send_multipart(encode(message))

    def new_subscribers(self, source: str) -> bool:
        """Whether someone has newly subscribed to the status of ``source`` since the last call."""
        status, found = topic("status", source).encode(), False
        for _ in range(1000):
            try:
                notice = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            found |= notice[:1] == b"\x01" and status.startswith(notice[1:])
        return found

    def close(self) -> None:
        """Gives the last messages half a second to leave, and ends."""
        self._socket.close(LINGER_MS)
        self._context.term()
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)


def _check(url: str, insecure_bind: bool) -> None:
    """Refuses an address that is none, or not private."""
    transport, _, place = url.partition("://")
    if transport == "ipc" and place:
        _check_path(place)
        return
    host, _, port = place.rpartition(":")
    is_port = port == "*" or (port.isdecimal() and int(port) < 65536)
    if transport != "tcp" or not host or not is_port:
        raise WireError(f"cannot bind {url!r}: use tcp://HOST:PORT or ipc://PATH")
    if not (_is_loopback(host) or insecure_bind):
        raise WireError(
            f"refused to bind {url}: others on the network could listen, and there is no encryption yet; "
            "use tcp://127.0.0.1:PORT or ipc://PATH, or add --insecure-bind if you want exactly that"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_path(path: str) -> None:
    """ZeroMQ silently replaces whatever lies at the path: refuse a file, and a socket that someone serves."""
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise WireError(f"cannot bind ipc://{path}: a file of that name exists; choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise WireError(_in_use(f"ipc://{path}"))


def _bind_failed(url: str, error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return _in_use(url)
    return f"cannot bind {url}: {os.strerror(error.errno) if error.errno else error}"


def _in_use(url: str) -> str:
    return f"cannot bind {url}: in use; stop the other daemon or choose another --bind"
