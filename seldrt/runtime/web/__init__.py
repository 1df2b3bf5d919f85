"""A page for browsers: what daemons hear, where it is, and what was heard, while it happens.

The page comes whole from here and needs nothing from elsewhere. It gets the messages of docs/protocol.md as JSON, by
server-sent events. Who watches too slowly is dropped, and comes again by himself.
"""

from __future__ import annotations

import ipaddress
import json
import queue
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from seldrt.connection import is_port
from seldrt.detection import WireError
from seldrt.runtime.sockets import is_address, is_loopback
from seldrt.runtime.web.server import Server

WAITING = 200  # messages for one who watches; more, and he is too slow
SIOCGIFADDR = 0x8915  # of Linux: what address an interface has
PAST = 500  # messages that who comes later gets; the page has as many rows

FindClip = Callable[[str, str, int], Path | None]


class Viewer:
    """Serves the page at HOST:PORT (port 0 takes any free one) until closed.

    Others on the network reach it only with ``insecure_bind``. Browsers must ask for it by an address or a name of this
    machine. ``find_clip`` gives the sound file of an event by its class, source and onset (UNIX ms), for the page to
    play. With ``tls`` (see `tls_context`) it is served by https. `WireError` for an address that will not do.
    """

    def __init__(
        self,
        address: str,
        insecure_bind: bool = False,
        find_clip: FindClip | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        host, port = _split(address)
        if not (is_loopback(host) or insecure_bind):
            raise WireError(
                f"refused to serve at {address}: others on the network could watch; use 127.0.0.1:PORT, or add "
                "--insecure-bind if you want exactly that"
            )
        self.find_clip = find_clip
        self.scheme = "https" if tls else "http"
        self._about = b"event: about\ndata: " + json.dumps({"clips": find_clip is not None}).encode() + b"\n\n"
        self._lock = threading.Lock()
        self._watching: set[queue.Queue[bytes]] = set()
        self._past: deque[bytes] = deque(maxlen=PAST)
        self._start, self._kept = uuid4().hex[:8], 0  # what is kept is numbered, so that a page knows what it missed
        self.stand([])
        try:
            self._server = Server(self, host, port, not insecure_bind, tls)
        except (OSError, TypeError, UnicodeError) as error:  # the latter two of names that cannot be one of a host
            raise WireError(
                f"cannot serve at {address}: {getattr(error, 'strerror', None) or error}; choose another --bind"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()

    @property
    def urls(self) -> list[str]:
        """Where the page is, the surest first: telephones often cannot tell where a name is."""
        host, port = self._server.server_address[:2]
        if host in ("0.0.0.0", "::"):
            return [self.url(name, port) for name in (*_addresses_on_the_network(), socket.gethostname())]
        return [self.url(str(host), port)]

    def url(self, host: str, port: int) -> str:
        """The address of the page; an IPv4 address that a socket for both kinds gives is written as such."""
        if is_address(host):
            address = ipaddress.ip_address(host)
            host = str(getattr(address, "ipv4_mapped", None) or address)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"

    def show(self, message: bytes, keep: bool) -> None:
        """Sends a message, JSON in one line, to all who watch and, to ``keep``, to those who come later."""
        with self._lock:
            sent = b"data: " + message + b"\n\n"
            if keep:
                self._kept += 1
                sent = self._id() + sent
                self._past.append(b"event: past\n" + sent)
            self._send(sent)

    def stand(self, standing: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Tells all who watch, and who come later, which daemons are not heard: why, and the names of who was there."""
        with self._lock:
            told = json.dumps([{"text": text, "sources": names} for text, names in standing])
            self._standing = b"event: standing\ndata: " + told.encode() + b"\n\n"
            self._send(self._standing)

    def _id(self) -> bytes:
        return f"id: {self._start}:{self._kept}\n".encode()

    def _send(self, sent: bytes) -> None:
        for waiting in list(self._watching):
            try:
                waiting.put_nowait(sent)
            except queue.Full:
                self._watching.discard(waiting)

    @contextmanager
    def watching(self) -> Iterator[tuple[bytes, queue.Queue[bytes]]]:
        """What somebody who watches is sent: what was before, whose end is told, and what comes then."""
        waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        with self._lock:
            before = b"".join((self._about, self._standing, *self._past, self._id(), b"event: now\ndata: {}\n\n"))
            self._watching.add(waiting)
        try:
            yield before, waiting
        finally:
            with self._lock:
                self._watching.discard(waiting)

    def is_watching(self, waiting: queue.Queue[bytes]) -> bool:
        with self._lock:
            return waiting in self._watching

    def close(self) -> None:
        with self._lock:
            watching, self._watching = self._watching, set()
        for waiting in watching:
            with suppress(queue.Full):  # who has that much waiting for him sees the end by himself
                waiting.put_nowait(b": the end\n\n")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _addresses_on_the_network() -> list[str]:
    """The IPv4 address that this machine has for others: where what leaves it would come from.

    Where there is no way out, as in a network that this machine makes itself, those of its interfaces.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # an address for examples; nothing is sent
            return [str(probe.getsockname()[0])]
        return [address for address in _of_interfaces(probe) if not is_loopback(address)]


def _of_interfaces(any_socket: socket.socket) -> Iterator[str]:
    """Their IPv4 addresses, as far as they tell: only Linux does."""
    with suppress(ImportError):
        from fcntl import ioctl

        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                answer = ioctl(any_socket, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                yield socket.inet_ntoa(answer[20:24])


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not is_port(port):
        raise WireError(f"cannot serve at {address!r}: use HOST:PORT, like 127.0.0.1:8600")
    return host.strip("[]"), int(port)
