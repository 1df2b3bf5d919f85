"""Messages of a daemon, for Python programs.

    from seldrt.client import Subscriber

    with Subscriber(kinds=["event"], source="garden", classes=["barking_dog"]) as subscriber:
        for message in subscriber:
            print(message.phase, message.azimuth_deg)

Nothing here is needed to listen: a SUB socket and any msgpack reader do; see docs/protocol.md and examples/.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import zmq

from seldrt.config import ConfigError
from seldrt.detection import KINDS, AnyMessage, WireError, check_name, decode, topic, topic_of
from seldrt.keys import ClientKeys, load_client
from seldrt.replies import REQUESTS, AnyReply, decode_reply

DEFAULT_URL = "tcp://127.0.0.1:5577"
HIGH_WATER_MARK = 100  # messages that wait here, besides those in the buffers of the operating system
A_TURN = 1000  # messages that are looked at before the clock is
WAKE_S = 0.5  # a signal that comes just before a wait does not end it, but is seen after so long
LARGEST = 1 << 20  # bytes of a frame; who sends a larger one is no daemon, and is not listened to any longer

Keys = tuple[str | Path, str | Path]  # files: one's own secret key, the daemon's public one


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
            self._socket = connect(self._context, zmq.SUB, url, keys)
            for prefix in topics:
                self._socket.subscribe(prefix)
        except Exception:
            self._context.destroy(0)
            raise

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
            if not self._comes(left_s) or left_s == 0:
                return None

    def receive_bytes(self, timeout_s: float | None = None) -> tuple[bytes, bytes] | None:
        """Topic and msgpack map of the next message as they came, unread and uncounted; None when the time is over."""
        if not self._comes(timeout_s):
            return None
        parts = self._socket.recv_multipart()
        if len(parts) == 2:
            return parts[0], parts[1]
        self._malformed(f"a message of {len(parts)} frames")
        return b"", b""

    def __iter__(self) -> Iterator[AnyMessage]:
        while (message := self.receive()) is not None:
            yield message

    def _comes(self, timeout_s: float | None) -> bool:
        """Whether something is there in time, for which it waits."""
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self._socket.poll(_ms(min(WAKE_S, max(end_s - time.monotonic(), 0.0)))):
            if time.monotonic() >= end_s:
                return False
        return True

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
        self._socket.close(0)
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
    with zmq.Context() as context, connect(context, zmq.REQ, url, keys) as requests:
        requests.send(request.encode("ascii"))
        if not requests.poll(_ms(timeout_s)):
            raise WireError(f"no answer from {url} in {timeout_s:g} s: is the daemon running with --control there?")
        return decode_reply(requests.recv())


def connect(context: zmq.Context, kind: int, url: str, keys: Keys | None) -> zmq.Socket:
    """A socket that connects to a daemon, and does so again whenever the connection breaks."""
    if url.startswith("tcp:") and url.endswith(":0"):  # libzmq takes it, and waits for ever
        raise WireError(f"cannot connect to {url!r}: which port?")
    pair: ClientKeys | None = load_client(*keys) if keys else None
    connected = context.socket(kind)
    for option, value in (
        (zmq.RCVHWM, HIGH_WATER_MARK),
        (zmq.LINGER, 0),
        (zmq.MAXMSGSIZE, LARGEST),
        (zmq.IPV6, int("[" in url)),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.HEARTBEAT_IVL, 2000),
        (zmq.HEARTBEAT_TIMEOUT, 6000),
        (zmq.RECONNECT_IVL_MAX, 2000),
    ):
        connected.setsockopt(option, value)
    if pair is not None:
        connected.curve_publickey, connected.curve_secretkey = pair.own
        connected.curve_serverkey = pair.server
    try:
        connected.connect(url)
    except zmq.ZMQError as error:
        connected.close(0)
        raise WireError(f"cannot connect to {url!r}: {error.strerror}; use tcp://HOST:PORT or ipc://PATH") from None
    return connected


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds * 1000)
