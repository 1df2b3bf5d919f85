"""What the control socket answers, and the JSON Schema of all that goes over the wire.

A request is one ZeroMQ frame that holds a word: ``ping``, ``info`` or ``status``. The answer is one frame, a msgpack
map; the rules for keys are those of messages, see `seldrt.detection`. ``status`` is answered with the last status
message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from seldrt.detection import PROTOCOL_VERSION, AnyMessage, Name, Status, decode_strictly

REQUESTS = ("ping", "info", "status")


class Reply(msgspec.Struct, kw_only=True):
    """What every answer shares, but for a status."""

    v: int = PROTOCOL_VERSION
    epoch: int = 0  # that of the messages: random at each start


class Pong(Reply, tag_field="type", tag="pong"):
    """The daemon is there."""

    t_pub_ns: int


class Waiting(msgspec.Struct, kw_only=True):
    """What one stage of the chain waits for."""

    stage: str
    latency_ms: float


class Info(Reply, tag_field="type", tag="info"):
    """What the daemon is; it does not change while it runs."""

    source: Name
    version: str  # of seldrt
    classes: list[str]  # in the order of class_id
    model_id: str
    mic: str  # what the channels were taken for: the microphone profile
    sample_rate: int  # Hz, of `sample` in messages
    frame_ms: int
    latency_ms: float  # a frame comes so long after the sound, without the computation
    waits_for: list[Waiting]  # what it is made of


class Refusal(Reply, tag_field="type", tag="error"):
    """A request that cannot be answered."""

    error: str


AnyReply = Pong | Info | Status | Refusal

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def encode_reply(reply: AnyReply) -> bytes:
    """The one ZeroMQ frame of an answer."""
    return _encoder.encode(reply)


def decode_reply(payload: bytes) -> AnyReply:
    """The answer in a ZeroMQ frame; `WireError` when malformed."""
    return decode_strictly(_decoder, payload, "answer")


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of every message and every answer, as the maps are once unpacked."""
    schema = msgspec.json.schema(AnyMessage | AnyReply)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"seldrt messages and answers, protocol version {PROTOCOL_VERSION}",
        **schema,
    }
