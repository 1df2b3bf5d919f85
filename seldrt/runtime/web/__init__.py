"""A page for browsers: what daemons hear, where it is, and what was heard, while it happens.

The page comes whole from here and needs nothing from elsewhere. It gets the messages of docs/protocol.md as JSON, by
server-sent events. Who watches too slowly is dropped, and comes again by himself.
"""

from __future__ import annotations

import ipaddress
import json
import os
import queue
import socket
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from seldrt.detection import WireError
from seldrt.runtime.sockets import is_address, is_loopback

SCRIPTS = ("page", "microphone", "alerts", "names", "storage")
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
NOT_FOUND = (HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
MOST_CONNECTIONS = 64
WAITING = 200  # messages for one who watches; more, and he is too slow
PAST = 500  # messages that who comes later gets; the page has as many rows
IDLE_S = 10.0  # without a request, the end of a connection
ALIVE_S = 3.0  # without a message, a sign of life

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
        self._about = json.dumps({"clips": find_clip is not None}).encode()
        self._standing = b"[]"
        self._lock = threading.Lock()
        self._watching: set[queue.Queue[bytes]] = set()
        self._past: deque[bytes] = deque(maxlen=PAST)
        self._start, self._kept = uuid4().hex[:8], 0  # what is kept is numbered, so that a page knows what it missed
        try:
            self._server = _Server(self, host, port, not insecure_bind, tls)
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
            return [self.url(name, port) for name in (*_address_on_the_network(), socket.gethostname())]
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
            self._standing = json.dumps([{"text": text, "sources": names} for text, names in standing]).encode()
            self._send(b"event: standing\ndata: " + self._standing + b"\n\n")

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
        about = b"event: about\ndata: " + self._about + b"\n\n"
        with self._lock:
            standing = b"event: standing\ndata: " + self._standing + b"\n\n"
            before = b"".join((about, standing, *self._past, self._id(), b"event: now\ndata: {}\n\n"))
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


def tls_context(certificate: str, key: str | None = None) -> ssl.SSLContext:
    """What https needs, from PEM files; that of the certificate may hold the key. `WireError` if they do not do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # else OpenSSL asks for one
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        mismatch = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
        why = "the key is of another certificate" if mismatch else "it holds no certificate, or there is no key for it"
        if not isinstance(error, ssl.SSLError | ValueError):
            why = error.strerror or str(error)
        raise WireError(
            f"--tls-cert {certificate}{f' --tls-key {key}' if key else ''}: cannot be used: {why}; give PEM files of a "
            "certificate and of its private key, without a password"
        ) from None
    return context


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # on Windows two could serve at one address
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, viewer: Viewer, host: str, port: int, only_here: bool, tls: ssl.SSLContext | None) -> None:
        self.viewer, self.only_here = viewer, only_here
        self.free = threading.Semaphore(MOST_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Request)
        if tls:  # each connection greets in its own thread
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self.free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def server_bind(self) -> None:
        """Without asking a name server who we are, as `HTTPServer` does."""
        socketserver.TCPServer.server_bind(self)

    def knows(self, host: str) -> bool:
        """Whether a browser may ask by this name; by any, a page from elsewhere could whose name was pointed here.

        With https it could not: there is no certificate here for that name.
        """
        if self.viewer.scheme == "https":
            return True
        if self.only_here:
            return is_loopback(host)
        return is_address(host) or host in ("localhost", socket.gethostname().lower()) or host.endswith(".local")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no news."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = IDLE_S
    server_version, sys_version = "seldrt", ""

    def do_GET(self) -> None:
        if not self.server.knows(_host(self.headers.get("Host", ""))):
            self._refuse()
        elif self.path == "/messages":
            self._stream()
        elif self.path.startswith("/clip?"):
            self._give_clip(parse_qs(urlsplit(self.path).query))
        elif self.path in FILES:
            file, kind = FILES[self.path]
            self._answer(HTTPStatus.OK, kind, files(__name__).joinpath(file).read_bytes())
        else:
            self._answer(*NOT_FOUND)

    def _refuse(self) -> None:
        """Says which names will do, but of this machine no more than the address that was asked."""
        host, port = self.connection.getsockname()[:2]
        names = "localhost" if self.server.only_here else "the name of that computer, without a domain or with .local"
        url = self.server.viewer.url(host, port)
        text = f"there is no page under that name; ask for {url} or, instead of the numbers, {names}\n"
        self._answer(HTTPStatus.FORBIDDEN, "text/plain", text.encode())

    def _give_clip(self, asked: dict[str, list[str]]) -> None:
        find, content = self.server.viewer.find_clip, None
        with suppress(KeyError, ValueError, OSError):  # not asked for like this; just gone
            path = find and find(asked["class"][0], asked["source"][0], int(asked["onset_ms"][0]))
            content = path and path.read_bytes()
        if content:
            self._answer(HTTPStatus.OK, "audio/flac", content)
        else:
            self._answer(*NOT_FOUND)

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._begin(status, kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def _stream(self) -> None:
        self._begin(HTTPStatus.OK, "text/event-stream")
        self.end_headers()
        with self.server.viewer.watching() as (before, waiting):
            self.wfile.write(before)
            while self.server.viewer.is_watching(waiting):
                try:
                    message = waiting.get(timeout=ALIVE_S)
                except queue.Empty:
                    message = b"event: alive\ndata: {}\n\n"
                self.wfile.write(message)
                self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Nothing is told of who watches."""


def _host(header: str) -> str:
    """The name in a Host header, without its port; nothing where it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _address_on_the_network() -> list[str]:
    """The address that this machine has for others, if it has one: where what leaves it would come from."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address for examples; nothing is sent
        return [str(probe.getsockname()[0])]
    return []


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise WireError(f"cannot serve at {address!r}: use HOST:PORT, like 127.0.0.1:8600")
    return host.strip("[]"), int(port)
