"""The page for browsers: real processes, connections that are slow, strange or too many, and a real browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgpack
import numpy as np
import pytest
import soundfile
import zmq

from seldrt.description import describe
from seldrt.detection import WireError
from seldrt.models import shipped
from seldrt.runtime import web
from seldrt.runtime.clip_folder import find_clip
from seldrt.runtime.health import Health
from seldrt.runtime.sinks import EventTable, JsonLines
from seldrt.runtime.sockets import is_address, is_loopback
from seldrt.runtime.web import Viewer, server
from seldrt.spatial import unit_vector
from tests.processes import SMALL, lacking, seldrt, start, until
from tests.seldrt.energy_pipeline import SAMPLE_RATE, two_pianos

SCRIPT = Path(web.__file__).with_name("page.js")
MICROPHONE, NAMES, STYLE = (SCRIPT.with_name(name) for name in ("microphone.js", "names.js", "page.css"))


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with closing(Viewer("127.0.0.1:0")) as viewer:
        yield viewer


def get(url: str, path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    with closing(connection):
        connection.request("GET", path, headers={"Host": host} if host is not None else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


class Watching:
    """Somebody who watches, and reads when asked to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.about: dict[str, object] = {}  # what the server has
        self.standing: list[dict[str, object]] = []  # what is wrong
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        self.socket.sendall(f"GET /messages HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        self.lines = self.socket.makefile("rb")
        assert b" 200 " in self.lines.readline()
        while self.lines.readline().strip():
            pass

    def message(self, standing: bool = False) -> tuple[str, dict[str, object]]:
        """The next message, and the kind of event that it is to a browser; or, with ``standing``, when that came."""
        kind = "message"
        while True:
            line = self.lines.readline()
            assert line, "the stream has ended"
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                kind = value
            if name != "data":
                continue
            if kind in ("now", "alive"):
                kind = "message"
            elif kind == "about":
                self.about, kind = json.loads(value), "message"
            elif kind == "standing":
                self.standing, kind = json.loads(value), "message"
                if standing:
                    return "standing", {}
            else:
                return kind, json.loads(value)

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def by_text(standing: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(standing, key=lambda each: str(each["text"]))


def until_it_stands(watching: Watching, standing: list[dict[str, object]]) -> None:
    """Reads until this is wrong and nothing else; a stream that says nothing for 20 s is an error."""
    while by_text(watching.standing) != by_text(standing):
        watching.message(standing=True)


def test_a_browser_gets_what_a_daemon_hears(tmp_path: Path) -> None:
    url, recording = f"ipc://{tmp_path}/s", tmp_path / "garden.wav"
    soundfile.write(recording, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    process = start("view", "--connect", url, "--bind", "127.0.0.1:0")
    assert process.stderr is not None
    (page,) = re.findall(r"open (http://127\.0\.0\.1:\d+/) in a browser", process.stderr.readline())
    watching = Watching(page)
    daemon = start("replay", recording, "--bind", url, program=SMALL)
    messages = [watching.message()[1]]
    assert watching.about == {"clips": False}
    while (messages[-1]["type"], messages[-1].get("state")) != ("status", "ended"):
        messages.append(watching.message()[1])
    assert daemon.wait(20) == 0
    offsets = [m for m in messages if m.get("phase") == "offset"]
    assert [(m["class"], m["source"], round(float(str(m["azimuth_deg"])))) for m in offsets] == [
        ("piano", "garden", 90),
        ("piano", "garden", -90),
    ]
    assert sum(m["type"] == "frame" for m in messages) > 20
    late = Watching(page)
    past = [late.message() for _ in range(4)]
    assert [(kind, m["phase"], m["event_id"]) for kind, m in past] == [
        ("past", phase, event) for event in (0, 1) for phase in ("onset", "offset")
    ]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    for somebody in (watching, late):
        somebody.close()


def test_what_is_no_message_or_too_large_does_not_come_to_the_page(tmp_path: Path, context: zmq.Context) -> None:
    url = f"ipc://{tmp_path}/s"
    daemon = context.socket(zmq.XPUB)
    daemon.bind(url)
    process = start("view", "--connect", url, "--bind", "127.0.0.1:0")
    assert process.stderr is not None
    (page,) = re.findall(r"open (http://127\.0\.0\.1:\d+/) in a browser", process.stderr.readline())
    watching = Watching(page)
    watching.message(standing=True)  # what comes from now on comes to it
    frame = {"v": 1, "type": "frame", "source": "h3", "seq": 0, "epoch": 1, "t_capture_ns": 1, "t_pub_ns": 1}
    frame |= {"sample": 0, "frame_ms": 100, "detections": []}
    found = {"class": "piano", "class_id": 0, "track": 0, "azimuth_deg": 0.0, "elevation_deg": 0.0, "confidence": 0.5}
    found |= {"onset_ns": 1, "spread_deg": None}
    daemon.rcvtimeo = 20_000
    while daemon.recv() != b"\x01seld1.frame.":
        pass
    for topic, message in (
        (b"seld1.frame.h3.", frame | {"source": {"toString": 1}}),
        (b"seld1.frame.other.", frame),
        (b"seld1.frame.h3.", [frame]),
        (b"seld1.frame.h3.", frame | {"detections": [found] * 1000}),
        (b"seld1.frame.h3.", frame | {"sample": 7, "unknown": "<b>"}),
    ):
        daemon.send_multipart([topic, msgpack.packb(message)])
    kind, message = watching.message()
    assert (kind, message["type"], message["sample"]) == ("message", "frame", 7)
    watching.close()
    daemon.close(0)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_the_page_may_neither_talk_to_others_nor_stand_in_their_pages(viewer: Viewer) -> None:
    headers = get(viewer.urls[0], "/")[1]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"  # nor may others show or play what is here
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    policy = headers["Content-Security-Policy"]
    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == {
        **dict.fromkeys(("script-src", "style-src", "connect-src", "img-src"), "'self'"),
        **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
        "media-src": "blob:",
    }


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(viewer: Viewer) -> None:
    status, headers, page = get(viewer.urls[0], "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "media-src blob:" in headers["Content-Security-Policy"]  # how the page plays clips
    wanted = re.findall(r'(?:src|href)="([^"]*)"', page.decode())
    assert set(wanted) == {"icon.svg", "page.css", "page.js"}
    for name in (*wanted, *re.findall(r'from "\./(.*)"', SCRIPT.read_text())):
        status, headers, content = get(viewer.urls[0], f"/{name}")
        assert (status, content) == (200, SCRIPT.with_name(name).read_bytes())
        kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        assert headers["Content-Type"].startswith(kinds[name.split(".")[1]])
        assert not re.search(rb"https?:", content.replace(b"http://www.w3.org/2000/svg", b""))


def test_what_changes_is_read_out_and_what_heads_a_column_says_so() -> None:
    text = SCRIPT.with_name("page.html").read_text()
    for changes in ('id="alarm" role="alert"', 'id="state" role="status"', 'id="spoken" aria-live="polite"'):
        assert changes in text
    assert re.findall("<th(?! scope|ead)", text) == []


@pytest.mark.parametrize("path", ["/x", "/../web/__init__.py", "/__init__.py", "/%2e%2e/page.js", "/page.js?"])
def test_there_is_nothing_else(viewer: Viewer, path: str) -> None:
    assert get(viewer.urls[0], path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "localhost.evil.example", "[", ""]
)
def test_a_strange_name_gets_nothing(viewer: Viewer, host: str) -> None:
    for path in ("/", "/messages"):
        status, _, content = get(viewer.urls[0], path, host)
        assert status == 403
        assert f"ask for {viewer.urls[0]} or, instead of the numbers, localhost\n" in content.decode()


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8600"])
def test_the_names_of_this_machine_are_good(viewer: Viewer, host: str) -> None:
    assert get(viewer.urls[0], "/", host)[0] == 200


ONSET_MS = 1_780_315_200_250  # 2026-06-01T12:00:00.25Z, by `date -d`


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    day = tmp_path / "piano" / "roof_20260601"
    day.mkdir(parents=True)
    for name in ("115959.999Z_az+000_el+00_p0.50", "120000.250Z_az-012_el+04_p0.88", "120000.900Z_az-012_el+04_p0.88"):
        (day / f"{name}.flac").write_text(name)
    (day / ".120000.250Z_az-012_el+04_p0.88.flac.0123456789ab.part").write_text("half")
    (tmp_path / "secret.flac").write_text("secret")
    return tmp_path


def test_who_comes_later_learns_which_daemons_are_not_heard(tmp_path: Path) -> None:
    urls = [f"ipc://{tmp_path}/{name}" for name in ("roof", "nowhere")]
    recording = tmp_path / "garden.wav"
    soundfile.write(recording, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    process = start("view", "--connect", urls[0], "--connect", urls[1], "--bind", "127.0.0.1:0")
    assert process.stderr is not None
    (page,) = re.findall(r"open (http://127\.0\.0\.1:\d+/) in a browser", process.stderr.readline())
    absent = f"nothing heard from {urls[1]} for 3 s: no daemon answers there: is it running, and is the address right?"
    assert absent in {process.stderr.readline().strip() for _ in range(2)}
    lacking, silent = ({"text": absent.replace(urls[1], url), "sources": []} for url in (urls[1], urls[0]))
    watching = Watching(page)
    until_it_stands(watching, [lacking, silent])
    daemon = start("replay", recording, "--bind", urls[0], "--loop", "--quiet", program=SMALL)
    until_it_stands(watching, [lacking])
    daemon.kill()
    gone = {**silent, "sources": ["garden"]}
    until_it_stands(watching, [lacking, gone])
    late = Watching(page)
    late.message(standing=True)
    assert by_text(late.standing) == by_text([gone, lacking])
    for each in (watching, late):
        each.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_a_daemon_that_is_not_heard_is_trouble_on_the_page() -> None:
    """Unless a microphone of it is there, which tells of itself, or has ended as somebody wished."""
    answer = in_page("""
        const answer = [], standing = (...all) => source.standing({ data: JSON.stringify(all) });
        const wrong = () => element_("state").classList.contains("trouble");
        const look = () => answer.push([says("state"), wrong(), rang.splice(0)]);
        last(2000, status());
        standing({ text: "nothing heard from b", sources: ["h4"] }, { text: "nothing heard from a", sources: ["h3"] });
        last(10000, status());
        look();
        standing();
        last(2000, status());
        look();
        live(status().replace("h3", "h4"));
        live(status({ state: "ended" }).replace("h3", "h4"));
        standing({ text: "nothing heard from b", sources: ["h4"] });
        last(20000, status());
        look();
    """)
    assert answer == [
        ["nothing heard from b", True, ["alerts may fail: nothing heard from b"]],
        ["listening", False, []],
        ["listening", False, []],
    ]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of localhost, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    folder = tmp_path_factory.mktemp("tls")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names)
    subprocess.run([*new, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("in_one_file", [False, True])
def test_the_page_comes_by_https(certificate: tuple[Path, Path], tmp_path: Path, in_one_file: bool) -> None:
    """To who trusts the certificate; who says nothing, or no https, keeps nobody else waiting."""
    both = tmp_path / "both.pem"
    both.write_text("".join(path.read_text() for path in certificate))
    files = ["--tls-cert", both] if in_one_file else ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
    process = start("view", "--connect", f"ipc://{tmp_path}/s", "--bind", "127.0.0.1:0", *files)
    assert process.stderr is not None
    ((url, port),) = re.findall(r"open (https://127\.0\.0\.1:(\d+)/) in a browser", process.stderr.readline())
    with (
        socket.create_connection(("127.0.0.1", int(port)), timeout=20) as silent,
        closing(socket.create_connection(("127.0.0.1", int(port)), timeout=20)) as plain,
    ):
        assert silent.fileno() > 0
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        named = urllib.request.Request(
            url, headers={"Host": "garden.example"}
        )  # who has that certificate may be called so
        with urllib.request.urlopen(named, timeout=5, context=trusting) as answer:
            assert answer.read() == SCRIPT.with_name("page.html").read_bytes()
        assert not plain.recv(100).startswith(b"HTTP")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_a_certificate_that_is_none_is_refused(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    locked = tmp_path / "locked.pem"
    lock = ["openssl", "rsa", "-aes128", "-passout", "pass:secret", "-in", certificate[1], "-out", locked]
    subprocess.run(lock, check=True, capture_output=True)
    wrong = [(tmp_path / "none.pem",), (tmp_path / "a.pem",), (certificate[0],), (certificate[0], locked)]
    for cert, *key in wrong:
        files = ["--tls-cert", cert, *(["--tls-key", key[0]] if key else [])]
        code, _, errors = seldrt("view", "--bind", "127.0.0.1:0", *files)
        assert (code, len(errors.splitlines())) == (2, 1), errors
        assert f"--tls-cert {cert}" in errors
        assert "give PEM files of a certificate and of its private key" in errors
    assert "give --tls-cert, too" in seldrt("view", "--tls-key", certificate[1])[2]


def test_a_clip_is_found_by_what_its_message_says(clips: Path) -> None:
    with closing(Viewer("127.0.0.1:0", find_clip=partial(find_clip, clips))) as viewer:
        watching = Watching(viewer.urls[0])
        viewer.show(b"{}", keep=True)
        watching.message()
        assert watching.about == {"clips": True}
        watching.close()

        def clip(class_: str = "piano", source: str = "roof", onset_ms: object = ONSET_MS) -> tuple[int, bytes]:
            status, headers, content = get(viewer.urls[0], f"/clip?class={class_}&source={source}&onset_ms={onset_ms}")
            assert headers["Content-Type"] == ("audio/flac" if status == 200 else "text/plain")
            return status, content

        found = (200, b"120000.250Z_az-012_el+04_p0.88")
        assert clip() == clip(onset_ms=ONSET_MS - 40) == found  # a clock that drifted
        assert clip(onset_ms=ONSET_MS - 250) == (200, b"115959.999Z_az+000_el+00_p0.50")
        for other in (
            *(
                {"class_": "alarm"},
                {"source": "h3"},
                {"source": "roof_20260601"},
                {"onset_ms": ONSET_MS + 100},
            ),
            *({"class_": ".."}, {"class_": "%2e%2e/x"}, {"class_": ""}, {"source": "../../secret"}, {"source": "%00"}),
            *({"class_": "../" + clips.name + "/piano"}, {"class_": "piano/../piano"}, {"source": "../piano/roof"}),
            *({"onset_ms": "x"}, {"onset_ms": 10**30}, {"onset_ms": -(10**20)}, {"onset_ms": ""}),
        ):
            assert clip(**other) == (404, b"not found\n")
        for path in ("/clip", "/clip?", "/clip?class=piano", "/clips"):
            assert get(viewer.urls[0], path)[0] == 404
        assert get(viewer.urls[0], f"/clip?class=piano&source=roof&onset_ms={ONSET_MS}", "evil.example")[0] == 403
        assert headers_of(viewer)["Cross-Origin-Resource-Policy"] == "same-origin"
        (path,) = clips.rglob("120000.250Z*")
        path.unlink()
        assert clip()[0] == 404


def test_a_clip_that_goes_while_it_is_asked_for_is_none(tmp_path: Path) -> None:
    with closing(Viewer("127.0.0.1:0", find_clip=lambda *_: tmp_path / "gone.flac")) as viewer:
        assert get(viewer.urls[0], "/clip?class=piano&source=roof&onset_ms=1")[0] == 404


def headers_of(viewer: Viewer) -> dict[str, str]:
    return get(viewer.urls[0], f"/clip?class=piano&source=roof&onset_ms={ONSET_MS}")[1]


def test_a_clip_around_midnight_is_found_in_its_own_day(tmp_path: Path) -> None:
    midnight_ms = ONSET_MS + 12 * 3_600_000 - 250
    for day, name in (("20260601", "235959.990Z"), ("20260602", "000000.300Z"), ("20260602", "999999.999Z")):
        path = tmp_path / "piano" / f"roof_{day}" / f"{name}_az+000_el+00_p0.50.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for offset_ms, name in ((5, "235959.990Z"), (-10, "235959.990Z"), (300, "000000.300Z"), (100, None)):
        found = find_clip(tmp_path, "piano", "roof", midnight_ms + offset_ms)
        assert (found and found.name[:11]) == name
    (tmp_path / "piano" / "roof_20260602" / "000001.000Z_az+000_el+00_p0.50.flac").symlink_to("/etc/hostname")
    assert find_clip(tmp_path, "piano", "roof", midnight_ms + 1000) is None


def test_without_clips_there_are_none(viewer: Viewer) -> None:
    viewer.show(b"{}", keep=True)
    watching = Watching(viewer.urls[0])
    assert watching.message()[0] == "past"
    watching.close()
    assert get(viewer.urls[0], f"/clip?class=piano&source=roof&onset_ms={ONSET_MS}")[0] == 404
    code, _, errors = seldrt("view", "--bind", "127.0.0.1:0", "--clips", __file__)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"--clips {__file__}: cannot be read: Not a directory; give the folder of" in errors


def test_who_watches_can_listen_to_what_a_daemon_heard(tmp_path: Path) -> None:
    """Two programs and one folder; the times are those of when the recording was made."""
    url, clips, recording = f"ipc://{tmp_path}/s", tmp_path / "clips", tmp_path / "garden.wav"
    soundfile.write(recording, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    process = start("view", "--connect", url, "--bind", "127.0.0.1:0", "--clips", clips)
    assert process.stderr is not None
    assert "no such folder yet" in process.stderr.readline()  # the daemon makes it
    (page,) = re.findall(r"open (http://127\.0\.0\.1:\d+/) in a browser", process.stderr.readline())
    watching = Watching(page)
    daemon = start("replay", recording, "--bind", url, "--clips", clips, "--start", "2026-06-01T12:00Z", program=SMALL)
    offsets = []
    while len(offsets) < 2:
        message = watching.message()[1]
        if message.get("phase") == "offset":
            offsets.append(message)
    assert daemon.wait(20) == 0
    for number, message in enumerate(offsets):
        onset_ms = 1_780_315_200_000 + (500, 1800)[number]
        status, _, content = get(page, f"/clip?class={message['class']}&source={message['source']}&onset_ms={onset_ms}")
        assert status == 200
        mono, rate = soundfile.read(io.BytesIO(content))
        assert (rate, len(mono)) == (SAMPLE_RATE, round((1.7, 1.75)[number] * SAMPLE_RATE))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    watching.close()


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
def test_who_may_be_seen_by_others_is_known_by_addresses_and_names_of_its_own(
    everywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_addresses_on_the_network", lambda: ["192.168.1.5"])
    with closing(Viewer(f"{everywhere}:0", insecure_bind=True)) as viewer:
        port = urlsplit(viewer.urls[0]).port
        assert viewer.urls == [f"http://192.168.1.5:{port}/", f"http://{socket.gethostname()}:{port}/"]
        here = f"http://127.0.0.1:{port}/"
        for host in ("robot.local:8600", "192.168.1.5:8600", "[fe80::1]", socket.gethostname(), "localhost:8600"):
            assert get(here, "/", host)[0] == 200
        for host in ("evil.example", "evil.example:8600", "local", "", f"{socket.gethostname()}.fritz.box"):
            status, _, content = get(here, "/", host)
            assert status == 403
            assert f"ask for {here} or" in content.decode()  # what was asked, and nothing more of this machine
            assert socket.gethostname() not in content.decode().split()


def test_the_address_for_others_is_none_of_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = web._addresses_on_the_network()  # none where there is no network
    monkeypatch.setattr(socket.socket, "connect", lambda *_: Path("/no/way/out").stat())
    among_ourselves = web._addresses_on_the_network()
    for address in (*usual, *among_ourselves):
        assert is_address(address)
        assert not is_loopback(address)
    assert set(among_ourselves) >= set(usual) or not Path("/proc/net").exists()  # others do not tell


def test_what_who_comes_later_gets(viewer: Viewer) -> None:
    """As much as the page shows, in order, each with its number; and then what comes, of which what passes has none."""

    def until_now(watching: Watching) -> list[str]:
        lines = []
        while not lines or lines[-1] != "event: now":
            lines.append(watching.lines.readline().decode().strip())
        assert watching.lines.readline() + watching.lines.readline() == b"data: {}\n\n"
        return lines

    (rows,) = map(int, re.findall(r"LOG_LINES = (\d+)", SCRIPT.read_text()))
    first = Watching(viewer.urls[0])
    about, standing = ["event: about", 'data: {"clips": false}', ""], ["event: standing", "data: []", ""]
    *begun, number, _ = until_now(first)
    assert begun == [*about, *standing]
    (start,) = re.findall(r"id: (\w+):0", number)
    for each in range(1, rows + 6):
        viewer.show(b"%d" % (each - 1), keep=True)
        viewer.show(b"0", keep=False)
        got = [first.lines.readline().decode().strip() for _ in range(5)]
        assert got == [f"id: {start}:{each}", f"data: {each - 1}", "", "data: 0", ""]
    viewer.stand([("why", ["h3"])])
    late = Watching(viewer.urls[0])
    standing[1] = 'data: [{"text": "why", "sources": ["h3"]}]'
    past = [line for n in range(6, rows + 6) for line in ("event: past", f"id: {start}:{n}", f"data: {n - 1}", "")]
    assert until_now(late) == [*about, *standing, *past, f"id: {start}:{rows + 5}", "event: now"]
    for somebody in (first, late):
        somebody.close()
    with closing(Viewer("127.0.0.1:0")) as other:
        watching = Watching(other.urls[0])
        assert f"id: {start}:0" not in until_now(watching)
        watching.close()


def test_who_watches_when_it_is_closed_is_told_at_once_and_the_address_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALIVE_S", 60.0)
    viewer = Viewer("127.0.0.1:0")
    address = urlsplit(viewer.urls[0]).netloc
    watching = Watching(viewer.urls[0])
    assert b"event: now\n" in iter(watching.lines.readline, b"")
    viewer.close()
    assert b"data: {}" in watching.lines.read()  # an error after 20 s
    watching.close()
    with closing(Viewer(address)) as again:
        assert get(again.urls[0], "/")[0] == 200


def test_an_address_is_written_as_browsers_read_it(viewer: Viewer) -> None:
    for host, written in (
        ("::1", "[::1]"),
        ("0:0::1", "[::1]"),
        ("::ffff:192.168.1.5", "192.168.1.5"),
        ("192.168.1.5", "192.168.1.5"),
        ("robot.local", "robot.local"),
    ):
        assert viewer.url(host, 8600) == f"http://{written}:8600/"


def test_a_browser_gets_the_same_packed_and_at_once(viewer: Viewer) -> None:
    message = json.dumps({"text": "x" * 1000}).encode()
    for number in range(300):
        viewer.show(b"%d%s" % (number, message), keep=True)
    place = urlsplit(viewer.urls[0]).netloc
    request = f"GET /messages HTTP/1.1\r\nHost: {place}\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n"
    plain, unpacker, text = Watching(viewer.urls[0]), zlib.decompressobj(wbits=31), b""
    with socket.create_connection(place.split(":"), timeout=20) as browser:
        browser.sendall(request.encode())
        head, _, packed = browser.recv(1 << 16).partition(b"\r\n\r\n")
        assert b"Content-Encoding: gzip" in head
        size = 0
        for ending in (b"event: now\ndata: {}\n\n", b"data: live\n\n"):
            while not text.endswith(ending):
                size += len(packed)
                text += unpacker.decompress(packed)
                packed = b"" if text.endswith(ending) else browser.recv(1 << 16)
            viewer.show(b"live", keep=False)
    assert size < len(text) / 10
    assert plain.lines.read(len(text)) == text
    plain.close()


def test_who_is_too_slow_is_dropped_and_holds_nobody_up(viewer: Viewer) -> None:
    slow, quick = Watching(viewer.urls[0]), Watching(viewer.urls[0])
    until(lambda: len(viewer._watching) == 2)
    message = json.dumps({"text": "x" * 20_000}).encode()
    sent = 0
    end_s = time.monotonic() + 60
    while len(viewer._watching) == 2:
        viewer.show(message, keep=False)
        sent += 1
        assert quick.message()[1] == {"text": "x" * 20_000}
        assert time.monotonic() < end_s
    viewer.show(b'{"last": true}', keep=False)
    assert quick.message()[1] == {"last": True}
    assert sent > web.WAITING
    for somebody in (slow, quick):
        somebody.close()


def test_who_watches_gets_a_sign_of_life_while_nothing_is_heard(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the page would take a quiet night for a broken connection."""
    monkeypatch.setattr(server, "ALIVE_S", 0.05)
    watching = Watching(viewer.urls[0])
    for _ in range(2):
        assert b"event: alive\n" in iter(watching.lines.readline, b"")
        assert watching.lines.readline() == b"data: {}\n"
    viewer.show(b'{"last": true}', keep=False)
    assert watching.message()[1] == {"last": True}
    watching.close()


def test_who_leaves_is_forgotten(viewer: Viewer) -> None:
    watching = Watching(viewer.urls[0])
    until(lambda: len(viewer._watching) == 1)
    watching.close()

    def forgotten() -> bool:
        viewer.show(b"{}", keep=False)
        return not viewer._watching

    until(forgotten)


def test_there_is_room_for_so_many_and_anew_when_they_leave(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._Request, "timeout", 5.0)
    many = [socket.create_connection(viewer._server.server_address[:2]) for _ in range(server.MOST_CONNECTIONS)]
    with pytest.raises((http.client.HTTPException, OSError)):
        get(viewer.urls[0], "/")

    def answered() -> bool:
        try:
            return get(viewer.urls[0], "/")[0] == 200
        except (http.client.HTTPException, OSError):
            return False

    until(answered)  # who says nothing loses his place
    for one in many:
        one.close()


def greeting() -> bytes:
    """The first that a browser says by https."""
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


@pytest.mark.parametrize("https", [False, True])
def test_who_asks_a_letter_at_a_time_loses_his_place_and_who_watches_does_not(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, https: bool
) -> None:
    monkeypatch.setattr(server, "IDLE_S", 3.0)
    tls = server.tls_context(*map(str, request.getfixturevalue("certificate"))) if https else None
    asked = greeting() if https else b"GET / HTTP/1.1\r\nX: " + b"x" * 60_000
    with closing(Viewer("127.0.0.1:0", tls=tls)) as viewer:
        address = viewer._server.server_address[:2]
        watching = None if https else Watching(viewer.urls[0])
        with closing(socket.create_connection(address, timeout=0.05)) as slow:
            letters = iter(asked)

            def ended() -> bool:
                try:
                    slow.sendall(bytes([next(letters)]))
                    return not slow.recv(1)
                except TimeoutError:
                    return False
                except OSError:
                    return True

            until(ended)
        if watching:
            viewer.show(b'{"last": true}', keep=False)
            assert watching.message()[1] == {"last": True}
            watching.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0.0.0.0:8600", "others on the network could watch"),
        ("robot.local:8600", "others on the network could watch"),
        ("8600", "use HOST:PORT"),
        ("127.0.0.1:x", "use HOST:PORT"),
        ("127.0.0.1:65536", "use HOST:PORT"),
        ("127.0.0.1:8²", "use HOST:PORT"),
        (":8600", "use HOST:PORT"),
        ("{taken}", "Address already in use; choose another --bind"),
    ],
)
def test_an_address_that_will_not_do_is_refused(viewer: Viewer, address: str, message: str) -> None:
    with pytest.raises(WireError, match=message):
        Viewer(address.format(taken=urlsplit(viewer.urls[0]).netloc))


@pytest.mark.parametrize("host", ["é..x", "x" * 300, "no.such.host.invalid"])
def test_a_name_that_no_host_has_is_refused(host: str) -> None:
    with pytest.raises(WireError, match=r"^cannot serve at .*:8600: .+; choose another --bind$"):
        Viewer(f"{host}:8600", insecure_bind=True)


def test_the_command_says_what_will_not_do_in_one_line() -> None:
    code, _, errors = seldrt("view", "--bind", "0.0.0.0:8600")
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith("seldrt: refused to serve at 0.0.0.0:8600")


def node(program: str) -> object:
    """What a program leaves in `answer`."""
    command = shutil.which("node")
    if command is None:
        lacking("there is no node")
    text = f"{program}\nconsole.log(JSON.stringify(answer)); process.exit(0);"
    done = subprocess.run(
        [command, "--input-type=module", "-e", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_node(expression: str, script: Path) -> object:
    return node(f"import * as page from {json.dumps(script.as_uri())}; const answer = {expression};")


def test_directions_are_drawn_where_they_are() -> None:
    """The horizon is a circle of 100, seen from above: +x of the unit vector is up, +y is left."""
    azimuths = [0, 30, 90, 135, -180, -90, -45]
    drawn = in_node(f"{azimuths}.map((azimuth) => page.place(azimuth, 0))", MICROPHONE)
    x, y, _ = unit_vector(np.array(azimuths), 0.0).T
    np.testing.assert_allclose(drawn, np.stack([-100 * y, -100 * x], axis=-1), atol=1e-9)
    off_the_horizon = in_node("[[90, 45], [0, -90], [12, 90]].map((d) => page.place(...d))", MICROPHONE)
    np.testing.assert_allclose(off_the_horizon, [[-50, 0], [0, 0], [0, 0]], atol=1e-9)


def test_directions_are_told_in_words() -> None:
    told = {
        (0, 0): "in front", (90, 10): "left", (-90, 0): "right", (179, 0): "behind", (-180, 0): "behind",
        (45, 0): "front left", (-135, 0): "behind, right", (90, 40): "left, above", (-20, -30): "in front, below",
        (77, 80): "overhead", (77, -80): "below", (0, 65): "in front, above", (0, 66): "overhead",
        (0, -25): "in front", (0, -26): "in front, below",
    }  # fmt: skip
    assert in_node(f"{[list(d) for d in told]}.map((d) => page.words(...d))", MICROPHONE) == list(told.values())
    assert in_node("[-0.4, 0, -0.6, 179.7].map(page.degrees)", MICROPHONE) == ["0°", "0°", "-1°", "180°"]


def classes_meant(text: str, *names: str) -> object:
    return in_node(f"page.chosen({json.dumps(text)}, {json.dumps(names)})", NAMES)


def test_who_waits_for_some_sounds_is_not_alerted_of_others() -> None:
    """Somebody writes as people do; what stands there exactly means nothing else."""
    names = ("alarm", "crying_baby", "ringing_phone", "male_scream", "female_scream")
    for text in ("", " , ", "everything", "All"):
        assert classes_meant(text, *names) == list(names)
    for text, meant in {
        "alarm, crying baby": ["alarm", "crying_baby"],
        "alarm; phone": ["alarm", "ringing_phone"],
        "Alarms and babies": ["alarm", "crying_baby"],
        "smoke_alarm": ["alarm"],
        "male scream": ["male_scream"],
        "screams": ["male_scream", "female_scream"],
        "alarn": [],
        "man": [],
        "nothing": [],
        "nothing, screams": ["male_scream", "female_scream"],
        "Crying-baby OR phone": ["crying_baby", "ringing_phone"],
    }.items():
        assert classes_meant(text, *names) == meant
    assert classes_meant("alarm", "alarm", "smoke_alarm") == ["alarm"]
    assert classes_meant("alarms", "alarm", "smoke_alarm") == ["alarm"]
    assert classes_meant("smoke alarm", "alarm", "smoke_alarm") == ["smoke_alarm"]
    assert in_node('page.strange("everything, nothing, smoke", ["alarm"])', NAMES) == ["smoke"]
    assert in_node('page.strange("everything, nothing", [])', NAMES) == []
    assert classes_meant("crashes, footstep", "crash", "alarm", "footsteps") == ["crash", "footsteps"]
    assert in_node('page.named("search_and_rescue")', NAMES) == "search and rescue"
    rescue = ("search_and_rescue", "rescue_dog", "rescue_dogs")
    assert classes_meant("search and rescue", *rescue) == ["search_and_rescue"]
    assert classes_meant("rescue dog", *rescue) == ["rescue_dog"]


def parts(colour: str) -> list[float]:
    """Red, green and blue, to 1."""
    digits = colour.removeprefix("#")
    return [int(part * (3 - len(part)), 16) / 255 for part in re.findall("." * (len(digits) // 3), digits)]


def blend(colour: str, ground: str, opacity: float) -> str:
    mixed = [opacity * a + (1 - opacity) * b for a, b in zip(parts(colour), parts(ground), strict=True)]
    return "#" + "".join(f"{round(255 * part):02x}" for part in mixed)


def luminance(colour: str) -> float:
    """Relative, of WCAG 2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_from_the_ground_and_each_other() -> None:
    """Contrasts of WCAG 2 AA: 4.5 for text, 3 for what is drawn; in the light scheme and the dark."""
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    first, dark = STYLE.read_text().split("prefers-color-scheme: dark")
    light = dict(re.findall(r"--(\w+): (#\w+);", first))
    ((behind, brightest),) = re.findall(
        r"flash::after \{ z-index: (-\d).*from \{ opacity: ([.\d]+)", STYLE.read_text(), re.S
    )
    assert int(behind) < 0
    colours = in_node("page.COLOURS", MICROPHONE)
    assert isinstance(colours, list)
    assert len(set(colours)) == len(colours) >= max(len(describe(path).classes) for path in shipped().values())
    for scheme in (light, light | dict(re.findall(r"--(\w+): (#\w+);", dark))):
        for text in ("text", "trouble"):
            assert contrast(scheme[text], scheme["ground"]) >= 4.5
        for drawn in (scheme["faint"], scheme["alarm"], *colours):
            assert contrast(drawn, scheme["ground"]) >= 3
        assert contrast("#fff", scheme["alarm"]) >= 4.5
        flash = blend(scheme["alarm"], scheme["ground"], float(brightest))
        assert contrast(scheme["text"], flash) >= 4.5  # what is flashed at can be read


PHONE = """
const rows = [], shaken = [], rang = [], later = [], settings = new Map([["alert", "yes"]]), of_tab = new Map();
const classes = (names = new Set()) => ({
  names, add: (...more) => more.forEach((name) => names.add(name)), contains: (name) => names.has(name),
  toggle: (name, on) => (on ? names.add(name) : names.delete(name)),
  remove: (...less) => less.forEach((name) => names.delete(name)),
});
const element = () => ({
  children: [], textContent: "", value: "", classList: classes(), within: [],
  addEventListener(kind, done) { this[kind] = done; }, setAttribute(name, value) { this[name] = value; },
  remove() { this.within.splice(this.within.indexOf(this), 1); },
  append(...parts) { for (const part of parts) { this.children.push(part); Object(part).within = this.children; } },
  replaceChildren(...parts) { this.children = parts; },
  prepend(row) { rows.unshift(row); row.within = rows; }, parts: {},
  querySelector(which) { return this.parts[which] ??= element(); },
  get firstChild() { return this.children[0]; }, get content() { return { cloneNode: element }; },
});
const known = new Map();
globalThis.document = {
  getElementById: (id) => known.get(id) ?? known.set(id, element()).get(id), createElement: element,
  createElementNS: element, body: element(), addEventListener(kind, done) { this[kind] = done; },
};
const storage = (all) => ({ getItem: (key) => all.get(key) ?? null, setItem: all.set.bind(all) });
Object.assign(globalThis, { localStorage: storage(settings), sessionStorage: storage(of_tab), window: globalThis });
globalThis.addEventListener = (kind, done) => { if (kind === "storage") settings.changed = (key) => done({ key }); };
const navigator_ = { vibrate: (pattern) => pattern && shaken.push(pattern) };
Object.defineProperty(globalThis, "navigator", { value: navigator_, configurable: true });
globalThis.isSecureContext = true;
globalThis.Notification = class {
  static permission = "granted";
  constructor(text) { rang.push(text); throw new TypeError("a telephone"); }
};
let now = 0, tick, source, serving = true, number = 0;
Object.defineProperty(globalThis, "performance", { value: { now: () => now } });
globalThis.setInterval = (done) => { tick = done; };
globalThis.setTimeout = (done, ms) => later.push([ms, done]);
const wait = (ms) => {
  for (const end = now + ms; now < end; tick()) {
    now += 500;
    if (serving) source.alive({ data: "{}" });
  }
};
globalThis.EventSource = class {
  static CLOSED = 2;
  readyState = 1;
  constructor() { source = this; }
  addEventListener(kind, heard) { this[kind] = heard; }
  close() { this.closed = true; }
};
BEFORE
await import(SCRIPT);
const connects = () => { serving = true; source.onopen(); }, breaks = () => { serving = false; source.onerror(); };
const last_ = (data, server = "s") => ({ data, lastEventId: `${server}:${number}` });
const next = (data, server) => { number += 1; return last_(data, server); };
const now_ = () => source.now(last_("{}"));
const live = (data) => source.message(data.includes('"event"') ? next(data) : last_(data));
const past = (data, server) => source.past(next(data, server));
const element_ = (id) => document.getElementById(id), says = (id) => element_(id).textContent;
const event = (id, phase, name = "alarm") => JSON.stringify({
  type: "event", source: "h3", epoch: 1, event_id: id, phase, class: name, azimuth_deg: 90, elevation_deg: 0,
  duration_ms: 100, onset_ns: 1.7e18, t_pub_ns: now * 1e6,
});
const status = (more = {}) => JSON.stringify({
  type: "status", source: "h3", state: "running", model_id: "own", degraded: false, why: "", lost_samples: 0,
  t_pub_ns: now * 1e6, ...more,
});
const sent_now = (data) => data.replace(/"t_pub_ns":[\\d.]+/, `"t_pub_ns":${now * 1e6}`);
const last = (ms, data) => { for (let s = 0; s < ms / 1000; s++) { live(sent_now(data)); wait(1000); } };
START
"""


def in_page(program: str, before: str = "", start: str = "connects(); now_();") -> object:
    """The page with as little of a browser as it needs; the program leaves its answer in `answer`."""
    phone = PHONE.replace("SCRIPT", json.dumps(SCRIPT.as_uri()))
    return node(phone.replace("BEFORE", before).replace("START", start) + program)


def test_a_connection_that_comes_back_writes_nothing_twice() -> None:
    assert in_page("""
        for (let turn = 0; turn < 3; turn++)
          for (const phase of ["onset", "offset"]) past(event(1, phase));
        const texts = (row) => row.children.slice(1, 7).map((cell) => cell.textContent);
        const answer = rows.map((row) => [row.children.length, ...texts(row)]);
    """) == [[8, "h3", "alarm", "left", "90°", "0°", "0.1 s"]]  # fmt: skip


def test_the_log_of_days_stays_short() -> None:
    """What goes on for days stays in it, as the one event that it is."""
    assert in_page(
        """
        for (let id = 0; id < 1000; id++) { live(event(id, "onset")); live(event(-1, "update", "piano")); }
        const answer = [rows.length, element_("spoken").children.length, shaken.length];
        """,
        'settings.set("wanted", "piano");',
    ) == [web.PAST, 20, 1]


def test_what_sounds_is_drawn_and_told_in_words_while_it_does() -> None:
    """With a trail of where it was for 3 s, and the whole name within the picture."""
    assert in_page("""
        const answer = [], one = (track, azimuth, elevation) => ({
          class: "crying_baby", class_id: 17, track, azimuth_deg: azimuth, elevation_deg: elevation, confidence: 0.4,
          onset_ns: now * 1e6 - 3.25e9,
        });
        const hear = (...detections) => live(JSON.stringify({
          type: "frame", source: "h3", t_pub_ns: now * 1e6, t_capture_ns: now * 1e6 - 1.12e9, frame_ms: 100, detections,
        }));
        const whole = (...numbers) => numbers.map((number) => Math.round(number) + 0);
        const drawn = ({ class: kind, children: [trail, circle, text] }) => [
          kind, trail.points.split(" ").length, ...whole(circle.cx, circle.cy, circle.r, text.x, text.y),
          circle.fill,
        ];
        const look = () => answer.push(element_("microphones").children[0].parts["g.now"].children.map(drawn));
        const told = (part) => element_("microphones").children[0].parts[part];
        hear(one(0, 90, 0), one(1, 0, -45));
        look();
        const [line] = told("ul.now").children;
        answer.push(line.textContent, line.children[0].textContent);
        wait(1000);
        hear(one(0, 180, 0));
        look();
        wait(2500);
        hear(one(0, 180, 0));
        look();
        live(status({ lost_samples: 5 }));
        answer.push(told(".figures").textContent);
        live(status({ state: "ended" }));
        answer.push(told(".figures").textContent, told("ul.now").children.length);
        look();
        live(status());
        hear(one(0, 180, 0));
        look();
        wait(4000);
        answer.push(told("ul.now").children.length);
        look();
    """) == [
        [["dot", 1, -100, 0, 5, -93, 17, "#05f"], ["dot below", 1, 0, -50, 5, 0, -33, "#05f"]],
        *("crying baby — left ", "azimuth 90°, elevation 0°, confidence 0.40, for 2.1 s"),
        [["dot", 2, 0, 100, 5, 0, 88, "#05f"]],
        [["dot", 2, 0, 100, 5, 0, 88, "#05f"]],
        *("model own, 1.2 s behind the sound, 5 samples lost", "model own", 0, []),
        [["dot", 1, 0, 100, 5, 0, 88, "#05f"]],
        *(0, []),
    ]


def test_what_is_over_can_be_listened_to() -> None:
    """One button for each event, for the whole of its clip; it says when there is none."""
    assert in_page("""
        const asked = [], played = [];
        globalThis.fetch = async (url) => {
          asked.push(url.replace(/[0-9]{13}/, "T"));
          if (asked.length > 2) throw new TypeError("the server has gone");
          return { ok: asked.length === 1, blob: async () => "sound" };
        };
        URL.createObjectURL = (blob) => `blob:${blob}`;
        globalThis.Audio = class { paused = true; async play() { played.push(this.src); } pause() {} };
        const at = (data) => data.replace('"onset_ns":17', '"onset_ns":1.7000000000005e18,"_":17');
        for (const phase of ["onset", "update"]) live(at(event(1, phase)));
        const before = rows[0].children[7].children.length;
        for (let turn = 0; turn < 2; turn++) live(at(event(1, "offset")));
        const cell = rows[0].children[7], [button] = cell.children, texts = [], kept = [];
        for (const clips of [true, false]) {
          source.about({ data: JSON.stringify({ clips }) });
          kept.push(document.body.classList.contains("clips"));
        }
        for (let click = 0; click < 3; click++) { await button.click(); texts.push(button.textContent); }
        const answer = [before, rows[0].children.length, cell.className, asked[0], texts, played, kept];
    """) == [
        *(0, 8, "clip", "clip?class=alarm&source=h3&onset_ms=T"),
        *(["▶", "no clip", "no clip"], ["blob:sound"], [True, False]),
    ]  # fmt: skip


def test_what_plays_is_stopped_by_its_own_button_and_ended_by_another() -> None:
    """Pressed while its sound is still fetched, only the last is heard; what was stopped or is over begins anew."""
    assert in_page("""
        const did = [], answers = [], answer = [];
        globalThis.fetch = (url) => {
          did.push(url.match(/class=([^&]*)/)[1]);
          return new Promise((done) => answers.push(() => done({ ok: true, blob: async () => "sound" })));
        };
        URL.createObjectURL = () => `blob:${made += 1}`;
        URL.revokeObjectURL = (url) => did.push(`free ${url}`);
        globalThis.Audio = class {
          constructor() { did.push("player"); this.paused = true; this.src = "none"; player = this; }
          async play() {
            did.push("play");
            if (refuses) throw new DOMException("stopped before it began", "AbortError");
            this.paused = false;
          }
          pause() { this.paused = true; did.push("pause"); }
        };
        let player, made = 0, refuses = false;
        for (const name of ["alarm", "piano"]) live(event(rows.length, "offset", name));
        const [piano, alarm] = rows.map((row) => row.children[7].children[0]);
        const press = async (...buttons) => {
          did.length = 0;
          const pressed = buttons.map((button) => button.click());
          for (const serve of answers.splice(0)) serve();
          await Promise.all(pressed);
          answer.push(did.join());
        };
        await press(alarm);
        await press(alarm);
        await press(alarm);
        player.ended = true;
        await press(alarm);
        player.ended = false;
        await press(piano);
        await press(alarm, piano);
        refuses = true;
        await press(alarm);
        answer.push(alarm.textContent);
    """) == [
        "alarm,player,free none,play",
        "pause",
        "pause,alarm,free blob:1,play",
        "pause,alarm,free blob:2,play",
        "pause,piano,free blob:3,play",
        "pause,alarm,pause,piano,free blob:4,play",
        "pause,alarm,free blob:5,play",
        "▶",
    ]


def test_an_alert_is_for_what_sounds_and_comes_once() -> None:
    """However the page learns of it, and whatever the clocks say; not for what was over before."""
    steps = {
        'past(event(1, "onset")); past(event(1, "offset"))': 0,
        'live(event(2, "offset"))': 0,
        'live(event(3, "onset"))': 1,
        'live(event(3, "update")); past(event(3, "onset")); live(event(3, "update")); live(event(3, "offset"))': 0,
        'past(event(4, "onset"))': 0,  # its daemon may have died
        'live(event(4, "update"))': 1,
        'live(event(5, "update"))': 1,
        'past(event(6, "onset")); live(event(6, "offset"))': 1,
        'live(event(7, "onset", "piano"))': 0,
    }
    program = "".join(
        f"{{ const before = shaken.length; {step}; answer.push(shaken.length - before); }}" for step in steps
    )
    answer = in_page(f"const answer = []; {program}", 'settings.set("wanted", "smoke alarm");')
    assert answer == list(steps.values())


def test_who_begins_to_want_alerts_is_alerted_of_what_sounds_already() -> None:
    assert in_page(
        """
        live(event(1, "onset"));
        live(event(2, "onset"));
        element_("alert").checked = true;
        live(event(1, "update"));
        live(event(2, "offset"));
        const answer = [shaken.length, rows.map((row) => [row.className ?? "", row.children[2].textContent])];
        """,
        'settings.set("alert", "no");',
    ) == [1, [["", "alarm"], ["alerted", "⚠ alarm"]]]


@pytest.mark.parametrize("kind", ["click", "keydown"])
def test_an_alert_stays_until_somebody_confirms_it(kind: str) -> None:
    answer = in_page(f"""
        const answer = [], outlined = () => document.body.classList.contains("alarm");
        const look = () => answer.push([outlined(), says("alarm"), document.title]);
        live(event(1, "onset"));
        document.{kind}();
        live(event(1, "offset"));
        live(event(2, "onset", "piano"));
        live(event(3, "onset"));
        for (let minute = 0; minute < 600; minute++) {{ wait(2000); live(status()); }}
        tick();
        look();
        document.{kind}();
        look();
    """)
    both = "alarm — left (2 times)\npiano — left\n(tap or press a key to confirm)"
    assert answer == [[True, both, "⚠ alarm — left and 1 more"], [False, "", "seldrt"]]


def test_what_comes_last_hides_nothing_and_keeps_nobody_from_confirming_the_rest() -> None:
    """Of very many the banner shows the latest; a tap confirms what was there long enough to be read."""
    answer = in_page("""
        const answer = [], look = () => answer.push(says("alarm").split("\\n").slice(0, -1));
        live(event(0, "onset"));
        for (let id = 1; id < 9; id++) { wait(1500); live(event(id, "onset", id < 6 ? `class_${id}` : "steps")); }
        look();
        document.click();
        look();
        wait(2000);
        element_("alert").checked = false;
        element_("alert").change();
        look();
        answer.push(document.body.classList.contains("alarm"));
    """)
    assert answer == [
        ["steps — left (3 times)", "class 5 — left", "class 4 — left", "class 3 — left", "and 3 more"],
        [],
        [],
        False,
    ]


def test_a_page_that_is_loaded_anew_still_has_what_waits_and_knows_what_it_missed() -> None:
    told = """
        of_tab.set("waiting", JSON.stringify([["h3 alarm", "alarm — left", 2]]));
        of_tab.set("sources", JSON.stringify(["h3", "kitchen"]));
        of_tab.set("last", "s:1");
        settings.set("wanted", "alarm, steps");
    """
    answer = in_page(
        """
        for (const name of ["alarm", "steps", "piano"]) past(event(1 + rows.length, "onset", name));
        live(event(1, "update"));
        const answer = [says("alarm").replace(/at [^\\n]*/, "at T").split("\\n").slice(0, -1), rang.length];
        answer.push(rows.map((row) => row.className ?? ""), of_tab.get("last"));
        wait(2000);
        document.click();
        answer.push(says("alarm"), of_tab.get("waiting"));
        """,
        told,
        "connects();",
    )
    steps = "h3: steps — left, at T"
    assert answer == [[steps, "alarm — left (2 times)"], 1, ["", "alerted", "alerted"], "s:4", "", "[]"]


def test_what_is_missed_is_told_by_the_server_and_no_clock() -> None:
    """What came before the first visit is not, even if its telling was cut off; all that another server has is."""
    cut_off = 'connects(); past(event(1, "offset")); past(event(2, "offset")); breaks(); number = 0; connects();'
    first = """
        for (const id of [1, 2, 3]) past(event(id, "offset"));
        now_();
        const answer = [rang.length];
        breaks();
        connects();
        for (const id of [3, 4]) past(event(id, "offset"));
        answer.push(rang.length, rows.length);
    """
    assert in_page(first, start=cut_off) == [0, 1, 4]
    of_no_daemon = 'breaks(); wait(2000); connects(); past(event(1, "offset")); const answer = [rang.length];'
    assert in_page(of_no_daemon) == [1]
    of_another_server = """
        for (const phase of ["onset", "offset"]) past(event(1, phase));
        breaks();
        connects();
        number = 0;
        for (const phase of ["onset", "offset"]) past(event(2, phase), "t");
        const answer = [rang.length];
    """
    assert in_page(of_another_server) == [1]


def test_a_page_that_was_frozen_does_not_take_old_sound_for_new() -> None:
    """What the browser has kept for it comes again, with its time, by another connection."""
    assert in_page("""
        live(status());
        const first = source, answer = [];
        now += 25000;
        for (const phase of ["onset", "offset"]) first.message(next(event(1, phase)));
        answer.push(source === first, rang.length);
        number = 0;
        connects();
        for (const phase of ["onset", "offset"]) past(event(1, phase));
        answer.push(/, at /.test(rang[0]), rang.length);
    """) == [False, 0, True, 1]


@pytest.mark.parametrize("kept", ["null", "[1", "7", '{"a": 1}', "[7]"])
def test_what_others_left_in_the_storage_does_no_harm(kept: str) -> None:
    left = "".join(f"of_tab.set({name!r}, {kept!r});" for name in ("waiting", "sources", "last"))
    program = 'now_(); live(event(1, "onset")); const answer = [rang.length, says("alarm") !== ""];'
    assert in_page(program, left) == [1, True]


def test_what_waits_is_outlined_also_when_the_page_is_loaded_anew() -> None:
    waits = 'of_tab.set("waiting", JSON.stringify([["h3 alarm", "alarm — left", 1]]));'
    outlined = 'const answer = document.body.classList.contains("alarm");'
    assert in_page(outlined, waits)
    assert not in_page(outlined)


def test_a_tap_confirms_only_what_it_can_have_seen() -> None:
    """Another direction of the same sound is news, and so is an alert that is tried again."""
    assert in_page("""
        const answer = [], look = () => answer.push(says("alarm").split("\\n")[0]);
        live(event(1, "onset"));
        wait(2500);
        live(event(2, "onset").replace('"azimuth_deg":90', '"azimuth_deg":180'));
        document.click();
        look();
        wait(1500);
        document.click();
        look();
        for (let turn = 0; turn < 2; turn++) {
          element_("try").click();
          document.click();
          look();
          wait(2500);
        }
    """) == ["alarm — behind (2 times)", "", *2 * ["this is how an alert looks"]]


def test_a_page_that_may_keep_nothing_works() -> None:
    """Cookies are blocked: reading the name of the storage is an error."""
    blocked = """
        const refuse = { get() { throw new DOMException("blocked", "SecurityError"); } };
        for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(globalThis, name, refuse);
    """
    program = """
        live(event(1, "onset"));
        const answer = [says("alarm")];
        element_("alert").checked = true;
        element_("alert").change();
        live(event(1, "update"));
        tick();
        answer.push(says("state"), says("alarm").split("\\n")[0]);
        """
    assert in_page(program, blocked) == ["", "listening", "alarm — left"]
    restored = """
        document.getElementById("alert").checked = true;
        document.getElementById("wanted").value = "piano";
    """
    program = 'for (const name of ["alarm", "piano"]) live(event(rows.length, "onset", name)); const answer = rang;'
    assert in_page(program, blocked + restored) == ["piano — left"]


def test_tabs_choose_together() -> None:
    assert in_page("""
        settings.set("wanted", "piano");
        settings.changed("wanted");
        live(event(1, "onset"));
        const answer = [element_("wanted").value, says("choice"), rang.length];
        live(event(2, "onset", "piano"));
        settings.set("alert", "no");
        settings.changed("another page's");
        answer.push(rang.length, says("alarm") !== "");
        settings.changed("alert");
        live(event(3, "onset", "piano"));
        answer.push(rang.length, says("alarm"));
    """) == ["piano", "alerts for nothing so far; not heard here yet: “piano”", 0, 1, True, 1, ""]


def test_of_several_microphones_an_alert_says_which() -> None:
    assert in_page("""
        live(status());
        live(event(1, "onset"));
        live(status().replace("h3", "kitchen"));
        live(event(2, "onset"));
        live(event(3, "onset").replace("h3", "kitchen"));
        const answer = [...rang, of_tab.get("sources")];
    """) == ["alarm — left", "h3: alarm — left", "kitchen: alarm — left", '["h3","kitchen"]']
    by_the_past = 'past(event(1, "offset").replace("h3", "kitchen")); live(event(1, "onset")); const answer = rang;'
    assert in_page(by_the_past) == ["h3: alarm — left"]


def test_events_of_another_microphone_or_of_one_that_was_started_anew_are_others() -> None:
    assert in_page("""
        for (const change of [["", ""], ["h3", "kitchen"], ['"epoch":1', '"epoch":2']])
          for (const phase of ["onset", "offset"]) live(event(0, phase).replace(...change));
        const answer = [rang.length, rows.length];
    """) == [3, 3]


def test_how_a_microphone_is_is_read_out_when_that_changes_and_not_when_its_figures_do() -> None:
    assert in_page("""
        const degraded = (why) => live(status({ degraded: true, why }));
        live(status());
        for (const why of ["speed: 1.2", "speed: 1.3", "speed: 1.4; device: gone"]) degraded(why);
        live(status());
        const answer = element_("spoken").children.map((line) => line.textContent);
    """) == ["h3: degraded: speed: 1.2", "h3: degraded: speed: 1.4; device: gone", "h3: running"]


def test_words_that_mean_no_class_are_marked() -> None:
    """As wrong where all classes are known; what is ticked is written, and what is written ticked."""
    assert in_page("""
        const answer = [], look = () => answer.push([says("choice"), element_("wanted")["aria-invalid"]]);
        const write = (text) => { element_("wanted").value = text; element_("wanted").input(); look(); };
        live(event(1, "onset"));
        look();
        write("doorbell");
        write("alarms; doorbell");
        live(status());
        live(status({ classes: ["alarm", "crying_baby", "piano"] }));
        look();
        const boxes = element_("classes").children.map((label) => label.children[0]);
        answer.push(boxes.map((box) => box.checked));
        boxes[1].checked = true;
        boxes[1].change();
        answer.push(settings.get("wanted"));
        write("dorbell");
        write("");
        boxes[0].checked = false;
        boxes[0].change();
        answer.push(settings.get("wanted"));
    """) == [
        ["alerts for everything", "false"],
        ["alerts for nothing so far; not heard here yet: “doorbell”", "false"],
        ["alerts for alarm; not heard here yet: “doorbell”", "false"],
        ["alerts for alarm; no sound is called “doorbell”", "true"],
        [True, False, False],
        "alarm, crying baby, doorbell",
        ["alerts for nothing; no sound is called “dorbell”", "true"],
        ["alerts for everything", "false"],
        "crying baby, piano",
    ]  # fmt: skip


def test_what_can_be_reported_is_known_when_every_microphone_has_told() -> None:
    """The words say so as soon as somebody tells, be it nothing new."""
    assert in_page(
        """
        const answer = [], look = () => answer.push(says("choice"));
        look();
        live(event(1, "onset"));
        look();
        live(status().replace("h3", "old"));
        live(status({ classes: ["alarm"] }));
        look();
        live(status({ classes: ["alarm"] }).replace("h3", "old"));
        look();
        """,
        'settings.set("wanted", "alarms, doorbell");',
    ) == [
        "alerts for nothing so far; not heard here yet: “alarms”, “doorbell”",
        "alerts for alarm; not heard here yet: “doorbell”",
        "alerts for alarm; not heard here yet: “doorbell”",
        "alerts for alarm; no sound is called “doorbell”",
    ]


def test_what_is_ticked_never_means_the_opposite() -> None:
    """No word means everything: it is written only for everything that there can be."""
    assert in_page("""
        const answer = [], boxes = () => element_("classes").children.map((label) => label.children[0]);
        const look = () => answer.push([settings.get("wanted"), says("choice"), ...boxes().map((box) => box.checked)]);
        const tick_ = (which, on) => { boxes()[which].checked = on; boxes()[which].change(); look(); };
        live(event(1, "onset"));
        tick_(0, false);
        tick_(0, true);
        element_("wanted").value = "doorbell";
        element_("wanted").input();
        tick_(0, true);
        tick_(0, false);
        live(status({ classes: ["alarm", "piano"] }));
        element_("wanted").value = "";
        element_("wanted").input();
        tick_(0, false);
        tick_(1, false);
        tick_(0, true);
        tick_(1, true);
        element_("wanted").value = "piano, doorbell";
        element_("wanted").input();
        tick_(0, true);
    """) == [
        ["nothing", "alerts for nothing", False],
        ["alarm", "alerts for alarm", True],
        ["alarm, doorbell", "alerts for alarm; not heard here yet: “doorbell”", True],
        ["doorbell", "alerts for nothing so far; not heard here yet: “doorbell”", False],
        ["piano", "alerts for piano", False, True],
        ["nothing", "alerts for nothing", False, False],
        ["alarm", "alerts for alarm", True, False],
        ["", "alerts for everything", True, True],
        ["alarm, piano, doorbell", "alerts for alarm, piano; no sound is called “doorbell”", True, True],
    ]  # fmt: skip


def test_what_was_missed_while_the_connection_was_broken_is_alerted_of_once() -> None:
    assert in_page("""
        live(event(1, "onset"));
        past(event(2, "onset"));
        live(event(5, "onset"));
        live(event(5, "offset"));
        breaks();
        wait(1000);
        connects();
        const before = rang.length;
        for (let turn = 0; turn < 2; turn++) {
          for (const id of [1, 2, 3]) for (const phase of ["onset", "offset"]) past(event(id, phase));
          past(event(4, "onset"));
          past(event(5, "offset"));
          past(event(6, "offset", "piano"));
          connects();
        }
        const missed = rang.map((text) => /^alarm — left, at \\d/.test(text));
        const answer = [before, missed, rows.map((row) => row.className)];
    """, 'settings.set("wanted", "alarm");') == [
        2, [False, False, True, True, True], [None, "alerted", "alerted", "alerted", "alerted", "alerted"],
    ]  # fmt: skip


def test_a_connection_without_a_sign_of_life_is_given_up_for_another() -> None:
    """The browser itself tries again only where it was broken: not if it was refused, nor if a telephone slept."""
    assert in_page("""
        const first = source, answer = [];
        live(event(1, "offset"));
        wait(60000);
        answer.push(source === first, says("state"));
        serving = false;
        wait(9000);
        answer.push(source === first);
        wait(2000);
        answer.push(source === first, first.closed, says("state"));
        const second = source;
        wait(7000);
        answer.push(source === second);
        wait(4000);
        answer.push(source === second);
        connects();
        past(event(2, "offset"));
        answer.push(rang.at(-1).split(",")[0]);
        tick();
        answer.push(says("state"));
    """) == [
        *(True, "nothing heard: is the daemon running?", True),
        *(False, True, "seldrt view has ended, or cannot be reached"),
        *(True, False, "alarm — left", "listening"),
    ]  # fmt: skip


def test_trouble_of_another_kind_is_alerted_of_anew() -> None:
    """Compared are the kinds, not the words; what has been told stays told as long as it lasts."""
    assert in_page("""
        const answer = [], look = () => { answer.push(rang.splice(0)); document.keydown(); };
        const degraded = (why) => { last(20000, status({ degraded: true, why })); look(); };
        degraded("speed: too slow: real-time factor 1.2");
        degraded("speed: too slow: real-time factor 1.3");
        last(16000, status({ degraded: true, why: "device: gone: plug it in; speed: too slow; csv: full" }));
        degraded("device: gone: plug it in; speed: too slow");
        degraded("device: gone: plug it in; or take another");
        degraded("channel 2: dead");
        last(10000, status({ degraded: true, why: "channel 1: dead; channel 2: dead" }));
        degraded("channel 1: dead; channel 2: dead; sound: none");
        last(20000, status({ state: "failed", degraded: true, why: "no model" }));
        look();
        const live_ = (source) => live(status().replace("h3", source));
        for (let s = 0; s < 20; s++) { live_("h4"); wait(1000); }
        look();
    """) == [
        ["alerts may fail: h3: degraded: speed: too slow: real-time factor 1.2"],
        [],
        ["alerts may fail: h3: degraded: device: gone: plug it in; speed: too slow; csv: full"],
        [],
        ["alerts may fail: h3: degraded: channel 2: dead"],
        ["alerts may fail: h3: degraded: channel 1: dead; channel 2: dead; sound: none"],
        ["alerts may fail: h3: failed: no model"],
        ["alerts may fail: h3: nothing comes from this microphone: is the daemon running?"],
    ]  # fmt: skip


def test_the_troubles_of_two_microphones_hide_none() -> None:
    assert in_page("""
        for (let s = 0; s < 20; s++) {
          for (const name of ["h3", "roof"]) live(status({ degraded: true, why: "sound: none" }).replace("h3", name));
          wait(1000);
        }
        const answer = says("alarm").split("\\n").slice(0, -1);
    """) == [f"alerts may fail: {name}: degraded: sound: none" for name in ("roof", "h3")]


def test_what_comes_late_for_longer_is_an_alert() -> None:
    """A connection of half the speed, and then one that holds it up for a moment only."""
    assert in_page("""
        const come = (sent, late) => {
          now = sent + late;
          source.alive({ data: "{}" });
          live(status({ t_pub_ns: (sent + 7e11) * 1e6 }));
          tick();
        };
        const answer = [], note = (what) => answer.push([what, now, says("state")]);
        for (let sent = 0; sent <= 40000; sent += 500) {
          const before = says("state");
          come(sent, sent < 5000 ? 0 : sent < 20000 ? (sent - 5000) / 2 : sent === 30000 ? 4000 : 0);
          if (says("state") !== before) note(sent);
        }
    """) == [
        [0, 0, "listening"],
        [14000, 18500, "h3: what comes is late, a connection or this device is too slow"],
        [20000, 20000, "listening"],
    ]  # fmt: skip
    assert in_page("""
        const answer = [];
        for (const clock of [7e11, 7e11 - 3.6e6]) {
          for (let second = 0; second < 20; second++) {
            live(status({ t_pub_ns: (now + clock) * 1e6 }));
            wait(1000);
          }
          answer.push(says("state"));
        }
    """) == ["listening", "listening"]  # though its clock was set back


def test_what_happened_once_or_fails_no_alert_is_only_shown() -> None:
    """A daemon tells for 10 s of a lost block; what it writes, and its clock, is not what alerts come by."""
    whys = [
        "csv: full",
        "jsonl: full; recording: full",
        "clips: full: no; or what: ever",
        "loss: lost; csv: full",
        "clock: set",
        "all channels: dead: nothing but zeros; is it muted?; clips: full",
        "channels 1 and 2: the same: is the device really one of 4 channels?; clock: set",
        "device: open, but frozen; trying to reopen it for 9 s; last: no input device",
        "something new: bad",
        "",
    ]
    kinds = [[], [], [], ["loss"], [], ["all channels"], ["channels 1 and 2"], ["device"], ["degraded"], ["degraded"]]
    assert in_node(f"{whys}.map(page.kinds)", MICROPHONE) == kinds
    known = re.search(r"WHAT = /\^\(\?:(.*)\)\(\?=: \)/", MICROPHONE.read_text())
    assert known
    health = Health(24_000)
    health.lost(1)
    health.computed(9.0, 24_000)
    told = {*health.complaints(overruns=1), *("clips", "clock", "device", "recording", "sound", *kinds[5], *kinds[6])}
    for what in (*told, "channel 3", JsonLines.KIND, EventTable.KIND):
        assert re.fullmatch(known[1], what), what
    assert {JsonLines.KIND, EventTable.KIND} == {"jsonl", "csv"}
    assert in_page("""
        last(11000, status({ degraded: true, why: "loss: samples were lost" }));
        last(60000, status());
        const health = element_("microphones").children[0].parts[".health"], answer = [];
        last(60000, status({ degraded: true, why: "csv: full" }));
        answer.push(rang, document.title, health.textContent, health.classList.contains("trouble"));
    """) == [[], "seldrt", "degraded: csv: full", True]


def test_a_microphone_that_has_ended_is_no_trouble_and_is_forgotten() -> None:
    """While others live; of the only one it is told that nothing is heard. The title has the newest trouble."""
    assert in_page("""
        const answer = [], as = (name, more) => live(status(more).replace("h3", name));
        const all = () => element_("microphones").children.length;
        for (let file = 0; file < 5; file++) {
          as(`file${file}`);
          as(`file${file}`, { state: "ended" });
          last(9000, status());
        }
        answer.push(all(), document.title);
        last(5000, status());
        answer.push(all(), document.title);
        as("file0");
        last(60000, status());
        answer.push(all(), document.title, rang.splice(0));
        document.keydown();
        as("file0", { state: "ended" });
        last(1000, status());
        answer.push(document.title);
        last(1000, status({ degraded: true, why: "sound: none" }));
        answer.push(document.title);
        as("a", { state: "failed" });
        last(1000, status({ degraded: true, why: "sound: none" }));
        answer.push(document.title);
        live(status({ state: "ended" }));
        document.keydown();
        wait(60000);
        answer.push(all(), says("state"), rang);
    """) == [
        *(2, "seldrt", 1, "seldrt"),
        *(2, "⚠ alerts may fail: file0: nothing comes from this microphone: is the daemon running?"),
        ["alerts may fail: file0: nothing comes from this microphone: is the daemon running?"],
        "seldrt",
        *("⚠ h3: degraded: sound: none", "⚠ a: failed"),
        *(1, "nothing heard: is the daemon running?"),
        ["alerts may fail: nothing heard: is the daemon running?"],
    ]  # fmt: skip


def test_it_vibrates_again_until_somebody_confirms() -> None:
    assert in_page("""
        const counts = [], look = () => counts.push(shaken.length);
        const still = [];
        navigator_.vibrate = (pattern) => (pattern ? shaken : still).push(pattern);
        live(event(1, "onset"));
        last(7000, status());
        look();
        document.keydown();
        last(20000, status());
        look();
        live(event(2, "onset"));
        last(300000, status());
        look();
        const answer = [counts, still];
    """) == [[3, 3, 23], [0]]


def test_it_alerts_when_no_alerts_can_come() -> None:
    """Once, when it lasts: a microphone that is degraded, a daemon that died, a page that has no server any more."""
    assert in_page("""
        const answer = [];
        const look = () => { answer.push([rang.length, says("alarm").split("\\n")[0]]); document.keydown(); };
        last(60000, status());
        look();
        last(14000, status({ degraded: true, why: "no sound" }));
        last(3000, status());
        look();
        last(60000, status({ degraded: true, why: "no sound" }));
        look();
        last(60000, status());
        wait(60000);
        look();
        connects();
        wait(1000);
        last(60000, status());
        look();
        breaks();
        wait(2000);
        connects();
        last(60000, status());
        look();
        breaks();
        wait(60000);
        look();
        element_("alert").checked = false;
        live(status());
        connects();
        last(20000, status({ state: "failed", degraded: true, why: "no model" }));
        answer.push(document.title);
    """) == [
        [0, ""],
        [0, ""],
        [1, "alerts may fail: h3: degraded: no sound"],
        [2, "alerts may fail: nothing heard: is the daemon running?"],
        [2, ""],
        [2, ""],
        [3, "alerts may fail: seldrt view has ended, or cannot be reached"],
        "⚠ h3: failed: no model",
    ]  # fmt: skip


def test_an_alert_is_seen_felt_and_told() -> None:
    """What is not alerted of is only read out."""
    assert in_page(
        """
        live(event(1, "onset"));
        for (const phase of ["onset", "update", "update", "offset"]) live(event(2, phase, "piano"));
        const answer = [[...document.body.classList.names], shaken.length, told, element_("spoken").children.length];
        """,
        """
        settings.set("wanted", "alarm");
        const told = [];
        globalThis.Notification = class {
          static permission = "granted";
          constructor(text, { tag, renotify }) { told.push([text, tag, renotify]); }
        };
        """,
    ) == [["alarm", "flash"], 1, [["alarm — left", "h3 alarm", True]], 1]


def test_it_flashes_for_a_moment_at_what_is_new_and_is_outlined_until_somebody_confirms() -> None:
    assert in_page("""
        const answer = [], cleared = [], end = () => { const [ms, done] = later.at(-1); done(); return ms; };
        const look = (...more) => answer.push([[...document.body.classList.names].sort().join(), ...more]);
        globalThis.clearTimeout = (timer) => cleared.push(timer);
        live(event(1, "onset"));
        look(end());
        look();
        wait(500);
        live(event(2, "onset"));
        look(later.length);
        live(event(3, "onset", "piano"));
        look(later.length, cleared.at(-1));
        wait(1500);
        document.click();
        look();
    """) == [["alarm", 2000], ["alarm"], ["alarm", 1], ["alarm,flash", 2, 1], [""]]


def test_an_alert_is_read_out_once_however_often_it_is_written() -> None:
    """A browser reads what is written, not what is different."""
    program = f"import {{ tell }} from {json.dumps(SCRIPT.with_name('alerts.js').as_uri())};"
    assert node(f"""{program}
        const answer = [], classList = {{ toggle() {{}} }};
        const shown = {{ get textContent() {{ return "alarm"; }}, set textContent(text) {{ answer.push(text); }} }};
        for (const text of ["alarm", "piano"]) tell(Object.assign(shown, {{ classList }}), text);
    """) == ["piano"]


def test_a_browser_that_can_do_little_shows_alerts_all_the_same() -> None:
    """It neither vibrates nor has notifications."""
    assert in_page(
        """
        tick();
        const answer = [says("unable").split("; ")];
        live(event(1, "onset"));
        answer.push(says("alarm").split("\\n")[0]);
        wait(1500);
        document.click();
        answer.push(says("alarm"));
        element_("try").click();
        answer.push(says("alarm").split("\\n")[0]);
        """,
        "delete navigator_.vibrate; delete globalThis.Notification;",
    ) == [
        [
            "vibration: no, this browser cannot",
            "notifications: no, this browser has none for pages",
            "keeps the screen on: no, this browser cannot",
        ],
        "alarm — left",
        "",
        "this is how an alert looks",
    ]


def test_who_wants_alerts_is_asked_for_what_they_need_and_remembered() -> None:
    """Notifications, which are asked for at a tap only, and a screen that stays on, for as long as they are wanted."""
    assert in_page(
        """
        const answer = [], look = (...more) => answer.push([asked, held, ...more]);
        const want = async (on) => {
          element_("alert").checked = on;
          element_("alert").change();
          for (let turn = 0; turn < 9; turn++) await null;
          look(settings.get("alert"));
        };
        look();
        await want(true);
        await want(false);
        live(event(1, "onset"));
        look(says("alarm"));
        await want(true);
        live(event(1, "update"));
        await want(false);
        look(says("alarm"));
        element_("try").click();
        look();
        """,
        """
        let asked = 0, held = 0;
        settings.delete("alert");
        Notification.permission = "default";
        Notification.requestPermission = () => { asked += 1; };
        navigator_.wakeLock = { request: async () => { held += 1; return { async release() { held -= 1; } }; } };
        """,
    ) == [
        [0, 0], [1, 1, "yes"], [1, 0, "no"], [1, 0, ""], [2, 1, "yes"], [2, 0, "no"], [2, 0, ""], [3, 0],
    ]  # fmt: skip


def test_it_says_what_of_an_alert_does_not_work_here() -> None:
    assert in_page("""
        const answer = [], look = () => { tick(); answer.push(says("unable").split("; ")); };
        look();
        navigator_.userActivation = { hasBeenActive: false };
        look();
        navigator_.userActivation.hasBeenActive = true;
        navigator_.wakeLock = { request: async () => ({ release() {} }) };
        await document.visibilitychange();
        element_("try").click();
        answer.push(shaken.length);
        look();
        navigator_.wakeLock.request = async () => { throw new DOMException("the battery is low", "NotAllowedError"); };
        await document.visibilitychange();
        look();
        navigator_.wakeLock.request = async () => ({ release() {} });
        await document.visibilitychange();
        look();
        isSecureContext = false;
        globalThis.matchMedia = (query) => ({ matches: query === "(prefers-reduced-motion: reduce)" });
        delete navigator_.vibrate;
        delete navigator_.wakeLock;
        look();
    """) == [
        ["keeps the screen on: no, this browser cannot"],
        ["vibration: not before the first tap", "keeps the screen on: no, this browser cannot"],
        1,
        ["notifications: no, this browser has none for pages"],
        ["notifications: no, this browser has none for pages", "keeps the screen on: no, the device refuses it now"],
        ["notifications: no, this browser has none for pages"],
        [
            *("flash: a red frame, no flashing", "vibration: no, this browser cannot"),
            "notifications: no, for that the address must be https or localhost",
            "keeps the screen on: no, for that the address must be https or localhost",
        ],
    ]  # fmt: skip
    permissions = ["denied", "default"]
    assert in_page(f"""
        const answer = {permissions}.map((permission) => {{
            Notification.permission = permission;
            tick();
            return says("unable").match(/notifications: ([^;]*)/)[1];
        }});
    """) == ["no, they were refused: allow them in the settings of the browser", "not yet: “try it” asks for them"]


def test_a_real_browser_shows_what_was_heard(viewer: Viewer) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        lacking("there is no chromium")
    event = {"type": "event", "source": "h3", "epoch": 1, "event_id": 3, "phase": "offset", "class": "barking_dog"}
    event |= {"azimuth_deg": 90.0, "elevation_deg": 3.0, "duration_ms": 1500, "onset_ns": 1_700_000_000_000_000_000}
    viewer.show(json.dumps(event).encode(), keep=True)
    status = {"type": "status", "source": "h3", "state": "running", "model_id": "own", "degraded": False, "why": ""}

    def end() -> None:  # with a stream that goes on the page is never done
        until(lambda: viewer._watching, seconds=60)
        viewer.show(json.dumps(status).encode(), keep=False)
        time.sleep(1)
        viewer.close()

    ends = threading.Thread(target=end)
    ends.start()
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, viewer.urls[0]], capture_output=True, text=True, timeout=120, check=True)
    ends.join()
    cells = re.findall(r"<td>(.*?)</td>", done.stdout)
    assert "2023" in cells[0]
    assert cells[1:] == ["h3", "barking dog", "left", "90°", "3°", "1.5 s"]
    assert re.findall(r"<article>\s*<h2>(.*?)</h2>", done.stdout.split("<template")[0]) == ["h3"]
