"""Error analysis: one hand-made scene with every outcome, and sums that must agree with the metrics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.dataset import Recording, read_metadata, write_metadata
from offline.errors import OUTCOMES, Errors, analyse
from offline.metrics import count
from offline.plans import Scene, read_plan
from offline.report.groups import DIMENSIONS, by_class, by_dimension, confusions, losses

CLASSES = ("dog", "phone", "piano", "alarm")
DOG, PHONE, PIANO, ALARM = range(4)


def event(class_id: int, first: int, last: int, azimuth: int = 0, elevation: int = 0, track: int = 0) -> list:
    return [[frame, class_id, track, azimuth, elevation] for frame in range(first, last)]


def recording(folder: Path, rows: list) -> Recording:
    path = folder / "fold1_room1_mix001_ov1.csv"
    write_metadata(path, rows)
    return Recording(path.stem, folder / "none.wav", path, 1, 1)


@pytest.fixture
def everything(tmp_path: Path) -> Errors:
    """A second each, unless said otherwise."""
    truth = (
        event(DOG, 0, 10, 30)  # found
        + event(DOG, 20, 30, 30)  # 40 degrees off
        + event(PHONE, 40, 50, 90)  # taken for a piano
        + event(PIANO, 60, 90, -90)  # late: found in the second second, and lost again in the third
        + event(ALARM, 100, 110)  # missed
    )
    said = (
        event(DOG, 0, 10, 25)
        + event(DOG, 20, 30, 70)
        + event(PIANO, 42, 50, 90)
        + event(PIANO, 73, 80, -90)
        + event(PHONE, 120, 130)  # invented: nothing sounds
        + event(DOG, 8, 15, 30)  # goes on after its truth
    )
    return analyse(recording(tmp_path, truth), np.array(said), len(CLASSES))


def test_every_outcome_has_its_reason(everything: Errors) -> None:
    assert [(s.segment, s.class_id, s.outcome, s.taken_for) for s in everything.segments] == [
        (0, DOG, "found", None),
        (2, DOG, "wrong place", None),
        (4, PHONE, "wrong class", PIANO),
        (6, PIANO, "late", None),
        (7, PIANO, "found", None),
        (8, PIANO, "broken off", None),
        (10, ALARM, "missed", None),
    ]
    assert sorted(everything.false) == [(DOG, "lingering"), (PHONE, "invented"), (PIANO, "confused")]
    assert everything.delays_s == (0.0, 0.0, 1.3)
    assert losses(everything) == {
        "wrong place": 1, "wrong class": 1, "late": 1, "broken off": 1, "missed": 1, "lingering": 1, "invented": 1,
    }  # fmt: skip
    assert confusions(everything) == [(PHONE, PIANO, 1)]
    dog = by_class(everything, CLASSES)[0]
    assert (dog.name, dog.segments, dog.outcomes["found"]) == ("dog", 2, 1)


def test_of_two_false_classes_the_nearest_is_the_confusion(tmp_path: Path) -> None:
    truth = event(DOG, 0, 10, 0) + event(PHONE, 0, 10, 90, track=1)
    said = event(PIANO, 0, 10, 85) + event(ALARM, 0, 10, 30)
    errors = analyse(recording(tmp_path, truth), np.array(said), len(CLASSES))
    assert sorted(confusions(errors)) == [(DOG, ALARM, 1), (PHONE, PIANO, 1)]
    assert [s.of["overlap"] for s in errors.segments] == [2, 2]


def test_groups_of_what_the_labels_tell(tmp_path: Path) -> None:
    moving = [[frame, DOG, 0, 2 * frame, 0] for frame in range(20)]  # 20 degrees a second
    truth = moving + event(PHONE, 30, 40, -170, 40)
    said = [[frame, DOG, 0, azimuth + 10, 0] for frame, _, _, azimuth, _ in moving]
    errors = analyse(recording(tmp_path, truth), np.array(said), len(CLASSES))

    def groups(name: str) -> dict:
        return {g.name: (g.outcomes["found"], g.outcomes["missed"], g.frames) for g in by_dimension(errors, name)}

    assert groups("speed") == {"static": (0, 1, 0), "15 to 30": (2, 0, 20)}
    assert groups("elevation") == {"-10 to 10": (2, 0, 20), "30 and more": (0, 1, 0)}
    assert groups("azimuth") == {"180": (0, 1, 0), "0": (1, 0, 12), "45": (1, 0, 8)}
    assert groups("overlap") == {"1": (2, 1, 20)}
    assert groups("snr") == groups("distance") == {}
    spread = by_dimension(errors, "speed")[1].angles_deg
    assert spread == pytest.approx((10, 10, 10), abs=0.1)


PLAN = {
    "name": "fold1_room1_mix001_ov1", "seed": [1, 0], "seconds": 60.0, "overlap": 1,
    "room": {"size_m": [4, 5, 3], "array_m": [1, 1, 1], "absorption": [[0.2] * 7] * 6, "diffuse": True},
    "background": {"streams": [], "snr_db": 10.0, "noise_db": -10, "noise_slope_db_per_octave": -3, "sensor_db": -20},
    "peak_dbfs": -3.0, "channel_gains_db": [0, 0, 0, 0],
}  # fmt: skip


def planned(label: int, layer: int, onset_s: float, seconds: float, level_db: float, distance_m: float, speed: float):
    path = {"start_deg": [0, 0], "speed_deg_per_s": speed}
    return {
        "label": label, "layer": layer, "clip": "x", "clip_start_s": 0, "onset_s": onset_s, "seconds": seconds,
        "repeats_s": [], "colour": {}, "level_db": level_db, "distance_m": distance_m, "path": path,
    }  # fmt: skip


def test_the_plan_tells_snr_and_distance(tmp_path: Path) -> None:
    events = [
        planned(DOG, 0, 0.02, 2.0, 3.0, 0.9, 0.0),
        planned(DOG, 0, 3.0, 2.0, -3.0, 2.5, 10.0),
        planned(-1, 1, 0.0, 9.0, 40.0, 1.0, 0.0),  # distractors have no part in the level
    ]
    (tmp_path / "manifests").mkdir()
    path = tmp_path / "manifests" / "fold1_room1_mix001_ov1.json"
    path.write_bytes(msgspec.json.encode(PLAN | {"events": events}))
    one = recording(tmp_path, event(DOG, 0, 20) + event(DOG, 30, 50))
    plan = read_plan(tmp_path, one.name)
    assert isinstance(plan, Scene)
    first, *_, last = analyse(one, np.zeros((0, 5)), len(CLASSES), plan).segments
    mean_db = 10 * np.log10((10**0.3 + 10**-0.3) / 2)
    assert (first.of["distance"], last.of["distance"], last.of["speed"]) == (0.9, 2.5, 10.0)
    assert first.of["snr"] == pytest.approx(10 + 3 - mean_db)
    assert last.of["snr"] == pytest.approx(10 - 3 - mean_db)

    path.write_text("{}")
    assert read_plan(tmp_path, one.name) is None
    path.unlink()
    assert read_plan(tmp_path, one.name) is None


def random_rows(rng: np.random.Generator, events: int) -> list:
    rows = []
    for track in range(events):
        first = int(rng.integers(0, 40))
        rows += event(
            int(rng.integers(4)), first, first + int(rng.integers(1, 20)), int(rng.integers(-90, 90)), 0, track
        )
    return rows


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_the_sums_are_those_of_the_metrics(tmp_path_factory, seed: int, true: int, said: int) -> None:
    rng = np.random.default_rng(seed)
    one = recording(tmp_path_factory.mktemp("r"), random_rows(rng, true))
    prediction = np.array(random_rows(rng, said), dtype=np.int64).reshape(-1, 5)
    errors, counts = analyse(one, prediction, 4), count(read_metadata(one.metadata), prediction, 4)
    outcomes, kinds = Counter(s.outcome for s in errors.segments), Counter(kind for _, kind in errors.false)
    assert sum(outcomes.values()) == counts.reference.sum()
    assert outcomes["found"] == counts.correct.sum()
    assert outcomes["wrong place"] == counts.misplaced.sum()
    assert sum(kinds.values()) == counts.false.sum()
    assert outcomes["wrong class"] == kinds["confused"] <= counts.substitutions
    for name in ("overlap", "azimuth", "elevation", "speed"):
        groups = by_dimension(errors, name)
        assert sum(group.segments for group in groups) == len(errors.segments)
        assert sum(group.frames for group in groups) == len(errors.frames)
    assert set(outcomes) <= set(OUTCOMES)
    assert all(len(d.edges) == len(d.names) + 1 for d in DIMENSIONS.values())
