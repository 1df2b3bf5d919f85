"""What networks say about recordings: kept by sound and weights, and heard as a whole where nothing need wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from msgspec.structs import replace

from offline import estimates
from offline.dataset import Recording
from offline.estimates import Job, estimates_of, networks_key, prediction_rows
from seldrt import checkpoint
from seldrt.config import ConfigError, PostprocessConfig
from seldrt.features import features_stage, silence, task_indices
from seldrt.findings import ActiveSource, LabelFrame
from seldrt.stream import run
from tests.models import FEATURES, WINDOWED, small_model


def recordings(folder: Path, *seconds: float) -> tuple[Recording, ...]:
    made = []
    for i, length in enumerate(seconds):
        path = folder / f"fold1_room1_mix{i + 1:03d}_ov1.wav"
        soundfile.write(path, np.random.default_rng(i).normal(0, 0.1, (round(length * 24000), 4)), 24000)
        made.append(Recording(path.stem, path, None, 1, 1))
    return tuple(made)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    checkpoint.save(small_model(), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_what_is_kept_is_not_computed_again(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = recordings(tmp_path, 2.0, 1.5)
    first = estimates_of(Job(model, two), tmp_path / "kept")
    assert [len(x) for x in first] == [20, 15]
    asked: list[int] = []
    compute = estimates._compute
    monkeypatch.setattr(estimates, "_compute", lambda job, i: asked.append(i) or compute(job, i))
    (tmp_path / "renamed.wav").write_bytes(two[0].audio.read_bytes())
    renamed = Recording("renamed", tmp_path / "renamed.wav", None, 1, 1)
    again = estimates_of(Job(model, (renamed, two[1])), tmp_path / "kept")
    assert not asked
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    soundfile.write(two[1].audio, np.zeros((12000, 4)), 24000)
    assert [len(x) for x in estimates_of(Job(model, two), tmp_path / "kept")] == [20, 5]
    assert asked == [1]


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_what_is_kept_but_damaged_is_computed_anew(tmp_path: Path, model: Path, damage: bytes | None) -> None:
    job = Job(model, recordings(tmp_path, 1.0))
    first = estimates_of(job, tmp_path / "kept")[0]
    path = next((tmp_path / "kept").rglob("*.npy"))
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    np.testing.assert_array_equal(estimates_of(job, tmp_path / "kept")[0], first)
    np.testing.assert_array_equal(np.load(path), first)


def test_the_key_is_of_the_networks_alone(tmp_path: Path, model: Path) -> None:
    keys = {}
    other = small_model(postprocess=PostprocessConfig(sad_threshold=0.77))
    other.description = replace(other.description, card={"x": 1})
    other.graph = b"what a CPU runs"
    for name, one in {"calibrated": other, "others": small_model(seed=1)}.items():
        checkpoint.save(one, tmp_path / f"{name}.safetensors")
        keys[name] = networks_key(tmp_path / f"{name}.safetensors")
    assert keys["calibrated"] == networks_key(model) != keys["others"]


def test_processes_change_nothing(tmp_path: Path, model: Path) -> None:
    job = Job(model, recordings(tmp_path, 1.0, 1.5, 0.5))
    for a, b in zip(estimates_of(job), estimates_of(job, workers=2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_causal_networks_hear_offline_what_they_hear_streamed(tmp_path: Path, model: Path) -> None:
    own = recordings(tmp_path, 7.3)
    streamed, offline = (estimates_of(Job(model, own, form))[0] for form in ("streamed", "offline"))
    assert streamed.shape == (73, 3, 5)
    np.testing.assert_allclose(streamed, offline, atol=1e-5)


@pytest.mark.parametrize("seconds", [0.0, 0.35, 4.15])
def test_offline_every_label_frame_is_in_the_middle_half_of_a_chunk(tmp_path: Path, seconds: float) -> None:
    model = small_model(WINDOWED)
    path = tmp_path / "w.safetensors"
    checkpoint.save(model, path)
    own = recordings(tmp_path, seconds)
    heard = estimates_of(Job(path, own, "offline"))[0]
    labels = round(seconds * 24000) // 2400
    assert heard.shape == (labels, 3, 5)
    if not labels:
        return
    # Six label frames a chunk: kept are the second to the fourth, so chunks begin at -1, 2, 5, ...
    samples = soundfile.read(own[0].audio, dtype="float32")[0]
    features = run(features_stage(FEATURES), samples)[: labels * 10]
    fill = np.broadcast_to(silence(FEATURES), (100, *features.shape[1:]))
    padded = np.concatenate([fill, features, fill]).astype(np.float32)
    network = model.networks["sed"][0]
    for label in range(labels):
        begin = label // 3 * 3 - 1
        chunk = torch.from_numpy(padded[100 + 10 * begin : 100 + 10 * begin + 60])[None][:, :, task_indices("sed")]
        with torch.inference_mode():
            expected = network(chunk)[0][0, label - begin]
        np.testing.assert_allclose(heard[label, :, 1], expected, atol=1e-5)


def test_streamed_and_offline_differ_where_networks_are_not_causal(tmp_path: Path) -> None:
    checkpoint.save(small_model(WINDOWED), tmp_path / "w.safetensors")
    own = recordings(tmp_path, 2.0)
    streamed, offline = (
        estimates_of(Job(tmp_path / "w.safetensors", own, form))[0] for form in ("streamed", "offline")
    )
    assert streamed.shape == offline.shape
    assert not np.allclose(streamed, offline, atol=1e-3)


def test_recordings_that_do_not_fit_the_model(tmp_path: Path, model: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros((100, 4)), 16000)
    soundfile.write(tmp_path / "stereo.wav", np.zeros((100, 2)), 24000)
    (tmp_path / "text.wav").write_text("no sound")
    expected = {"slow": "16000 Hz; expected 4 at 24000 Hz", "stereo": "2 channels", "text": "text.wav"}
    for name, message in expected.items():
        with pytest.raises(ConfigError, match=message):
            estimates_of(Job(model, (Recording(name, tmp_path / f"{name}.wav", None, 1, None),)))


def test_a_recording_that_fails_leaves_nothing_for_the_next(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> Iterator[np.ndarray]:
        yield np.random.default_rng(0).normal(0, 0.1, (200_000, 4)).astype(np.float32)
        raise ConfigError("damaged")

    job, said = Job(model, recordings(tmp_path, 1.0)), []
    for _ in range(2):
        said += estimates_of(job)
        with monkeypatch.context() as patched:
            patched.setattr(estimates, "foa_blocks", damaged)
            with pytest.raises(ConfigError, match="damaged"):
                estimates_of(job)
    np.testing.assert_array_equal(*said)


def source(class_id: int, azimuth: float, elevation: float = 0.0, track: int = 0) -> ActiveSource:
    return ActiveSource(
        class_id=class_id,
        track=track,
        azimuth_deg=azimuth,
        elevation_deg=elevation,
        confidence=0.9,
        onset_sample=0,
    )


def test_rows_are_in_whole_degrees_and_numbered_as_the_dataset_does() -> None:
    classes = ("dog", "phone", "piano")
    frames = [
        LabelFrame(index=0, sample=0, sources=[]),
        LabelFrame(index=1, sample=2400, sources=[source(0, 179.7, -0.4), source(1, -12.5, 89.6, track=3)]),
    ]
    rows = prediction_rows(frames, ["phone", "dog"], classes)
    assert rows.tolist() == [[1, 1, 0, -180, 0], [1, 0, 3, -12, 90]]
    assert prediction_rows([], classes, classes).shape == (0, 5)
    said = (
        r"the dataset lacks classes of the model: siren \(it has dog, phone, piano\); give a model for these, or make"
    )
    with pytest.raises(ConfigError, match=said):
        prediction_rows(frames, ["phone", "siren"], classes)
