"""The page for browsers: real processes, connections that are slow, strange or too many, and a real browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from seldrt.detection import WireError
from seldrt.runtime import web
from seldrt.runtime.clip_folder import find_clip
from seldrt.runtime.web import Viewer
from seldrt.spatial import unit_vector
from tests.seldrt.energy_pipeline import SAMPLE_RATE, two_pianos
from tests.seldrt.test_cli import SMALL, seldrt, start

SCRIPT = Path(web.__file__).with_name("page.js")


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
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        self.socket.sendall(f"GET /messages HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        self.lines = self.socket.makefile("rb")
        assert b" 200 " in self.lines.readline()
        while self.lines.readline().strip():
            pass

    def message(self) -> tuple[str, dict[str, object]]:
        """The next message, and the kind of event that it is to a browser."""
        kind = "message"
        while True:
            line = self.lines.readline()
            assert line, "the stream has ended"
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                kind = value
            if name == "data":
                return kind, json.loads(value)

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def until(true: object, seconds: float = 10.0) -> None:
    end_s = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_browser_gets_what_a_daemon_hears(tmp_path: Path) -> None:
    url, recording = f"ipc://{tmp_path}/s", tmp_path / "garden.wav"
    soundfile.write(recording, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    process = start("view", "--connect", url, "--bind", "127.0.0.1:0")
    assert process.stderr is not None
    (page,) = re.findall(r"open (http://127\.0\.0\.1:\d+/) in a browser", process.stderr.readline())
    watching = Watching(page)
    daemon = start("replay", recording, "--bind", url, program=SMALL)
    messages = [watching.message()[1]]
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


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(viewer: Viewer) -> None:
    status, headers, page = get(viewer.url, "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "media-src blob:" in headers["Content-Security-Policy"]  # how the page plays clips
    wanted = re.findall(r'(?:src|href)="([^"]*)"', page.decode())
    assert set(wanted) == {"page.css", "page.js"}
    for name in wanted:
        status, headers, content = get(viewer.url, f"/{name}")
        assert (status, content) == (200, SCRIPT.with_name(name).read_bytes())
        assert headers["Content-Type"].startswith({"css": "text/css", "js": "text/javascript"}[name.split(".")[1]])
        assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")


@pytest.mark.parametrize("path", ["/x", "/../web/__init__.py", "/__init__.py", "/%2e%2e/page.js", "/page.js?"])
def test_there_is_nothing_else(viewer: Viewer, path: str) -> None:
    assert get(viewer.url, path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "[", ""])
def test_a_strange_name_gets_nothing(viewer: Viewer, host: str) -> None:
    for path in ("/", "/messages"):
        assert get(viewer.url, path, host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8600"])
def test_the_names_of_this_machine_are_good(viewer: Viewer, host: str) -> None:
    assert get(viewer.url, "/", host)[0] == 200


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


def test_a_clip_is_found_by_what_its_message_says(clips: Path) -> None:
    with closing(Viewer("127.0.0.1:0", find_clip=partial(find_clip, clips))) as viewer:
        watching = Watching(viewer.url)
        assert watching.message() == ("clips", {})
        watching.close()

        def clip(class_: str = "piano", source: str = "roof", onset_ms: object = ONSET_MS) -> tuple[int, bytes]:
            status, headers, content = get(viewer.url, f"/clip?class={class_}&source={source}&onset_ms={onset_ms}")
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
            *({"onset_ms": "x"}, {"onset_ms": 10**30}, {"onset_ms": -(10**20)}, {"onset_ms": ""}),
        ):
            assert clip(**other) == (404, b"not found\n")
        for path in ("/clip", "/clip?", "/clip?class=piano", "/clips"):
            assert get(viewer.url, path)[0] == 404
        assert get(viewer.url, f"/clip?class=piano&source=roof&onset_ms={ONSET_MS}", "evil.example")[0] == 403
        assert headers_of(viewer)["Cross-Origin-Resource-Policy"] == "same-origin"
        (path,) = clips.rglob("120000.250Z*")
        path.unlink()
        assert clip()[0] == 404


def headers_of(viewer: Viewer) -> dict[str, str]:
    return get(viewer.url, f"/clip?class=piano&source=roof&onset_ms={ONSET_MS}")[1]


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
    watching = Watching(viewer.url)
    assert watching.message()[0] == "past"
    watching.close()
    assert get(viewer.url, f"/clip?class=piano&source=roof&onset_ms={ONSET_MS}")[0] == 404
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


def test_who_may_be_seen_by_others_is_known_by_addresses_and_names_of_its_own() -> None:
    with closing(Viewer("0.0.0.0:0", insecure_bind=True)) as viewer:
        assert urlsplit(viewer.url).hostname == socket.gethostname().lower()
        here = f"http://127.0.0.1:{urlsplit(viewer.url).port}/"
        for host in ("robot.local:8600", "192.168.1.5:8600", "[fe80::1]", socket.gethostname(), "localhost:8600"):
            assert get(here, "/", host)[0] == 200
        for host in ("evil.example", "evil.example:8600", "local", ""):
            assert get(here, "/", host)[0] == 403


def test_who_is_too_slow_is_dropped_and_holds_nobody_up(viewer: Viewer) -> None:
    slow, quick = Watching(viewer.url), Watching(viewer.url)
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


def test_who_leaves_is_forgotten(viewer: Viewer) -> None:
    watching = Watching(viewer.url)
    until(lambda: len(viewer._watching) == 1)
    watching.close()

    def forgotten() -> bool:
        viewer.show(b"{}", keep=False)
        return not viewer._watching

    until(forgotten)


def test_there_is_room_for_so_many_and_anew_when_they_leave(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web._Request, "timeout", 5.0)
    many = [socket.create_connection(viewer._server.server_address[:2]) for _ in range(web.MOST_CONNECTIONS)]
    with pytest.raises((http.client.HTTPException, OSError)):
        get(viewer.url, "/")

    def answered() -> bool:
        try:
            return get(viewer.url, "/")[0] == 200
        except (http.client.HTTPException, OSError):
            return False

    until(answered, 20)  # who says nothing loses his place
    for one in many:
        one.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0.0.0.0:8600", "others on the network could watch"),
        ("robot.local:8600", "others on the network could watch"),
        ("8600", "use HOST:PORT"),
        ("127.0.0.1:x", "use HOST:PORT"),
        ("127.0.0.1:70000", "use HOST:PORT"),
        ("{taken}", "Address already in use; choose another --bind"),
    ],
)
def test_an_address_that_will_not_do_is_refused(viewer: Viewer, address: str, message: str) -> None:
    with pytest.raises(WireError, match=message):
        Viewer(address.format(taken=urlsplit(viewer.url).netloc))


def test_the_command_says_what_will_not_do_in_one_line() -> None:
    code, _, errors = seldrt("view", "--bind", "0.0.0.0:8600")
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith("seldrt: refused to serve at 0.0.0.0:8600")


def in_node(expression: str) -> object:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    program = f"import * as page from {json.dumps(SCRIPT.as_uri())}; console.log(JSON.stringify({expression}))"
    command = [node, "--input-type=module", "-e", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_directions_are_drawn_where_they_are() -> None:
    """The horizon is a circle of 100, seen from above: +x of the unit vector is up, +y is left."""
    azimuths = [0, 30, 90, 135, -180, -90, -45]
    drawn = in_node(f"{azimuths}.map((azimuth) => page.place(azimuth, 0))")
    x, y, _ = unit_vector(np.array(azimuths), 0.0).T
    np.testing.assert_allclose(drawn, np.stack([-100 * y, -100 * x], axis=-1), atol=1e-9)
    off_the_horizon = in_node("[[90, 45], [0, -90], [12, 90]].map((d) => page.place(...d))")
    np.testing.assert_allclose(off_the_horizon, [[-50, 0], [0, 0], [0, 0]], atol=1e-9)


def test_directions_are_told_in_words() -> None:
    told = {
        (0, 0): "in front", (90, 10): "left", (-90, 0): "right", (179, 0): "behind", (-180, 0): "behind",
        (45, 0): "front left", (-135, 0): "behind, right", (90, 40): "left, above", (-20, -30): "in front, below",
        (77, 80): "overhead", (77, -80): "below",
    }  # fmt: skip
    assert in_node(f"{[list(d) for d in told]}.map((d) => page.words(...d))") == list(told.values())


def test_who_waits_for_some_sounds_is_not_alerted_of_others() -> None:
    texts = ["", " , ", "alarm, crying baby", "Crying_Baby", "baby"]
    assert in_node(f"{texts}.map((text) => page.isWanted(text, 'crying_baby'))") == [True, True, True, True, False]


PHONE = """
const rows = [], spoken = [];
const element = () => ({
  children: [], textContent: "", value: "", classList: { toggle() {}, add() {}, remove() {} },
  addEventListener(kind, done) { this[kind] = done; }, setAttribute() {}, within: [],
  remove() { this.within.splice(this.within.indexOf(this), 1); },
  append(...parts) { for (const part of parts) { this.children.push(part); part.within = this.children; } },
  replaceChildren(...parts) { this.children = parts; },
  prepend(row) { rows.unshift(row); row.within = rows; }, querySelector: element,
  get firstChild() { return this.children[0]; }, get content() { return { cloneNode: element }; },
});
const known = new Map();
globalThis.document = {
  getElementById: (id) => known.get(id) ?? known.set(id, element()).get(id), createElement: element,
  createElementNS: element, body: element(),
};
globalThis.localStorage = { getItem: (key) => (key === "alert" ? "yes" : null), setItem() {} };
globalThis.window = globalThis;
Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
globalThis.Notification = class {
  static permission = "granted";
  constructor() { throw new TypeError("a telephone"); }
};
globalThis.setInterval = () => 0;
let source;
globalThis.EventSource = class {
  constructor() { source = this; }
  addEventListener(kind, heard) { this[kind] = heard; }
};
await import(SCRIPT);
const event = (id, phase, age_s = 0) => JSON.stringify({
  type: "event", source: "h3", epoch: 1, event_id: id, phase, class: "alarm", azimuth_deg: 90, elevation_deg: 0,
  duration_ms: 100, onset_ns: (Date.now() - 1000 * age_s) * 1e6,
});
"""


def in_page(program: str) -> object:
    """The page with as little of a browser as it needs; the program leaves its answer in `answer`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    text = PHONE.replace("SCRIPT", json.dumps(SCRIPT.as_uri())) + program + "\nconsole.log(JSON.stringify(answer));"
    text += "process.exit(0);"
    command = [node, "--input-type=module", "-e", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_connection_that_comes_back_writes_nothing_twice() -> None:
    assert in_page("""
        for (let turn = 0; turn < 3; turn++)
          for (const phase of ["onset", "offset"]) source.past({ data: event(1, phase) });
        const answer = rows.map((row) => row.children.length);
    """) == [8]  # fmt: skip


def test_the_log_of_days_stays_short() -> None:
    assert in_page("""
        for (let id = 0; id < 1000; id++) source.onmessage({ data: event(id, "onset") });
        const answer = [rows.length, document.getElementById("spoken").children.length];
    """) == [200, 20]  # fmt: skip


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
        for (const phase of ["onset", "update"]) source.onmessage({ data: event(1, phase) });
        const before = rows[0].children.length;
        for (let turn = 0; turn < 2; turn++) source.onmessage({ data: event(1, "offset") });
        const cell = rows[0].children[7], [button] = cell.children, texts = [];
        for (let click = 0; click < 3; click++) { await button.click(); texts.push(button.textContent); }
        const answer = [before, rows[0].children.length, cell.className, asked[0], texts, played];
    """) == [
        *(7, 8, "clip", "clip?class=alarm&source=h3&onset_ms=T"),
        *(["▶", "no clip", "no clip"], ["blob:sound"]),
    ]  # fmt: skip


def test_an_alert_is_for_what_begins_now() -> None:
    """Not for an offset, an update of something older, or what waited for a tab that slept."""
    assert in_page("""
        const before = () => document.getElementById("spoken").children.length, answer = [];
        for (const data of [event(1, "offset"), event(2, "update"), event(3, "onset", 60), event(4, "onset")]) {
          const count = before();
          source.onmessage({ data });
          answer.push(before() - count);
        }
    """) == [0, 0, 0, 1]  # fmt: skip


def test_a_real_browser_shows_what_was_heard(viewer: Viewer) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium")
    event = {"type": "event", "source": "h3", "epoch": 1, "event_id": 3, "phase": "offset", "class": "barking_dog"}
    event |= {"azimuth_deg": 90.0, "elevation_deg": 3.0, "duration_ms": 1500, "onset_ns": 1_700_000_000_000_000_000}
    viewer.show(json.dumps(event).encode(), keep=True)

    def end() -> None:  # with a stream that goes on the page is never done
        until(lambda: viewer._watching, 60)
        time.sleep(1)
        viewer.close()

    ends = threading.Thread(target=end)
    ends.start()
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, viewer.url], capture_output=True, text=True, timeout=120, check=True)
    ends.join()
    cells = re.findall(r"<td>(.*?)</td>", done.stdout)
    assert cells[1:] == ["h3", "barking dog", "left", "90°", "3°", "1.5 s"]
