"""The systemd unit: what systemd itself says of it, and that the options arrive as they were given."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from seldrt.cli import cli
from seldrt.cli.service import SYSTEM, own_program, quoted, unit
from seldrt.config import ConfigError

ROOT = Path(__file__).parents[2]
NAMED = ("--source", "roof", "--quiet")
OPTIONS = ["--device", 'Zoom "H3-VR" 100 % $HOME', "--bind", "ipc:///run/seldrt/s"]


def seldrt(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")} | settings
    command = [sys.executable, "-m", "seldrt", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=60, check=False)


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def words(line: str) -> list[str]:
    """Words of an ExecStart line, as systemd.service(5) has it: quotes as in C, then %% and $$."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


@pytest.mark.parametrize("kind", [[], ["--user"]])
def test_the_unit_starts_this_program_with_these_options(kind: list[str]) -> None:
    done = seldrt("service", *kind, "--", *OPTIONS)
    assert done.returncode == 0, done.stderr
    service = parsed(done.stdout)["Service"]
    assert words(service["ExecStart"]) == [sys.executable, "-m", "seldrt", "run", "--wait", *OPTIONS]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 3
    assert service["Restart"] == "always"
    assert service["NoNewPrivileges"] == "yes"
    assert (service["LimitCORE"], service["UMask"]) == ("0", "0077")  # a crash leaves no sound and no key on the disk
    assert ("DynamicUser" in service) == (not kind)
    assert service.get("SupplementaryGroups", "") == ("" if kind else "audio")
    assert service.get("WorkingDirectory", "") == ("" if kind else "%S/%N")  # what names without a folder lie in
    target = parsed(done.stdout)["Install"]["WantedBy"]
    assert target == ("default.target" if kind else "multi-user.target")


def test_systemd_is_told_the_whole_path_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "seldrt"
    program.parent.mkdir()
    program.touch(mode=0o755)
    for folder, script in ((tmp_path, "bin/seldrt"), (program.parent, "./seldrt")):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [script])
        assert own_program() == [str(program)]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")
@pytest.mark.parametrize("for_user", [False, True])
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path, for_user: bool) -> None:
    """It is verified as a unit of the system: a manager of users cannot be had everywhere."""
    path = tmp_path / "seldrt.service"

    def complaints(text: str) -> str:
        path.write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
        return "".join(line for line in done.stderr.splitlines(True) if "seldrt.service" in line)

    text = unit([sys.executable, "-m", "seldrt", "run", *OPTIONS], for_user, ['SELDRT_RECORD=/srv/100 % "$HOME"'])
    assert complaints(text) == ""
    assert "Unknown key" in complaints(text.replace("WatchdogSec", "WatchdogSeconds"))


@given(st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" '\"\\"), max_size=20))
def test_any_option_survives_the_quoting(word: str) -> None:
    assert words(quoted(word)) == [word]


def test_a_line_break_is_refused() -> None:
    with pytest.raises(ConfigError, match="control characters"):
        quoted("a\nExecStartPre=b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give its options after --"),
        (["--", "--device", "h3", "--dance"], "No such option"),
        (["--", "--device", "h3", "--threads", "0"], "--threads"),
        (["--", "--device", "h3", "--yaw", "1000"], "yaw_deg is 1000.0: it must be -360 to 360"),
        (["--", "--device", "h3", "--channels", "1,2"], "--channels 1,2: give four numbers"),
        (["--", "--device", "h3", "--device-rate", "5"], "device_rate is 5"),
        (["--", "--device", "h3", "--record-max-mb", "1"], "max_mb is 1"),
        (["--", "--device", "h3", "--model", "nope"], "model 'nope' was not found"),
        (["--", "--device", "h3", "--only", "pianino"], "the model has no class 'pianino'"),
        (["--", "--device", "h3", "--mic", "nope"], "unknown microphone 'nope'"),
        (["--", "--device", "h3", "--mount", "sideways"], "mount 'sideways'"),
        (["--", "--device", "h3", "--source", "a.b"], "source name 'a.b'"),
        (["--", "--device", "h3", "--bind", "tcp://0.0.0.0:5"], "--insecure-bind"),
        (["--", "--device", "h3", "--control", "5578"], "use tcp://HOST:PORT or ipc://PATH"),
        (["--", "--config", "configs/seldrt.toml"], "give --device NAME"),
        (["--", "--device", "h3", "--dcase", "table.csv"], "a service never ends"),
    ],
)
def test_what_run_would_refuse_is_refused(arguments: list[str], message: str) -> None:
    done = seldrt("service", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line


def test_what_only_stands_in_the_way_now_is_not_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as running:
        running.bind(str(tmp_path / "s"))
        running.listen()
        options = ["--device", "h3", "--bind", f"ipc://{tmp_path}/s", "--mic", "my.toml", "--source", "roof", "--quiet"]
        done = seldrt("service", "--user", "--", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert seldrt("service", "--", "--device", "h3", "--no-publish", "--bind", "tcp://0.0.0.0:5").returncode == 0


def test_settings_of_the_environment_are_in_the_unit() -> None:
    given = {"SELDRT_DEVICE": 'Zoom "H3-VR" 100 % $HOME', "SELDRT_WAIT": "1", "SELDRT_RECORD": "kept"}
    done = seldrt("service", "--user", "--", "--yaw", "90", **given, SELDRT_YAW="45", SELDRT_CONNECT="tcp://other:1")
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"(?m)^Environment=(.*)$", done.stdout)
    assert [shlex.split(line.replace("%%", "%")) for line in lines] == [[f"{key}={given[key]}"] for key in given]
    refused = seldrt("service", "--user", **given, SELDRT_BIND="5577")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_another_system_than_linux_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["service", "--user", "--", "--device", "h3", "--source", "roof", "--quiet"]
    assert "note" not in CliRunner().invoke(cli, arguments).output
    monkeypatch.setattr(sys, "platform", "darwin")
    told = CliRunner().invoke(cli, arguments)
    assert "note: systemd exists on Linux only" in told.output
    assert "ExecStart=" in told.output


def test_it_waits_for_the_microphone_whatever_the_settings_say(tmp_path: Path) -> None:
    settings = tmp_path / "my.toml"
    for text, flags, added in (("", {}, True), ("", {"SELDRT_WAIT": "1"}, False), ("wait = true\n", {}, False)):
        settings.write_text(f'[capture]\ndevice = "h3"\n{text}')
        done = seldrt("service", "--user", "--", "--config", str(settings), **flags)
        assert words(parsed(done.stdout)["Service"]["ExecStart"])[3:] == [
            *("run", *(["--wait"] if added else []), "--config", str(settings))
        ]


def test_a_service_without_a_name_or_with_a_line_for_each_event_is_told() -> None:
    assert [line[:20] for line in seldrt("service", "--user", "--", "--device", "h3").stderr.splitlines()] == [
        "note: no --source: i",
        "note: no --quiet: ea",
    ]


def test_units_of_other_names_have_other_folders(tmp_path: Path) -> None:
    assert "seldrt" not in SYSTEM
    given = ("--record", "/var/lib/roof/kept", "--csv", "/var/lib/roof", "--jsonl", "../roof/x", "--clips", "heard")
    done = seldrt("service", "--", "--device", "h3", *NAMED, *given, "--bind", "ipc:///run/roof/s")
    notes = [line for line in done.stderr.splitlines() if "cannot read it" not in line]
    assert [note.split()[1] for note in notes] == ["--csv", "--jsonl"]


def test_what_the_service_may_not_do_is_told(tmp_path: Path) -> None:
    done = seldrt(
        *("service", "--", "--device", "h3", *NAMED, "--record", "/srv/sound", "--bind", "ipc:///tmp/s"),
        *("--config", "configs/seldrt.toml", "--curve-keys", str(tmp_path)),
    )
    assert done.returncode == 0
    notes = [line for line in done.stderr.splitlines() if "cannot read it" not in line]
    assert [note.split()[1] for note in notes] == ["--record", "--bind", "--curve-keys", "--config"]
    settings = tmp_path / "my.toml"
    settings.write_text(
        '[record]\ndir = "/srv/sound"\n[publisher]\nbind = "ipc:///tmp/s"\n[pipeline]\nmodel = "/no/m"\n'
    )
    filed = seldrt("service", "--", "--device", "h3", *NAMED, "--config", str(settings))
    notes = [line for line in filed.stderr.splitlines() if "cannot read it" not in line]
    assert [note.split()[1] for note in notes] == ["--record", "--bind", "--model"]
    assert "--bind" not in seldrt("service", "--", "--device", "h3", "--config", settings, "--no-publish").stderr
    absent = ["--config", "/nowhere/my.toml", "--model", "/nowhere/my.safetensors", "--mic", "my.toml"]
    missing = seldrt("service", "--", *NAMED, *absent)
    notes = [line for line in missing.stderr.splitlines() if "cannot read it" not in line]
    assert [note.split()[1] for note in notes] == ["--config", "--model", "--mic"]
    assert all("there is no such file yet" in note for note in notes)
    options = ["--device", "h3", "--model", "compact", "--record", "kept", "--bind", "ipc:///run/seldrt/s"]
    quiet = seldrt("service", "--", *options, *NAMED)
    assert [line for line in quiet.stderr.splitlines() if "cannot read it" not in line] == []
