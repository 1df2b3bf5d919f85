"""When a recording was made: what it says itself, or its name.

In this order: the tag `date` (as `seldrt run --record` writes it), the origination date and time of a Broadcast Wave
(EBU Tech 3285, chunk `bext`; field recorders write it), a date with a time of day in the name of the file. Where
nothing says the zone, it is that of this computer.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from seldrt.runtime.devices import CaptureError

IN_FILE = "file"  # instead of a time: that of each file
DATE, TIME = slice(320, 330), slice(330, 338)  # of bext: YYYY-MM-DD and HH:MM:SS, with any sign between the numbers
RIFFS = (b"RIFF", b"RF64", b"BW64")
NAMED = re.compile(
    r"(?<!\d)((?:\d\d)?\d\d)([-_.]?)([01]\d)\2([0-3]\d)[-_T ]{1,3}([0-2]\d)([-_.:]?)([0-5]\d)\6([0-5]\d)"
    r"(\.\d{3,9})?([Zz]|[+-](?:0\d|1[0-4]):?(?:00|15|30|45))?(?!\d)"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEARS = range(1971, 2262)  # whose nanoseconds fit into messages, in any zone


def start_ns(told: str, path: Path) -> int:
    """UNIX time of the first sample: ``told`` in ISO 8601, or that of the file where it is `IN_FILE`.

    `CaptureError` where neither is a date with a time of day.
    """
    if told != IN_FILE:
        time = _parsed(told)
        if time is None:
            asked = "give a date and time like 2026-06-01T05:00:00 (or ...00Z, ...+02:00), or file"
            raise CaptureError(f"--start {told}: {asked}")
    else:
        time = _tagged(path) or _broadcast(path) or _named(path.name)
        if time is None:
            asked = "name it like 20260601_050000.wav, or replay it alone with --start YYYY-MM-DDTHH:MM:SS"
            raise CaptureError(f"{path}: neither its tags nor its name say when it was made; {asked}")
    since = time.astimezone() - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _parsed(text: str) -> datetime | None:
    """A date with a time of day in ISO 8601."""
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
        return time if time.year in YEARS and len(text) > len("2026-06-01") else None
    return None


def _tagged(path: Path) -> datetime | None:
    import soundfile

    with suppress(RuntimeError, OSError), soundfile.SoundFile(path) as file:
        return _parsed(file.date or "")
    return None


def _broadcast(path: Path) -> datetime | None:
    with suppress(OSError, ValueError), path.open("rb") as file:
        if file.read(12)[:4] not in RIFFS:
            return None
        while header := file.read(8):
            name, size = struct.unpack("<4sI", header.ljust(8, b"\0"))
            if name == b"bext":
                body = file.read(TIME.stop)
                date, time = re.findall(rb"\d+", body[DATE]), re.findall(rb"\d+", body[TIME])
                return _parsed(b"-".join(date).decode() + "T" + b":".join(time).decode())
            if name == b"data":  # may say nothing true of its size; what is after it is left out
                return None
            file.seek(size + size % 2, 1)
    return None


def _named(name: str) -> datetime | None:
    for match in NAMED.finditer(name):
        year, _, month, day, hour, _, minute, second, fraction, zone = match.groups()
        century = "" if len(year) == 4 else "20"
        date, time = f"{century}{year}-{month}-{day}", f"{hour}:{minute}:{second}{fraction or ''}"
        if found := _parsed(f"{date}T{time}{(zone or '').upper()}"):
            return found
    return None
