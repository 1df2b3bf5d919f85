"""From label rows to what the networks learn, one row per label frame of 100 ms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline.event_counts import event_rows
from seldrt.config import ConfigError
from seldrt.spatial import unit_vector


class Targets(NamedTuple):
    """Targets of n label frames and C classes, float32.

    sed: (n, C), 1 where a class is active. doa: (n, C, 3), unit vectors. doa_mask: (n, C), 1 where exactly one event
    of a class is active; elsewhere doa is zero.
    """

    sed: NDArray[np.float32]
    doa: NDArray[np.float32]
    doa_mask: NDArray[np.float32]


def frame_targets(rows: NDArray[np.int64], n_frames: int, n_classes: int) -> Targets:
    """Targets from metadata rows (m, 5): frame, class, track, azimuth and elevation in degrees.

    Rows after the last frame are dropped. `ConfigError` when a row has no class of 0 to n_classes - 1.
    """
    strange = rows[(rows[:, 1] < 0) | (rows[:, 1] >= n_classes), 1]
    if len(strange):
        raise ConfigError(f"labels hold class {strange[0]}, but there are only {n_classes} classes")
    frame, label, _, azimuth, elevation = rows[rows[:, 0] < n_frames].T
    count = np.zeros((n_frames, n_classes), dtype=int)
    np.add.at(count, (frame, label), 1)
    doa = np.zeros((n_frames, n_classes, 3), dtype=np.float32)
    doa[frame, label] = unit_vector(azimuth, elevation)
    mask = count == 1
    return Targets(
        sed=(count > 0).astype(np.float32),
        doa=doa * mask[..., None],
        doa_mask=mask.astype(np.float32),
    )


def mean_event_labels(recordings: Iterable[NDArray[np.int64]], n_classes: int) -> NDArray[np.float64]:
    """Mean duration of the events of each class (n_classes,), label frames; 0 for a class that never sounds.

    recordings: label rows (m, 5) of each. An event is one of `event_rows`; the gaps within it do not count.
    """
    frames, events = np.zeros(n_classes), np.zeros(n_classes)
    for rows in recordings:
        for event in event_rows(rows):
            frames[rows[event[0], 1]] += len(event)
            events[rows[event[0], 1]] += 1
    return frames / np.maximum(events, 1)
