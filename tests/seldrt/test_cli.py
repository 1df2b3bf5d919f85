"""The commands as people and programs meet them: real processes, exit codes, single lines, equal bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
import soundfile
from rich.console import Console

from seldrt import checkpoint
from seldrt.cli.chain import settings
from seldrt.cli.info import card_lines
from seldrt.cli.run import run
from seldrt.cli.shell import Names, Sectors, Sensitivity
from seldrt.config import ConfigError, DaemonConfig, PostprocessConfig, load_toml, override
from seldrt.connection import ABSENT
from seldrt.detection import Frame, Status
from seldrt.runtime import demo
from seldrt.runtime.display import REFRESH_S, LiveTable
from seldrt.runtime.outputs import OutputError, TextFile
from seldrt.runtime.patience import Delay, Patience
from seldrt.runtime.publisher import Publisher
from seldrt.runtime.sinks import DcaseCsv
from tests.models import small_model
from tests.processes import REAL, ROOT, SMALL, WITH_MICROPHONE, environment, says, seldrt, start
from tests.seldrt.energy_pipeline import PIANO, SAMPLE_RATE, two_pianos
from tests.seldrt.test_display import status


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "garden.wav"
    soundfile.write(path, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture
def endless(recording: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a daemon that hears two pianos again and again, until the test ends."""
    url = f"ipc://{tmp_path}/s"
    daemon = start("replay", recording, "--loop", "--bind", url, program=SMALL)
    yield url
    daemon.kill()
    daemon.communicate()


@pytest.mark.parametrize("command", ["seldrt --help", "seldrt replay --help", "seldrt", "offline.cli --help"])
def test_help_loads_nothing_heavy(command: str) -> None:
    module, *arguments = command.split()
    heavy = "{'numpy', 'scipy', 'torch', 'librosa', 'soundfile', 'soxr', 'zmq', 'rich', 'sounddevice', 'numba'}"
    program = (
        "import contextlib, runpy, sys\n"
        f"with contextlib.suppress(SystemExit): runpy.run_module({module!r}, run_name='__main__')\n"
        f"print('heavy:', {heavy} & set(sys.modules))"
    )
    code, out, errors = seldrt(*arguments, program=("-c", program))
    assert (code, errors) == (0, "")
    assert "Usage:" in out
    assert "heavy: set()" in out


def test_importing_seldrt_and_its_client_needs_no_device_and_no_model() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'soundfile', 'sounddevice'}"
    program = (
        f"import sys, seldrt; print(({heavy} | {{'zmq', 'msgspec'}}) & set(sys.modules))\n"
        f"import seldrt.client; print({heavy} & set(sys.modules))"
    )
    assert seldrt(program=("-c", program)) == (0, "set()\nset()\n", "")


def refused(*arguments: Any, **env: str) -> str:
    """The one line with which a command is refused."""
    code, out, errors = seldrt(*arguments, **env)
    assert code == 2, errors
    assert out == ""
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("seldrt: ")
    return errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("replay {folder}/missing.wav", r"missing\.wav: no such file"),
        ("replay {folder}", "not a file"),
        ("replay {folder}/empty.wav", "the file is empty"),
        ("replay {folder}/text.wav", "not a sound file"),
        ("replay {folder}/cut.wav", "truncated"),
        ("replay {folder}/stereo.wav", "2 channels; needs 4"),
        ("replay {folder}/nan.wav", r"at 0\.500 s, channel 2, a sample that is no number"),
        ("replay {folder}/loud.wav", r"at 0\.500 s, channel 3, a sample of 32768: full scale is 1"),
        ("replay --demo --no-publish --model {folder}/other.safetensors", "knows other classes than sound there"),
        ("replay", "give a recording, or --demo"),
        ("replay {ok} --demo", "give one of them"),
        ("replay {ok} --fast --speed 2", "exclude each other"),
        ("replay {ok} --speed 0", "--speed"),
        ("replay {ok} --speed nan", "'--speed': 'nan' is no number"),
        ("replay {ok} --yaw nan", "yaw_deg is nan: it must be -360 to 360"),
        ("replay {ok} --block-ms x", "--block-ms"),
        ("replay {ok} --compute tpu", "'tpu' is not one of 'cpu', 'cuda', 'mps'"),
        ("replay {ok} --sensitivity high", "'high' is no number: give one like 2, or 2,alarm=4"),
        ("replay {ok} --sensitivity alarm=2,alarm=3", "'alarm=3': the value of alarm is given twice"),
        ("replay {ok} --ignore 20-60", "'20-60': write FROM..TO in degrees, counter-clockwise, like 20..60"),
        ("replay {ok} --ignore 20...60", "'20...60': write FROM..TO"),
        ("replay {ok} --ignore 20..nan", "ignore has 20..nan: use two different azimuths"),
        ("replay {ok} --ignore 20..60..80", "'20..60..80': write FROM..TO"),
        ("replay {ok} --ignore 20..inf", "ignore has 20..inf: use two different azimuths"),
        ("replay {ok} --ignore 180..-180", "ignore has 180..-180: use two different azimuths"),
        ("replay --demo --no-publish --ignore 0..9", "leave out --only, --ignore"),
        ("replay {ok} --sensitivity =3", "'=3': which class"),
        ("replay --demo --no-publish --only piano", "leave out --only"),
        ("run --device nowhere --sensitivity bell=2", "the model has no class 'bell'; it has alarm, crying_baby"),
        ("replay {ok} --clips-only piano", "--clips-only piano: in which folder"),
        ("replay {ok} --clips d --only alarm --clips-only alarm,piano", "--clips-only piano: is left out by --only"),
        ("replay {ok} --clips {ok}.clips --clips-only bell", "the model has no class 'bell'; it has alarm"),
        ("service -- --device mic --only bell", "the model has no class 'bell'; it has alarm, crying_baby"),
        ("replay {ok} --sensitivity alarm=0", "sensitivity 0.0 of alarm: use 0.001 to 1000"),
        ("replay {ok} --no-publish --only alarm,bell", "the model has no class 'bell'; it has alarm, crying_baby"),
        ("replay {ok} --mic ambio", "unknown microphone 'ambio'; did you mean 'ambix'\\? known: ambeo, ambix"),
        ("replay {ok} --mic {folder}/mine.toml", r"mine\.toml: No such file"),
        ("replay {ok} --mount sideways", "mount 'sideways': give upright, upside-down, endfire"),
        ("replay {ok} --channels 1-2,2,3", r"channels is \[1, 2, 2, 3\]: give four different numbers"),
        ("replay {ok} --channels 1-9999", "seldrt: --channels 1-9999: give four numbers from 1, like 5,6,7,8 or 5-8$"),
        ("replay {ok} --channels a", "--channels a: give four numbers"),
        ("replay {ok} --channels 5-8", "4 channels; channel 8 is asked for"),
        ("replay {ok} --source a.b", r"source name 'a\.b' cannot be used: it may have 1 to 64"),
        ("replay {ok} --bind tcp://0.0.0.0:5577", "--insecure-bind"),
        ("replay {ok} --bind 5577", "use tcp://HOST:PORT or ipc://PATH"),
        ("replay {ok} --bind {taken}", "in use; stop the other daemon or choose another --bind"),
        ("replay {ok} --no-publish --dcase {folder}/no/out.csv", "cannot be written: No such file or directory"),
        ("replay {ok} --no-publish --jsonl {folder}", "it is a folder"),
        ("replay {ok} --no-publish --dcase /dev/null", "it is a folder or a device"),
        ("replay {ok} --no-publish --dcase -", "give the table a file name"),
        ("replay {ok} --no-publish --jsonl /proc/out.jsonl", "cannot be written"),
        ("replay {ok} --no-publish --dcase {ok}", "the output is the recording itself"),
        ("replay {ok} --no-publish --jsonl {link}", "the output is the recording itself"),
        ("replay {ok} --no-publish --dcase {folder}/o --jsonl {folder}/./o", "the output is also another output"),
        (
            "replay {ok} --no-publish --model {folder}/other.safetensors --csv {folder}/other.safetensors",
            "is the model;",
        ),
        ("replay {ok} --no-publish --config {folder}/good.toml --jsonl {folder}/good.toml", "output is the settings;"),
        ("replay {ok} --config {folder}/missing.toml", r"missing\.toml: No such file"),
        ("replay {ok} --config {folder}/bad.toml", r"bad\.toml \[capture\]: unknown key 'bloc'; known: device"),
        ("replay {ok} --no-publish --fast --model {folder}/missing.safetensors", r"missing\.safetensors.*not found"),
        ("run", "give --device NAME"),
        ("run --device h3 --no-publish", "libportaudio2"),
        ("devices", "libportaudio2"),
        ("listen --connect nonsense", "cannot connect to 'nonsense'"),
        ("listen --connect tcp://127.0.0.1:0", "which port"),
        ("listen --connect ipc://x --connect ipc://x", "Give each address once, not ipc://x, ipc://x"),
        ("listen --connect ipc://x --key a --server-key b --server-key c", "2 keys for 1 daemons"),
        ("info --model nonsense", "'nonsense' was not found"),
        ("dance", "No such command 'dance'"),
        ("replay --dance", "No such option"),
        ("replay {ok} --device cuda", "No such option"),
        ("replay {folder}/naked.raw", "not a sound file that can be read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(recording: Path, tmp_path: Path, arguments: str, message: str) -> None:
    sound, _ = soundfile.read(recording, dtype="float32")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("This is not a sound. " * 100)
    (tmp_path / "naked.raw").write_bytes(bytes(1000))
    (tmp_path / "cut.wav").write_bytes(recording.read_bytes()[:-10_000])
    soundfile.write(tmp_path / "stereo.wav", sound[:, :2], SAMPLE_RATE)
    sound[SAMPLE_RATE // 2, 1] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    sound[SAMPLE_RATE // 2, 1:3] = 0, 32768
    soundfile.write(tmp_path / "loud.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    checkpoint.save(small_model(), tmp_path / "other.safetensors")
    (tmp_path / "bad.toml").write_text("[capture]\nbloc = 3\n")
    (tmp_path / "good.toml").write_text("[capture]\nblock_ms = 30\n")
    (tmp_path / "link").symlink_to(recording)
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    before = recording.read_bytes()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = arguments.format(
            folder=tmp_path, ok=recording, link=tmp_path / "link", taken=f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        )
        line = refused(*words.split(), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert re.search(message, line), line
    assert recording.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        "info --model {}",
        "replay {}",
        "{}",
        "replay --demo --config {}",
        "listen --connect {}",
        "listen --connect ipc://x --source {}",
        "keys list --dir {}",
    ],
)
def test_a_mistake_does_not_command_the_terminal(words: str) -> None:
    line = refused(*(word.format("\x1b]0;title\x07\x1b[2J\x9b31m") for word in words.split()))
    assert "]0;title" in line
    assert line.removesuffix("\n").isprintable()


def test_names_do_not_command_the_terminal(tmp_path: Path) -> None:
    title = "\x1b]0;title\x07\x9b31m"
    _, listed, _ = listed_devices(f"fake.DEVICES[0]['name'] = {title!r}")
    names = [str(tmp_path / f"{number}{title}.wav") for number in range(3)]
    code, _, told = seldrt("replay", *names, "--fast", "--no-publish")
    assert (code, len(told.splitlines())) == (2, 3)
    for line in (listed + told).splitlines():
        assert line.isprintable()


@pytest.mark.parametrize(("settings", "said"), [("a=" + "[" * 100_000, "recursion"), ("a=" + "9" * 5000, "digits")])
def test_settings_without_end_are_one_line(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "my.toml").write_text(settings)
    line = refused("replay", "--demo", "--config", tmp_path / "my.toml")
    assert line.startswith(f"seldrt: {tmp_path}/my.toml: not TOML: ")
    assert said in line
    assert len(line) < 400


def test_a_table_follows_no_link_that_others_laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: SimpleNamespace(hex="0123456789abcdef"))
    (tmp_path / "mine").write_text("years of work")
    (tmp_path / ".labels.csv.0123456789ab.part").symlink_to("mine")
    with pytest.raises(OutputError, match=r"labels\.csv: cannot be written: File exists"):
        DcaseCsv(str(tmp_path / "labels.csv"))
    assert (tmp_path / "mine").read_text() == "years of work"


@pytest.mark.parametrize("option", ["", "--csv", "--dcase", "--model", "--config"])
def test_a_name_that_no_file_can_have_is_one_line(recording: Path, option: str) -> None:
    name = "a" * 300
    given = (recording, "--no-publish", option, name) if option else (name,)
    assert refused("replay", *given).endswith(f"{name}: File name too long\n")


def test_a_link_to_itself_is_one_line(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    said = refused("replay", recording, "--no-publish", "--csv", tmp_path / "loop", program=SMALL)
    assert said == f"seldrt: {tmp_path}/loop: cannot be written: Too many levels of symbolic links\n"


def test_a_name_that_is_not_utf8_is_one_line(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.wav")
    path.write_bytes(recording.read_bytes())
    assert refused("replay", path).endswith("\\udcff.wav': the name is not UTF-8; rename it\n")
    model = tmp_path / os.fsdecode(b"\xff.safetensors")
    checkpoint.save(small_model(), model)
    said = refused("replay", recording, "--no-publish", "--model", model)
    assert said.endswith("\\udcff.safetensors': the name is not UTF-8; rename it\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["schema", "info", "--help", "replay {ok} --fast --no-publish --quiet --jsonl -"])
def test_a_full_disk_behind_stdout_is_one_line(recording: Path, arguments: str, unbuffered: str) -> None:
    command = [sys.executable, *SMALL, *arguments.format(ok=recording).split()]
    env = environment(PYTHONUNBUFFERED=unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=env)
    assert done.returncode == 2
    assert re.fullmatch(r"seldrt: (stdout|-): cannot be written: No space left on device", done.stderr.splitlines()[-1])
    assert "OSError" not in done.stderr


def test_a_full_disk_is_one_line(recording: Path) -> None:
    code, _, errors = seldrt("replay", recording, "--fast", "--no-publish", "--jsonl", "/dev/full", program=SMALL)
    assert code == 2
    assert errors.splitlines()[-1] == "seldrt: /dev/full: cannot be written: No space left on device"
    assert "Traceback" not in errors


def test_a_full_disk_does_not_deafen_who_listens_to_a_microphone(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    files = ("--csv", table, "--jsonl", "/dev/full")
    process = start("run", "--device", "h3", "--mic", "ambix", "--no-publish", *files, program=WITH_MICROPHONE)
    says(process, "degraded: jsonl: /dev/full: cannot be written: No space left on device")
    told = table.read_text()
    says(process, "offset")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert errors.splitlines()[-1] == "jsonl: /dev/full: cannot be written: No space left on device"
    assert len(table.read_text()) > len(told)


def test_the_default_port_is_refused_when_taken(recording: Path) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 5577))
            taken.listen()
        except OSError:
            pass  # taken by someone else: as good
        assert "tcp://127.0.0.1:5577: in use" in refused("replay", recording)


def outputs(recording: Path, folder: Path, *arguments: Any, program: tuple[str, ...] = SMALL) -> tuple[bytes, bytes]:
    """The bytes of the JSON lines and of the DCASE table of a replay."""
    lines, table = folder / "out.jsonl", folder / "out.csv"
    code, out, errors = seldrt(
        "replay", recording, "--no-publish", "--jsonl", lines, "--dcase", table, *arguments, program=program
    )
    assert (code, out) == (0, ""), errors
    return lines.read_bytes(), table.read_bytes()


def test_files_have_the_same_bytes_for_any_block_size_and_pace(recording: Path, tmp_path: Path) -> None:
    expected = outputs(recording, tmp_path, "--fast")
    for arguments in (
        ["--fast", "--block-ms", "1"],
        ["--fast", "--block-ms", "333"],
        ["--fast", "--block-ms", "1000"],
        ["--speed", "5", "--quiet"],
    ):
        assert outputs(recording, tmp_path, *arguments) == expected


def test_the_table_of_events_is_for_spreadsheets(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    for _ in range(2):  # the second time it is written anew
        code, _, errors = seldrt("replay", recording, "--fast", "--no-publish", "--csv", path, program=SMALL)
        assert code == 0, errors
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    name = recording.stem
    assert [(row["source"], row["class"], row["onset"], row["offset"]) for row in rows] == [
        (name, "piano", "0.500", "1.200"),
        (name, "piano", "1.800", "2.900"),
    ]
    assert [(float(row["azimuth_deg"]), float(row["elevation_deg"])) for row in rows] == [(90, 10), (-90, -20)]
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    code, _, errors = seldrt("replay", recording, "--no-publish", "--csv", "-", "--jsonl", "-", program=SMALL)
    assert (code, "stdout can take one output only" in errors) == (2, True)


def test_a_file_that_another_writes_is_left_alone(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    process = start("replay", recording, "--loop", "--speed", "2", "--no-publish", "--csv", path, program=SMALL)
    says(process, "offset")
    said = refused("replay", recording, "--fast", "--no-publish", "--csv", path, program=SMALL)
    assert said == f"seldrt: {path}: another seldrt is writing it; choose another name\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert all(len(line.split(",")) == 7 for line in path.read_text().splitlines())
    first, second = TextFile(str(path), add=True), TextFile(str(path), add=True)  # whole lines of several go together
    for file in (first, second):
        file.write(b"x\n")
        file.close()
    assert path.read_bytes().endswith(b"x\nx\n")


def test_what_is_heard_can_go_into_a_named_pipe(recording: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start("replay", recording, "--fast", "--no-publish", "--quiet", "--csv", pipe, program=SMALL)
    assert pipe.read_text().count("piano") == 2
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors


def test_files_hold_what_was_heard_in_time_of_the_stream(recording: Path, tmp_path: Path) -> None:
    lines, table = outputs(recording, tmp_path, "--fast")
    rows = [tuple(map(int, line.split(b","))) for line in table.splitlines()]
    assert rows == [(i, PIANO, 0, 90, 10) for i in range(5, 12)] + [(i, PIANO, 1, -90, -20) for i in range(18, 29)]
    plain = [json.loads(line) for line in lines.splitlines()]
    assert [m["t_capture_s"] for m in plain if m["type"] == "frame"] == [round(0.05 + i / 10, 2) for i in range(31)]
    onsets = [(m["class"], m["onset_s"]) for m in plain if m.get("phase") == "onset"]
    assert onsets == [("piano", 0.5), ("piano", 1.8)]
    assert all(not key.endswith("_ns") and key not in ("seq", "epoch") for m in plain for key in m)


def test_json_lines_go_to_stdout_and_words_to_stderr(recording: Path) -> None:
    code, out, errors = seldrt("replay", recording, "--fast", "--no-publish", "--jsonl", "-", program=SMALL)
    assert code == 0
    assert [json.loads(line)["type"] for line in out.splitlines()].count("frame") == 31
    assert "onset" in errors
    assert "2 events" in errors


def test_a_reader_that_leaves_ends_it_without_a_traceback(recording: Path) -> None:
    process = start("replay", recording, "--speed", "2", "--no-publish", "--jsonl", "-", program=SMALL)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(20) == 1
    process.stderr.close()
    assert "Traceback" not in errors


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_that_nobody_reads_do_not_end_it(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    _, expected = outputs(recording, tmp_path, "--fast")
    table = tmp_path / "unread.csv"
    process = start("replay", recording, "--fast", "--no-publish", "--dcase", table, program=SMALL)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(20) == 0
    assert table.read_bytes() == expected


def test_the_light_model_hears_the_demonstration() -> None:
    code, _, errors = seldrt("replay", "--demo", "--fast", "--model", "light", "--quiet")
    assert code == 0, errors
    assert re.fullmatch(r"OK: 1[0-5] of 15 events, median error \d deg", errors.splitlines()[-1])


def test_the_demonstration_has_its_own_microphone(tmp_path: Path) -> None:
    """Whatever the settings say of one that hangs somewhere."""
    settings = tmp_path / "mine.toml"
    settings.write_text('[capture]\ndevice = "H3"\nmic = "zoom-h3vr-a"\nchannels = [5, 6, 7, 8]\nyaw_deg = 90.0\n')
    code, _, errors = seldrt("replay", "--demo", "--fast", "--no-publish", "--quiet", "--config", settings)
    assert code == 0, errors
    assert "the bundled recording is heard as it was made: settings of a microphone play no part" in errors


def test_a_demonstration_that_nobody_reads_judges_all_the_same() -> None:
    process = start("replay", "--demo", "--fast")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(120) == 0


def test_a_replay_that_is_stopped_says_how_far_it_came(recording: Path, tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    process = start("replay", recording, "--speed", "0.5", "--no-publish", "--dcase", table, program=SMALL)
    says(process, "onset")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    found = re.search(r"stopped at (\d\.\d) s of 3\.0 s; outputs go as far as that", errors.splitlines()[-1])
    assert found, errors
    assert 0.5 <= float(found[1]) < 3
    assert table.read_bytes().startswith(b"5,13,0,90,10\n")


def test_a_demonstration_that_is_stopped_judges_nothing() -> None:
    process = start("replay", "--demo", "--speed", "0.5")
    says(process, "onset")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("stopped at ")
    assert "FAILED" not in errors


def test_channels_of_a_recording_are_watched(recording: Path, tmp_path: Path) -> None:
    sound, _ = soundfile.read(recording, dtype="float32")
    sound = np.concatenate([sound] * 3)
    sound[:, 3] = 0
    soundfile.write(tmp_path / "dead.wav", sound, SAMPLE_RATE)
    code, _, errors = seldrt("replay", tmp_path / "dead.wav", "--speed", "4", "--no-publish", "--quiet", program=SMALL)
    assert code == 0
    assert "degraded: channel 4: dead: nothing but zeros" in errors


def test_an_environment_variable_that_is_no_setting_is_told(recording: Path) -> None:
    code, _, errors = seldrt("replay", recording, "--fast", "--no-publish", program=SMALL, SELDRT_DEVISE="h3")
    assert code == 0
    assert "the environment variable SELDRT_DEVISE is no setting" in errors
    known = {"SELDRT_LEVELS": "1", "SELDRT_CURVE_KEYS": "", "SELDRT_DEVICE": "h3"}
    code, _, errors = seldrt("replay", recording, "--fast", "--no-publish", program=SMALL, **known)
    assert (code, "no setting" in errors) == (0, False)


def test_a_flag_beats_the_environment_beats_the_file(recording: Path, tmp_path: Path) -> None:
    settings = tmp_path / "seldrt.toml"
    settings.write_text('[publisher]\nsource = "file"\n[capture]\nmic = "fuma"\n')
    command = ["replay", recording, "--fast", "--no-publish", "--jsonl", "-"]

    def source(*arguments: Any, **env: str) -> str:
        code, out, errors = seldrt(*command, *arguments, program=SMALL, **env)
        assert code == 0, errors
        name: str = json.loads(out.splitlines()[0])["source"]
        return name

    assert source() == "garden"
    assert source("--config", settings) == "file"
    assert source(SELDRT_CONFIG=str(settings), SELDRT_SOURCE="environment") == "environment"
    assert source("--source", "flag", SELDRT_CONFIG=str(settings), SELDRT_SOURCE="environment") == "flag"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("--device h3vr", "capture.device", "h3vr"),
        ("--device-rate 44100", "capture.device_rate", 44100),
        ("--wait", "capture.wait", True),
        ("--channels 5-8", "capture.channels", (5, 6, 7, 8)),
        ("--mic fuma", "capture.mic", "fuma"),
        ("--mount endfire", "capture.mount", "endfire"),
        ("--yaw 30", "capture.yaw_deg", 30.0),
        ("--block-ms 40", "capture.block_ms", 40),
        ("--model light", "pipeline.model", "light"),
        ("--only piano,alarm", "pipeline.only", ("piano", "alarm")),
        ("--ignore 20..60", "pipeline.ignore", ((20.0, 60.0),)),
        ("--sensitivity alarm=4", "pipeline.sensitivity", {"alarm": 4.0}),
        ("--quick", "pipeline.quick", True),
        ("--compute cuda", "pipeline.compute", "cuda"),
        ("--threads 2", "pipeline.threads", 2),
        ("--bind ipc://x", "publisher.bind", "ipc://x"),
        ("--control ipc://x", "publisher.control", "ipc://x"),
        ("--insecure-bind", "publisher.insecure_bind", True),
        ("--curve-keys keys", "publisher.curve_keys", "keys"),
        ("--levels", "publisher.levels", True),
        ("--source roof", "publisher.source", "roof"),
        ("--record kept", "record.dir", "kept"),
        ("--record-max-mb 20", "record.max_mb", 20),
        ("--clips heard", "clips.dir", "heard"),
        ("--clips-max-mb 20", "clips.max_mb", 20),
        ("--clips-only piano", "clips.only", ("piano",)),
    ],
)
def test_each_flag_is_one_setting(words: str, key: str, value: object) -> None:
    config, default = settings(run.make_context("run", words.split()).params), DaemonConfig()
    section, name = key.split(".")
    changed = msgspec.structs.replace(getattr(default, section), **{name: value})
    assert config == msgspec.structs.replace(default, **{section: changed})


def test_the_shipped_settings_show_every_key_with_its_default() -> None:
    path = ROOT / "configs" / "seldrt.toml"
    assert load_toml(path, DaemonConfig) == DaemonConfig()
    full = re.sub(r"^# (?=\[|\w+ = )", "", path.read_text(), flags=re.MULTILINE)
    expected = DaemonConfig(postprocess=msgspec.to_builtins(PostprocessConfig()))
    assert tomllib.loads(full) == msgspec.json.decode(msgspec.json.encode(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[captur]\n", r"unknown key 'captur'; known: capture, pipeline, publisher, record, clips, postprocess"),
        ('model = "light"\n', r"unknown key 'model'; it belongs under \[pipeline\]"),
        ('[pipeline]\nbind = "tcp://*:1"\n', r"\[pipeline\]: unknown key 'bind'; it belongs under \[publisher\]"),
        ("[postprocess]\nsad = 1\n", r"\[postprocess\]: unknown key 'sad'; known: sad_threshold"),
        ("[capture]\nblock_ms = '3'\n", r"seldrt\.toml: capture\.block_ms: expected a whole number, got text$"),
        ("[postprocess]\nsad_threshold = 2\n", r"toml: \[postprocess\]: sad_threshold is 2.0: it must be 0 to 1"),
        ("[pipeline]\nsensitivity = { dog = 0 }\n", r"toml: pipeline: sensitivity 0.0 of dog: use 0.001 to 1000"),
        ("[capture]\nblock_ms = 1001\n", r"toml: capture: block_ms is 1001: it must be 1 to 1000"),
        ("[capture]\nring_s = 0.1\n", r"ring_s is 0\.1: it must be 1 to 600"),
        ("[capture]\ndevice_rate = 5\n", r"device_rate is 5: use 0, or"),
        ("[capture]\nyaw_deg = 361\n", r"yaw_deg is 361\.0: it must be -360 to 360"),
        ("[capture]\nchannels = [0, 1, 2, 3]\n", r"channels is \[0, 1, 2, 3\]: give four different numbers from 1"),
        ("[capture]\nchannels = [1, 2, 2, 3]\n", r"channels is \[1, 2, 2, 3\]: give four different numbers from 1"),
        ("[postprocess]\nconfidence_slopes = [0]\n", r"confidence_slopes is 0\.0: it must be finite and above 0"),
        ("[postprocess]\nconfidence_offsets = [nan]\n", r"confidence_offsets is nan: it must be finite"),
        ("[pipeline]\nignore = [[20, 400]]\n", r"ignore has 20\.\.400: use two different azimuths of -360 to 360"),
        ("[pipeline]\nignore = [[-180, 180]]\n", r"ignore has -180\.\.180: use two different azimuths"),
        ("[record]\nfile_s = 0.5\n", r"record: file_s is 0\.5: it must be 1 to 86400"),
        ("[record]\nmax_mb = 9\n", r"record: max_mb is 9: it must be 10 to 100000000"),
        ("[clips]\nafter_s = 31\n", r"clips: after_s is 31\.0: it must be 0 to 30"),
        ("[clips]\nlongest_s = 121\n", r"clips: longest_s is 121\.0: it must be 0\.1 to 120"),
        ("[pipeline]\nthreads = 0\n", r"threads is 0: it must be 1 to 1024"),
        (
            "[pipeline]\ncompute = 'tpu'\n",
            r"pipeline\.compute: invalid enum value 'tpu': use 'cpu' or 'cuda' or 'mps'$",
        ),
        ("capture = 3\n", r"capture: expected a section, got a whole number"),
        ("postprocess = 3\n", r"postprocess: expected a section, got a whole number"),
        ("[capture]\nyaw_deg = 2099-01-01\n", r"capture\.yaw_deg: expected a number, got a date"),
        ("[capture\n", "not TOML"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "seldrt.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_toml(path, DaemonConfig)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_may_begin_as_some_editors_begin_them(tmp_path: Path) -> None:
    path = tmp_path / "seldrt.toml"
    path.write_bytes("\ufeff[capture]\nyaw_deg = 3.0\n".encode())
    assert load_toml(path, DaemonConfig).capture.yaw_deg == 3.0


def test_settings_that_are_not_utf8_are_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "seldrt.toml"
    path.write_bytes('[capture]\ndevice = "Gerät"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"seldrt\.toml: not TOML: .*can't decode"):
        load_toml(path, DaemonConfig)


def test_override_leaves_what_is_not_given() -> None:
    config = DaemonConfig().capture
    assert override(config, mic=None, block_ms=None) is config
    assert override(config, mic="fuma", block_ms=None) == msgspec.structs.replace(config, mic="fuma")
    with pytest.raises(ConfigError, match="block_ms is 0"):
        override(config, block_ms=0)


def test_listen_prints_every_message_and_survives_a_restart_of_the_daemon(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    process = start("listen", "--jsonl", "--connect", url)
    assert process.stdout is not None
    for sample in range(2):
        publisher = Publisher(url)
        assert publisher._socket.poll(20_000)
        publisher._socket.send_multipart([b"seld1.frame.h3.", b"\xc1"])
        publisher.send(Frame(source="h3", t_capture_ns=1, sample=sample, frame_ms=100, detections=[]))
        plain = json.loads(process.stdout.readline())
        assert (plain["type"], plain["sample"], plain["seq"]) == ("frame", sample, 0)
        publisher.close()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


def test_listen_passes_over_what_is_no_message_and_keeps_keys_that_it_does_not_know(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    process = start("listen", "--jsonl", "--connect", url)
    publisher = Publisher(url)
    assert publisher._socket.poll(20_000)
    frame = {"v": 1, "type": "frame", "source": "h3", "seq": 0, "epoch": 1, "t_capture_ns": 1, "t_pub_ns": 1}
    frame |= {"sample": 0, "frame_ms": 100, "detections": []}
    for topic, message in (
        (b"seld1.frame.h3.", frame | {"source": {"toString": 1}}),
        (b"seld1.gap.h3.", frame),
        (b"seld1.frame.h3.", [frame]),
        (b"seld1.frame.h3.", frame | {"detections": [{}]}),
        (b"seld1.frame.h3.", frame | {"colour": {"blue": [1]}}),
    ):
        publisher._socket.send_multipart([topic, msgpack.packb(message)])
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == frame | {"colour": {"blue": [1]}}
    publisher.close()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == ""


def test_listen_hears_several_daemons(tmp_path: Path) -> None:
    urls = [f"ipc://{tmp_path}/{name}" for name in ("roof", "gate", "nowhere")]
    publishers = [Publisher(url) for url in urls[:2]]
    process = start("listen", "--jsonl", *(part for url in urls for part in ("--connect", url)))
    assert process.stdout is not None
    for publisher, name in zip(publishers, ("roof", "gate"), strict=True):
        assert publisher._socket.poll(20_000)
        publisher.send(Frame(source=name, t_capture_ns=1, sample=0, frame_ms=100, detections=[]))
        assert json.loads(process.stdout.readline())["source"] == name
    says(
        process,
        f"nothing heard from {urls[2]} for 3 s: {ABSENT}",
    )
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    for publisher in publishers:
        publisher.close()


def test_listen_tells_events_in_lines_where_there_is_no_terminal(endless: str) -> None:
    process = start("listen", "--connect", endless)
    assert process.stdout is not None
    lines = ""
    while "onset" not in lines or "offset" not in lines:
        lines += process.stdout.readline()
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    more, notices = process.communicate(timeout=20)
    assert process.returncode == 0
    lines += more
    place = r"az +[+-]90°  el +[+-]\d+°  confidence [01]\.\d\d"
    assert re.search(rf"^\d\d:\d\d:\d\d  garden  onset   piano +{place}$", lines, re.MULTILINE), lines
    assert re.search(rf"^\d\d:\d\d:\d\d  garden  offset  piano +{place}  lasted \d\.\d s$", lines, re.MULTILINE), lines
    assert "piano" not in notices


def test_listen_ends_when_its_reader_leaves(endless: str) -> None:
    process = start("listen", "--connect", endless)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 1
    for line in process.stderr:  # the daemon may come late
        assert re.fullmatch(rf"nothing heard from {endless} for 3 s.*\n|{endless} is heard\n", line)


@pytest.mark.parametrize("form", [[], ["--jsonl"]])
def test_listen_says_once_that_nothing_comes(tmp_path: Path, form: list[str]) -> None:
    process = start("listen", "--connect", f"ipc://{tmp_path}/s", *form)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == f"nothing heard from ipc://{tmp_path}/s for 3 s: {ABSENT}\n"
    time.sleep(2 * REFRESH_S)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")


def test_listen_names_the_source_of_which_nothing_comes(recording: Path, tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    process = start("listen", "--connect", url, "--source", "roof")
    daemon = start("replay", recording, "--speed", "0.2", "--bind", url, program=SMALL)
    says(process, f"nothing heard of --source roof from {url} for 3 s, though it is connected: is that its name?")
    daemon.send_signal(signal.SIGINT)
    daemon.communicate(timeout=20)
    says(
        process,
        f"nothing heard of --source roof from {url} for 3 s: {ABSENT}",
    )
    process.kill()
    assert process.communicate(timeout=20)[0] == ""


def connected(url: str, trouble: str = "") -> Any:
    """A connection that was just made, or heard."""
    connection = SimpleNamespace(url=url, trouble=trouble, heard_s=0.0)
    connection.silent_s = lambda: time.monotonic() - connection.heard_s
    return connection


def said(source: str, **more: Any) -> Status:
    return msgspec.structs.replace(status(""), source=source, **more)


@pytest.mark.parametrize("form", [[], ["--jsonl"]])
def test_listen_says_which_class_cannot_come(recording: Path, tmp_path: Path, form: list[str]) -> None:
    url = f"ipc://{tmp_path}/s"
    chosen = [part for name in ("piano", "pianino", "alarm") for part in ("--class", name)]
    process = start("listen", "--connect", url, "--source", "garden", *chosen, *form)
    daemon = start("replay", recording, "--speed", "0.5", "--bind", url, program=SMALL)
    says(process, "garden reports no pianino, but alarm, crying_baby, crash")
    time.sleep(2.5)  # two more of the same status
    for ends in (daemon, process):
        ends.send_signal(signal.SIGINT)
    daemon.communicate(timeout=20)
    assert "pianino" not in process.communicate(timeout=20)[1]


def test_patience_begins_anew_when_something_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, told = 0.0, list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    connection = connected("ipc://x", "absent")
    patience = Patience([connection], told.append)
    steps = [(2.9, False, 0), (3.1, False, 1), (9.0, False, 1), (10.0, True, 2), (12.0, False, 2), (13.1, False, 3)]
    for at_s, heard, count in steps:
        now_s, connection.trouble = at_s, "why"  # which is no reason to be patient for longer
        connection.heard_s = now_s if heard else connection.heard_s
        patience.turn()
        assert len(told) == count
    assert told == ["nothing heard from ipc://x for 3 s: why", "ipc://x is heard", told[0]]


def test_the_last_word_of_patience_is_the_reason_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, told = 0.0, list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    connection = connected("ipc://x")
    patience = Patience([connection], told.append)
    for step in range(340):  # a tenth of a second each: for long one, passing ones, another, and the first again
        now_s = step / 10
        passing = ("absent", "refused")[step // 10 % 2]
        connection.trouble = passing if 100 <= step < 200 else "absent" if 200 <= step < 300 else "refused"
        patience.turn()
    assert [line.rpartition(" ")[2] for line in told] == ["refused", "absent", "refused"]


def test_two_of_one_name_are_told_of_their_classes_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    roof, gate = connected("ipc://roof"), connected("ipc://gate")
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    patience = Patience([roof, gate], told.append, "h3", ["dog"])
    for _ in range(5):
        patience.turn(said("h3", classes=["dog", "cat"]), "ipc://roof")
        patience.turn(said("h3", classes=["cat"]), "ipc://gate")
    assert [line for line in told if "reports" in line] == ["h3 reports no dog, but cat"]


def test_patience_knows_several_daemons_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, told = 0.0, list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    roof, gate = connected("ipc://roof"), connected("ipc://gate", "absent")
    patience = Patience([roof, gate], told.append)
    for step in range(100):
        now_s = roof.heard_s = step / 10
        if step >= 50:
            gate.heard_s = now_s
        message = said("h3", t_pub_ns=int(now_s * 1e9))
        patience.turn(message, "ipc://roof")
        if 60 <= step < 80:
            patience.turn(message, "ipc://gate")
    assert told == [
        "nothing heard from ipc://gate for 3 s: absent",
        "ipc://gate is heard",
        "ipc://gate and ipc://roof are both called h3: start one with another --source",
    ]


def test_what_stands_is_what_holds_and_comes_when_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, told, stood = 0.0, list[str](), list[list[tuple[str, list[str]]]]()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    roof, gate = connected("ipc://roof"), connected("ipc://gate", "absent")
    patience = Patience([roof, gate], told.append, stand=stood.append)
    for step in range(200):
        now_s = step / 10
        for connection, name, heard in (
            (roof, "h3", step < 60),
            (roof, "b\x1b", step < 100),
            (gate, "h3", step == 50),
            (gate, "b\x1b", step == 90),
        ):
            if heard:
                connection.heard_s = now_s
                patience.turn(said(name, t_pub_ns=int(now_s * 1e9)), connection.url)
        patience.turn()
    absent, lost = (
        f"nothing heard from ipc://{why}" for why in ("gate for 3 s: absent", "roof for 3 s, though it is connected")
    )
    alike = [
        f"ipc://gate and ipc://roof are both called {name}: start one with another --source" for name in ["h3", "b?"]
    ]
    nothing: list[str] = []
    assert stood == [
        [(absent, nothing)],
        [(alike[0], nothing)],
        [(absent, ["h3"])],
        [(alike[1], nothing)],
        [(absent, ["b\x1b", "h3"])],
        [(lost, ["b\x1b", "h3"]), (absent, ["b\x1b", "h3"])],
    ]
    heard = "ipc://gate is heard"
    assert told == [absent, heard, alike[0], absent, heard, alike[1], absent, lost]


def test_patience_with_who_has_many_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, stood = 0.0, list[list[tuple[str, list[str]]]]()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    connection = connected("ipc://x")
    patience = Patience([connection], [].append, classes=["dog"], stand=stood.append)
    for number in range(1200):
        patience.turn(said(f"s{number}", classes=["cat"]), "ipc://x")
    now_s = 4.0
    patience.turn()
    ((_, names),) = stood[-1]
    assert set(names) == {f"s{number}" for number in range(100)}
    patience.turn(said("s1199", classes=["cat"]), "ipc://x")
    assert max(len(kept) for kept in (patience._heard_s, patience._missing)) <= 1000


def test_what_a_source_is_told_to_report_comes_anew_when_that_changes() -> None:
    told: list[str] = []
    patience = Patience([], told.append, classes=["dog", "cow"])
    for reported in ([], ["dog", "cow"], ["cat\x1b"], ["cat\x1b"], ["dog", "cat"], [], ["dog", "cow"], ["dog", "cat"]):
        patience.turn(said("h3", classes=reported), "ipc://x")
    assert told == ["h3 reports no dog, cow, but cat?", *["h3 reports no cow, but dog, cat"] * 2]


def test_clocks_that_drift_apart_make_nothing_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, delay, latest_s = 0.0, Delay(), 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    for minute in range(7 * 24 * 60):
        now_s = 60.0 * minute
        latest_s = max(latest_s, delay.of(said("h3", t_pub_ns=int(now_s * (1 - 1e-4) * 1e9))))
    assert latest_s < 0.1


@pytest.mark.parametrize("their_clock_s", [-1e9, 0.0, 1e9])
def test_what_comes_late_is_told_once_until_it_is_in_time(
    monkeypatch: pytest.MonkeyPatch, their_clock_s: float
) -> None:
    """Ten messages a second; for 20 s the link is half as fast; then it is as before, and their clock is set back."""
    now_s, told, standing = 0.0, list[str](), list[list[tuple[str, list[str]]]]()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    connection, table = connected("ipc://x"), LiveTable([])
    connection.silent_s = lambda: 0.0
    patience = Patience([connection], told.append, stand=standing.append)
    late_at, shown = list[float](), set[float]()
    for step in range(1000):
        sent_s = step / 10
        now_s = sent_s + 0.2 + (0.5 * min(max(sent_s - 20, 0), 20) if sent_s < 60 else 0) + 9 * (step == 700)
        before = len(told)
        set_back_s = 50 if sent_s > 80 else 0
        message = said("h3", t_pub_ns=int((sent_s + their_clock_s - set_back_s) * 1e9))
        patience.turn(message, "ipc://x")
        table.add(message, "ipc://x")
        late_at += [sent_s] * (len(told) - before)
        if "late" in str(table.render().caption):
            shown.add(sent_s)
    assert told == [
        "what comes from ipc://x comes more than 3 s late: the link is too slow, or this computer",
        "ipc://x is in time again",
    ]
    assert standing == [[(told[0], [])], []]
    assert late_at == pytest.approx([28, 60], abs=0.3)  # 3 s late at 26 s, and that for 3 s
    assert (min(shown), sorted(shown)[-2], max(shown)) == pytest.approx((26, 60, 70), abs=0.2)


def test_the_live_table_shows_what_sounds_and_when_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def text() -> str:
        console = Console(file=io.StringIO(), width=120)
        console.print(table.render())
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    now_s = 100.0
    connection = connected("ipc://x", "why")

    def add(kind: Any, plain: dict[str, Any]) -> None:
        connection.heard_s = now_s
        table.add(msgspec.convert(plain, kind), "ipc://x")

    monkeypatch.setattr("time.monotonic", lambda: now_s)
    table = LiveTable([connection])
    found: dict[str, Any] = {"class": "piano", "class_id": 13, "track": 0, "confidence": 0.9, "onset_ns": 0}
    frame = {"source": "roof", "t_capture_ns": 2_500_000_000, "sample": 0, "frame_ms": 100, "type": "frame"}
    frame["t_pub_ns"] = 3_650_000_000
    detection = found | {"azimuth_deg": -90.0, "elevation_deg": 20.0}
    add(Frame, frame | {"detections": [detection]})
    assert re.search(r"roof .*piano .*-90° .*\+20° .*0\.90 .*2\.5 s", text())
    status = {"source": "roof", "t_capture_ns": 0, "sample": 0, "uptime_s": 5, "overruns": 0, "lost_samples": 7}
    status |= {"real_time_factor": 0.2, "latency_p50_ms": 1.0, "latency_p95_ms": 2.0, "latency_p99_ms": 3.0}
    status |= {"type": "status", "state": "running", "model_id": "compact", "degraded": False, "why": ""}
    add(Status, status)
    assert "model compact, 1.2 s behind, 2 ms of it computing (p95)" in " ".join(text().split())
    add(Status, status | {"state": "ended"})
    assert not re.search(r"roof .*piano", text())
    add(Status, status)
    now_s += 10
    add(Frame, frame | {"source": "cellar", "detections": [found | detection]})
    assert re.search(r"cellar .*piano", text())
    assert not re.search(r"roof .*piano", text())
    assert "roof: nothing heard for 10 s: is it running?" in text()
    now_s += 10
    add(Status, status | {"state": "ended"})
    assert re.search("cellar: nothing heard for 10 s: is it running[?] roof: ended ", " ".join(text().split()))
    now_s += 10
    add(Frame, frame | {"source": "cellar", "detections": []})
    assert "roof" not in text()
    now_s += 10
    assert "nothing heard from ipc://x for 10 s: why" in text()
    assert "piano" not in text()
    table = LiveTable([connection], "roof")
    now_s += 10
    assert "nothing heard of --source roof from ipc://x for 20 s: why" in " ".join(text().split())


def test_the_live_table_shows_the_classes_that_are_asked_for() -> None:
    roof = connected("ipc://roof")
    roof.silent_s = lambda: 0.0
    table = LiveTable([roof], "h3", ["piano", "pianino"])
    found = {"class_id": 13, "track": 0, "confidence": 0.9, "onset_ns": 0, "azimuth_deg": -90.0, "elevation_deg": 20.0}
    both = [found | {"class": name} for name in ("piano", "alarm")]
    frame = {"type": "frame", "source": "h3", "t_capture_ns": 0, "sample": 0, "frame_ms": 100, "detections": both}
    status = {"type": "status", "source": "h3", "t_capture_ns": 0, "sample": 0, "uptime_s": 5, "overruns": 0}
    status |= {"real_time_factor": 0.2, "latency_p50_ms": 1.0, "latency_p95_ms": 2.0, "latency_p99_ms": 3.0}
    status |= {"lost_samples": 0, "state": "running", "model_id": "compact", "degraded": False, "why": ""}
    table.add(msgspec.convert(frame, Frame), roof.url)
    table.add(msgspec.convert(status, Status), roof.url)
    console = Console(file=io.StringIO(), width=150)
    console.print(table.render())
    assert "reports no" not in console.file.getvalue()  # type: ignore[attr-defined]
    table.add(msgspec.convert(status | {"classes": ["alarm", "piano"]}, Status), roof.url)
    console.print(table.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search("h3 .*piano", text)
    assert not re.search("h3 .* alarm .*-90", text)
    assert "h3 reports no pianino, but alarm, piano" in text


def test_the_live_table_shows_several_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 9.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    roof, gate = connected("ipc://roof", "absent"), connected("ipc://gate")
    gate.heard_s = now_s
    table = LiveTable([roof, gate])
    found = {"class": "piano", "class_id": 13, "track": 0, "confidence": 0.9, "onset_ns": 0}
    found |= {"azimuth_deg": -90.0, "elevation_deg": 20.0}
    frame = {"type": "frame", "source": "h3", "t_capture_ns": 0, "sample": 0, "frame_ms": 100, "detections": [found]}
    table.add(msgspec.convert(frame, Frame), gate.url)
    console = Console(file=io.StringIO(), width=120)
    console.print(table.render())
    table.add(msgspec.convert(frame, Frame), roof.url)
    console.print(table.render())
    first, _, second = console.file.getvalue().rpartition("seldrt ipc://roof, ipc://gate")  # type: ignore[attr-defined]
    assert re.search(r"h3 .*piano .*-90°", first)
    assert "nothing heard from ipc://roof for 9 s: absent" in first
    assert "called" not in first
    assert "ipc://gate and ipc://roof are both called h3: start one with another" in " ".join(second.split())
    now_s += 4
    table.add(msgspec.convert(frame, Frame), gate.url)
    console.print(table.render())
    assert "called" not in console.file.getvalue().rpartition("seldrt ipc://roof")[2]  # type: ignore[attr-defined]


LISTED = (  # the same with the devices of `fake_sounddevice`, after a change to it
    "import sys; from tests.seldrt import energy_pipeline, fake_sounddevice as fake;"
    "{}; sys.modules['sounddevice'] = fake; energy_pipeline.main()"
)


def listed_devices(change: str = "pass", **env: str) -> tuple[int, str, str]:
    """What `devices` says."""
    return seldrt("devices", program=("-c", LISTED.format(change)), **env)


def test_no_device_is_told() -> None:
    code, out, errors = listed_devices("fake.query_devices = lambda *_: []")
    assert (code, out) == (0, "")
    assert errors.startswith("no device here can record: ")


def test_devices_and_info_print_to_stdout() -> None:
    code, out, errors = listed_devices()
    assert (code, errors) == (0, "")
    known = "  0  Zoom H3-VR: USB Audio (hw:1,0), ALSA: 4 channels, 48000 Hz (also 44100); profile zoom-h3vr"
    assert known in out
    assert "  3  UMC404HD: USB Audio (hw:2,0), ALSA: 4 channels, 96000 Hz" in out
    assert "--mic must say what its channels are" in out
    assert "Built-in Microphone, ALSA: 2 channels, 44100 Hz   (needs 4 channels)" in out
    code, out, errors = seldrt("info", program=SMALL)
    assert (code, errors) == (0, "")
    assert "model: energy\nengine: NumPy\nclasses: alarm, crying_baby" in out
    assert "figures:\n  er_20: 0.5\n" in out
    assert re.search(r"total +200\.0 ms", out)


def test_any_name_goes_through_pipes_of_any_encoding_as_utf8() -> None:
    change = "fake.DEVICES[0]['name'] = 'Микрофон (H3-VR)'; fake.DEVICES[3]['name'] = 'Líne (UMC)'"
    for encoding in ("utf-8", "cp1252", "ascii:backslashreplace"):
        code, out, errors = listed_devices(change, PYTHONIOENCODING=encoding)
        assert (code, errors) == (0, "")
        assert "  0  Микрофон (H3-VR), ALSA: 4 channels" in out
        assert "  3  Líne (UMC), ALSA" in out
        code, out, errors = seldrt("replay", "Микрофон.wav", PYTHONIOENCODING=encoding)
        assert (code, out) == (2, "")
        assert "Микрофон.wav" in errors


def test_a_terminal_gets_what_it_can_show() -> None:
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", LISTED.format("fake.DEVICES[0]['name'] = 'Микрофон (H3-VR)'"), "devices"]
    subprocess.run(program, stdout=theirs, check=True, cwd=ROOT, env=environment(PYTHONIOENCODING="cp1252"))
    os.close(theirs)
    shown = os.read(ours, 10_000).decode("cp1252")
    os.close(ours)
    assert "  0  ???????? (H3-VR), ALSA: 4 channels" in shown


def test_a_model_card_is_told_from_the_short_to_the_long() -> None:
    training = {"train": {"seed": 1, "bf16": True}, "score": 0.25}
    card = {"parameters": {"sad": 968000}, "postprocess": {"sed_thresholds": (0.5, 0.25)}, "sad": training, "data": "x"}
    assert card_lines(card) == [
        "data: x",
        "parameters:",
        "  sad: 968000",
        "postprocess:",
        "  sed_thresholds: 0.5, 0.25",
        "sad:",
        "  score: 0.25",
        "  train:",
        "    seed: 1",
        "    bf16: True",
    ]


def test_what_was_heard_is_compared_with_the_truth() -> None:
    truth = demo.spans([(i, 3, 0, 10.0, 0.0) for i in range(5)] + [(i, 4, 0, 90.0, 0.0) for i in range(9)])
    heard = demo.spans(
        [(i, 3, 7, 20.0, 0.0) for i in (3, 4, 5)]  # ten degrees off, where both sound
        + [(i, 3, 8, 12.0, 0.0) for i in (3,)]  # nearer for one label frame
        + [(i, 5, 9, 90.0, 0.0) for i in range(9)]  # another class
    )
    verdicts = demo.compare(truth, heard)
    assert verdicts[0].error_deg == pytest.approx(6.0)
    assert verdicts[1].error_deg is None
    assert demo.unexplained(truth, heard) == 1
    assert demo.passed(verdicts) == (True, "OK: 1 of 2 events, median error 6 deg")
    assert demo.passed(verdicts[1:]) == (False, "FAILED: 0 of 1 events")
    far = [demo.Verdict(truth[0], 31.0)]
    assert demo.passed(far) == (False, "FAILED: 1 of 1 events, median error 31 deg")


def test_a_hole_of_one_label_frame_does_not_split_an_event_and_a_longer_one_does() -> None:
    found = demo.spans([(i, 3, 0, 0.0, 0.0) for i in (1, 2, 4, 7, 8)])
    assert [sorted(span.directions) for span in found] == [[1, 2, 4], [7, 8]]


def test_the_demonstration_is_bundled_with_its_truth() -> None:
    recording, truth = demo.demo_files()
    info = soundfile.info(recording)
    assert info.channels == 4
    spans = demo.spans(demo.read_table(truth))
    assert len(spans) >= 5
    assert max(max(span.directions) for span in spans) < info.duration * 10


def test_the_shipped_model_hears_the_demonstration() -> None:
    code, out, errors = seldrt("replay", "--demo", "--fast", "--quiet")
    assert code == 0, errors
    assert out == ""
    assert re.match(r"OK: \d+ of \d+ events, median error \d+ deg", errors.splitlines()[-1])


def test_the_shipped_model_says_the_same_bytes_for_any_block_size(tmp_path: Path) -> None:
    sound, rate = soundfile.read(demo.demo_files()[0], stop=5 * 24000 + 777)
    soundfile.write(tmp_path / "part.wav", sound, rate, subtype="PCM_16")
    one = outputs(tmp_path / "part.wav", tmp_path, "--fast", "--block-ms", "7", program=REAL)
    assert one == outputs(tmp_path / "part.wav", tmp_path, "--fast", "--block-ms", "1000", program=REAL)
    assert len(one[0].splitlines()) >= 51


def test_the_shipped_model_describes_itself() -> None:
    code, out, errors = seldrt("info")
    assert (code, errors) == (0, "")
    assert "classes: alarm, crying_baby" in out
    assert "total" in out
    assert "learning_rate" not in out
    everything = seldrt("info", "--all")[1]
    assert set(out.splitlines()) < set(everything.splitlines())
    assert everything.count("\ndoae:\n") == 1
    assert "learning_rate" in everything


def test_names_sectors_and_sensitivities_are_read_as_people_write_them() -> None:
    assert Names().convert("alarm, piano,", None, None) == ("alarm", "piano")
    assert Names().convert("", None, None) == ()
    assert Sectors().convert("20..60, -170.5..-150,", None, None) == ([20.0, 60.0], [-170.5, -150.0])
    assert Sensitivity().convert("2, alarm = 4", None, None) == {"all": 2.0, "alarm": 4.0}


def test_onnxruntime_reports_nothing(tmp_path: Path) -> None:
    """Its reports to Microsoft begin with files in the home folder."""
    opened = "from seldrt.pipeline import load_pipeline; print(load_pipeline('light').model_card['engine'])"
    inherited = environment(HOME=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path.parent / "numba")).items()
    clean = {key: value for key, value in inherited if not key.startswith(("ORT_", "XDG_"))}
    done = subprocess.run([sys.executable, "-c", opened], env=clean, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ONNX Runtime\n", "")
    assert list(tmp_path.iterdir()) == []
