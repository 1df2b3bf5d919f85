"""Frame targets worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from offline.targets import frame_targets, mean_event_labels
from seldrt.config import ConfigError

ROWS = np.array(
    [
        [0, 1, 0, 90, 0],
        [1, 1, 0, 90, 0],
        [1, 0, 1, 0, 90],
        [2, 1, 0, 90, 0],
        [2, 1, 1, -90, 0],  # two of one class: where is it?
        [4, 0, 0, 0, 0],  # after the end
        [9, 0, 0, 0, 0],
    ]
)


def test_targets_by_hand():
    sed, doa, mask = frame_targets(ROWS, 4, 3)
    assert sed.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert mask.tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(doa[0, 1], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(doa[1, 0], [0, 0, 1], atol=1e-6)
    assert np.linalg.norm(doa, axis=-1) == pytest.approx(mask)
    assert {part.dtype for part in (sed, doa, mask)} == {np.dtype(np.float32)}


def test_silence():
    sed, doa, mask = frame_targets(np.zeros((0, 5), dtype=np.int64), 3, 2)
    assert sed.shape == mask.shape == (3, 2)
    assert not sed.any()
    assert not doa.any()


def test_a_class_too_many_is_refused():
    with pytest.raises(ConfigError, match="class 1, but there are only 1"):
        frame_targets(ROWS, 4, 1)
    with pytest.raises(ConfigError, match="class -1, but there are only 14"):
        frame_targets(np.array([[0, -1, 0, 0, 0], [0, 3, 0, 0, 0]]), 4, 14)


def test_mean_durations():
    first = np.array([[0, 0, 0, 0, 0], [2, 0, 0, 0, 0], [5, 0, 0, 0, 0], [0, 2, 0, 0, 0], [1, 2, 1, 0, 0]])
    second = np.array([[f, 0, 0, 0, 0] for f in range(6)])
    # Class 0: events of 2 (with a gap of one), 1 and 6 frames; class 2: one frame on each of two tracks.
    np.testing.assert_allclose(mean_event_labels([first, second], 3), [3, 0, 1])
