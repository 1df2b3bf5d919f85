"""Messages of a daemon, for Python programs: ``for message in Subscriber(): ...``.

Nothing here is needed to listen: a SUB socket and any msgpack reader do; see `seldrt.detection` for the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import zmq

from seldrt.detection import AnyMessage, Frame, WireError, decode, topic

DEFAULT_URL = "tcp://127.0.0.1:5577"


class Subscriber:
    """Receives messages, across restarts of the daemon; `WireError` when ``url`` is no address.

    ``topics`` are prefixes, see `seldrt.detection.topic`. ``lost`` counts frames that were sent and never came (the
    reader was too slow), ``malformed`` those that could not be read.
    """

    def __init__(self, url: str = DEFAULT_URL, topics: Sequence[str] = (topic(),)) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        for option, value in (
            (zmq.RCVHWM, 100),
            (zmq.LINGER, 0),
            (zmq.IPV6, int("[" in url)),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.HEARTBEAT_IVL, 2000),
            (zmq.HEARTBEAT_TIMEOUT, 6000),
            (zmq.RECONNECT_IVL_MAX, 2000),
        ):
            self._socket.setsockopt(option, value)
        self._next_frame: dict[str, tuple[int, int]] = {}  # by source: epoch and seq
        self.lost = self.malformed = 0
        for prefix in topics:
            self._socket.subscribe(prefix)
        try:
            self._socket.connect(url)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(f"cannot connect to {url!r}: {error.strerror}; use tcp://HOST:PORT or ipc://PATH") from None

    def receive_bytes(self, timeout_s: float | None = None) -> tuple[bytes, bytes] | None:
        """Topic and msgpack map of the next message as they came; None when the time is over."""
        if not self._socket.poll(None if timeout_s is None else round(timeout_s * 1000)):
            return None
        parts = self._socket.recv_multipart()
        if len(parts) != 2:
            self.malformed += 1
            return b"", b""
        return parts[0], parts[1]

    def receive(self, timeout_s: float | None = None) -> AnyMessage | None:
        """The next message of a kind this version knows; None when nothing, or nothing readable, came in time."""
        received = self.receive_bytes(timeout_s)
        if received is None:
            return None
        try:
            message = decode(*received)
        except WireError:
            self.malformed += 1
            return None
        if isinstance(message, Frame):
            self._count(message)
        return message

    def __iter__(self) -> Iterator[AnyMessage]:
        while True:
            message = self.receive()
            if message is not None:
                yield message

    def _count(self, frame: Frame) -> None:
        # Of frames only: who asks for some of the events sees their numbers jump with nothing lost.
        epoch, expected = self._next_frame.get(frame.source, (frame.epoch, frame.seq))
        if epoch == frame.epoch:
            self.lost += max(frame.seq - expected, 0)
        self._next_frame[frame.source] = (frame.epoch, frame.seq + 1)

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
