"""What the models that ship must hear, whatever else changes: smoke alarms, as ISO 8201 and NFPA 72 have them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from seldrt.models import shipped
from seldrt.pipeline import load_pipeline
from seldrt.spatial import angle_deg, foa_gains, unit_vector

RATE = 24000


def beeps(tone: np.ndarray, on_s: float, off_s: float, count: int, rest_s: float) -> np.ndarray:
    """Twice ``count`` beeps and a rest; ``tone`` is long enough for one."""
    one = np.zeros(round((on_s + off_s) * RATE))
    one[: round(on_s * RATE)] = tone[: round(on_s * RATE)]
    return np.tile(np.concatenate([np.tile(one, count), np.zeros(round(rest_s * RATE))]), 2)


T = np.arange(2 * RATE) / RATE


ALARMS = {
    "3.1 kHz": beeps(np.sin(2 * np.pi * 3100 * T), 0.5, 0.5, 3, 1.0),
    "520 Hz, square": beeps(scipy.signal.square(2 * np.pi * 520 * T), 0.5, 0.5, 3, 1.0),
}


@pytest.mark.parametrize("model", shipped())
@pytest.mark.parametrize("sound", list(ALARMS))
def test_smoke_alarms_are_heard_where_they_are(model: str, sound: str) -> None:
    rng = np.random.default_rng(1)
    place = unit_vector(60.0, 10.0)
    y = 0.1 * ALARMS[sound]
    x = 0.003 * rng.standard_normal((len(y) + 4 * RATE, 4)) * [1, *[3**-0.5] * 3]
    x[2 * RATE : 2 * RATE + len(y)] += y[:, None] * foa_gains(place)
    pipeline = load_pipeline(model, block_labels=50)
    frames = pipeline.push(x.astype(np.float32)) + pipeline.flush()
    heard = [s for frame in frames for s in frame.sources if pipeline.classes[s.class_id] == "alarm"]
    assert len(heard) >= 10  # a second of it
    off_deg = [angle_deg(unit_vector(s.azimuth_deg, s.elevation_deg), place) for s in heard]
    assert np.median(off_deg) < 10
