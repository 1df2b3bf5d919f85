"""What a system gets wrong, and where: the error analysis of the class segments that `offline.metrics` counts.

Every class segment of the labels is found or lost for one reason; every false one is a confusion (counted with what was
lost for it), the rest of a true event, or invented. What is known of the sound comes from the labels (class, direction,
motion, overlap) and, for synthetic scenes, from their plan (SNR, distance).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.dataset import MOST, Recording, read_metadata, within
from offline.estimates import Rows
from offline.event_counts import event_rows
from offline.metrics import (
    ROUNDING_DEG,
    SEGMENT_LABELS,
    THRESHOLD_DEG,
    class_segments,
    frame_angles,
    row_pairs,
)
from offline.plans import Scene
from seldrt.config import LABEL_RATE_HZ
from seldrt.spatial import angle_deg, unit_vector

Floats = NDArray[np.float64]

# In the order in which they are asked: the first that fits is the reason.
OUTCOMES = {
    "found": "in place",
    "wrong place": "right class, over 20 degrees off",
    "wrong class": "another class is reported at the same time that does not sound",
    "late": "the event is found only in a later segment",
    "broken off": "the event was found in an earlier segment",
    "missed": "nothing is reported, and the event is never found",
}
FALSE = {
    "confused": "reported instead of a class that was lost (counted there)",
    "lingering": "part of a reported event that is true at another time",
    "invented": "no true event of this class at any time of it",
}


class Segment(msgspec.Struct, frozen=True):
    """A class segment of the labels; ``of`` has what is known of it.

    Of all: overlap (events at a time), speed (deg/s), azimuth and elevation (degrees); with a plan: snr (dB) and
    distance (m).
    """

    recording: str
    segment: int
    class_id: int
    outcome: str
    taken_for: int | None
    of: dict[str, float]


class Errors(msgspec.Struct, frozen=True):
    """The analysis of some recordings."""

    segments: tuple[Segment, ...] = ()
    false: tuple[tuple[int, str], ...] = ()  # class and kind, for each false class segment
    frames: tuple[tuple[float, dict[str, float]], ...] = ()  # angle in degrees, for each frame of the right class
    delays_s: tuple[float, ...] = ()  # of each event that was found, from its onset

    @classmethod
    def joined(cls, parts: Sequence[Errors]) -> Errors:
        """The analysis of all recordings of the parts."""
        return cls(*(tuple(chain.from_iterable(getattr(p, name) for p in parts)) for name in cls.__struct_fields__))


def analyse(
    recording: Recording, prediction: Rows, classes: int, plan: Scene | None = None, label_frames: int = MOST
) -> Errors:
    """The analysis of the label rows that a system gives for one recording of so many label frames.

    Raises as `offline.metrics.count`.
    """
    assert recording.metadata is not None, "only what has labels can be analysed"
    reference = within(read_metadata(recording.metadata), label_frames).astype(float)
    predicted = prediction.astype(float)
    cells = class_segments(reference, predicted, classes)
    events = event_rows(reference)
    known, event_of = _known(reference, events, plan), np.empty(len(reference), dtype=int)
    for number, rows in enumerate(events):
        event_of[rows] = number
    hits = _hits(reference, predicted, classes)
    hit_frames = [np.sort(reference[rows][hits[rows], 0]) for rows in events]
    instead = _confusions(reference, predicted, cells.false, cells.detected)

    def outcome(segment: int, class_id: int, event: int) -> str:
        if cells.detected[segment, class_id]:
            near = cells.angle_deg[segment, class_id] <= THRESHOLD_DEG + ROUNDING_DEG
            return "found" if near else "wrong place"
        if (segment, class_id) in instead:
            return "wrong class"
        if not len(hit_frames[event]):
            return "missed"
        return "late" if hit_frames[event][0] >= segment * SEGMENT_LABELS else "broken off"

    segments = []
    for segment, class_id in np.argwhere(cells.in_ref).tolist():
        inside = np.flatnonzero((reference[:, 0] // SEGMENT_LABELS == segment) & (reference[:, 1] == class_id))
        event = Counter(event_of[inside].tolist()).most_common(1)[0][0]
        middle = inside[event_of[inside] == event]
        told = (instead.get((segment, class_id)), known[middle[len(middle) // 2]])
        segments.append(Segment(recording.name, segment, class_id, outcome(segment, class_id, event), *told))

    first_row = {(int(f), int(c)): i for i, (f, c) in reversed(list(enumerate(reference[:, :2])))}
    matched = zip(*frame_angles(reference, predicted, classes), strict=True)
    return Errors(
        tuple(segments),
        tuple(_false(predicted, reference, cells.false, set(instead.items()), classes)),
        tuple((float(angle), known[first_row[int(f), int(c)]]) for f, c, angle in matched),
        tuple(
            float(found[0] - reference[rows[0], 0]) / LABEL_RATE_HZ
            for rows, found in zip(events, hit_frames, strict=True)
            if len(found)
        ),
    )


def _hits(reference: Floats, prediction: Floats, classes: int) -> NDArray[np.bool_]:
    """Which rows of the labels have a prediction of their class in their frame."""
    hits = np.zeros(len(reference), dtype=bool)
    hits[row_pairs(reference, prediction, classes)[0]] = True
    return hits


def _known(reference: Floats, events: Sequence[NDArray[np.intp]], plan: Scene | None) -> list[dict[str, float]]:
    """What is known of each row of the labels, as `Segment.of`."""
    known: list[dict[str, float]] = [{} for _ in reference]
    at_a_time = Counter(reference[:, 0].tolist())
    for rows in events:
        frames, azimuth, elevation = reference[rows][:, [0, 3, 4]].T
        doa = unit_vector(azimuth, elevation)
        ends = doa[[0, len(doa) // 2, -1]]
        seconds = (frames[-1] - frames[0]) / LABEL_RATE_HZ
        turned = float(angle_deg(ends[:-1], ends[1:]).sum())
        of_event = {"speed": float(turned / seconds) if seconds else 0.0} | _planned(reference[rows], plan)
        for row in rows:
            place = {"azimuth": float(reference[row, 3]), "elevation": float(reference[row, 4])}
            known[row] = of_event | place | {"overlap": float(at_a_time[reference[row, 0]])}
    return known


def _planned(rows: Floats, plan: Scene | None) -> dict[str, float]:
    """What the plan says of an event: that of its class and track which sounds longest during it."""
    targets = [event for event in plan.events if event.label >= 0] if plan else []
    first, last = rows[0, 0] / LABEL_RATE_HZ, (rows[-1, 0] + 1) / LABEL_RATE_HZ
    own = [event for event in targets if (event.label, event.layer) == (rows[0, 1], rows[0, 2])]
    together = [min(last, e.onset_s + e.seconds) - max(first, e.onset_s) for e in own]
    if plan is None or not own or max(together) <= 0:
        return {}
    event = own[int(np.argmax(together))]
    mean_power = np.mean([10 ** (target.level_db / 10) for target in targets])
    snr_db = plan.background.snr_db + event.level_db - 10 * np.log10(mean_power)
    return {"snr": float(snr_db), "distance": event.distance_m, "speed": event.path.speed_deg_per_s}


def _confusions(
    reference: Floats, prediction: Floats, false: NDArray[np.bool_], detected: NDArray[np.bool_]
) -> dict[tuple[int, int], int]:
    """(Segment, class) that is lost -> the false class that shares a frame with it, nearest in direction first.

    A false class stands for one lost class.
    """
    frames = prediction[:, 0].astype(int)
    rows = np.flatnonzero(false[frames // SEGMENT_LABELS, prediction[:, 1].astype(int)])
    angles: dict[tuple[int, int, int], list[float]] = {}
    for row in rows:
        for other in np.flatnonzero(reference[:, 0] == frames[row]):
            key = (int(frames[row] // SEGMENT_LABELS), int(reference[other, 1]), int(prediction[row, 1]))
            if not detected[key[:2]]:
                pair = unit_vector(*prediction[row, 3:]), unit_vector(*reference[other, 3:])
                angles.setdefault(key, []).append(float(angle_deg(*pair)))
    instead: dict[tuple[int, int], int] = {}
    taken: set[tuple[int, int]] = set()
    for segment, lost, heard in sorted(angles, key=lambda key: (np.mean(angles[key]), key)):
        if (segment, lost) not in instead and (segment, heard) not in taken:
            instead[segment, lost] = heard
            taken.add((segment, heard))
    return instead


def _false(
    prediction: Floats, reference: Floats, false: NDArray[np.bool_],
    confused: set[tuple[tuple[int, int], int]], classes: int,
) -> Iterable[tuple[int, str]]:  # fmt: skip
    """Class and kind of each false class segment."""
    true_rows = _hits(prediction, reference, classes)
    lingering = set()
    for rows in event_rows(prediction):
        if true_rows[rows].any():
            lingering |= {(int(f // SEGMENT_LABELS), int(c)) for f, c in prediction[rows, :2]}
    heard = {(segment, class_id) for (segment, _), class_id in confused}
    for segment, class_id in np.argwhere(false).tolist():
        if (segment, class_id) in heard:
            yield class_id, "confused"
        else:
            yield class_id, "lingering" if (segment, class_id) in lingering else "invented"
