"""The training loop: it learns, it can be killed and goes on to the bit, it keeps the best."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from offline import train as training
from offline.batches import Batch
from offline.config import TRAIN_PRESETS, TrainConfig
from offline.extract import Store
from offline.objective import aligned, loss
from offline.optimization import Lookahead, Optimization, cycle_ends
from offline.runs import logging_to
from offline.train import train
from seldrt import checkpoint, networks
from seldrt.config import ConfigError, FeatureConfig, NetworkConfig
from seldrt.description import CheckpointError, describe
from tests.disk import full_disk
from tests.models import CAUSAL, FEATURES, WINDOWED, small_model
from tests.offline.stores import memory_store

SHORT = TrainConfig(
    epochs=4, steps_per_epoch=5, batch_size=4, cycle_epochs=1, learning_rate=3e-3,
    rotations=True, colour_db=6.0, mask_bands=4, mask_frames=10, soft_f_per_class=True, cross_entropy_weight=1.0,
)  # fmt: skip
LEARNS = TrainConfig(
    epochs=3, steps_per_epoch=36, batch_size=6, cycle_epochs=3, learning_rate=2e-2, soft_f_per_class=True,
    cross_entropy_weight=1.0,
)  # fmt: skip
ROOT = Path(__file__).parents[2]
SMALL = replace(CAUSAL, chunk_frames=60, lookahead_labels=1)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def last_of(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "last.pt", weights_only=True)
    return state


def assert_same_tensors(first: Any, second: Any) -> None:
    """Equal to the bit, through dictionaries and lists."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_tensors(first[key], second[key])
    elif isinstance(first, list):
        for one, other in zip(first, second, strict=True):
            assert_same_tensors(one, other)
    else:
        assert first == second


# --- it learns -----------------------------------------------------------------------------------------------------


def test_networks_learn_what_sounds_and_from_where(tones: Path, tmp_path: Path) -> None:
    train_store, held_out = Store(tones / "train.store"), Store(tones / "val.store")
    for task in networks.TASKS:
        network = replace(CAUSAL, lookahead_labels=1, dropout=0.0)
        train(task, [train_store], [held_out], tmp_path / task, network, LEARNS)
    figures = {task: log_of(tmp_path / task) for task in networks.TASKS}
    for task in networks.TASKS:
        assert figures[task][-1]["loss"] < 0.7 * figures[task][0]["loss"]
        assert figures[task][-1]["val_loss"] < figures[task][0]["val_loss"]
    active = held_out.sed.max(axis=1).mean()
    always = 2 * active / (1 + active)  # F of saying "sound" all the time
    assert figures["sad"][-1]["f_micro"] > always + 0.1
    assert figures["sed"][-1]["f_macro"] > 0.9
    assert figures["doae"][-1]["mean_error_deg"] < 30  # 90 by chance: left or right


# --- it goes on ----------------------------------------------------------------------------------------------------


class Killed(Exception):
    """As if the machine had gone away."""


def kill_after(epoch: int) -> Any:
    def report(figures: dict[str, Any]) -> None:
        if figures["epoch"] == epoch:
            raise Killed

    return report


@pytest.mark.parametrize(("task", "network"), [("sed", SMALL), ("doae", SMALL), ("doae", WINDOWED)])
def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path, task: str, network: NetworkConfig) -> None:
    store, held_out = memory_store((30, 20)), memory_store((18, 12), seed=1)
    train(task, [store], [held_out], tmp_path / "whole", network, SHORT)
    with pytest.raises(Killed):
        train(task, [store], [held_out], tmp_path / "cut", network, SHORT, report=kill_after(1))
    torch.manual_seed(99)  # whatever happens in between
    with pytest.raises(Killed):
        train(task, [store], [held_out], tmp_path / "cut", network, SHORT, resume=True, report=kill_after(3))
    train(task, [store], [held_out], tmp_path / "cut", network, SHORT, resume=True)
    assert_same_tensors(last_of(tmp_path / "cut"), last_of(tmp_path / "whole"))
    best = [checkpoint.load(tmp_path / run / "best.safetensors") for run in ("cut", "whole")]
    assert_same_tensors(*(dict(one.networks[task][0].state_dict()) for one in best))
    without_time = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in log_of(tmp_path / run)] for run in ("cut", "whole")
    ]
    assert without_time[0] == without_time[1]
    assert [row["epoch"] for row in without_time[0]] == [1, 2, 3, 4]


def test_a_spent_time_budget_changes_nothing(tmp_path: Path) -> None:
    store = memory_store((30,))
    train("sad", [store], [store], tmp_path, SMALL, replace(SHORT, epochs=1))
    before = last_of(tmp_path)
    train("sad", [store], [store], tmp_path, SMALL, SHORT, time_budget_s=0.0, resume=True)
    assert_same_tensors(last_of(tmp_path), before)
    assert len(log_of(tmp_path)) == 1


def test_a_full_disk_is_one_line_and_the_state_of_before_stays(tmp_path: Path) -> None:
    store = memory_store((30,))
    train("sad", [store], [store], tmp_path, SMALL, replace(SHORT, epochs=1))
    before = (tmp_path / "last.pt").read_bytes()
    with full_disk(), pytest.raises(CheckpointError, match=r"cannot be written: ") as error:
        train("sad", [store], [store], tmp_path, SMALL, SHORT, resume=True)
    assert "\n" not in str(error.value)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    store = memory_store((30,))
    train("sad", [store], [store], tmp_path, SMALL, replace(SHORT, epochs=1))
    wider = replace(SMALL, widths=(8, 8, 16, 24))
    with pytest.raises(
        CheckpointError, match=r"was begun with widths = \[8, 8, 16, 16\], not \[8, 8, 16, 24\]"
    ) as error:
        train("sad", [store], [store], tmp_path, wider, SHORT, resume=True)
    assert "\n" not in str(error.value)
    for content in (None, b"", b"hours of work"):
        if content is None:
            torch.save({"settings": "null"}, tmp_path / "last.pt")
        else:
            (tmp_path / "last.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"last\.pt is not a run") as error:
            train("sad", [store], [store], tmp_path, SMALL, SHORT, resume=True)
        assert "\n" not in str(error.value)


def test_a_run_is_of_one_task_and_its_classes(tmp_path: Path) -> None:
    store, swapped = memory_store((30,)), memory_store((30,), classes=("high", "low"))
    config = replace(LONG, epochs=1, steps_per_epoch=1)
    train("sed", [store], [store], tmp_path, SMALL, config)
    for task, other, said in (
        ("sad", store, 'begun with task = "sed", not "sad": go on'),
        ("sed", swapped, r'begun with classes = \["low", "high"\], not \["high", "low"\]: go on'),
    ):
        with pytest.raises(CheckpointError, match=said):
            train(task, [other], [other], tmp_path, SMALL, config, resume=True)


def test_a_run_from_before_there_was_a_setting_goes_on(tmp_path: Path) -> None:
    store, config = memory_store((30,)), replace(LONG, epochs=1, steps_per_epoch=1)
    train("sad", [store], [store], tmp_path, SMALL, config)
    state = last_of(tmp_path)
    settings = json.loads(state["settings"])
    del settings["train"]["weather_probability"], settings["network"]["views"]
    torch.save(state | {"settings": json.dumps(settings)}, tmp_path / "last.pt")
    assert train("sad", [store], [store], tmp_path, SMALL, replace(config, epochs=2), resume=True).epoch == 2


def test_logs_go_on_from_the_epoch_that_was_kept(tmp_path: Path) -> None:
    """What came after it, or is torn, is of a run that died."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with logging_to(tmp_path, 0) as log:
        for epoch in (1, 2, 3):
            log({"epoch": epoch, "loss": 1.0})
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"epo')
    with logging_to(tmp_path, 2) as log:
        log({"epoch": 3, "loss": 1 / 3})
    assert log_of(tmp_path) == [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 1.0}, {"epoch": 3, "loss": 0.3333}]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(each.step, round(each.value, 3)) for each in events.Scalars("loss")] == [(1, 1.0), (2, 1.0), (3, 0.333)]


def test_a_run_can_begin_with_the_weights_of_another(tmp_path: Path) -> None:
    store = memory_store((30,))
    train("sed", [store], [store], tmp_path / "a", SMALL, replace(SHORT, epochs=1))
    first = checkpoint.load(tmp_path / "a" / "best.safetensors")
    tiny_steps = replace(SHORT, epochs=1, learning_rate=0.0, final_learning_rate=0.0)
    train("sed", [store], [store], tmp_path / "b", SMALL, tiny_steps, start=tmp_path / "a" / "best.safetensors")
    second = checkpoint.load(tmp_path / "b" / "best.safetensors")
    assert_same_tensors(
        *({name: p.data for name, p in one.networks["sed"][0].named_parameters()} for one in (first, second))
    )


def test_first_weights_for_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    store, path = memory_store((30,)), tmp_path / "model.safetensors"
    wider = replace(FEATURES, n_mels=64)

    def refused(start: checkpoint.Checkpoint, task: str = "sed") -> str:
        checkpoint.save(start, path)
        with pytest.raises(CheckpointError) as error:
            train(task, [store], [store], tmp_path / "run", SMALL, SHORT, start=path)
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    def model(network: NetworkConfig = SMALL, features: FeatureConfig = FEATURES) -> checkpoint.Checkpoint:
        return small_model(network, ("low", "high"), features)

    assert "other features: n_mels is 64, expected 32" in refused(model(features=wider))
    assert "another network: guidance_width is 16, expected 8" in refused(model(replace(SMALL, guidance_width=16)))
    one = model()
    del one.networks["doae"], one.description.networks["doae"]
    assert "has no network for doae, only for sad, sed" in refused(one, "doae")


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    store = memory_store((30,))
    (tmp_path / "last.pt").write_bytes(b"hours of work")
    with pytest.raises(ConfigError, match="holds a run: give --resume to continue it, or another --out"):
        train("sad", [store], [store], tmp_path, SMALL, SHORT)
    assert (tmp_path / "last.pt").read_bytes() == b"hours of work"


@pytest.mark.skipif(os.name == "nt", reason="no locks of folders there")
def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    store, once = memory_store((30,)), []

    def second() -> bool:
        if not once:
            once.append(True)
            with pytest.raises(ConfigError, match="another training writes there now; wait until it has ended, or"):
                train("sad", [store], [store], tmp_path, SMALL, SHORT)
        return False

    train("sad", [store], [store], tmp_path, SMALL, SHORT, stopped=second)
    assert once


def test_to_go_on_there_must_be_a_run(tmp_path: Path) -> None:
    store, out = memory_store((30,)), tmp_path / "mistyped"
    with pytest.raises(ConfigError, match="mistyped holds no run to go on with: leave out --resume, or give the --out"):
        train("sad", [store], [store], out, SMALL, SHORT, resume=True)
    assert not out.exists()


def test_a_run_goes_on_with_the_recordings_that_it_was_begun_with(tmp_path: Path) -> None:
    store, other, held_out = memory_store((30,)), memory_store((30,), seed=1), memory_store((30,), seed=2)
    config = replace(SHORT, epochs=1, steps_per_epoch=1)
    train("sad", [store], [held_out], tmp_path, SMALL, config)
    before = (tmp_path / "last.pt").read_bytes()
    for stores, validation, purpose in (
        ([other], [held_out], "train"),
        ([store, other], [held_out], "train"),
        ([held_out], [store], "train"),
        ([store], [other], "validate"),
    ):
        said = f"was begun with other recordings to {purpose} with: go on with those, give another --out, or say"
        with pytest.raises(CheckpointError, match=said) as error:
            train("sad", stores, validation, tmp_path, SMALL, replace(config, epochs=2), resume=True)
        assert "\n" not in str(error.value)
    assert (tmp_path / "last.pt").read_bytes() == before
    store.folder = Path("moved")
    train("sad", [store], [held_out], tmp_path, SMALL, replace(config, epochs=2), resume=True)
    more = replace(config, epochs=3)
    assert train("sad", [other], [held_out], tmp_path, SMALL, more, resume=True, other_stores=True).epoch == 3
    train("sad", [other], [held_out], tmp_path, SMALL, more, resume=True)


@pytest.mark.parametrize("task", networks.TASKS)
def test_stores_in_which_nothing_sounds_are_refused(tmp_path: Path, task: str) -> None:
    silent, store = memory_store((30,)), memory_store((30,))
    silent.sed[:], silent.doa_mask[:] = 0, 0
    with pytest.raises(ConfigError, match="store0: no class ever sounds: nothing to learn from"):
        train(task, [silent], [store], tmp_path / "run", SMALL, SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", networks.TASKS)
def test_folds_in_which_nothing_sounds_are_refused(tmp_path: Path, task: str) -> None:
    store = memory_store((30, 30))
    for fold, place in enumerate(store.manifest.recordings, 1):
        msgspec.structs.force_setattr(place, "fold", fold)
    store.sed[30:], store.doa_mask[30:] = 0, 0
    for folds, what in (((2,), (1,)), "learn from"), (((1,), (2,)), "choose the best weights by"):
        config = replace(SHORT, folds=folds[0], validation_folds=folds[1])
        with pytest.raises(ConfigError, match=f"store0: no class ever sounds: nothing to {what}"):
            train(task, [store], [store], tmp_path / "run", SMALL, config)
    assert not (tmp_path / "run").exists()


def test_validation_stores_must_be_like_those_of_training(tmp_path: Path) -> None:
    swapped = memory_store((30,), classes=("high", "low"), seed=5)
    with pytest.raises(CheckpointError, match="store5 knows other classes: 'high' for 'low', 'low' for 'high'"):
        train("sad", [memory_store((30,))], [swapped], tmp_path, SMALL, SHORT)


def test_a_run_has_one_file_of_tensorboard_events(tmp_path: Path) -> None:
    store = memory_store((30,))
    train("sad", [store], [store], tmp_path, SMALL, replace(SHORT, epochs=3, steps_per_epoch=1))
    assert len(list(tmp_path.glob("events.*"))) == 1


# --- it keeps the best ---------------------------------------------------------------------------------------------


def test_the_best_weights_are_those_of_the_highest_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.4, 0.6])
    weights = []

    def scripted(network: networks.Network, chunks: Any, config: TrainConfig) -> dict[str, float]:
        weights.append(dict(network.named_parameters())["head.dense.weight"].detach().clone())
        return {"score": next(scores)}

    monkeypatch.setattr(training, "validate", scripted)
    store = memory_store((30,))

    def best() -> checkpoint.Checkpoint:
        more = replace(SHORT, epochs=len(weights) + 2)
        train("sed", [store], [store], tmp_path, SMALL, more, resume=bool(weights))
        return checkpoint.load(tmp_path / "best.safetensors")

    for expected in (2, 2, 6):  # of two equals the first; what was best before a pause is remembered
        found = best()
        assert found.description.card["sed"]["epoch"] == expected
        assert torch.equal(found.networks["sed"][0].state_dict()["head.dense.weight"], weights[expected - 1])
    description = describe(tmp_path / "best.safetensors")
    assert description.networks == {"sed": (SMALL,)}
    assert description.classes == ("low", "high")
    assert description.mean_event_labels == (1.0, 1.0)
    assert description.card["sed"]["train"]["epochs"] == 6


# --- its parts -----------------------------------------------------------------------------------------------------


def test_lookahead_goes_half_way_back_every_six_steps() -> None:
    weight = torch.zeros(3)
    lookahead = Lookahead([weight])
    seen = []
    for _ in range(18):
        weight += 1
        lookahead.step()
        seen.append(float(weight[0]))
    assert seen == [1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 10, 11, 9]


@pytest.mark.parametrize("steps", [0, 4, 6, 9])
def test_lookahead_goes_on_from_its_state(tmp_path: Path, steps: int) -> None:
    weight, other = torch.zeros(3), torch.zeros(3)
    lookahead, again = Lookahead([weight]), Lookahead([other])
    for _ in range(steps):
        weight += 1
        lookahead.step()
    torch.save({"weight": weight, "state": lookahead.state_dict()}, tmp_path / "state.pt")
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    other.copy_(kept["weight"])
    again.load_state_dict(kept["state"])
    for _ in range(8):
        weight += 1
        other += 1
        lookahead.step()
        again.step()
        assert torch.equal(weight, other)


def test_weights_that_have_met_are_kept_once(tmp_path: Path) -> None:
    sizes = []
    weight = torch.zeros(100_000)
    lookahead = Lookahead([weight])
    for _ in range(6):
        lookahead.step()
        torch.save({"weight": weight, "state": lookahead.state_dict()}, tmp_path / "state.pt")
        sizes.append((tmp_path / "state.pt").stat().st_size)
    assert sizes[5] < 410_000 < 800_000 < min(sizes[:5])


def test_the_learning_rate_restarts_by_cosines(tmp_path: Path) -> None:
    store = memory_store((30,))
    config = replace(SHORT, epochs=7, steps_per_epoch=1, cycle_epochs=1, learning_rate=1.0, final_learning_rate=0.1)
    train("sad", [store], [store], tmp_path, SMALL, config)
    rates = [0.1 + 0.9 * (1 + math.cos(math.pi * part)) / 2 for part in (0.0, 0.0, 0.5, 0.0, 0.25, 0.5, 0.75)]
    assert [row["learning_rate"] for row in log_of(tmp_path)] == [round(rate, 4) for rate in rates]  # of the last step


def batch_of(sed: torch.Tensor, doa: torch.Tensor | None = None) -> Batch:
    directions = torch.zeros(*sed.shape, 3) if doa is None else doa
    return Batch(torch.zeros(1), sed, directions, sed.clone())


def test_outputs_of_causal_networks_speak_of_the_label_frame_before_their_look_ahead() -> None:
    targets = torch.arange(6.0).view(1, 6, 1)
    causal = replace(SMALL, causal=True, lookahead_labels=2)
    y, batch = aligned(targets - 2, batch_of(targets), causal)  # output j speaks of label frame j - 2
    assert torch.equal(y, batch.sed)
    assert torch.equal(y[0, :, 0], torch.arange(4.0))
    for other in (replace(causal, lookahead_labels=0), replace(causal, causal=False)):
        same, untouched = aligned(targets, batch_of(targets), other)
        assert torch.equal(same, untouched.sed)


@pytest.mark.parametrize("task", networks.TASKS)
@pytest.mark.parametrize("representation", ["azel", "xyz"])
def test_perfect_outputs_cost_nothing(task: str, representation: Any) -> None:
    store = memory_store((20,))
    batch = batch_of(torch.from_numpy(store.sed)[None], torch.from_numpy(store.doa)[None])
    x, y, z = batch.doa.unbind(-1)
    perfect = {
        "sad": batch.sad,
        "sed": batch.sed,
        "doae": torch.cat([x, y, z], dim=-1)
        if representation == "xyz"
        else torch.cat([torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y))], dim=-1) / torch.pi,
    }[task]
    config, network = TrainConfig(cross_entropy_weight=1.0), NetworkConfig(representation=representation)
    assert float(loss(task, perfect, batch, config, network)) < 1e-5
    assert float(loss(task, 0.5 * perfect + 0.2, batch, config, network)) > 0.05


def test_sed_does_not_learn_silence() -> None:
    sed = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    wrong_in_silence = torch.tensor([[[1.0, 0.0], [0.9, 0.9]]])
    assert float(loss("sed", wrong_in_silence, batch_of(sed), TrainConfig(), SMALL)) == 0.0


def test_the_configuration_of_a_run_is_on_its_card(tmp_path: Path) -> None:
    store = memory_store((30,))
    train("sad", [store], [store], tmp_path, SMALL, replace(SHORT, epochs=1))
    card = describe(tmp_path / "best.safetensors").card["sad"]
    assert msgspec.convert(card["train"], TrainConfig) == replace(SHORT, epochs=1)
    assert (card["epoch"], card["seed"]) == (1, SHORT.seed)
    assert describe(tmp_path / "best.safetensors").features == FEATURES
    assert np.isfinite(card["loss"])


# --- any moment ----------------------------------------------------------------------------------------------------

LONG = replace(SHORT, epochs=2, steps_per_epoch=12, mix_probability=0.3, balanced=0.5, silence_weight=0.5)
CHILD = """
import sys, os, signal
from pathlib import Path
from tests.offline.test_train import LONG, SMALL
from tests.offline.stores import memory_store
from offline import train as training
inner = training._Training.step
def step(self, number):
    if number == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self, number)
training._Training.step = step
store = memory_store((30, 20))
out = Path(sys.argv[1])
training.train("sed", [store], [store], out, SMALL, LONG, time_budget_s=1e9, resume=out.exists())
"""


def test_a_run_killed_within_an_epoch_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    store = memory_store((30, 20))
    train("sed", [store], [store], tmp_path / "whole", SMALL, LONG)
    for at in (17, 20):  # both in the second epoch
        command = [sys.executable, "-c", CHILD, str(tmp_path / "cut"), str(at)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    train("sed", [store], [store], tmp_path / "cut", SMALL, LONG, resume=True)
    assert_same_tensors(last_of(tmp_path / "cut"), last_of(tmp_path / "whole"))
    assert [row["epoch"] for row in log_of(tmp_path / "cut")] == [1, 2]


class Clock:
    """Time that passes by one at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_a_time_budget_ends_within_an_epoch_and_the_run_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = memory_store((30, 20))
    train("sed", [store], [store], tmp_path / "whole", SMALL, LONG)
    with monkeypatch.context() as patched:
        patched.setattr(training, "time", Clock())
        progress = train("sed", [store], [store], tmp_path / "cut", SMALL, LONG, time_budget_s=6.0)
    assert (progress.epoch, progress.step) == (0, 4)
    begun = describe(tmp_path / "cut" / "best.safetensors")  # weights that were not chosen, but usable
    assert (begun.card["sed"]["epoch"], begun.card["sed"]["steps"]) == (0, 4)
    with monkeypatch.context() as patched:
        patched.setattr(training, "time", Clock())
        progress = train("sed", [store], [store], tmp_path / "cut", SMALL, LONG, time_budget_s=15.0, resume=True)
    assert (progress.epoch, 0 < progress.step < 12) == (1, True)
    train("sed", [store], [store], tmp_path / "cut", SMALL, LONG, resume=True)
    assert_same_tensors(last_of(tmp_path / "cut"), last_of(tmp_path / "whole"))
    best = [checkpoint.load(tmp_path / run / "best.safetensors").networks["sed"][0] for run in ("cut", "whole")]
    assert_same_tensors(*(dict(one.state_dict()) for one in best))


@pytest.mark.parametrize(
    ("network", "config", "features", "said"),
    [
        (SMALL, replace(LONG, learning_rate=0.1), FEATURES, "begun with learning_rate = 0.003, not 0.1"),
        (replace(SMALL, lookahead_labels=2), LONG, FEATURES, "begun with lookahead_labels = 1, not 2"),
        (SMALL, LONG, replace(FEATURES, win_length=400), "begun with win_length = 480, not 400"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    tmp_path: Path, network: NetworkConfig, config: TrainConfig, features: FeatureConfig, said: str
) -> None:
    store, other = memory_store((30,)), memory_store((30,), config=features)
    train("sad", [store], [store], tmp_path, SMALL, replace(LONG, steps_per_epoch=1))
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=said) as error:
        train("sad", [other], [other], tmp_path, network, replace(config, steps_per_epoch=1), resume=True)
    assert "\n" not in str(error.value)


# --- snapshots, recipes, the baseline ------------------------------------------------------------------------------


def test_snapshots_are_the_weights_at_the_end_of_each_cycle(tmp_path: Path) -> None:
    store = memory_store((30,))
    config = replace(SHORT, epochs=7, steps_per_epoch=1, cycle_epochs=1, snapshots=True)
    train("sad", [store], [store], tmp_path, SMALL, config)
    kept = sorted(tmp_path.glob("snapshot-*.safetensors"))
    assert [path.stem for path in kept] == ["snapshot-001", "snapshot-003", "snapshot-007"]
    last = checkpoint.load(kept[-1]).networks["sad"][0]
    assert_same_tensors(dict(last.state_dict()), dict(last_of(tmp_path)["network"]))
    merged = checkpoint.merged(kept)
    assert merged.description.networks["sad"] == (SMALL,) * 3
    assert [merged.description.card["sad"][number]["epoch"] for number in "123"] == [1, 3, 7]


@pytest.mark.parametrize("recipe", ["etri1", "etri2", "etri3"])
def test_the_recipes_of_the_report_train(tmp_path: Path, recipe: str) -> None:
    config = TRAIN_PRESETS[recipe]
    assert (config.epochs, config.optimizer, cycle_ends(config)[-1]) == (300, "ranger", 300)
    assert networks.preset("paper", "doae").chunk_frames - 10 * config.chunk_hop_labels == 50
    store = memory_store((40,) * 7)
    for fold, place in enumerate(store.manifest.recordings, 1):
        msgspec.structs.force_setattr(place, "fold", fold)
    short = replace(config, epochs=1, steps_per_epoch=2, cycle_epochs=1, batch_size=2)
    train("doae", [store], [store], tmp_path, WINDOWED, short)
    assert len(list(tmp_path.glob("snapshot-*"))) == (recipe == "etri3")
    with pytest.raises(ConfigError, match=r"has no recording of fold .*; \[train\] folds = \[\] takes all"):
        train("doae", [memory_store((40,) * 7)], [store], tmp_path / "b", WINDOWED, replace(short, folds=(3, 4)))


def test_the_baseline_learns_what_sounds_and_from_where(tones: Path, tmp_path: Path) -> None:
    stores, held_out = ([Store(tones / f"{name}.store")] for name in ("train", "val"))
    shape = replace(networks.preset("compact", "baseline"), chunk_frames=60, lookahead_labels=2)
    recipe = replace(TRAIN_PRESETS["baseline"], epochs=2, steps_per_epoch=60, batch_size=8, learning_rate=3e-3)
    train("baseline", stores, held_out, tmp_path, shape, recipe)
    last = log_of(tmp_path)[-1]
    assert last["f_micro"] > 0.8
    assert last["mean_error_deg"] < 30
    assert last["score"] == pytest.approx(
        ((last["f_micro"] + last["f_macro"]) / 2 + 1 - last["mean_error_deg"] / 180) / 2, abs=1e-3
    )


# --- several processes ---------------------------------------------------------------------------------------------

TOGETHER = """
import sys
from pathlib import Path
from offline.train import train
from offline.extract import Store
from tests.offline.test_train import DOUBLE, SMALL
from msgspec.structs import replace
store = [Store(Path(sys.argv[1]))]
train("doae", store, store, Path(sys.argv[2]), replace(SMALL, dropout=0.0), DOUBLE)
"""
DOUBLE = TrainConfig(
    epochs=2, steps_per_epoch=8, batch_size=8, cycle_epochs=2, learning_rate=1e-3, bf16=False, gradient_norm=1e9
)


def test_two_processes_learn_as_one_with_the_double_batch(tones: Path, tmp_path: Path) -> None:
    store = [Store(tones / "train.store")]
    network = replace(SMALL, dropout=0.0)
    train("doae", store, store, tmp_path / "one", network, replace(DOUBLE, batch_size=16))
    (tmp_path / "child.py").write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(tmp_path / "child.py"), str(tones / "train.store"), str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [row["epoch"] for row in two] == [1, 2]
    for alone, together in zip(one, two, strict=True):  # batch norm sees half as much at a time
        assert together["loss"] == pytest.approx(alone["loss"], rel=0.05)
        assert together["val_loss"] == pytest.approx(alone["val_loss"], rel=0.1)
    last = [last_of(tmp_path / run)["network"]["head.dense.bias"] for run in ("one", "two")]
    assert float((last[0] - last[1]).norm()) < 0.3 * float(last[0].norm())


def stepped(optimizer: str, gradients: list[np.ndarray], rate: float, norm: float) -> list[np.ndarray]:
    """Weights from nothing: Adam (Kingma and Ba 2015); or RAdam (Liu et al. 2020) with Lookahead, as in Ranger."""
    b1, b2, eps = (0.95, 0.999, 1e-5) if optimizer == "ranger" else (0.9, 0.999, 1e-8)
    longest = 2 / (1 - b2) - 1
    weights = slow = m = v = np.zeros_like(gradients[0])
    seen = []
    for t, gradient in enumerate(gradients, 1):
        gradient = gradient * min(1.0, norm / np.linalg.norm(gradient))
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        step, length = m / (1 - b1**t), longest - 2 * t * b2**t / (1 - b2**t)
        if optimizer == "adam":
            step = step / (np.sqrt(v / (1 - b2**t)) + eps)
        elif length > 5:
            rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            step = step * np.sqrt(rectified * (1 - b2**t)) / (np.sqrt(v) + eps)
        weights = weights - rate * step
        if optimizer == "ranger" and t % 6 == 0:
            weights = slow = (slow + weights) / 2
        seen.append(weights)
    return seen


@pytest.mark.parametrize("optimizer", ["ranger", "adam"])
@pytest.mark.parametrize("loud", [1.0, 1e-5])
def test_weights_move_as_their_authors_say(optimizer: Any, loud: float) -> None:
    rate = 0.01
    config = TrainConfig(optimizer=optimizer, learning_rate=rate, final_learning_rate=rate, gradient_norm=2.0)
    weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimization = Optimization([weight], config)
    gradients = list(np.random.default_rng(0).standard_normal((20, 5)) * loud)
    for gradient, expected in zip(gradients, stepped(optimizer, gradients, rate, 2.0), strict=True):
        optimization.step((weight * torch.from_numpy(gradient)).sum())
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-3, atol=1e-12)


def test_a_gradient_that_is_no_number_moves_nothing_and_many_end_the_run() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimization = Optimization([weight], TrainConfig(optimizer="adam"))
    optimization.step((weight * torch.tensor([1.0, float("nan"), 1.0])).sum())
    assert torch.equal(weight, torch.ones(3))
    optimization.step(weight.sum())
    assert bool(weight.isfinite().all())
    assert bool((weight < 1).all())
    for _ in range(19):
        optimization.step(weight.sum() * float("inf"))
    with pytest.raises(ConfigError, match=r"20 gradients in a row are no numbers; lower learning_rate, now 0\.001"):
        optimization.step(weight.sum() * float("inf"))
