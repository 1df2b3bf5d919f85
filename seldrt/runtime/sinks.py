"""Where the daemon's findings go, besides the status: the wire, JSON lines, tables of events and of DCASE, a terminal.

The files of a recording hold times since its start or, if it is told, since when it was made, and never the time of the
replay: their bytes depend on the sound and the model only. Those of a microphone hold the time of day, and go on where
the last run stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seldrt.detection import AnyMessage, Clock, Event, StreamInfo, stream_line
from seldrt.files import replace, unused_name
from seldrt.findings import ActiveSource, EventChange, LabelFrame
from seldrt.levels import LevelMeter
from seldrt.runtime.outputs import OutputError, cannot_write


class Sink:
    """Takes what it wants of the sound and the findings; `finish` ends the good case, `close` every case."""

    def heard(self, sample: int, samples: NDArray[np.float32]) -> None: ...

    def frame(self, frame: LabelFrame) -> None: ...

    def event(self, change: EventChange) -> None: ...

    def gap(self, sample: int, lost_samples: int) -> None: ...

    def breaks_off(self) -> None:
        """The stream has ended: what is heard afterwards, if anything, is not connected."""

    def complaints(self) -> dict[str, str]:
        """What is wrong now, by what it is wrong with."""
        return {}

    def finish(self) -> None: ...

    def close(self) -> None: ...


class MessageSink(Sink):
    """Makes messages of all findings, dated by ``clock()``, and hands them to ``send``."""

    def __init__(self, info: StreamInfo, clock: Callable[[], Clock], send: Callable[[AnyMessage], None]) -> None:
        self._info, self._clock, self._send = info, clock, send
        self._onsets: dict[int, int] = {}  # sample and time of those that were told lately, the latest last

    def frame(self, frame: LabelFrame) -> None:
        message = self._info.frame(frame, self._clock())
        for detection, source in zip(message.detections, frame.sources, strict=True):
            detection.onset_ns = self._as_told(source.onset_sample, detection.onset_ns)
        self._send(message)

    def event(self, change: EventChange) -> None:
        message = self._info.event(change, self._clock())
        message.onset_ns = self._as_told(change.source.onset_sample, message.onset_ns)
        self._send(message)

    def _as_told(self, onset_sample: int, onset_ns: int) -> int:
        """The time that was told first: the clock follows the drift of a device, and an onset does not move."""
        told_ns = self._onsets.pop(onset_sample, onset_ns)
        self._onsets[onset_sample] = told_ns
        if len(self._onsets) > 10 * len(self._info.classes):
            del self._onsets[next(iter(self._onsets))]
        return told_ns

    def gap(self, sample: int, lost_samples: int) -> None:
        self._send(self._info.gap(sample, lost_samples, self._clock()))


class LevelSink(Sink):
    """Level messages, one for each label frame of sound, to ``send``."""

    def __init__(self, info: StreamInfo, clock: Callable[[], Clock], send: Callable[[AnyMessage], None]) -> None:
        self._info, self._clock, self._send = info, clock, send
        self._meter = LevelMeter(info.samples_per_label)

    def heard(self, sample: int, samples: NDArray[np.float32]) -> None:
        for loudness in self._meter.push(sample, samples):
            self._send(self._info.level(loudness, self._clock()))


class Lines(MessageSink, ABC):
    """What one stream adds to a file, line by line, by ``write``; ``complaint`` says why some were lost lately.

    Times are those since the beginning of a recording; with a clock, that of a microphone or of when a recording was
    made, they are UNIX times.
    """

    KIND = ""
    HEADING = b""

    def __init__(
        self,
        info: StreamInfo,
        clock: Callable[[], Clock] | None,
        write: Callable[[bytes], None],
        complaint: Callable[[], str] = str,
    ) -> None:
        beginning = Clock(0, info.sample_rate)
        super().__init__(info, clock or (lambda: beginning), self._add)
        self._dated, self._write, self._complaint = clock is not None, write, complaint

    def _add(self, message: AnyMessage) -> None:
        if line := self.line(message):
            self._write(line)

    def complaints(self) -> dict[str, str]:
        text = self._complaint()
        return {self.KIND: text} if text else {}

    @abstractmethod
    def line(self, message: AnyMessage) -> bytes:
        """What is written of a message; nothing where it is empty."""


class JsonLines(Lines):
    """All findings as JSON lines, see `stream_line`."""

    KIND = "jsonl"

    def line(self, message: AnyMessage) -> bytes:
        return stream_line(message)


class EventTable(Lines):
    """A CSV table for spreadsheets: events when they are over; in seconds or, with a clock, in UTC.

    The direction is that of when the class was surest, and the confidence is that.
    """

    KIND = "csv"
    HEADING = b"source,onset,offset,class,azimuth_deg,elevation_deg,confidence\n"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._surest: dict[int, Event] = {}  # of the events that sound

    def line(self, message: AnyMessage) -> bytes:
        if not isinstance(message, Event):
            return b""
        surest = max(self._surest.get(message.event_id, message), message, key=lambda event: event.confidence)
        self._surest[message.event_id] = surest
        if message.phase != "offset":
            return b""
        del self._surest[message.event_id]
        onset_ns, offset_ns = message.onset_ns, message.onset_ns + message.duration_ms * 1_000_000
        place = f"{surest.azimuth_deg:.1f},{surest.elevation_deg:.1f},{surest.confidence:.2f}"
        line = f"{message.source},{self._time(onset_ns)},{self._time(offset_ns)},{message.class_},{place}\n"
        return line.encode()

    def _time(self, time_ns: int) -> str:
        if not self._dated:
            return f"{time_ns / 1e9:.3f}"
        return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def event_text(phase: str, class_: str, heard: ActiveSource | Event, lasted_s: float) -> str:
    """What a line says of an event: at its offset, also how long it lasted."""
    lasted = f"  lasted {lasted_s:.1f} s" if phase == "offset" else ""
    return (
        f"{phase:<6}  {class_:<18}  az {heard.azimuth_deg:+z5.0f}°  el {heard.elevation_deg:+z4.0f}°"
        f"  confidence {heard.confidence:.2f}{lasted}"
    )


class EventLines(Sink):
    """A line at the onset and one at the offset of each event, with the time since the start of the stream."""

    def __init__(self, info: StreamInfo, write: Callable[[str], None]) -> None:
        self._info, self._write = info, write

    def event(self, change: EventChange) -> None:
        if change.phase == "update":
            return
        rate, source = self._info.sample_rate, change.source
        name = self._info.classes[source.class_id]
        text = event_text(change.phase, name, source, change.duration_samples / rate)
        self._write(f"{change.sample / rate:8.1f} s  {text}")

    def gap(self, sample: int, lost_samples: int) -> None:
        rate = self._info.sample_rate
        self._write(f"{sample / rate:8.1f} s  lost    {lost_samples / rate:.2f} s of sound")


class DcaseCsv(Sink):
    """DCASE table: ``frame,class,track,azimuth,elevation``, whole numbers, no header, 100 ms frames from 0.

    Written under a temporary name; the file appears, whole, when the stream ends, or keeps that name where it cannot.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._temporary = unused_name(self._path)
        self._is_whole = False
        try:
            self._file = self._temporary.open("xb")  # follows no link that others laid there
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def frame(self, frame: LabelFrame) -> None:
        try:
            self._file.writelines(
                b"%d,%d,%d,%d,%d\n"
                % (
                    frame.index,
                    source.class_id,
                    source.track,
                    (round(source.azimuth_deg) + 180) % 360 - 180,
                    round(source.elevation_deg),
                )
                for source in frame.sources
            )
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def finish(self) -> None:
        try:
            self._file.close()
            self._is_whole = True
            replace(self._temporary, self._path)
        except OSError as error:
            kept = f"; the table is kept as {self._temporary}" if self._is_whole else ""
            raise OutputError(f"{cannot_write(self._path, error)}{kept}") from None

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        if not self._is_whole:
            self._temporary.unlink(missing_ok=True)
