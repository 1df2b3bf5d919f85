"""The TOML files of the offline commands, and mistakes told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from offline.cli.shell import Work
from offline.config import TRAIN_PRESETS, TrainConfig, read_section, section
from seldrt.cli.shell import Group
from seldrt.config import ConfigError


def test_a_section_is_read_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[card]\nauthor = "me"\n[train]\nepochs = 7\n')
    assert read_section(path, "card") == {"author": "me"}
    assert read_section(path, "scenes") == read_section(None, "card") == {}
    assert section(TrainConfig, TRAIN_PRESETS, "report", path, "train") == TrainConfig(epochs=7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trian]\nepochs = 7\n", r"a\.toml: unknown key 'trian'; known: scenes, features, network, train, card"),
        ("train = 7\n", r"a\.toml: train: expected a section, got a whole number"),
        ("epochs = 7\n", r"a\.toml: unknown key 'epochs'"),
    ],
)
def test_what_is_no_section_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_section(tmp_path / "a.toml", "train")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("steps_per_epoch = 0", "steps_per_epoch is 0: it must be at least 1"),
        ("cycle_epochs = 0", "cycle_epochs is 0: it must be at least 1"),
        ("batch_size = -1", "batch_size is -1: it must be at least 1"),
        ("cycle_factor = 0", "cycle_factor is 0: it must be at least 1"),
        ("learning_rate = -1.0", "learning_rate is -1.0: it must be finite and not negative"),
        ('teacher = "compact"', "teacher needs a cross_entropy_weight above 0"),
        ("learning_rate = nan", "learning_rate is nan: it must be finite and not negative"),
        ("mask_bands = -1", "mask_bands is -1: it must be finite and not negative"),
        ("gradient_norm = 0.0", "gradient_norm is 0.0: it must be above 0"),
    ],
)
def test_training_settings_out_of_range_are_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(f"[train]\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        section(TrainConfig, TRAIN_PRESETS, "report", tmp_path / "a.toml", "train")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileExistsError(17, "File exists", "run"), "offline: run: File exists\n"),
        (OSError("no space\nleft"), "offline: no space left\n"),
        (OSError(28, "No space left on device"), "offline: stdout: cannot be written: No space left on device\n"),
        (ConfigError("this\nand that"), "offline: this and that\n"),
        (
            ModuleNotFoundError("...", name="pyroomacoustics"),
            "offline: pyroomacoustics is not installed: pip install 'seldrt[offline]'\n",
        ),
    ],
)
def test_mistakes_around_the_program_are_one_line_and_exit_2(error: Exception, said: str) -> None:
    result = failing(error)
    assert (result.exit_code, result.output) == (2, said)


def failing(error: BaseException, **how: str) -> Result:
    """What comes of a command that ends with an error."""
    program = Group("offline")

    @program.command(cls=Work, **how)
    def command() -> None:
        raise error

    return CliRunner().invoke(program, ["command"])


def test_other_missing_modules_are_no_mistake_of_the_user() -> None:
    error = ModuleNotFoundError("...", name="offline.typo")
    assert failing(error).exception is error


@pytest.mark.parametrize("how", [{}, {"repeat": "goes on"}])
def test_ctrl_c_says_what_a_repeat_does(how: dict[str, str]) -> None:
    result = failing(KeyboardInterrupt(), **how)
    said = f"stopped: running the same command again {how.get('repeat', 'starts over')}\n"
    assert (result.exit_code, result.output) == (130, said)
