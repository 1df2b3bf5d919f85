"""The protocol: topics, keys, bytes; and the life cycle of events."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seldrt.config import ConfigError
from seldrt.detection import (
    AnyMessage,
    Clock,
    Message,
    Status,
    StreamInfo,
    WireError,
    decode,
    encode,
    safe_name,
    stream_line,
    topic,
)
from seldrt.events import EventTracker
from seldrt.findings import ActiveSource, EventChange, LabelFrame, Loudness
from seldrt.replies import json_schema

RATE, LABEL = 24000, 2400
INFO = StreamInfo(source="h3", classes=("piano", "alarm"), sample_rate=RATE, samples_per_label=LABEL)
CLOCK = Clock(1_700_000_000_000_000_000, RATE)

HEADER = {"v", "type", "source", "seq", "epoch", "t_capture_ns", "t_pub_ns", "sample"}
DETECTION = {"class", "class_id", "track", "azimuth_deg", "elevation_deg", "confidence", "spread_deg", "onset_ns"}
KEYS = {
    "frame": HEADER | {"frame_ms", "detections"},
    "event": HEADER | DETECTION | {"event_id", "phase", "duration_ms"},
    "gap": HEADER | {"lost_samples"},
    "status": HEADER
    | {"state", "uptime_s", "overruns", "lost_samples", "real_time_factor", "model_id", "degraded", "why", "classes"}
    | {"latency_p50_ms", "latency_p95_ms", "latency_p99_ms"},
    "level": HEADER | {"level_ms", "rms_dbfs", "peak_dbfs"},
}
SAMPLE = Path(__file__).parent / "seld1_sample.jsonl"


def source(class_id: int = 1, track: int = 0, onset: int = 0, azimuth_deg: float = 45.0) -> ActiveSource:
    return ActiveSource(
        class_id=class_id,
        track=track,
        azimuth_deg=azimuth_deg,
        elevation_deg=-10.0,
        confidence=0.75,
        spread_deg=3.14159,
        onset_sample=onset * LABEL,
    )


def label_frame(index: int, *sources: ActiveSource) -> LabelFrame:
    return LabelFrame(index=index, sample=index * LABEL, sources=list(sources))


def messages() -> dict[str, AnyMessage]:
    change = EventChange(event_id=7, phase="offset", sample=LABEL, duration_samples=3 * LABEL, source=source())
    status = Status(
        source="h3",
        t_capture_ns=1,
        sample=0,
        state="running",
        uptime_s=1.5,
        overruns=0,
        lost_samples=0,
        real_time_factor=None,
        latency_p50_ms=1.0,
        latency_p95_ms=2.0,
        latency_p99_ms=3.0,
        model_id="compact",
        degraded=False,
        why="",
        classes=["alarm"],
    )
    return {
        "frame": INFO.frame(label_frame(3, source()), CLOCK),
        "event": INFO.event(change, CLOCK),
        "gap": INFO.gap(LABEL, 2 * LABEL, CLOCK),
        "status": status,
        "level": INFO.level(Loudness(sample=LABEL, samples=LABEL, rms_dbfs=[-40.5] * 4, peak_dbfs=[-9.0] * 4), CLOCK),
    }


@pytest.mark.parametrize("kind", KEYS)
def test_the_wire_holds_the_keys_of_the_protocol(kind: str) -> None:
    message = messages()[kind]
    address, payload = encode(message)
    plain = msgpack.unpackb(payload)
    assert set(plain) == KEYS[kind]
    assert plain["v"] == 1
    assert plain["type"] == kind
    assert address == {"event": b"seld1.event.h3.alarm."}.get(kind, f"seld1.{kind}.h3.".encode())
    assert decode(address, payload) == message
    for key, value in plain.items():
        if key.endswith("_ns") or key in ("seq", "epoch", "sample"):
            assert type(value) is int


def test_a_frame_says_what_where_and_when() -> None:
    plain: dict[str, Any] = msgpack.unpackb(encode(messages()["frame"])[1])
    assert plain["t_capture_ns"] == CLOCK.origin_ns + 350_000_000
    assert (plain["sample"], plain["frame_ms"]) == (3 * LABEL, 100)
    (found,) = plain["detections"]
    assert set(found) == DETECTION
    assert found == {
        "class": "alarm",
        "class_id": 1,
        "track": 0,
        "azimuth_deg": 45.0,
        "elevation_deg": -10.0,
        "confidence": 0.75,
        "spread_deg": 3.1,
        "onset_ns": CLOCK.origin_ns,
    }


def test_an_event_says_which_what_where_and_when() -> None:
    surer = msgspec.structs.replace(source(onset=2), elevation_deg=-10.254, confidence=0.87654)
    change = EventChange(event_id=7, phase="offset", sample=5 * LABEL, duration_samples=3 * LABEL, source=surer)
    event = INFO.event(change, CLOCK)
    assert (event.event_id, event.track, event.phase, event.class_) == (7, 0, "offset", "alarm")
    assert (event.sample, event.t_capture_ns) == (5 * LABEL, CLOCK.origin_ns + 550_000_000)
    assert (event.onset_ns, event.duration_ms) == (CLOCK.origin_ns + 200_000_000, 300)
    assert (event.azimuth_deg, event.elevation_deg, event.confidence) == (45.0, -10.25, 0.8765)


def test_a_gap_is_dated_by_its_middle() -> None:
    gap = INFO.gap(LABEL, 2 * LABEL, CLOCK)
    assert (gap.sample, gap.lost_samples, gap.t_capture_ns) == (LABEL, 2 * LABEL, CLOCK.origin_ns + 200_000_000)


def test_a_level_says_how_loud_it_was_when_and_for_how_long() -> None:
    silence = Loudness(sample=LABEL, samples=2 * LABEL, rms_dbfs=[-120.0] * 4, peak_dbfs=[-9.0, -8.0, -7.0, -6.0])
    level = INFO.level(silence, CLOCK)
    assert (level.sample, level.level_ms, level.t_capture_ns) == (LABEL, 200, CLOCK.origin_ns + 200_000_000)
    assert (level.rms_dbfs, level.peak_dbfs) == (silence.rms_dbfs, silence.peak_dbfs)
    assert decode(*encode(level)) == level


@pytest.mark.parametrize("kind", KEYS)
def test_an_old_reader_survives_new_keys(kind: str) -> None:
    address, payload = encode(messages()[kind])
    newer = msgpack.unpackb(payload) | {"distance_m": 2.5, "nested": {"a": [1, None]}}
    assert decode(address, msgpack.packb(newer)) == messages()[kind]


def test_unknown_kinds_are_passed_over_and_damage_is_told() -> None:
    address, payload = encode(messages()["gap"])
    assert decode(b"seld1.weather.h3.", payload) is None
    assert decode(b"seld2.gap.h3.", payload) is None
    assert decode(b"", payload) is None
    with pytest.raises(WireError, match="malformed"):
        decode(address, payload[:-1])
    with pytest.raises(WireError, match=r"lost_samples|int"):
        decode(address, msgpack.packb(msgpack.unpackb(payload) | {"lost_samples": "many"}))


def test_a_message_under_a_foreign_topic_is_malformed() -> None:
    for kind, others in (("gap", (b"seld1.gap.h4.", b"seld1.gap.h3", b"seld1.gap.h3.x.", b"seld1.status.h3.")),):
        for other in others:
            with pytest.raises(WireError, match="malformed"):
                decode(other, encode(messages()[kind])[1])


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("event", "azimuth_deg", 180.0),
        ("event", "azimuth_deg", float("nan")),
        ("event", "elevation_deg", 90.1),
        ("event", "confidence", 1.1),
        ("event", "spread_deg", 90.1),
        ("event", "phase", "finale"),
        ("frame", "seq", -1),
        ("frame", "seq", 1.0),
        ("frame", "t_capture_ns", -1),
        ("frame", "t_capture_ns", 2**63),
        ("frame", "source", "\x1b[2J"),
        ("level", "rms_dbfs", [-121.0]),
    ],
)
def test_values_out_of_range_are_malformed(kind: str, key: str, value: Any) -> None:
    address, payload = encode(messages()[kind])
    with pytest.raises(WireError, match="malformed"):
        decode(address, msgpack.packb(msgpack.unpackb(payload) | {key: value}))


@settings(max_examples=300)
@given(st.data())
def test_whatever_comes_is_a_message_or_nothing_or_malformed(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KEYS)))
    address, payload = encode(messages()[kind])
    start = data.draw(st.integers(0, len(payload)))
    junk = data.draw(st.binary(max_size=20))
    damaged = payload[:start] + junk + payload[start + data.draw(st.integers(0, 20)) :]
    with suppress(WireError):
        decode(data.draw(st.one_of(st.just(address), st.binary(max_size=40))), damaged)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x82\xa4type\xa3gap\xa1x" + b"\x91" * 100_000 + b"\xc0",  # lists in lists
        b"\x82\xa4type\xa2\xff\xfe",  # no UTF-8
        b"\xdf\xff\xff\xff\xff",  # a map of four thousand million keys
        b"",
    ],
)
def test_what_breaks_careless_readers_is_malformed(payload: bytes) -> None:
    with pytest.raises(WireError, match="malformed"):
        decode(b"seld1.gap.h3.", payload)


def holds(more: Any, some: Any) -> bool:
    """Whether all that is in ``some`` is in the other, too; keys that came later are not in what was sent before."""
    if isinstance(some, dict):
        return all(holds(more.get(key), value) for key, value in some.items())
    if isinstance(some, list):
        return len(more) == len(some) and all(map(holds, more, some))
    return bool(more == some)


def test_what_was_sent_in_2026_is_read_for_ever() -> None:
    """The bytes of each kind as they were when the protocol was new: they must never be generated anew."""
    kinds = set()
    for line in SAMPLE.read_text().splitlines():
        sample = json.loads(line)
        message = decode(sample["topic"].encode(), bytes.fromhex(sample["payload"]))
        assert message is not None
        kinds.add(sample["holds"]["type"])
        assert holds(msgspec.to_builtins(message), sample["holds"])
    assert kinds == set(KEYS)


def test_every_message_keeps_to_the_json_schema_and_damage_does_not() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for kind in KEYS:
        plain = msgpack.unpackb(encode(messages()[kind])[1])
        assert not list(validator.iter_errors(plain))
        assert not list(validator.iter_errors(plain | {"new_key": [1]}))
        for key in plain:
            if key not in ("v", "seq", "epoch", "t_pub_ns", "classes", "spread_deg"):  # those have defaults
                assert list(validator.iter_errors({k: v for k, v in plain.items() if k != key})), key
            assert list(validator.iter_errors(plain | {key: {}})), key
    assert list(validator.iter_errors(plain | {"rms_dbfs": [-200.0]}))


def test_topics_are_ascii_and_end_with_a_dot() -> None:
    assert topic() == "seld1."
    assert topic("event", "h3", "piano") == "seld1.event.h3.piano."
    for name in ("a.b", "", "ä", "a b", "x" * 65, "a\n"):
        with pytest.raises(ConfigError, match="source name"):
            StreamInfo(source=name, classes=("piano",), sample_rate=RATE, samples_per_label=LABEL)
    with pytest.raises(ConfigError, match=r"class name 'grand\.piano'"):
        StreamInfo(source="h3", classes=("grand.piano",), sample_rate=RATE, samples_per_label=LABEL)


@given(st.text())
def test_any_text_makes_a_safe_name(text: str) -> None:
    StreamInfo(source=safe_name(text), classes=(), sample_rate=RATE, samples_per_label=LABEL)


def test_azimuth_stays_below_180_when_rounded() -> None:
    frame = INFO.frame(label_frame(0, source(azimuth_deg=179.999)), CLOCK)
    assert frame.detections[0].azimuth_deg == -180.0


def test_a_line_of_a_file_knows_no_clock_and_no_transport() -> None:
    frame = INFO.frame(label_frame(3, source(onset=2)), Clock(0, RATE))
    line = stream_line(frame)
    frame.seq, frame.epoch, frame.t_pub_ns = 5, 6, 7
    assert stream_line(frame) == line
    plain = json.loads(line)
    assert set(plain) == HEADER - {"seq", "epoch", "t_pub_ns", "t_capture_ns"} | {
        "t_capture_s",
        "frame_ms",
        "detections",
    }
    assert plain["t_capture_s"] == 0.35
    assert plain["detections"][0]["onset_s"] == 0.2
    assert line.endswith(b"}\n")


def test_the_defaults_of_a_message_are_those_before_publishing() -> None:
    message = Message(source="h3", t_capture_ns=1, sample=0)
    assert (message.v, message.seq, message.epoch, message.t_pub_ns) == (1, 0, 0, 0)


def lives(frames: list[LabelFrame]) -> list[EventChange]:
    tracker = EventTracker(RATE, LABEL)
    return [change for frame in frames for change in tracker.push(frame)] + tracker.close()


def test_an_event_begins_is_updated_twice_a_second_and_ends() -> None:
    frames = [label_frame(i, *[source(onset=2)] * (2 <= i < 15)) for i in range(20)]
    told = [(c.phase, c.sample // LABEL, c.duration_samples // LABEL) for c in lives(frames)]
    assert told == [("onset", 2, 1), ("update", 7, 6), ("update", 12, 11), ("offset", 15, 13)]


def test_an_event_is_told_as_it_is_now_and_its_offset_as_it_was_heard_last() -> None:
    places = [(float(azimuth), i / 20) for i, azimuth in enumerate(range(0, 120, 10))]
    heard = [msgspec.structs.replace(source(azimuth_deg=a), confidence=c) for a, c in places]
    told = lives([*(label_frame(i, one) for i, one in enumerate(heard)), *(label_frame(i) for i in range(12, 16))])
    assert [(c.phase, c.source.azimuth_deg, c.source.confidence) for c in told] == [
        ("onset", *places[0]),
        ("update", *places[5]),
        ("update", *places[10]),
        ("offset", *places[11]),
    ]


def test_the_offset_comes_with_the_second_silent_label_frame_and_only_once() -> None:
    tracker = EventTracker(RATE, LABEL)
    told = [tracker.push(label_frame(i, *[source()] * (i == 0))) for i in range(4)]
    assert [[c.phase for c in changes] for changes in told] == [["onset"], [], ["offset"], []]
    tracker.push(label_frame(4, source(onset=4)))
    assert [c.phase for c in tracker.close()] == ["offset"]
    assert tracker.close() == []


def test_one_silent_label_frame_does_not_end_an_event_and_two_do() -> None:
    active = [2, 3, 5, 6]
    one = lives([label_frame(i, *[source(onset=2)] * (i in active)) for i in range(12)])
    assert [(c.phase, c.sample // LABEL) for c in one] == [("onset", 2), ("offset", 7)]
    two = lives([label_frame(i, *([source(onset=2)] if i == 2 else [source(onset=5)] * (i == 5))) for i in range(9)])
    assert [(c.event_id, c.phase, c.sample // LABEL) for c in two] == [
        (0, "onset", 2),
        (0, "offset", 3),
        (1, "onset", 5),
        (1, "offset", 6),
    ]


def test_an_event_that_lasts_to_the_end_gets_its_offset_when_the_stream_closes() -> None:
    changes = lives([label_frame(i, source(onset=0)) for i in range(3)])
    assert [(c.phase, c.sample // LABEL) for c in changes] == [("onset", 0), ("offset", 3)]


@given(st.lists(st.sets(st.integers(0, 3)), max_size=60))
def test_every_event_has_one_onset_one_offset_and_spaced_updates(activity: list[set[int]]) -> None:
    onsets: dict[int, int] = {}
    frames, spans = [], set()
    for index, active in enumerate([*activity, set()]):
        for class_id in list(onsets):
            if class_id not in active:
                spans.add((class_id, onsets.pop(class_id), index))
        for class_id in active:
            onsets.setdefault(class_id, index)
        frames.append(label_frame(index, *(source(c, 0, onsets[c]) for c in sorted(active))))
    by_event = defaultdict(list)
    for change in lives(frames):
        by_event[change.event_id].append(change)
    assert sorted(by_event) == list(range(len(spans)))
    found = set()
    for changes in by_event.values():
        phases = [c.phase for c in changes]
        assert phases == ["onset"] + ["update"] * (len(phases) - 2) + ["offset"]
        times = [c.sample for c in changes[:-1]]
        assert all(b - a >= RATE // 2 for a, b in pairwise(times))
        last = changes[-1]
        assert last.duration_samples == last.sample - last.source.onset_sample
        found.add((last.source.class_id, last.source.onset_sample // LABEL, last.sample // LABEL))
    assert found == spans
