"""Messages of a daemon, for Python programs.

    from seldrt.client import Subscriber

    with Subscriber(kinds=["event"], source="garden", classes=["barking_dog"]) as subscriber:
        for message in subscriber:
            print(message.phase, message.azimuth_deg)

Nothing here is needed to listen: a SUB socket and any msgpack reader do; see docs/protocol.md and examples/.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self, cast

import zmq

from seldrt.config import ConfigError
from seldrt.connection import Connection, Keys, await_any
from seldrt.detection import KINDS, AnyMessage, WireError, check_name, decode, kind_of, topic, topic_of
from seldrt.replies import REQUESTS, AnyReply, decode_reply

DEFAULT_URL = "tcp://127.0.0.1:5577"
A_TURN = 1000  # messages that are looked at before the clock is
MOST_TOPICS = 1000  # that are watched at a time


class Subscriber:
    """Receives the messages of daemons, those of each in order, also across their restarts.

    ``url``
        of a daemon, or of several
    ``kinds``
        of messages (`seldrt.detection.KINDS`); none given = all.
    ``source``, ``classes``
        only this microphone; of the events, only these classes. With a source, the daemon sends no others.
    ``latest_only``
        when several messages of one topic wait, only the newest is handed out: for who shows the present.
    ``timeout_s``
        so long without a message ends an iteration, and `receive`; None = wait for ever.
    ``keys``
        files with one's own secret key and the daemon's public key, where daemons ask for keys; for several daemons
        with keys of their own, one pair of files for each ``url``, None for one without keys.

    `ConfigError` when these make no sense, `WireError` when ``url`` is no address, `KeysError` for unusable keys.

    What cannot be read is passed over, never raised: ``malformed`` counts it, ``problem`` says what was wrong with the
    last. ``lost`` counts messages that were sent and never came, because this program was too slow or the connection
    broke; ``missed`` is how many of them would have stood just before the message handed out last. ``restarts`` counts
    new starts of a daemon; they are not losses. Numbers of events are only watched where all classes are asked for.
    ``connections`` are those to each ``url``; ``url`` is where the message came from that was handed out last.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        kinds: Sequence[str] = (),
        source: str = "",
        classes: Sequence[str] = (),
        latest_only: bool = False,
        timeout_s: float | None = None,
        keys: Keys | Sequence[Keys | None] | None = None,
    ) -> None:
        if timeout_s is not None and not timeout_s >= 0:
            raise ConfigError(f"timeout_s is {timeout_s}: give seconds, or None to wait for ever")
        urls = [url] if isinstance(url, str) else list(url)
        pairs = keys_of_each(urls, keys)
        topics = subscriptions(kinds, source, classes)
        self._classes = {name.encode() for name in classes}
        self._numbered = set(KINDS) - ({"event"} if classes else set())
        self._latest_only, self._timeout_s = latest_only, timeout_s
        self._waiting: dict[tuple[str, str], tuple[AnyMessage, int]] = {}  # by url and topic: the newest, its missed
        self._handed: dict[tuple[str, str], int] = {}  # by url and topic: the turn in which it was handed out last
        self._turns = itertools.count()
        self._next: dict[tuple[str, str, type], tuple[int, int]] = {}  # by url, source and kind: epoch, seq
        self._epochs: dict[tuple[str, str], int] = {}  # by url and source
        self.lost = self.missed = self.malformed = self.restarts = 0
        self.problem = self.url = ""
        self.connections: list[Connection] = []
        self._context = zmq.Context()
        try:
            for each, pair in zip(urls, pairs, strict=True):
                self.connections.append(Connection(self._context, zmq.SUB, each, pair))
                for prefix in topics:
                    self.connections[-1].socket.subscribe(prefix)
        except Exception:
            self._context.destroy(0)
            raise

    @property
    def trouble(self) -> str:
        """Why nothing comes: that no daemon answers, or which keys are refused; "" while all are connected."""
        troubles = [(connection.url, connection.trouble) for connection in self.connections if connection.trouble]
        if len(self.connections) == 1:
            return troubles[0][1] if troubles else ""
        return "; ".join(f"{url}: {trouble}" for url, trouble in troubles)

    def receive(self, timeout_s: float | None = None) -> AnyMessage | None:
        """The next message of a kind this version knows; None when none came in time.

        ``timeout_s``: instead of that of the subscriber; 0 = only what is there.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._latest_only:
                self._drain()
                found = self._oldest_waiting()
            else:
                found = self._next_message()
            if found is not None:
                message, self.missed = found
                return message
            left_s = None if end_s is None else max(end_s - time.monotonic(), 0.0)
            if not await_any(self.connections, left_s) or left_s == 0:
                return None

    def receive_bytes(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """Topic and msgpack map of the next message as they came, unread and uncounted.

        None when the time is over, or very many of other classes came.
        """
        end_s = time.monotonic() + timeout_s
        for _ in range(A_TURN):  # bounded, should nothing but other classes come
            if not (waiting := await_any(self.connections, max(end_s - time.monotonic(), 0.0))):
                break
            connection = min(waiting, key=lambda each: each.heard_s)  # a loud one does not silence the others
            parts, self.url = connection.receive(), connection.url
            if len(parts) != 2:
                self._malformed(f"a message of {len(parts)} frames")
                return b"", b""
            if self._asked_for(parts[0]):
                return parts[0], parts[1]
        return None

    def _asked_for(self, topic: bytes) -> bool:
        """Whether a message is none of another class; topics begin with the source, so who asks for none gets all."""
        _, kind, _, class_, *_ = (topic + b"....").split(b".")
        return not self._classes or kind != b"event" or class_ in self._classes

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
            address = self.url, topic_of(message)
            passed_over = self._waiting.pop(address, (message, 0))[1]  # anew at the end: in the order of arrival
            self._waiting[address] = message, missed + passed_over
            forget_oldest(self._waiting)

    def _oldest_waiting(self) -> tuple[AnyMessage, int] | None:
        """The newest message of the topic that was not handed out for the longest time."""
        if not self._waiting:
            return None
        address = min(self._waiting, key=lambda each: self._handed.get(each, -1))
        self._handed.pop(address, None)
        self._handed[address] = next(self._turns)
        forget_oldest(self._handed)
        self.url = address[0]
        return self._waiting.pop(address)

    def _malformed(self, why: str) -> None:
        self.malformed += 1
        self.problem = why

    def _count(self, message: AnyMessage) -> int:
        source = self.url, message.source
        if self._epochs.setdefault(source, message.epoch) != message.epoch:
            self._epochs[source] = message.epoch
            self.restarts += 1
        key = (*source, type(message))
        epoch, expected = self._next.get(key, (message.epoch, message.seq))
        self._next[key] = message.epoch, message.seq + 1
        forget_oldest(self._next)
        forget_oldest(self._epochs)
        missing = max(message.seq - expected, 0) if epoch == message.epoch and kind_of(message) in self._numbered else 0
        self.lost += missing
        return missing

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_oldest(watched: dict[Any, Any]) -> None:
    """Forgets the first, should so many be watched as only who means no good has."""
    while len(watched) > MOST_TOPICS:
        del watched[next(iter(watched))]


def subscriptions(kinds: Sequence[str] = (), source: str = "", classes: Sequence[str] = ()) -> list[str]:
    """The prefixes of topics that bring this choice; see `Subscriber`."""
    if isinstance(kinds, str) or isinstance(classes, str):
        raise ConfigError(f"{kinds or classes!r} is one name: give a list of them")
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind of message {kind!r} is unknown: use {', '.join(KINDS)}")
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
        for name in ((classes or [""]) if kind == "event" and source else [""])
    ]


def keys_of_each(urls: Sequence[str], keys: Keys | Sequence[Keys | None] | None) -> Sequence[Keys | None]:
    """The keys for each daemon; `ConfigError` when there are no daemons, or not as many keys."""
    if not urls or len(set(urls)) < len(urls):
        raise ConfigError(f"which daemons? Give each address once, not {', '.join(urls) or 'none'}")
    if not keys:
        return [None] * len(urls)
    pairs = cast(Sequence[Keys | None], [keys] if isinstance(keys[0], str | Path) else keys)
    if any(pair and (isinstance(pair, str) or len(pair) != 2) for pair in pairs):
        raise ConfigError("keys are pairs of files: your own secret key, and the daemon's public one")
    if len(pairs) not in (1, len(urls)):
        raise ConfigError(f"{len(pairs)} keys for {len(urls)} daemons: give one for all, or one for each")
    return pairs if len(pairs) > 1 else list(pairs) * len(urls)


def ask(request: str, url: str, timeout_s: float = 5.0, keys: Keys | None = None) -> AnyReply:
    """The answer of a daemon's control socket to ``ping``, ``info`` or ``status``; `WireError` when none comes."""
    if request not in REQUESTS:
        raise ConfigError(f"request {request!r} is unknown: use {', '.join(REQUESTS)}")
    with zmq.Context() as context, closing(Connection(context, zmq.REQ, url, keys)) as connection:
        connection.socket.send(request.encode("ascii"))
        if not await_any([connection], timeout_s):
            why = connection.trouble or "it is connected"
            raise WireError(f"no answer from {url} in {timeout_s:g} s: {why} (requests go to the address of --control)")
        return decode_reply(connection.receive()[0])
