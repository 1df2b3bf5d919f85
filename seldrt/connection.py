"""Connections to a daemon that outlive it, and say what is wrong while nothing comes."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from seldrt.detection import WireError
from seldrt.keys import ClientKeys, load_client

HIGH_WATER_MARK = 100  # messages that wait here, besides those in the buffers of the operating system
LARGEST = 1 << 20  # bytes of a frame; who sends a larger one is no daemon, and is cut off
WAKE_S = 0.5  # a signal that comes just before a wait does not end it, but is seen after so long
ANEW_S = 3.0  # after an end that libzmq makes no attempt after, which is how it gives up
# The operating system asks whether a silent peer is still there. The heartbeats of libzmq (4.3.5) must not: they abort
# whoever sends or answers them when his peer goes while more waits for him than his mark lets in.
KEEPALIVE = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 3),
    (zmq.TCP_KEEPALIVE_INTVL, 2),
    (zmq.TCP_KEEPALIVE_CNT, 5),
)
OPTIONS = (
    *KEEPALIVE,
    (zmq.RCVHWM, HIGH_WATER_MARK),
    (zmq.LINGER, 0),
    (zmq.MAXMSGSIZE, LARGEST),
    (zmq.CONNECT_TIMEOUT, 5000),  # an attempt that a dead link swallowed would last for two minutes
    (zmq.HANDSHAKE_IVL, 10_000),
    (zmq.RECONNECT_IVL_MAX, 2000),
)
MOST_PORT = 65535
SLOW_S = 8.0  # for a handshake
MUTE = "who answers there says nothing: is the daemon frozen?"
ABSENT = "no daemon answers there: is it running, and is the address right?"
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
ENDED = REFUSED | zmq.EVENT_DISCONNECTED
WATCHED = ENDED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED

Keys = tuple[str | Path, str | Path]  # files: one's own secret key, the daemon's public one

_numbers = itertools.count()


class Connection:
    """A socket of that ``kind`` that connects to ``url``, and does so again whenever it was cut off or refused.

    libzmq by itself gives up a connection that was refused, which those are that met another daemon, or one with other
    keys. `WireError` when ``url`` is no address, `KeysError` for unusable keys.

    ``url``
        ``tcp://HOST:PORT`` or ``ipc://PATH``
    ``keys``
        where the daemon asks for them
    ``trouble``
        why nothing comes from there, as far as it is known; "" while it is connected
    ``heard_s``
        when something came last, or else when it was made, on the monotonic clock
    """

    def __init__(self, context: zmq.Context, kind: int, url: str, keys: Keys | None) -> None:
        if url.startswith("tcp:") and url.endswith(":0"):  # libzmq takes it, and waits for ever
            raise WireError(f"cannot connect to {url!r}: which port?")
        port = re.fullmatch(r"tcp:.*:(\d+)", url)
        if port and not is_port(port[1]):  # nor does it say so of these
            raise WireError(f"cannot connect to {url!r}: a port is 1 to {MOST_PORT}")
        pair: ClientKeys | None = load_client(*keys) if keys else None
        self.url, self._keys = url, keys
        self.trouble = ABSENT
        self._answered_s: float | None = None  # since when somebody has, and there is no handshake yet
        self.heard_s = time.monotonic()
        self._ended_s: float | None = None  # since when an attempt is over and no other has begun
        self.socket = context.socket(kind)
        self._events = context.socket(zmq.PAIR)
        try:
            for option, value in (*OPTIONS, (zmq.IPV6, int("[" in url))):
                self.socket.setsockopt(option, value)
            if pair is not None:
                self.socket.curve_publickey, self.socket.curve_secretkey = pair.own
                self.socket.curve_serverkey = pair.server
            address = f"inproc://connection-{next(_numbers)}"
            self.socket.monitor(address, WATCHED)
            self._events.rcvhwm = 0  # libzmq would wait for whoever does not read them
            self._events.connect(address)
            self.socket.connect(url)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(f"cannot connect to {url!r}: {error.strerror}; use tcp://HOST:PORT or ipc://PATH") from None

    def receive(self) -> list[bytes]:
        """The frames of the next message, for which it waits; see `await_any`."""
        parts = self.socket.recv_multipart()
        self.heard_s = time.monotonic()
        return parts

    def silent_s(self) -> float:
        """Seconds since something came last; 0 while something waits to be received."""
        return 0.0 if self.socket.poll(0) else time.monotonic() - self.heard_s

    def attend(self) -> None:
        """Learns what became of the connection, and makes it anew when it was given up."""
        while self._events.poll(0):
            self._learn(recv_monitor_message(self._events)["event"])
        if self._ended_s is not None and time.monotonic() - self._ended_s >= ANEW_S:
            self._ended_s = None
            with suppress(zmq.ZMQError):  # there may be none any more
                self.socket.disconnect(self.url)
            self.socket.connect(self.url)

    def _learn(self, event: int) -> None:
        self._ended_s = time.monotonic() if event & ENDED else None
        if event == zmq.EVENT_CONNECTED:
            self._answered_s = time.monotonic()
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.trouble, self._answered_s = "", None
        elif event & REFUSED:
            self.trouble = self._refusal(event)
        elif event == zmq.EVENT_DISCONNECTED:
            if self.trouble in ("", ABSENT):
                self.trouble = self._refusal(event)
        elif event == zmq.EVENT_CONNECT_RETRIED:
            if self._answered_s is None:
                self.trouble = ABSENT
            self._answered_s = None

    def _refusal(self, event: int) -> str:
        if event == zmq.EVENT_DISCONNECTED and self._answered_s is None:
            return ABSENT
        if event != zmq.EVENT_HANDSHAKE_FAILED_AUTH and time.monotonic() - (self._answered_s or math.inf) > SLOW_S:
            return MUTE
        if not self._keys:
            return "only clients with a key may connect there, or it is not the address of --bind"
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"the daemon there does not know the key {self._keys[0]}"
        return f"the daemon there has another key than {self._keys[1]} or none, or it is not the address of --bind"

    def close(self) -> None:
        self.socket.close(0)
        self._events.close(0)


def is_port(text: str) -> bool:
    """Whether it is the number of a port, or 0, which takes any free one where something is bound."""
    return text.isdecimal() and len(text) <= len(str(MOST_PORT)) and int(text) <= MOST_PORT


def await_any(connections: Sequence[Connection], timeout_s: float | None) -> list[Connection]:
    """Those at which something waits to be received, as soon as there are any; none when the time is over.

    ``timeout_s``: None = for ever. Meanwhile all of them are attended to.
    """
    end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
    poller = zmq.Poller()
    for connection in connections:
        poller.register(connection.socket, zmq.POLLIN)
    while True:
        waiting = dict(poller.poll(math.ceil(1000 * min(WAKE_S, max(end_s - time.monotonic(), 0.0)))))
        for connection in connections:
            if connection.trouble or connection.socket not in waiting:
                connection.attend()
        if waiting or time.monotonic() >= end_s:
            return [connection for connection in connections if connection.socket in waiting]
