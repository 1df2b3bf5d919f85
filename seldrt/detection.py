"""The messages: what the daemon says, and their bytes on the wire.

Two ZeroMQ frames a message: an ASCII topic that ends with a dot, then one msgpack map. Readers ignore unknown keys;
new keys are optional; a breaking change is a new topic family. Degrees: azimuth +left in [-180, 180), elevation +up.
Times are integer UNIX nanoseconds; `sample` counts at the model's rate from the start of the stream.

Inside the program nothing has a clock: `seldrt.findings` hold sample indices, and become messages with a `Clock`. So
what is written to a file does not depend on the day.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

from seldrt.config import ConfigError, SeldrtError
from seldrt.findings import ActiveSource, EventChange, LabelFrame, Loudness, Phase

PROTOCOL_VERSION = 1
TOPIC_FAMILY = "seld1"

_NAME = r"^[A-Za-z0-9_-]{1,64}(?!\n)$"

# What readers can rely on: checked where a message is read, and part of the JSON Schema.
Name = Annotated[str, Meta(pattern=_NAME, description="can stand in a topic")]
Count = Annotated[int, Meta(ge=0)]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1, description="UNIX time in nanoseconds")]
AzimuthDeg = Annotated[float, Meta(ge=-180, lt=180, description="counter-clockwise from the front: +90 is left")]
ElevationDeg = Annotated[float, Meta(ge=-90, le=90, description="up is positive")]
Confidence = Annotated[float, Meta(ge=0, le=1)]
SpreadDeg = Annotated[float, Meta(ge=0, le=90, description="of the directions around the motion that they are told of")]
Dbfs = Annotated[float, Meta(ge=-120, description="20 log10 of the amplitude; at least -120")]


class WireError(SeldrtError):
    """A message or an address that cannot be used."""


class Detection(msgspec.Struct, kw_only=True):
    """One sounding source in one label frame (100 ms)."""

    class_: Name = msgspec.field(name="class")
    class_id: Count
    track: Count
    azimuth_deg: AzimuthDeg
    elevation_deg: ElevationDeg
    confidence: Confidence
    onset_ns: Nanoseconds
    spread_deg: SpreadDeg | None = None  # older daemons do not tell


class Message(msgspec.Struct, kw_only=True):
    """What every message shares; the publisher sets `seq`, `epoch` and `t_pub_ns`."""

    v: int = PROTOCOL_VERSION
    source: Name  # which microphone
    seq: Count = 0  # +1 for each message of this type: a jump means lost messages
    epoch: Count = 0  # random at each start: a restart is not a gap
    t_capture_ns: Nanoseconds  # the middle of what it speaks of
    t_pub_ns: Nanoseconds = 0
    sample: Count  # the first sample of what it speaks of


class Frame(Message, tag_field="type", tag="frame"):
    """All that sounds in one label frame; sent for every label frame, also when nothing does."""

    frame_ms: Count
    detections: list[Detection]


class Event(Message, tag_field="type", tag="event"):
    """The onset, an update (at most two a second) or the offset of one event."""

    event_id: Count  # unique together with source and epoch
    phase: Phase
    duration_ms: Count
    class_: Name = msgspec.field(name="class")
    class_id: Count
    track: Count
    azimuth_deg: AzimuthDeg
    elevation_deg: ElevationDeg
    confidence: Confidence
    onset_ns: Nanoseconds
    spread_deg: SpreadDeg | None = None  # older daemons do not tell


class Status(Message, tag_field="type", tag="status"):
    """How the daemon is: once a second, to each new subscriber, and as its last word."""

    state: Literal["running", "ended", "failed"]
    uptime_s: float
    overruns: Count  # times the device or the ring ran over
    lost_samples: Count
    real_time_factor: float | None  # computing time / audio time, lately; above 1 it cannot keep up
    latency_p50_ms: float | None  # capture of the newest sample used -> published, lately
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    model_id: str
    degraded: bool
    why: str  # "" when not degraded
    classes: list[Name] = []  # that may be reported, in the order of `class_id`; older daemons do not tell


class Gap(Message, tag_field="type", tag="gap"):
    """Samples that were never heard, from `sample` on."""

    lost_samples: Count


class Level(Message, tag_field="type", tag="level"):
    """How loud the channels W, Y, Z, X (AmbiX) are, ten times a second; sent if asked for."""

    level_ms: Count  # how long the sound is that it speaks of
    rms_dbfs: list[Dbfs]  # of a sine of full scale: -3.0
    peak_dbfs: list[Dbfs]


AnyMessage = Frame | Event | Status | Gap | Level
Read = TypeVar("Read")

_encoder = msgspec.msgpack.Encoder()
_decoders = {str(kind.__struct_config__.tag): msgspec.msgpack.Decoder(kind) for kind in get_args(AnyMessage)}
KINDS = tuple(_decoders)


def check_name(name: str, what: str) -> str:
    """The name, if it can stand in a topic: 1 to 64 letters, digits, '_' or '-'; else `ConfigError`."""
    if not re.search(_NAME, name):
        raise ConfigError(f"{what} {name!r} cannot be used: it may have 1 to 64 of A-Z a-z 0-9 _ -")
    return name


def safe_name(text: str) -> str:
    """A name for topics made from any text: what is not allowed becomes '_'."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:64] or "unnamed"


def topic(kind: str = "", source: str = "", class_: str = "") -> str:
    """The topic of a kind of message; leave out the last parts for a prefix to subscribe to."""
    return "".join(f"{level}." for level in (TOPIC_FAMILY, kind, source, class_) if level)


def kind_of(message: AnyMessage) -> str:
    """Which of the `KINDS` a message is."""
    return str(message.__struct_config__.tag)


def topic_of(message: AnyMessage) -> str:
    """The topic that a message is sent under."""
    return topic(kind_of(message), message.source, message.class_ if isinstance(message, Event) else "")


def encode(message: AnyMessage) -> tuple[bytes, bytes]:
    """The two ZeroMQ frames of a message: topic and msgpack map."""
    return topic_of(message).encode("ascii"), _encoder.encode(message)


def decode(topic: bytes, payload: bytes) -> AnyMessage | None:
    """The message of two ZeroMQ frames; None for a kind this version does not know; `WireError` when malformed."""
    levels = topic.split(b".")
    decoder = _decoders.get(levels[1].decode("ascii", "replace")) if len(levels) > 1 else None
    if decoder is None or levels[0] != TOPIC_FAMILY.encode():
        return None
    message: AnyMessage = decode_strictly(decoder, payload, f"message on {topic!r}")
    if topic_of(message).encode("ascii", "replace") != topic:
        raise WireError(f"malformed message on {topic!r}: it belongs to {topic_of(message)!r}")
    return message


def decode_strictly(decoder: msgspec.msgpack.Decoder[Read], payload: bytes, what: str) -> Read:
    """What the decoder makes of the payload; `WireError` whatever is wrong with it."""
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"malformed {what}: {error}") from None


class Clock(msgspec.Struct, frozen=True):
    """Sample index -> time: the time of sample 0 and the rate."""

    origin_ns: int
    sample_rate: int

    def ns(self, sample: int) -> int:
        """UNIX time of a sample, nanoseconds."""
        return self.origin_ns + sample * 1_000_000_000 // self.sample_rate


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What messages need to know of a stream; names that cannot stand in a topic are a `ConfigError`."""

    source: str
    classes: tuple[str, ...]
    sample_rate: int
    samples_per_label: int

    def __post_init__(self) -> None:
        check_name(self.source, "source name")
        for name in self.classes:
            check_name(name, "class name")

    def frame(self, frame: LabelFrame, clock: Clock) -> Frame:
        """The message of a label frame; it is dated by its middle."""
        return Frame(
            source=self.source,
            t_capture_ns=clock.ns(frame.sample + self.samples_per_label // 2),
            sample=frame.sample,
            frame_ms=self._ms(self.samples_per_label),
            detections=[Detection(**self._heard(source, clock)) for source in frame.sources],
        )

    def event(self, change: EventChange, clock: Clock) -> Event:
        """The message of a change of an event; it is dated by the middle of the label frame of the change."""
        return Event(
            source=self.source,
            t_capture_ns=clock.ns(change.sample + self.samples_per_label // 2),
            sample=change.sample,
            event_id=change.event_id,
            phase=change.phase,
            duration_ms=self._ms(change.duration_samples),
            **self._heard(change.source, clock),
        )

    def gap(self, sample: int, lost_samples: int, clock: Clock) -> Gap:
        """The message of so many lost samples, from ``sample`` on."""
        middle = clock.ns(sample + lost_samples // 2)
        return Gap(source=self.source, t_capture_ns=middle, sample=sample, lost_samples=lost_samples)

    def level(self, loudness: Loudness, clock: Clock) -> Level:
        """The message of how loud the samples of ``loudness`` were."""
        return Level(
            source=self.source,
            t_capture_ns=clock.ns(loudness.sample + loudness.samples // 2),
            sample=loudness.sample,
            level_ms=self._ms(loudness.samples),
            rms_dbfs=loudness.rms_dbfs,
            peak_dbfs=loudness.peak_dbfs,
        )

    def _ms(self, samples: int) -> int:
        return round(samples * 1000 / self.sample_rate)

    def _heard(self, source: ActiveSource, clock: Clock) -> dict[str, Any]:
        azimuth_deg = round(source.azimuth_deg, 2)
        return {
            "class_": self.classes[source.class_id],
            "class_id": source.class_id,
            "track": source.track,
            "azimuth_deg": azimuth_deg if azimuth_deg < 180.0 else azimuth_deg - 360.0,
            "elevation_deg": round(source.elevation_deg, 2),
            "confidence": round(source.confidence, 4),
            "spread_deg": None if source.spread_deg is None else round(source.spread_deg, 1),
            "onset_ns": clock.ns(source.onset_sample),
        }


def stream_line(message: AnyMessage) -> bytes:
    """One JSON line for a file: the message without its transport keys, its times in seconds.

    ``t_capture_ns`` becomes ``t_capture_s``, ``onset_ns`` becomes ``onset_s``; ``seq``, ``epoch`` and ``t_pub_ns`` are
    left out. So the line of a message that was made with ``Clock(0, sample_rate)`` depends on the sound only.
    """
    plain = {k: v for k, v in msgspec.to_builtins(message).items() if k not in ("seq", "epoch", "t_pub_ns")}
    return msgspec.json.encode(_in_seconds(plain)) + b"\n"


def _in_seconds(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_seconds(item) for item in value]
    if not isinstance(value, dict):
        return value
    times = {key[:-3] + "_s": item / 10**9 for key, item in value.items() if key.endswith("_ns")}
    return {key: _in_seconds(item) for key, item in value.items() if not key.endswith("_ns")} | times
