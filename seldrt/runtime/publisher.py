"""Messages out over ZeroMQ, and answers to those who ask.

An XPUB socket: a slow subscriber loses messages (and sees it by `seq`) and never holds the daemon up. A ROUTER socket,
if wanted, for requests. Both are served in the daemon's thread, a bounded piece each turn.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import zmq

from seldrt.detection import AnyMessage, Status, WireError, encode, topic
from seldrt.replies import REQUESTS, AnyReply, Info, Pong, Refusal, encode_reply
from seldrt.runtime.sockets import Bound, Gate

HIGH_WATER_MARK = 100  # messages, a subscriber: 10 s of frames
A_TURN = 100  # subscriptions, and requests, that are looked at in a turn
MOST_SUBSCRIBED_BYTES = 1 << 18  # of topics, of all clients together; fifty that know every class need some 60,000


class Publisher:
    """A bound socket that numbers, dates and sends messages; `WireError` as for `seldrt.runtime.sockets.Bound`.

    With ``curve_keys``, a folder of keys (see `seldrt.keys`), only its clients get anything. ``control`` is the
    address of the control socket; "" = none. ``restarts`` counts how often all subscribers were cut off because they
    had subscribed to more than any honest ones do; they come back by themselves.
    """

    def __init__(
        self, url: str, insecure_bind: bool = False, control: str = "", curve_keys: str | Path | None = None
    ) -> None:
        self._insecure_bind = insecure_bind
        self._epoch = secrets.randbits(53)  # also exact where all numbers are doubles
        self._seq: Counter[type] = Counter()
        self._topics: Counter[bytes] = Counter()  # that are subscribed to, by all clients together
        self._subscribed_bytes = self.restarts = 0
        self._context = zmq.Context()
        self._gate: Gate | None = None
        self._bound: dict[int, Bound] = {}
        self._control: Control | None = None
        try:
            self._gate = Gate(self._context, Path(curve_keys)) if curve_keys else None
            self.endpoint = self._bind(zmq.XPUB, url, "--bind").endpoint
            if control:
                self._control = Control(self._bind(zmq.ROUTER, control, "--control").zmq, self._epoch)
        except Exception:
            self.close()
            raise

    def _bind(self, kind: int, url: str, flag: str) -> Bound:
        self._bound[kind] = Bound(
            *(self._context, kind, url, self._gate, self._insecure_bind, flag),
            (zmq.SNDHWM, HIGH_WATER_MARK),
            *([(zmq.XPUB_VERBOSER, 1)] if kind == zmq.XPUB else []),  # tell of every subscription, also of a second one
        )
        return self._bound[kind]

    @property
    def control_endpoint(self) -> str:
        """The address of the control socket; "" = there is none."""
        return self._bound[zmq.ROUTER].endpoint if self._control is not None else ""

    @property
    def _socket(self) -> zmq.Socket:
        return self._bound[zmq.XPUB].zmq

    def introduce(self, info: Info) -> None:
        """What the control socket answers to ``info``."""
        if self._control is not None:
            info.epoch = self._epoch
            self._control.answers[b"info"] = info

    def send(self, message: AnyMessage) -> None:
        """Numbers and dates the message, and sends it; never waits."""
        message.seq, message.epoch, message.t_pub_ns = self._seq[type(message)], self._epoch, time.time_ns()
        self._seq[type(message)] += 1
        if isinstance(message, Status) and self._control is not None:
            self._control.answers[b"status"] = message
        if zmq.XPUB in self._bound:
            self._socket.send_multipart(encode(message))

    def attend(self, source: str) -> bool:
        """Lets clients in and answers requests; whether someone has newly subscribed to the status of ``source``."""
        if self._gate is not None:
            self._gate.attend()
        if self._control is not None:
            self._control.attend()
        if zmq.XPUB not in self._bound:
            with suppress(WireError):  # the port is not free yet: next turn
                self._bind(zmq.XPUB, self.endpoint, "--bind")
            return False
        status, found = topic("status", source).encode(), False
        for _ in range(A_TURN):
            try:
                notice = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            wanted = notice[1:]
            if notice[:1] == b"\x01":
                self._topics[wanted] += 1
                self._subscribed_bytes += len(notice)
                found |= status.startswith(wanted)
            elif notice[:1] == b"\x00" and self._topics[wanted]:  # some end what they never began
                self._topics[wanted] -= 1
                self._subscribed_bytes -= len(notice)
            if not self._topics[wanted]:
                del self._topics[wanted]
        if self._subscribed_bytes > MOST_SUBSCRIBED_BYTES and self.endpoint.startswith(("tcp:", "ipc://@")):
            self._cut_off()
        return found

    def _cut_off(self) -> None:
        # libzmq keeps every subscription of every client, and cannot disconnect a single one. (Only the daemon's own
        # user can connect to a socket file.)
        self._bound.pop(zmq.XPUB).zmq.close(0)
        self._subscribed_bytes = 0
        self._topics.clear()
        self.restarts += 1

    def close(self) -> None:
        """Gives the last messages half a second to leave, and ends."""
        for bound in self._bound.values():
            bound.close()
        if self._gate is not None:
            self._gate.close()
        self._context.term()
        for bound in self._bound.values():
            bound.remove_file()


class Control:
    """Answers requests: a word in one frame, or behind an empty one, as REQ and DEALER sockets send it.

    A client that does not read its answers loses them.
    """

    def __init__(self, socket: zmq.Socket, epoch: int) -> None:
        self._socket, self._epoch = socket, epoch
        self.answers: dict[bytes, AnyReply] = {}  # those that are known by now

    def attend(self) -> None:
        """Answers what has come, a bounded number."""
        for _ in range(A_TURN):
            try:
                client, *request = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            delimiter = request[:1] if request[:1] == [b""] else []
            answer = encode_reply(self._answer(request[len(delimiter) :]))
            self._socket.send_multipart([client, *delimiter, answer], zmq.NOBLOCK)

    def _answer(self, words: list[bytes]) -> AnyReply:
        (word,) = words if len(words) == 1 else (b"",)
        if word == b"ping":
            return Pong(epoch=self._epoch, t_pub_ns=time.time_ns())
        if word in self.answers:
            return self.answers[word]
        known = word.decode("ascii", "replace") in REQUESTS
        why = "not known yet: ask again" if known else f"send one frame with one of {', '.join(REQUESTS)}"
        return Refusal(epoch=self._epoch, error=why)
