"""When recordings were made: tags, Broadcast Wave, names."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from seldrt.runtime.devices import CaptureError
from seldrt.runtime.origination import start_ns

MORNING_NS = 1_780_290_000_000_000_000  # 2026-06-01T05:00:00Z, by `date -d`
HOUR_NS = 3_600_000_000_000


@pytest.fixture(autouse=True)
def eastern_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two hours before UTC."""
    monkeypatch.setenv("TZ", "XYZ-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def broadcast_wave(path: Path, date: bytes, clock: bytes, riff: bytes = b"RIFF", tag: bytes = b"") -> Path:
    """As EBU Tech 3285 lays it out, with a chunk of odd length before ``bext``, and before the sound a tag `date`."""
    bext = b"morning".ljust(256, b"\0") + b"a recorder".ljust(32, b"\0") + bytes(32) + date + clock + bytes(8 + 2 + 254)
    form = struct.pack("<HHIIHH", 1, 4, 24000, 24000 * 8, 8, 16)
    tags = chunk(b"LIST", b"INFO" + chunk(b"ICRD", tag)) if tag else b""
    body = b"WAVE" + chunk(b"junk", b"odd") + chunk(b"fmt ", form) + chunk(b"bext", bext) + tags
    body += chunk(b"data", bytes(8000))
    path.write_bytes(riff + struct.pack("<I", len(body)) + body)
    return path


def plain_wave(path: Path, **tags: str) -> Path:
    with soundfile.SoundFile(path, "w", 24000, 4) as file:
        for name, text in tags.items():
            setattr(file, name, text)
        file.write(np.zeros((100, 4)))
    return path


@pytest.mark.parametrize(
    ("told", "after_ns"),
    [
        ("2026-06-01T05:00:00Z", 0),
        ("2026-06-01T05:00:00", -2 * HOUR_NS),
        ("2026-06-01 05:00", -2 * HOUR_NS),
        ("2026-06-01T05:00:00.25+01:00", -HOUR_NS + 250_000_000),
        ("1971-01-01T00:00:00+14:00", 31_485_600 * 10**9 - MORNING_NS),  # by `date -d`
        (
            "2261-12-31T23:59:59-14:00",
            9_214_696_799 * 10**9 - MORNING_NS,
        ),  # as large as messages can be, and not larger
    ],
)
def test_a_time_is_of_its_zone_or_of_that_of_the_computer(told: str, after_ns: int) -> None:
    assert start_ns(told, Path("no_such.wav")) == MORNING_NS + after_ns


@pytest.mark.parametrize(
    "told",
    [
        *("", "5", "now", "2026-06-01", "2026-13-01T05:00:00", "20260601", "File", "0001-01-01T00:00"),
        *("1970-01-01T00:00+01:00", "2262-04-12T00:00Z", "9999-12-31T23:59"),
    ],
)
def test_what_is_no_time_is_refused(told: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(f"--start {told}: give a date and time like 2026-06-01T05:00:00")):
        start_ns(told, Path("no_such.wav"))


@pytest.mark.parametrize("riff", [b"RIFF", b"RF64", b"BW64"])
@pytest.mark.parametrize(("date", "clock"), [(b"2026-06-01", b"05:00:00"), (b"2026_06_01", b"05-00-00")])
def test_field_recorders_write_it_into_the_file(tmp_path: Path, date: bytes, clock: bytes, riff: bytes) -> None:
    assert start_ns("file", broadcast_wave(tmp_path / "ZOOM0001.WAV", date, clock, riff)) == MORNING_NS - 2 * HOUR_NS


def test_a_tag_says_more_than_a_recorder_and_that_more_than_a_name(tmp_path: Path) -> None:
    path = broadcast_wave(tmp_path / "20200101_000000.WAV", b"2026-06-01", b"05:00:00")
    assert start_ns("file", path) == MORNING_NS - 2 * HOUR_NS
    broadcast_wave(path, b"2021-01-01", b"00:00:00", tag=b"2026-06-01T05:00:00Z")
    assert start_ns("file", path) == MORNING_NS


def test_a_broadcast_wave_without_a_date_is_asked_for_its_name(tmp_path: Path) -> None:
    path = broadcast_wave(tmp_path / "260601-050000.WAV", bytes(10), bytes(8))
    assert start_ns("file", path) == MORNING_NS - 2 * HOUR_NS
    for date in (b"2026-99-01", b"0001-01-01", b"0000-00-00"):
        path = broadcast_wave(tmp_path / "ZOOM0001.WAV", date, b"05:00:00")
        with pytest.raises(CaptureError, match=r"ZOOM0001\.WAV: neither its tags nor its name say when it was made"):
            start_ns("file", path)


def test_what_run_recorded_says_it_in_a_tag(tmp_path: Path) -> None:
    path = plain_wave(tmp_path / "h3vr_20200101T000000.000Z.flac", date="2026-06-01T05:00:00.123456789Z")
    assert start_ns("file", path) == MORNING_NS + 123_456_000
    music = plain_wave(tmp_path / "20260601_050000.flac", date="2019")  # a year alone is no time
    assert start_ns("file", music) == MORNING_NS - 2 * HOUR_NS


@pytest.mark.parametrize(
    ("name", "after_ns"),
    [
        ("20260601_050000.WAV", -2 * HOUR_NS),
        ("260601-050000.WAV", -2 * HOUR_NS),
        ("S4A01234_20260601_050000.wav", -2 * HOUR_NS),
        ("2026-06-01 05-00-00.wav", -2 * HOUR_NS),
        ("2026-06-01 - 05-00-00.wav", -2 * HOUR_NS),
        ("2026.06.01_05.00.00.wav", -2 * HOUR_NS),
        ("garden_20260601T050000.250Z.wav", 250_000_000),
        ("garden_20260601T050000.250000Z.wav", 250_000_000),
        ("20260601T050000z.wav", 0),
        ("20260601T050000+1000_site.wav", -10 * HOUR_NS),
        ("20260601T050000-03:30.wav", 3 * HOUR_NS + HOUR_NS // 2),
        ("20260601T050000+1400.wav", -14 * HOUR_NS),
        ("20260601T050000+0545.wav", -5 * HOUR_NS - HOUR_NS * 3 // 4),
        ("20260601_050000.4ch.wav", -2 * HOUR_NS),
        ("20260601_050000-0012.wav", -2 * HOUR_NS),
        ("take2_261301_050000_20260601_050000.wav", -2 * HOUR_NS),
    ],
)
def test_recorders_name_files_by_it(tmp_path: Path, name: str, after_ns: int) -> None:
    assert start_ns("file", plain_wave(tmp_path / name)) == MORNING_NS + after_ns


@pytest.mark.parametrize(
    "name",
    [
        *("garden.wav", "20260601.wav", "mix001_ov1.wav", "99999999_999999.wav", "1_2.wav"),
        *("120260601_050000.wav", "20260601_0500001.wav", "2026-0601_050000.wav", "20260601_05-0000.wav"),
        "20260601_050000/garden.wav",
    ],
)
def test_other_names_say_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    with pytest.raises(CaptureError, match="replay it alone with --start YYYY-MM-DDTHH:MM:SS"):
        start_ns("file", plain_wave(tmp_path / name))


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)))
def test_names_are_read_back(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    expected = round(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    for form in ("%Y%m%d_%H%M%SZ", "%y%m%d-%H%M%SZ", "site 7 %Y-%m-%d %H-%M-%SZ"):
        path = Path(os.sep) / "no_such_folder" / f"{moment.strftime(form)}.wav"
        assert start_ns("file", path) == expected


@given(st.binary(max_size=200))
def test_torn_files_are_no_traceback(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("torn") / "torn.wav"
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + body)
    with pytest.raises(CaptureError):
        start_ns("file", path)
