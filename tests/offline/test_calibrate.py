"""Calibration: it counts as the metrics do, finds what is there to be found, and never ends worse."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from offline.calibrate import THRESHOLDS, Trials, calibrate, waiting
from offline.cli import main
from offline.dataset import Recording, write_metadata
from offline.estimates import Estimates, Rows, rows_of
from offline.event_counts import EventCounts, event_recall
from offline.metrics import SeldCounts, count
from offline.thresholds import CRITERIA, Scenes, Strip, best_combination
from seldrt import checkpoint
from seldrt.config import FeatureConfig, PostprocessConfig
from seldrt.description import Description, describe
from seldrt.spatial import unit_vector
from tests.models import small_model

CLASSES = ("clap", "voice", "bell")
WANTED = ("bell", "siren", "voice", "clap")  # of the labels: another order, and one that no model knows
SPOKEN = [3, 2, 0]
PLAIN = PostprocessConfig(doa_smoothing=False)


def random_scene(rng: np.random.Generator, labels: int) -> tuple[Estimates, Rows]:
    """Estimates that know something of the labels, with two sources of a class at times."""
    tracks = [(class_id, track) for class_id in range(len(WANTED)) for track in range(2)]
    rows = []
    estimates = np.concatenate([rng.random((labels, 3, 2)), rng.normal(size=(labels, 3, 3))], axis=-1)
    estimates[..., 0] = estimates[:, :1, 0]  # SAD is one for all
    for class_id, track in tracks:
        first, last = np.sort(rng.integers(0, labels + 3, 2))
        azimuth, elevation = int(rng.integers(-180, 180)), int(rng.integers(-60, 60))
        rows += [(frame, class_id, track, azimuth, elevation) for frame in range(first, last)]
        if class_id in SPOKEN:
            heard = estimates[first:last, SPOKEN.index(class_id)]
            heard[:, 1] **= 0.3
            heard[:, 2:] = unit_vector(azimuth, elevation) + rng.normal(scale=0.3, size=heard[:, 2:].shape)
    return estimates.astype(np.float32), np.array(rows, dtype=np.int64).reshape(-1, 5)


@given(st.integers(0, 10**6), st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_counted_ahead_is_what_the_metrics_count(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, int(labels)) for labels in rng.integers(15, 60, 2)]
    quiet = [(random_scene(rng, 40)[0], np.zeros((0, 5), np.int64))]
    lengths = tuple(data.draw(st.sampled_from([1, 3, 5])) for _ in CLASSES)
    thresholds = tuple(data.draw(st.sampled_from([0.2, 0.5, 0.8])) for _ in CLASSES)
    hold, lookback = data.draw(st.sampled_from([1.0, 0.5])), data.draw(st.sampled_from([0, 3]))
    settings = replace(
        PLAIN, sad_median_labels=3, sed_median_labels=lengths, sed_thresholds=thresholds, sed_hold=hold,
        sed_lookback_labels=lookback,
    )  # fmt: skip

    strips = [Strip(part, SPOKEN, len(WANTED)) for part in (scenes, quiet)]
    medians = {n: [strip.medians(1, n) for strip in strips] for n in set(lengths)}
    gates = [strip.medians(0, 3)[:, 0] > 0.5 for strip in strips]
    prepared = Scenes(strips, gates, medians)
    settings_of = zip(lengths, thresholds, strict=True)
    options = [prepared.options(i, [(n, [t])], hold, lookback) for i, (n, t) in enumerate(settings_of)]
    found = {name: best_combination(options, strips[0].never_said, name, [0, 0, 0], np.inf) for name in CRITERIA}

    total, false = SeldCounts.zero(len(WANTED)), EventCounts()
    for estimates, reference in scenes:
        total += count(reference, rows_of(estimates, settings, CLASSES, WANTED), len(WANTED))
    for estimates, nothing in quiet:
        false += event_recall(nothing, rows_of(estimates, settings, CLASSES, WANTED), len(WANTED), 40)
    assert found["seld"].value == pytest.approx(total.scores().seld)
    assert found["f_20"].value == pytest.approx(1 - total.scores().f_20)
    assert found["seld"].false_events == false.false


def options_of(seed: int, levels: tuple[float, ...]) -> tuple[list, np.ndarray]:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, 50) for _ in range(2)]
    quiet = [(random_scene(rng, 50)[0], np.zeros((0, 5), np.int64))]
    strips = [Strip(part, SPOKEN, len(WANTED)) for part in (scenes, quiet)]
    always = [np.ones(strip.frames, dtype=bool) for strip in strips]
    prepared = Scenes(strips, always, {1: [strip.medians(1, 1) for strip in strips]})
    return [prepared.options(i, [(1, levels)]) for i in range(3)], strips[0].never_said


def test_calibrating_does_not_make_it_wait_longer_than_asked() -> None:
    rng = np.random.default_rng(3)
    scenes = [(Recording("a", Path("a.wav"), None, 1, None, "foa"), random_scene(rng, 200)[0])]
    model = Description(features=FeatureConfig(), classes=CLASSES, networks={}, mean_event_labels=(40.0, 40.0, 40.0))
    trials = Trials(model, WANTED, [])
    trials.scenes = [(scenes[0][1], random_scene(rng, 200)[1])]
    for asked, longest in ((2, 1), (3, 3), (4, 3), (5, 5)):
        start = waiting(replace(PLAIN, sad_median_labels=9, sed_median_labels=(9,)), 2, asked)
        assert (start.sad_median_labels, start.sed_median_labels, start.sed_lookback_labels) == (longest, (longest,), 2)
        chosen = calibrate(trials, start)
        assert max(chosen.sad_median_labels, *chosen.sed_median_labels) <= longest
        assert chosen.sed_lookback_labels == 2
    assert waiting(PLAIN, None, None) == PLAIN


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most_false", [np.inf, 20, 8, 0])
def test_no_single_class_could_do_better_within_the_limit(seed: int, most_false: float) -> None:
    options, never_said = options_of(seed, (0.3, 0.6, 0.8, 0.9, 0.97))

    def of(chosen: tuple[int, ...]) -> tuple[float, float]:
        """False events and criterion, by leaving each class a single setting."""
        alone = [
            dataclasses.replace(o, settings=[o.settings[k]], **{n: getattr(o, n)[[k]] for n in OUTCOMES})
            for o, k in zip(options, chosen, strict=True)
        ]
        found = best_combination(alone, never_said, "seld", [0, 0, 0], np.inf)
        return found.false_events, found.value

    every = {chosen: of(chosen) for chosen in itertools.product(range(5), repeat=3)}
    found = best_combination(options, never_said, "seld", [4, 4, 4], most_false)
    assert every[found.chosen] == pytest.approx((found.false_events, found.value))
    possible = [value for events, value in every.values() if events <= most_false]
    if not possible:
        assert found.false_events == min(events for events, _ in every.values())
        return
    assert found.false_events <= most_false
    neighbours = [every[c] for c in every if sum(a != b for a, b in zip(c, found.chosen, strict=True)) == 1]
    assert all(value >= found.value - 1e-12 for events, value in neighbours if events <= most_false)
    assert found.value <= np.quantile(possible, 0.1) + 1e-12


OUTCOMES = ("lost", "false", "sums", "false_events")


def trials_of(tmp_path: Path, scenes: list[tuple[Estimates, Rows]], quiet: list[Estimates]) -> Trials:
    heard = []
    for i, (estimates, rows) in enumerate(scenes):
        write_metadata(tmp_path / f"{i}.csv", rows)
        heard.append((Recording(f"{i}", tmp_path / "none.wav", tmp_path / f"{i}.csv", 1, 1), estimates))
    nothing = [(Recording("q", tmp_path / "none.wav", None, 1, 1), estimates) for estimates in quiet]
    model = Description(features=FeatureConfig(), classes=CLASSES, networks={}, mean_event_labels=(8.0, 8.0, 8.0))
    return Trials(model, WANTED, heard, nothing)


def staged(false_at: tuple[float, ...], minutes: int = 1) -> tuple[Estimates, Rows, Estimates]:
    """Events of each class at 0.85, and one false event a minute of each class at its level where it is quiet."""
    scene, quiet = np.zeros((300, 3, 5), np.float32), np.zeros((600 * minutes, 3, 5), np.float32)
    scene[..., 2], quiet[..., 2] = 1, 1
    rows = []
    for class_id in range(3):
        first = 20 + 60 * class_id
        scene[first : first + 30, :, 0] = 1.0
        scene[first : first + 30, class_id, 1] = 0.85
        rows += [(frame, SPOKEN[class_id], 0, 0, 0) for frame in range(first, first + 30)]
        for minute in range(minutes):
            first = 600 * minute + 100 * class_id
            quiet[first : first + 20, :, 0] = 1.0
            quiet[first : first + 20, class_id, 1] = false_at[class_id]
    return scene, np.array(rows), quiet


def test_thresholds_part_the_true_from_the_false(tmp_path: Path) -> None:
    scene, rows, quiet = staged((0.62, 0.74, 0.3), minutes=2)
    trials = trials_of(tmp_path, [(scene, rows)], [quiet])
    start = PostprocessConfig(sed_thresholds=(0.2,), sed_median_labels=(3,))
    before, after = trials.heard(start), trials.heard(chosen := calibrate(trials, start, 0.0))
    assert (before.false_per_minute, after.false_per_minute) == (3.0, 0.0)
    assert after.scores.f_20 == pytest.approx(3 / 3.25, abs=0.1)  # the siren of the labels is nobody's
    assert (after.recall, before.recall) == (1.0, 1.0)
    assert all(low <= t < 0.85 for low, t in zip((0.62, 0.74, 0.3), chosen.sed_thresholds, strict=True))
    assert chosen.doa_smoothing


def test_a_class_that_never_sounds_keeps_its_settings(tmp_path: Path) -> None:
    """However often it is said falsely: nobody knows how often it would be missed."""
    scene, rows, quiet = staged((0.6, 0.7, 0.25))
    trials = trials_of(tmp_path, [(scene, rows[rows[:, 1] != SPOKEN[0]])], [quiet])
    assert trials.absent == ("clap",)
    for limit in (0.0, 10.0):
        start = PostprocessConfig(sed_thresholds=(0.31,), sed_median_labels=(3,))
        chosen = calibrate(trials, start, limit)
        assert (chosen.sed_thresholds[0], chosen.sed_median_labels[0]) == (0.31, 3)
        assert "clap" not in trials.heard(chosen).never_found


def test_what_cannot_be_told_apart_is_given_up_only_as_far_as_the_limit_asks(tmp_path: Path) -> None:
    """Two classes are as loud where they are false: one false event a minute allows one of them."""
    scene, rows, quiet = staged((0.9, 0.9, 0.3))
    trials = trials_of(tmp_path, [(scene, rows)], [quiet])
    for limit, recall, silenced in ((0.0, 1 / 3, 2), (1.0, 2 / 3, 1), (2.0, 1.0, 0)):
        heard = trials.heard(calibrate(trials, PostprocessConfig(sed_thresholds=(0.2,)), limit))
        assert heard.recall == pytest.approx(recall)
        assert heard.false_per_minute == limit
        assert len(heard.never_found) == silenced
        assert set(heard.never_found) <= {"clap", "voice"}


def test_a_limit_that_cannot_be_kept_is_come_near_to(tmp_path: Path) -> None:
    scene, rows, quiet = staged((1.0, 1.0, 0.3))
    trials = trials_of(tmp_path, [(scene, rows)], [quiet])
    quiet[:, 1, 1] = np.minimum(quiet[:, 1, 1], 0.5)
    chosen = calibrate(trials, PostprocessConfig(sed_thresholds=(0.2,)), 0.0)
    assert trials.heard(chosen).false_per_minute == 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("criterion", CRITERIA)
def test_calibrating_again_never_makes_it_worse(tmp_path: Path, seed: int, criterion: str) -> None:
    rng = np.random.default_rng(seed)
    trials = trials_of(tmp_path, [random_scene(rng, 60)], [])
    chosen = PostprocessConfig(sad_threshold=0.37, sed_thresholds=(0.96,), sed_median_labels=(3,))
    values = []
    for _ in range(3):
        values.append(float(CRITERIA[criterion](np.array(dataclasses.astuple(trials.heard(chosen).scores)))))
        chosen = calibrate(trials, chosen, criterion=criterion)
    assert values == sorted(values, reverse=True)
    assert values[1] < values[0]


def test_what_the_model_has_may_lie_between_the_levels(tmp_path: Path) -> None:
    scene, rows, quiet = staged((0.8, 0.8, 0.8))
    scene[..., 1] *= 0.81 / 0.85
    own = PostprocessConfig(sed_thresholds=(0.805,))
    assert not any(0.8 <= threshold < 0.81 for threshold in THRESHOLDS if threshold != 0.8)
    trials = trials_of(tmp_path, [(scene, rows)], [quiet])
    quiet[..., 1] *= 0.802 / 0.8
    assert trials.heard(calibrate(trials, own, 0.0)).recall == 1.0


# --- the command ----------------------------------------------------------------------------------------------------

SOUNDS = [(frame, 1, 0, 30, 0) for frame in range(5, 30)]


def write_scene(base: Path, rows: list[tuple[int, ...]], rate: int = 24000, seconds: float = 4.0) -> None:
    rng = np.random.default_rng(0)
    (base / "foa_dev").mkdir(parents=True)
    soundfile.write(base / "foa_dev" / "fold1_room1_mix001_ov1.wav", rng.normal(0, 0.1, (int(seconds * rate), 4)), rate)
    write_metadata(base / "metadata_dev" / "fold1_room1_mix001_ov1.csv", rows)
    (base / "classes.json").write_text('["clap", "voice", "bell"]')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = small_model()
    model.graph = b"what a CPU runs"
    checkpoint.save(model, tmp_path / "m.safetensors")
    write_scene(tmp_path / "scenes", SOUNDS)
    write_scene(tmp_path / "quiet", [])
    return tmp_path


def run_cli(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["calibrate", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_writes_a_calibrated_model(folder: Path) -> None:
    arguments = (folder / "m.safetensors", "--data", folder / "scenes", "--quiet", folder / "quiet")
    for name in ("a", "b"):
        code, text = run_cli(*arguments, "--out", folder / f"{name}.safetensors", "--cache", folder / "kept")
        assert code == 0, text
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()
    description = describe(folder / "a.safetensors")
    assert re.search(r"^not in these scenes, so left as they were: .*bell$", text, re.MULTILINE)
    card = description.card["calibration"]
    assert (card["scenes"], card["quiet_scenes"], card["max_false_per_minute"]) == (1, 1, 1.0)
    assert card["false_per_minute"] <= 1.0 or "no setting" in text
    assert len(description.postprocess.sed_thresholds) == len(description.postprocess.confidence_slopes) == 3
    told = re.search(
        r"confidences are off by (.+) % on average, before they were corrected by (.+) %$", text, re.MULTILINE
    )
    assert told
    assert float(told[1]) <= float(told[2])
    assert card["confidence_error"] == pytest.approx(float(told[1]) / 100, abs=0.001)
    assert checkpoint.load(folder / "a.safetensors").graph == b"what a CPU runs"


def test_mistakes_are_one_line_and_exit_2(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(folder / "slow", SOUNDS, 48000)
    write_scene(folder / "other", SOUNDS)
    (folder / "other" / "classes.json").write_text('["clap", "voice", "car"]')
    model, out = folder / "m.safetensors", ("--out", folder / "x.safetensors")
    expected = {
        "has labels; quiet scenes": ("--data", folder / "scenes", "--quiet", folder / "scenes"),
        "4 channels at 48000 Hz; expected 4 at 24000 Hz": ("--data", folder / "slow"),
        "has no folder foa_dev": ("--data", folder / "scenes", "--quiet", folder),
        "quiet/foa_dev: no class of the model ever sounds: nothing to choose": ("--data", folder / "quiet"),
        "the dataset lacks classes of the model: bell (it has clap, voice, car)": ("--data", folder / "other"),
        "sed_lookback_labels is 700: it must be 0 to 601": ("--data", folder / "scenes", "--lookback", 700),
    }
    unfit = list(expected)[-3:]
    for message, arguments in expected.items():
        with monkeypatch.context() as patched:
            if message in unfit:
                patched.delattr("offline.estimates._compute")  # it is known before a network has heard anything
            code, text = run_cli(model, *arguments, *out)
        assert code == 2
        assert message in text.splitlines()[-1]
    assert not (folder / "x.safetensors").exists()
