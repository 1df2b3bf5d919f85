"""Many recordings, and the times of day at which they were made: `seldrt replay` as a real process."""

from __future__ import annotations

import csv
import json
import re
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from seldrt.cli.replay import Part, check_apart
from seldrt.client import Subscriber
from seldrt.config import ConfigError
from tests.processes import SMALL, says, seldrt, start
from tests.seldrt.energy_pipeline import SAMPLE_RATE, two_pianos

FAST = ("--fast", "--no-publish", "--quiet")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three recordings of three seconds, named by hour."""
    folder = tmp_path_factory.mktemp("night")
    paths = [folder / f"20260601_0{hour}0000Z.wav" for hour in range(3)]
    for path in paths:
        soundfile.write(path, two_pianos(), SAMPLE_RATE, subtype="PCM_16")
    return paths


def rows_of(table: Path) -> list[tuple[str, str, str]]:
    with table.open(newline="") as file:
        return [(row["source"], row["onset"], row["offset"]) for row in csv.DictReader(file)]


def test_one_table_holds_them_all(night: list[Path], tmp_path: Path) -> None:
    table, lines = tmp_path / "all.csv", tmp_path / "all.jsonl"
    code, _, errors = seldrt("replay", *night, *FAST, "--csv", table, "--jsonl", lines, program=SMALL)
    assert code == 0, errors
    seconds = [("0.500", "1.200"), ("1.800", "2.900")]
    assert rows_of(table) == [(path.stem, *span) for path in night for span in seconds]
    messages = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [m["source"] for m in messages if m["type"] == "frame"] == [path.stem for path in night for _ in range(31)]
    assert "3 of 3: " in errors
    assert errors.count("latency:") == 1


def test_each_is_heard_as_if_it_were_alone_but_for_the_numbers_of_events(night: list[Path], tmp_path: Path) -> None:
    def messages(*recordings: Path) -> list[dict[str, Any]]:
        path = tmp_path / "out.jsonl"
        assert seldrt("replay", *recordings, *FAST, "--jsonl", path, program=SMALL)[0] == 0
        return [json.loads(line) for line in path.read_text().splitlines()]

    together, alone = messages(*night), [message for path in night for message in messages(path)]
    assert {m.pop("event_id") for m in together if m["type"] == "event"} == set(range(2 * len(night)))
    assert {m.pop("event_id") for m in alone if m["type"] == "event"} == {0, 1}
    assert together == alone


def test_events_have_the_time_of_day_of_their_recording(night: list[Path], tmp_path: Path) -> None:
    table, lines = tmp_path / "all.csv", tmp_path / "all.jsonl"
    arguments = ("--start", "file", "--source", "garden", "--csv", table, "--jsonl", lines)
    code, _, errors = seldrt("replay", *night, *FAST, *arguments, program=SMALL)
    assert code == 0, errors
    expected = [f"2026-06-01T0{hour}:00:0{second}" for hour in range(3) for second in ("0.500Z", "1.800Z")]
    assert [(source, onset) for source, onset, _ in rows_of(table)] == [("garden", onset) for onset in expected]
    first = json.loads(lines.read_text().splitlines()[0])
    assert first["t_capture_s"] == 1_780_272_000.05  # 2026-06-01T00:00:00Z, by `date -d`
    code, _, errors = seldrt("replay", night[0], *FAST, "--start", "2020-02-29T12:00Z", "--csv", table, program=SMALL)
    assert code == 0, errors
    assert [onset for _, onset, _ in rows_of(table)] == ["2020-02-29T12:00:00.500Z", "2020-02-29T12:00:01.800Z"]


def test_what_cannot_be_kept_apart_is_refused_before_anything_is_written(night: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    same = tmp_path / night[0].name
    same.write_bytes(night[0].read_bytes())
    unnamed = tmp_path / "garden.wav"
    unnamed.write_bytes(night[0].read_bytes())
    for arguments, line in (
        ((*night, "--dcase", table), "such a table is of one recording"),
        ((*night, "--source", "garden", "--csv", table), "source garden: the files could not tell"),
        ((*night, "--start", "file"), "is for --csv, --jsonl and --clips"),
        ((night[0], "--csv", table, "--start", ""), "give a date and time like"),
        ((*night, "--start", "2026-06-01T05:00", "--csv", table), "give --start file"),
        ((night[0], same, "--csv", table), "have one name in the files"),
        ((*night, same, "--csv", table, "--start", "file", "--source", "garden"), "of the same time, and one source"),
        ((night[0], unnamed, "--start", "file", "--csv", table), "garden.wav: neither its tags nor its name say"),
        ((night[0], tmp_path / "missing.wav", "--csv", table), "missing.wav: no such file"),
        ((*night, "--csv", night[1]), "the output is the recording itself"),
        ((*night, "--loop"), "--loop is of one recording"),
        ((night[0], "--loop", "--dcase", table), "has no end that --dcase could wait for"),
        (("--demo", "--start", "file"), "leave out --only, --ignore and --start"),
    ):
        code, out, errors = seldrt("replay", *arguments, *FAST, program=SMALL)
        assert (code, out) == (2, ""), errors
        assert line in errors
        assert len(errors.splitlines()) == 1
        assert not table.exists()


@pytest.mark.parametrize(
    ("length_s", "apart_s", "fit"), [(60.0, 58.1, True), (60.0, 57.9, False), (1.0, 0.6, True), (1.0, 0.4, False)]
)
def test_recordings_may_overlap_by_what_whole_seconds_in_names_leave_out(
    length_s: float, apart_s: float, fit: bool
) -> None:
    parts = [Part(Path(name), length_s, round(1e9 * begun_s)) for name, begun_s in (("b", apart_s), ("a", 0.0))]
    with nullcontext() if fit else pytest.raises(ConfigError, match="a, b: of the same time, and one source"):
        check_apart(parts, "roof")


def test_a_loop_goes_on_until_it_is_stopped_which_is_a_good_end(night: list[Path], tmp_path: Path) -> None:
    lines = tmp_path / "all.jsonl"
    process = start("replay", night[0], *FAST, "--loop", "--jsonl", lines, program=SMALL)
    length_s, heard_s = soundfile.info(night[0]).duration, 0.0
    end_s = time.monotonic() + 60
    while heard_s < 3 * length_s:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.1)
        whole = lines.read_bytes().splitlines()[:-1] if lines.exists() else []
        heard_s = json.loads(whole[-1])["t_capture_s"] if whole else 0.0
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "stopped at" not in errors
    assert "Traceback" not in errors
    frames = [frame for frame in map(json.loads, lines.read_text().splitlines()) if frame["type"] == "frame"]
    np.testing.assert_allclose(np.diff([frame["t_capture_s"] for frame in frames]), 0.1, atol=1e-6)
    onsets = {found["onset_s"] for frame in frames for found in frame["detections"]}
    assert len(onsets) >= 6  # two sounds a turn


def test_all_that_cannot_be_played_are_named_at_once(night: list[Path], tmp_path: Path) -> None:
    stereo, missing = tmp_path / "stereo.wav", tmp_path / "missing.wav"
    soundfile.write(stereo, np.zeros((100, 2)), SAMPLE_RATE)
    code, _, errors = seldrt("replay", stereo, night[0], missing, *FAST, program=SMALL)
    assert code == 2
    first, second = errors.splitlines()
    assert first.startswith(f"seldrt: {stereo}: 2 channels")
    assert second == f"seldrt: {missing}: no such file"


def test_what_is_bad_can_be_left_out(night: list[Path], tmp_path: Path) -> None:
    stereo, undated, table = tmp_path / "stereo.wav", tmp_path / "undated.wav", tmp_path / "all.csv"
    soundfile.write(stereo, np.zeros((100, 2)), SAMPLE_RATE)
    undated.write_bytes(night[0].read_bytes())
    arguments = (*FAST, "--skip-bad", "--csv", table, "--start", "file")
    code, _, errors = seldrt("replay", stereo, night[0], undated, night[1], *arguments, program=SMALL)
    assert code == 2
    assert errors.splitlines()[0].startswith(f"seldrt: {stereo}: 2 channels")
    assert errors.splitlines()[1].startswith(f"seldrt: {undated}: neither its tags")
    assert errors.splitlines()[-1] == "seldrt: 2 of 4 recordings were not heard to their end"
    assert [source for source, _, _ in rows_of(table)] == [night[0].stem] * 2 + [night[1].stem] * 2
    table.unlink()
    code, _, errors = seldrt("replay", stereo, undated, *arguments, program=SMALL)
    assert (code, len(errors.splitlines()), table.exists()) == (2, 2, False)


def test_one_that_is_damaged_in_the_middle_does_not_keep_the_others(night: list[Path], tmp_path: Path) -> None:
    torn, table = tmp_path / "torn.flac", tmp_path / "all.csv"
    rng = np.random.default_rng(0)
    soundfile.write(torn, 0.1 * rng.standard_normal((20 * SAMPLE_RATE, 4)), SAMPLE_RATE)
    body = bytearray(torn.read_bytes())
    body[len(body) // 3 : len(body) // 3 + 50_000] = bytes(50_000)
    torn.write_bytes(body)
    alone, _, said = seldrt("replay", torn, *FAST, "--csv", table, program=SMALL)
    found = re.search(r"seldrt: .*torn.flac: damaged at (\d\.\d+) s", said.splitlines()[-1])
    assert alone == 2
    assert found, said
    (row,) = rows_of(table)  # what sounded until then
    assert float(row[2]) == pytest.approx(float(found[1]), abs=0.2)
    code, _, errors = seldrt("replay", night[0], torn, night[1], *FAST, "--csv", table, program=SMALL)
    assert code == 2
    assert found[0] in errors
    assert errors.splitlines()[-1] == "seldrt: 1 of 3 recordings were not heard to their end"
    assert [source for source, _, _ in rows_of(table)] == [night[0].stem] * 2 + ["torn"] + [night[1].stem] * 2
    assert rows_of(table)[2:] == [row, *((night[1].stem, *span) for span in (("0.500", "1.200"), ("1.800", "2.900")))]


def test_one_that_is_gone_when_its_turn_comes_does_not_keep_the_others(night: list[Path], tmp_path: Path) -> None:
    paths = [tmp_path / path.name for path in night]
    for path, original in zip(paths, night, strict=True):
        path.write_bytes(original.read_bytes())
    process = start("replay", *paths, "--speed", "2", "--no-publish", program=SMALL)
    says(process, "onset")
    paths[1].unlink()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"{paths[1].name}: no such file" in errors
    assert errors.count("3.0 s of sound") == 2


def test_one_that_is_stopped_is_the_last(night: list[Path]) -> None:
    process = start("replay", *night, "--speed", "0.5", "--no-publish", program=SMALL)
    says(process, "onset")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    how_far, where = errors.splitlines()[-2:]
    assert how_far.startswith("stopped at ")
    assert where == f"stopped in {night[0]}; 2 of 3 were not begun"
    assert "2 of 3: " not in errors


def test_a_wish_to_stop_at_the_end_of_one_is_heeded(night: list[Path], tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    short = tmp_path / night[0].name
    soundfile.write(short, two_pianos()[: SAMPLE_RATE * 9 // 10], SAMPLE_RATE, subtype="PCM_16")
    slow = ("--speed", "0.05", "--block-ms", "1000", "--bind", url)
    process = start("replay", short, *night[1:], *slow, program=SMALL)
    with Subscriber(url, kinds=["status"]) as subscriber:
        assert subscriber.receive(60)  # all of the first is read by now, and waits for its time
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == f"stopped after {short}; 2 of 3 were not begun"
