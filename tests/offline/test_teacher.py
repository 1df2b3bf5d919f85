"""A teacher says what its networks say together, of what they speak of, and a student comes to agree with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from scipy.special import expit, logit

from offline.batches import Chunks
from offline.config import TrainConfig
from offline.teacher import Teacher
from offline.train import train
from seldrt import checkpoint
from seldrt.config import ConfigError, NetworkConfig
from seldrt.description import CheckpointError
from tests.models import CAUSAL, WINDOWED, small_model
from tests.offline.stores import memory_store

CLASSES = ("low", "high")
AHEAD = replace(CAUSAL, chunk_frames=60, lookahead_labels=2)
TAUGHT = TrainConfig(
    epochs=1, steps_per_epoch=60, batch_size=4, cycle_epochs=1, optimizer="adam", cross_entropy_weight=4.0,
    learning_rate=1e-2, silence_weight=1.0,
)  # fmt: skip


def write_teacher(path: Path, network: NetworkConfig = AHEAD, classes: tuple[str, ...] = CLASSES) -> TrainConfig:
    """Two networks of each task that hear much, the second counts three times; gives the settings that name them."""
    models = [small_model(network, classes, seed=seed) for seed in (1, 2)]
    for seed, model in enumerate(models):
        for task in ("sad", "sed"):
            model.networks[task][0].get_parameter("head.dense.bias").data += 2
        checkpoint.save(model, path.with_suffix(f".{seed}"))
    checkpoint.save(checkpoint.merged([path.with_suffix(".0"), path.with_suffix(".1")], [1.0, 3.0]), path)
    return replace(TAUGHT, teacher=str(path))


def description(classes: tuple[str, ...] = CLASSES) -> checkpoint.Description:
    return small_model(AHEAD, classes).description


@pytest.mark.parametrize("task", ["sad", "sed"])
@pytest.mark.parametrize(("network", "ahead"), [(AHEAD, 2), (replace(WINDOWED, lookahead_labels=2), 0)])
def test_it_says_the_weighted_mean_of_log_odds_of_what_its_networks_speak_of(
    tmp_path: Path, task: str, network: NetworkConfig, ahead: int
) -> None:
    config = write_teacher(tmp_path / "teacher", network)
    labels = network.chunk_frames // 10
    batch = Chunks([memory_store((30,))], task, "cpu").take([0, 7], labels)
    taught = Teacher(config, task, description(), "cpu").taught(batch)
    model = checkpoint.load(tmp_path / "teacher")
    with torch.no_grad():
        first, second = (logit(one(batch.features)[0].double().numpy()) for one in model.networks[task])
    expected = expit((first + 3 * second) / 4)[:, ahead:]
    assert taught.taught is not None
    assert not np.allclose(expit(first), expit(second), atol=1e-3)
    assert np.allclose(taught.taught[:, : labels - ahead], expected, atol=1e-5)
    target = batch.sed if task == "sed" else batch.sed.amax(-1, keepdim=True)
    assert torch.equal(taught.taught[:, labels - ahead :], target[:, labels - ahead :])
    assert torch.equal(taught.sed, batch.sed)


@pytest.mark.parametrize("task", ["sad", "sed"])
def test_of_untaught_classes_and_while_they_sound_labels_tell(tmp_path: Path, task: str) -> None:
    config = write_teacher(tmp_path / "teacher")
    batch = Chunks([memory_store((60,))], task, "cpu").take([0, 20], 40)
    alone, partly = (
        Teacher(replace(config, untaught=untaught), task, description(), "cpu").taught(batch).taught
        for untaught in ((), ("high",))
    )
    assert alone is not None
    assert partly is not None
    known = slice(0, 40 - AHEAD.lookahead_labels)
    sounds = batch.sed[:, known, 1] > 0
    assert 0 < sounds.sum() < sounds.numel()
    labels = batch.target(task)
    assert torch.equal(partly[:, known][sounds], labels[:, known][sounds])
    assert torch.equal(partly[:, known, 0][~sounds], alone[:, known, 0][~sounds])
    if task == "sed":
        assert torch.equal(partly[..., 1], labels[..., 1])
    assert not torch.equal(alone[:, known][sounds], labels[:, known][sounds])


def test_a_student_comes_to_agree_with_its_teacher(tmp_path: Path) -> None:
    config = write_teacher(tmp_path / "teacher")
    store = memory_store((60, 40))
    batch = Chunks([store], "sed", "cpu").take([0, 20, 60], 20)
    known = Teacher(config, "sed", description(), "cpu").taught(batch).taught
    assert known is not None

    def apart(name: str, config: TrainConfig) -> float:
        """How far the student's probabilities are from the teacher's on average."""
        train("sed", [store], [store], tmp_path / name, AHEAD, config)
        model = checkpoint.load(tmp_path / name / "best.safetensors")
        assert model.description.card["sed"]["train"]["teacher"] == ("teacher" if config.teacher else "")
        network = model.networks["sed"][0]
        with torch.no_grad():
            return float((network(batch.features)[0][:, 2:] - known[:, :-2]).abs().mean())

    alone, never_heard = apart("alone", TAUGHT), apart("deaf", replace(config, teacher_share=0.0))
    assert apart("taught", replace(config, teacher_share=1.0)) < 0.5 * alone
    assert never_heard == alone
    with pytest.raises(CheckpointError, match=r'alone was begun with teacher = "", not "/.*/teacher": go on with'):
        train("sed", [store], [store], tmp_path / "alone", AHEAD, replace(config, epochs=2), resume=True)


def test_what_it_cannot_teach_is_one_line(tmp_path: Path) -> None:
    store = memory_store((30,))

    def refused(task: str, config: TrainConfig, kind: type[Exception]) -> str:
        with pytest.raises(kind) as error:
            train(task, [store], [store], tmp_path / "run", AHEAD, config)
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    config = write_teacher(tmp_path / "teacher")
    assert "doae learns from labels only" in refused("doae", config, ConfigError)
    assert "model 'nobody' was not found" in refused("sed", replace(config, teacher="nobody"), ConfigError)
    strange = write_teacher(tmp_path / "strange", classes=("low", "clap"))
    assert "strange knows other classes: 'clap' for 'high'" in refused("sed", strange, CheckpointError)
    model = checkpoint.load(tmp_path / "teacher")
    del model.networks["sed"], model.description.networks["sed"]
    checkpoint.save(model, tmp_path / "half")
    half = replace(config, teacher=str(tmp_path / "half"))
    assert "half has no network for sed, only for sad, doae" in refused("sed", half, CheckpointError)
