"""The HTTP of the page: files, clips and the stream of messages, for so many at a time; by https, if wished."""

from __future__ import annotations

import os
import queue
import socket
import socketserver
import ssl
import threading
import zlib
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from seldrt.detection import WireError
from seldrt.runtime.sockets import is_address, is_loopback

if TYPE_CHECKING:
    from seldrt.runtime.web import Viewer

SCRIPTS = ("page", "microphone", "alerts", "names", "storage")
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
NOT_FOUND = (HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
MOST_CONNECTIONS = 64
IDLE_S = 10.0  # without a whole request, the end of a connection
GONE_MS = 20_000  # without a word that what was sent has come, its end, too
ALIVE_S = 3.0  # without a message, a sign of life


def tls_context(certificate: str, key: str | None = None) -> ssl.SSLContext:
    """What https needs, from PEM files; the certificate's may hold the key. `WireError` where they cannot be used."""
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


class Server(ThreadingHTTPServer):
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
    server: Server
    timeout = IDLE_S
    server_version, sys_version = "seldrt", ""

    def setup(self) -> None:
        super().setup()
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_MS)
        self._deadline = threading.Timer(IDLE_S, self._give_up)  # the timeout begins anew with every byte
        self._deadline.daemon = True
        self._deadline.start()

    def parse_request(self) -> bool:
        complete = super().parse_request()
        self._deadline.cancel()
        return complete

    def finish(self) -> None:
        self._deadline.cancel()
        super().finish()

    def _give_up(self) -> None:
        with suppress(OSError):  # it has just ended
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)  # that of TLS is for who reads

    def do_GET(self) -> None:
        if not self.server.knows(_host(self.headers.get("Host", ""))):
            self._refuse()
        elif self.path == "/messages":
            self._stream()
        elif self.path.startswith("/clip?"):
            self._give_clip(parse_qs(urlsplit(self.path).query))
        elif self.path in FILES:
            file, kind = FILES[self.path]
            self._answer(HTTPStatus.OK, kind, files(__package__).joinpath(file).read_bytes())
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
        packs = "gzip" in self.headers.get("Accept-Encoding", "")  # a tenth, for slow links
        packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS) if packs else None
        if packer:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()

        def send(text: bytes) -> None:
            self.wfile.write(packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) if packer else text)
            self.wfile.flush()

        with self.server.viewer.watching() as (before, waiting):
            send(before)
            while self.server.viewer.is_watching(waiting):
                try:
                    message = waiting.get(timeout=ALIVE_S)
                except queue.Empty:
                    message = b"event: alive\ndata: {}\n\n"
                send(message)

    def log_message(self, *_: Any) -> None:
        """Nothing is told of who watches."""


def _host(header: str) -> str:
    """The name in a Host header, without its port; nothing where it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
