"""Messages of a daemon, for Python programs.

    from seldrt.client import Subscriber

    with Subscriber(kinds=["event"], source="garden", classes=["barking_dog"]) as subscriber:
        for message in subscriber:
            print(message.phase, message.azimuth_deg)

Nothing here is needed to listen: a SUB socket and any msgpack reader do; see docs/protocol.md and examples/.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Self

import zmq

from seldrt.config import ConfigError
from seldrt.connection import Connection, Keys
from seldrt.detection import KINDS, AnyMessage, WireError, check_name, decode, topic, topic_of
from seldrt.replies import REQUESTS, AnyReply, decode_reply

DEFAULT_URL = "tcp://127.0.0.1:5577"
A_TURN = 1000  # messages that are looked at before the clock is


class Subscriber:
    """Receives the messages of daemons at ``url``, in order, also across their restarts.

    ``kinds``
        of messages (`seldrt.detection.KINDS`); none given = all.
    ``source``, ``classes``
        only this microphone; of the events, only these classes. The daemon sends no others. Topics begin with the
        source, so classes need one.
    ``latest_only``
        when several messages of one topic wait, only the newest is handed out: for who shows the present.
    ``timeout_s``
        so long without a message ends an iteration, and `receive`; None = wait for ever.
    ``keys``
        files with one's own secret key and the daemon's public key, where the daemon asks for keys.

    `ConfigError` when these make no sense, `WireError` when ``url`` is no address, `KeysError` for unusable keys.

    What cannot be read is passed over, never raised: ``malformed`` counts it, ``problem`` says what was wrong with the
    last. ``lost`` counts messages that were sent and never came, because this program was too slow or the connection
    broke; ``missed`` is how many of them would have stood just before the message handed out last. ``restarts`` counts
    new starts of a daemon; they are not losses. Numbers of events are only watched where all classes are asked for.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        kinds: Sequence[str] = (),
        source: str = "",
        classes: Sequence[str] = (),
        latest_only: bool = False,
        timeout_s: float | None = None,
        keys: Keys | None = None,
    ) -> None:
        topics = subscriptions(kinds, source, classes)
        self._numbered = set(KINDS) - ({"event"} if classes else set())
        self._latest_only, self._timeout_s = latest_only, timeout_s
        self._waiting: dict[str, tuple[AnyMessage, int]] = {}  # by topic: the newest, and how many it missed
        self._next: dict[tuple[str, type], tuple[int, int]] = {}  # by source and kind: epoch, seq
        self._epochs: dict[str, int] = {}  # by source
        self.lost = self.missed = self.malformed = self.restarts = 0
        self.problem = ""
        self._context = zmq.Context()
        try:
            self._connection = Connection(self._context, zmq.SUB, url, keys)
            for prefix in topics:
                self._connection.socket.subscribe(prefix)
        except Exception:
            self._context.destroy(0)
            raise

    @property
    def trouble(self) -> str:
        """Why nothing comes: that no daemon answers there, or which keys are refused; "" while it is connected."""
        return self._connection.trouble

    def receive(self, timeout_s: float | None = None) -> AnyMessage | None:
        """The next message of a kind this version knows; None when none came in time.

        ``timeout_s``: instead of that of the subscriber; 0 = only what is there.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._latest_only:
                self._drain()
                found = self._waiting.pop(next(iter(self._waiting))) if self._waiting else None
            else:
                found = self._next_message()
            if found is not None:
                message, self.missed = found
                return message
            left_s = None if end_s is None else max(end_s - time.monotonic(), 0.0)
            if not self._connection.comes(left_s) or left_s == 0:
                return None

    def receive_bytes(self, timeout_s: float | None = None) -> tuple[bytes, bytes] | None:
        """Topic and msgpack map of the next message as they came, unread and uncounted; None when the time is over."""
        if not self._connection.comes(timeout_s):
            return None
        parts = self._connection.socket.recv_multipart()
        if len(parts) == 2:
            return parts[0], parts[1]
        self._malformed(f"a message of {len(parts)} frames")
        return b"", b""

    def __iter__(self) -> Iterator[AnyMessage]:
        while (message := self.receive()) is not None:
            yield message

    def _next_message(self) -> tuple[AnyMessage, int] | None:
        """A message that is already there, and how many are missing before it."""
        for _ in range(A_TURN):  # bounded, should nothing but nonsense come
            received = self.receive_bytes(0)
            if received is None:
                break
            try:
                message = decode(*received)
            except WireError as error:
                self._malformed(str(error))
            else:
                if message is not None:
                    return message, self._count(message)
        return None

    def _drain(self) -> None:
        for _ in range(A_TURN):  # bounded, should they come faster than this
            found = self._next_message()
            if found is None:
                return
            message, missed = found
            address = topic_of(message)
            passed_over = self._waiting.pop(address, (message, 0))[1]  # anew at the end: in the order of arrival
            self._waiting[address] = message, missed + passed_over

    def _malformed(self, why: str) -> None:
        self.malformed += 1
        self.problem = why

    def _count(self, message: AnyMessage) -> int:
        kind, key = str(type(message).__struct_config__.tag), (message.source, type(message))
        if self._epochs.setdefault(message.source, message.epoch) != message.epoch:
            self._epochs[message.source] = message.epoch
            self.restarts += 1
        epoch, expected = self._next.get(key, (message.epoch, message.seq))
        self._next[key] = message.epoch, message.seq + 1
        missing = max(message.seq - expected, 0) if epoch == message.epoch and kind in self._numbered else 0
        self.lost += missing
        return missing

    def close(self) -> None:
        self._connection.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def subscriptions(kinds: Sequence[str] = (), source: str = "", classes: Sequence[str] = ()) -> list[str]:
    """The prefixes of topics that bring this choice; see `Subscriber`."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind of message {kind!r} is unknown: use {', '.join(KINDS)}")
    if classes and not source:
        raise ConfigError("a choice of classes needs the source: topics begin with it")
    if classes and kinds and "event" not in kinds:
        raise ConfigError("a choice of classes is one of events: add 'event' to the kinds")
    for name, what in ((source, "source name"), *((name, "class name") for name in classes)):
        if name:
            check_name(name, what)
    if not kinds and not source:
        return [topic()]
    return [
        topic(kind, source, name)
        for kind in (kinds or KINDS)
        for name in ((classes or [""]) if kind == "event" else [""])
    ]


def ask(request: str, url: str, timeout_s: float = 5.0, keys: Keys | None = None) -> AnyReply:
    """The answer of a daemon's control socket to ``ping``, ``info`` or ``status``; `WireError` when none comes."""
    if request not in REQUESTS:
        raise ConfigError(f"request {request!r} is unknown: use {', '.join(REQUESTS)}")
    with zmq.Context() as context, closing(Connection(context, zmq.REQ, url, keys)) as connection:
        connection.socket.send(request.encode("ascii"))
        if not connection.comes(timeout_s):
            why = connection.trouble or "it is connected"
            raise WireError(f"no answer from {url} in {timeout_s:g} s: {why} (requests go to the address of --control)")
        return decode_reply(connection.socket.recv())
