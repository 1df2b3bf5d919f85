"""What the chain finds in a stream, before it has a clock: times are samples at the model's rate."""

from __future__ import annotations

from typing import Literal

import msgspec

GAP_LABELS = 1  # silent label frames inside one event: they end neither its track nor its smoothing


class LabelFrame(msgspec.Struct, kw_only=True):
    """What the pipeline says of one label frame, before it has a clock: times are samples at the model's rate."""

    index: int  # label frame since the start of the stream
    sample: int  # first sample of the frame
    sources: list[ActiveSource]


class ActiveSource(msgspec.Struct, kw_only=True):
    """One active class in a `LabelFrame`."""

    class_id: int
    track: int
    azimuth_deg: float
    elevation_deg: float
    confidence: float
    spread_deg: float | None = None  # see `seldrt.smoothing.spread_deg`; None = directions are not smoothed
    onset_sample: int


Phase = Literal["onset", "update", "offset"]


class EventChange(msgspec.Struct, kw_only=True):
    """A step in the life of one event, before it has a clock."""

    event_id: int  # from 0, one for each event of the stream
    phase: Phase
    sample: int  # first sample of the label frame that brought the news; of an offset, the first silent sample
    duration_samples: int  # from its onset to the end of the last label frame that heard it
    source: ActiveSource  # as last heard


class Loudness(msgspec.Struct, kw_only=True):
    """How loud each channel was for a while, before it has a clock."""

    sample: int  # the first
    samples: int  # how many
    rms_dbfs: list[float]
    peak_dbfs: list[float]
