"""The doctor on sound fields with closed forms, on devices that are ill in known ways, and as a command."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.arrays import CAPSULE_DOAS, array_named
from seldrt.cli.doctor import write_yaw
from seldrt.config import (
    ClipsConfig,
    ConfigError,
    DaemonConfig,
    PipelineConfig,
    PublisherConfig,
    RecordConfig,
    load_toml,
)
from seldrt.keys import make_keys
from seldrt.microphones import orientation, profile
from seldrt.runtime.doctor import check_address, check_keys, machine, signals
from seldrt.runtime.doctor.axes import judge, new_yaw_deg, onsets
from seldrt.runtime.doctor.finding import Finding, examine
from seldrt.runtime.doctor.formats import sniff
from seldrt.runtime.doctor.listening import Heard, check_flow, check_opened, missing_ms, read
from seldrt.spatial import foa_gains, rotation, unit_vector

ROOT = Path(__file__).parents[2]
RATE = 24000
SECONDS = 4
CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5  # FLU FRD BLD BRU
LEVEL = 0.01


def as_format(format_: str, foa: np.ndarray) -> np.ndarray:
    """What a microphone of that format gives of AmbiX; all are linear in it, the cardioids 0.5 + 0.5 cos too."""
    w, y, z, x = foa.T
    if format_ == "tetrahedron":
        return 0.5 * w[:, None] + 0.5 * np.stack([x, y, z], axis=1) @ CORNERS.T
    if format_ == "fuma":
        return np.stack([w / 2**0.5, x, y, z], axis=1)
    return foa * ([1, 3**0.5, 3**0.5, 3**0.5] if format_ == "n3d" else [1, 1, 1, 1])


def noises(rng: np.random.Generator, count: int) -> np.ndarray:
    """Independent noises (n, count) of power 1 that fall by 3 dB an octave, as rooms have them."""
    spectra = np.fft.rfft(rng.standard_normal((SECONDS * RATE, count)), axis=0)
    pink = np.fft.irfft(spectra / np.sqrt(np.maximum(np.arange(len(spectra)), 20))[:, None], axis=0)
    return np.asarray(pink / pink.std(0))


def field(format_: str, rng: np.random.Generator, doa: np.ndarray | None = None, share: float = 0.0) -> np.ndarray:
    """A diffuse field; ``share`` of its power comes from one direction instead."""
    foa = (1 - share) ** 0.5 * noises(rng, 4) @ array_named("foa").diffuse_mixing[0]
    if doa is not None:
        foa = foa + share**0.5 * noises(rng, 1) * foa_gains(doa)
    return LEVEL * as_format(format_, foa)


def diffuse_sphere(rng: np.random.Generator) -> np.ndarray:
    """The diffuse field on the rigid sphere of the DCASE array, from the covariances of `offline.arrays`."""
    noise = np.fft.rfft(rng.standard_normal((SECONDS * RATE, 4)), axis=0)
    mixing = array_named("mic").diffuse_mixing
    at = np.linspace(0, len(mixing) - 1, len(noise))
    smooth = np.stack([np.interp(at, np.arange(len(mixing)), row) for row in mixing.reshape(-1, 16).T], axis=1)
    return LEVEL * np.fft.irfft(np.einsum("fab,fb->fa", smooth.reshape(-1, 4, 4), noise), axis=0)


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["ambix", "fuma", "tetrahedron"])
def test_the_format_of_a_diffuse_field_is_told_for_sure(format_: str) -> None:
    found = sniff(field(format_, np.random.default_rng(1)), RATE)
    assert (found.format, found.sure) == (format_, True)
    # Closed forms, dB: XYZ / W of AmbiX is 1, of FuMa 2, of N3D 3; cardioids correlate by 2/3.
    power = {"ambix": 1, "fuma": 2, "tetrahedron": 3}[format_]
    for name, own in (("ambix", 1), ("fuma", 2), ("n3d", 3)):
        assert found.off_db[name] == pytest.approx(10 * np.log10(power / own), abs=0.3)
    assert found.correlation == pytest.approx(2 / 3 if format_ == "tetrahedron" else 0, abs=0.03)


def test_capsules_on_a_sphere_are_known_by_their_agreement() -> None:
    assert sniff(diffuse_sphere(np.random.default_rng(2)), RATE).format == "capsules"
    assert abs(CAPSULE_DOAS - CORNERS).max() < 0.01


def test_what_cannot_be_told_is_not_told() -> None:
    rng = np.random.default_rng(3)
    for noise in (field("n3d", rng), LEVEL * rng.standard_normal((SECONDS * RATE, 4))):  # alike, to second order
        found = sniff(noise, RATE)
        assert (found.format, found.sure) == ("", False)
        assert "noise of the electronics" in found.why
    assert "too little sound" in sniff(np.zeros((SECONDS * RATE, 4)), RATE).why
    assert "too little sound" in sniff(field("ambix", rng)[:1000], RATE).why
    unrelated = LEVEL * rng.standard_normal((SECONDS * RATE, 4)) * [1, 3, 3, 3]
    assert "no 4-channel array" in sniff(unrelated, RATE).why


@pytest.mark.parametrize("format_", ["ambix", "fuma"])
@pytest.mark.parametrize("noise_db", [-40.0, -12.0, -8.0])
def test_own_noise_of_the_capsules_makes_no_fuma_of_ambix(format_: str, noise_db: float) -> None:
    """Four cardioids at one point, turned into B-format: their noise is three times as strong in X, Y and Z as in W."""
    rng = np.random.default_rng(7)
    own = rng.standard_normal((SECONDS * RATE, 4)) * [1, 3**0.5, 3**0.5, 3**0.5]
    own = as_format(format_, own * LEVEL * 10 ** (noise_db / 20))
    found = sniff(field(format_, rng) + own, RATE)
    assert found.format in (format_, "")


@settings(max_examples=25)
@given(
    st.sampled_from(["ambix", "fuma", "tetrahedron"]),
    st.integers(0, 2**32 - 1),
    st.floats(-180, 180), st.floats(-90, 90), st.floats(0, 0.95),
)  # fmt: skip
def test_a_wrong_format_is_never_told_for_sure(
    format_: str, seed: int, azimuth_deg: float, elevation_deg: float, share: float
) -> None:
    x = field(format_, np.random.default_rng(seed), unit_vector(azimuth_deg, elevation_deg), share)
    found = sniff(x, RATE)
    assert found.format == format_ or not found.sure


def heard(frames: np.ndarray, rate: int = RATE, **more: Any) -> Heard:
    return Heard("roof", rate, frames.astype(np.float32), **more)


@pytest.mark.parametrize(
    ("format_", "mic", "verdict", "words"),
    [
        ("ambix", "ambix", "pass", "surely AmbiX"),
        ("ambix", "zoom-h3vr", "pass", "as --mic zoom-h3vr says"),
        ("fuma", "zoom-h3vr", "fail", "use --mic fuma"),
        ("ambix", "fuma", "fail", "use --mic ambix"),
        ("tetrahedron", "ambix", "fail", "use --mic tetrahedron"),
        ("tetrahedron", "zoom-h3vr-a", "pass", "A-format"),
        ("n3d", "n3d", "warn", "cannot be told"),
        ("n3d", "ambix", "warn", "cannot be told"),
    ],
)
def test_the_format_is_compared_with_the_profile(format_: str, mic: str, verdict: str, words: str) -> None:
    finding = signals.check_format(heard(field(format_, np.random.default_rng(4))), profile(mic))
    assert finding.verdict == verdict
    assert words in f"{finding.text} {finding.remedy}"


# --- channels and levels --------------------------------------------------------------------------------------------


def ill(frames: np.ndarray, what: str) -> np.ndarray:
    x = frames.copy()
    if what == "dead":
        x[:, 2] = 0
    elif what == "stuck":
        x[:, 1] = 0.25
    elif what == "same":
        x[:, 3] = x[:, 0]
    elif what == "clipped":
        x[:, 0] = np.clip(x[:, 0] * 300, -1, 1)
    elif what == "muted":
        x[:] = 0
    return x


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("dead", "channel 3: dead"), ("stuck", "channel 2: stuck at 0.25"), ("same", "channels 1 and 4: the same"),
        ("clipped", "channel 1: clipped"), ("muted", "all channels: dead"),
    ],
)  # fmt: skip
def test_ill_channels_are_named(what: str, words: str) -> None:
    finding = signals.check_channels(heard(ill(field("ambix", np.random.default_rng(5)), what)))
    assert finding.verdict == "fail"
    assert words in finding.text
    assert finding.remedy


@pytest.mark.parametrize(
    ("system", "words"),
    [("linux", "alsamixer"), ("darwin", "System Settings"), ("win32", "programs"), ("aix", "mixer")],
)
def test_the_remedy_is_one_of_the_system(monkeypatch: pytest.MonkeyPatch, system: str, words: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert words in signals.check_channels(heard(np.zeros((SECONDS * RATE, 4)))).remedy


def test_well_channels_pass_and_too_little_sound_is_not_judged() -> None:
    x = field("ambix", np.random.default_rng(6))
    assert signals.check_channels(heard(x)).verdict == "pass"
    assert signals.check_channels(heard(x[:RATE])).verdict == "skip"


def test_levels_are_those_of_the_definition() -> None:
    x = np.tile(np.sin(np.arange(RATE * SECONDS) / 7)[:, None] * [0.1, 0.05, 0.02, 0.1], 1)
    finding = signals.check_level(heard(x))
    np.testing.assert_allclose(finding.figures["rms_dbfs"], [-23.01, -29.03, -36.99, -23.01], atol=0.02)
    np.testing.assert_allclose(finding.figures["peak_dbfs"], [-20, -26.02, -33.98, -20], atol=0.02)
    assert finding.verdict == "pass"
    for ill_x, words in ((x / 3000, "very quiet"), (x * [1, 1, 0.001, 1], "channel 3"), (x + [0, 0.1, 0, 0], "offset")):
        finding = signals.check_level(heard(ill_x))
        assert finding.verdict == "warn"
        assert words in finding.text


def test_the_meter_shows_the_level_and_the_peak() -> None:
    x = np.zeros((480, 4), np.float32)
    x[:, 0], x[0, 1] = 1.0, 10 ** (-45 / 20)
    first, second, third, _ = signals.meter(x)
    assert first.count("#") == 39
    assert first.index("|") == first.index("]") - 1
    assert second.index("|") - second.index("[") == 20
    assert third.count("#") == third.count("|") == 0


# --- the flow of samples --------------------------------------------------------------------------------------------


def arrivals(lost_s: float = 0.0, at_s: float = 3.0, drift: float = 1.0, seconds: float = 6.0) -> list[Any]:
    """Blocks of 20 ms that are late by chance, as they come; half a second of them at once in the beginning."""
    rng = np.random.default_rng(0)
    told = []
    for block in range(round(seconds / 0.02)):
        sound_s = (block + 1) * 0.02
        lost = lost_s if sound_s > at_s else 0.0
        told.append((100.0 + max(sound_s * drift + lost, 0.5) + rng.exponential(0.004), sound_s))
    return told


def test_sound_that_did_not_come_is_told_from_late_blocks() -> None:
    assert abs(missing_ms(arrivals())) < 3
    assert abs(missing_ms(arrivals(drift=1.0001))) < 3
    assert missing_ms(arrivals(lost_s=0.15)) == pytest.approx(150, abs=3)
    assert missing_ms(arrivals(seconds=1.0)) == 0


def test_the_flow_is_judged() -> None:
    x = np.zeros((RATE, 4))
    assert check_flow(heard(x)).verdict == "pass"
    assert check_flow(heard(x, overruns=1)).verdict == "warn"
    assert check_flow(heard(x, missing_ms=50)).verdict == "warn"
    assert check_flow(heard(x, missing_ms=500)).verdict == "fail"
    assert check_opened(heard(x)).verdict == "pass"
    assert check_opened(heard(x, rate=16000)).verdict == "fail"


# --- orientation ----------------------------------------------------------------------------------------------------


def clapping(azimuth_deg: float, axes: np.ndarray, format_: str = "ambix", rate: int = 48000) -> np.ndarray:
    """Three claps (n, 4) by hand, each with a room's echo, as a microphone with these axes and format gives them."""
    rng = np.random.default_rng(round(azimuth_deg) % 360)
    foa = 1e-4 * rng.standard_normal((3 * rate, 4))
    for k in range(3):
        paths = [(0.0, azimuth_deg + rng.normal(0, 4), rng.normal(3, 4), 0.5)]
        paths += [
            (0.005 + 0.004 * i * rng.random(), rng.uniform(-180, 180), rng.uniform(-60, 60), 0.3 * 0.85**i)
            for i in range(30)
        ]
        for delay_s, azimuth, elevation, gain in paths:
            start = round((k + 0.5 + delay_s) * rate)
            sound = rng.standard_normal(960) * np.exp(-np.arange(960) / 100)
            foa[start : start + 960] += gain * sound[:, None] * foa_gains(axes @ unit_vector(azimuth, elevation))
    return as_format(format_, foa)


def judged(axes: np.ndarray, format_: str = "ambix", mic: str = "ambix", **stands: Any) -> tuple[Finding, Any]:
    how = profile(mic).turned(orientation(**{"mount": "upright"} | stands))
    front, left = clapping(0, axes, format_), clapping(90, axes, format_)
    return judge(front, left, 48000, lambda frames: how.to_foa(frames, 48000))


UPRIGHT = np.eye(3)


def test_a_microphone_that_stands_as_it_should_passes() -> None:
    for format_, mic in (("ambix", "zoom-h3vr"), ("fuma", "fuma"), ("tetrahedron", "tetrahedron"), ("n3d", "n3d")):
        finding, axes = judged(UPRIGHT, format_, mic)
        assert finding.verdict == "pass", finding.text
        assert abs(axes.yaw_deg) < 6


@pytest.mark.parametrize("turned_deg", [-160.0, -40.0, 25.0, 90.0])
def test_a_turn_is_measured_and_the_yaw_undoes_it(turned_deg: float) -> None:
    """A microphone turned to the left by some degrees hears everything turned to the right."""
    axes = rotation(yaw_deg=-turned_deg)
    finding, found = judged(axes)
    assert finding.verdict == "warn"
    assert finding.figures["yaw_deg"] == pytest.approx(-turned_deg, abs=6)
    assert ("left" if turned_deg > 0 else "right") in finding.text.split(": ")[1]
    yaw_deg = new_yaw_deg(found, 0.0)
    assert yaw_deg == pytest.approx(turned_deg, abs=6)
    assert judged(axes, yaw_deg=yaw_deg)[0].verdict == "pass"
    assert new_yaw_deg(judged(axes, yaw_deg=30.0)[1], 30.0) == pytest.approx(yaw_deg, abs=0.3)


@pytest.mark.parametrize("mount", ["upside-down", "endfire", "pitch=-90"])
def test_another_mount_is_recognised_and_its_setting_undoes_it(mount: str) -> None:
    axes = orientation(mount).T
    finding, found = judged(axes)
    assert (finding.verdict, found) == ("fail", None)
    assert f"--mount {mount}" in finding.remedy
    assert judged(axes, mount=mount)[0].verdict == "pass"


@pytest.mark.parametrize("format_", ["fuma", "tetrahedron"])
@pytest.mark.parametrize("turned_deg", [0.0, 40.0])
def test_a_wrong_format_is_recognised_by_its_axes(format_: str, turned_deg: float) -> None:
    finding, found = judged(rotation(yaw_deg=turned_deg), format_)
    assert (finding.verdict, found) == ("fail", None)
    assert f"use --mic {format_}" in finding.remedy


def test_mirrored_axes_and_silence_are_told() -> None:
    finding, _ = judged(np.diag([1.0, -1.0, 1.0]))
    assert finding.verdict == "fail"
    assert "left and right are swapped" in finding.text
    quiet = 1e-4 * np.random.default_rng(0).standard_normal((48000, 4))
    finding, _ = judge(clapping(0, UPRIGHT), quiet, 48000, profile("ambix").to_foa)
    assert "no clap was heard at the left" in finding.text
    unrelated = [np.roll(clapping(azimuth, UPRIGHT)[:, [0, 0, 0, 0]], 240, axis=0) for azimuth in (0, 90)]
    for x in unrelated:
        x[:, 0] = np.roll(x[:, 0], -240)
    finding, axes = judge(*unrelated, 48000, profile("ambix").to_foa)
    assert (finding.verdict, axes) == ("fail", None)


@pytest.mark.filterwarnings("error")
def test_nothing_begins_in_a_single_sample() -> None:
    assert not onsets(np.ones((1, 4)), 48000)
    assert not onsets(np.zeros((0, 4)), 48000)


def test_the_yaw_is_written_and_the_rest_of_the_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    before = (ROOT / "configs" / "seldrt.toml").read_text()
    path.write_text(before)
    path.chmod(0o640)
    write_yaw(path, -33.5)
    assert load_toml(path, DaemonConfig).capture.yaw_deg == -33.5
    changed = [
        pair for pair in zip(before.splitlines(), path.read_text().splitlines(), strict=True) if len({*pair}) > 1
    ]
    assert [old.split("=")[0].strip() for old, _ in changed] == ["yaw_deg"]
    assert changed[0][1].split("#")[1] == changed[0][0].split("#")[1]
    assert path.stat().st_mode & 0o777 == 0o640
    path.write_bytes(b"\xef\xbb\xbf# mine\r\n[capture]\r\nyaw_deg = 1.0 # here\r\n")
    write_yaw(path, 2.0)
    assert path.read_bytes() == b"# mine\r\n[capture]\r\nyaw_deg = 2.0 # here\r\n"
    write_yaw(tmp_path / "new.toml", 10.0)
    assert load_toml(tmp_path / "new.toml", DaemonConfig).capture.yaw_deg == 10.0
    path.write_text("[capture]\nbloc = 3\n")
    with pytest.raises(ConfigError, match="unknown key 'bloc'"):
        write_yaw(path, 1.0)
    assert path.read_text() == "[capture]\nbloc = 3\n"
    with pytest.raises(ConfigError, match="cannot be written"):
        write_yaw(tmp_path / "no" / "mine.toml", 1.0)


# --- the computer ---------------------------------------------------------------------------------------------------


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> Finding:
        raise ZeroDivisionError("of course")

    def refused() -> Finding:
        raise ConfigError("do this instead")

    assert examine(broken).verdict == examine(refused).verdict == "fail"
    assert "ZeroDivisionError: of course" in examine(broken).text
    assert examine(refused).text == "do this instead"


def test_the_engine_is_asked_for_what_is_configured() -> None:
    assert machine.check_engine(PipelineConfig()).verdict == "pass"
    assert machine.check_engine(PipelineConfig(threads=1024)).verdict == "warn"
    missing = machine.check_engine(PipelineConfig(compute="mps"))
    assert missing.verdict == ("pass" if sys.platform == "darwin" else "fail")


@pytest.mark.parametrize(("pace", "verdict"), [(0.01, "pass"), (0.08, "warn"), (0.13, "fail")])
def test_the_speed_of_the_model_is_judged(monkeypatch: pytest.MonkeyPatch, pace: float, verdict: str) -> None:
    """A pipeline that takes so many seconds for each block of 100 ms, on a clock that only it moves."""
    now_s = 0.0
    lengths = []

    def push(samples: np.ndarray) -> None:
        nonlocal now_s
        now_s += 5.0 if not lengths else pace  # the first one compiles
        lengths.append(len(samples))

    pipeline = SimpleNamespace(
        sample_rate=24000,
        samples_per_label=2400,
        push=push,
        model_id="m",
        latency_table=[("a", 100.0)],
        model_card={"engine": "PyTorch"},
    )
    monkeypatch.setattr("seldrt.pipeline.open_pipeline", lambda *a: pipeline)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now_s)
    finding = machine.check_model(PipelineConfig(), {})
    assert finding.verdict == verdict
    assert finding.figures["real_time_factor"] == pytest.approx(10 * pace)
    assert ("offline merge" in finding.remedy) == (verdict != "pass")
    assert set(lengths) == {2400}


def test_the_clock_is_judged_as_the_kernel_does() -> None:
    """adjtimex(2) is the older way to ask the same."""
    try:
        state = ctypes.CDLL(None).adjtimex((ctypes.c_long * 64)())
    except AttributeError:
        pytest.skip("no adjtimex on this system")
    assert machine.check_clock().verdict == ("warn" if state == 5 else "pass")


def test_the_disk_is_compared_with_what_may_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    (tmp_path / "roof_20261122T180523.123Z.flac").write_bytes(bytes(30_000_000))
    (tmp_path / "other.flac").write_bytes(bytes(1000))
    config = RecordConfig(dir=str(tmp_path), max_mb=1000)
    for free_mb, verdict in ((50, "fail"), (1080, "warn"), (1082, "pass")):
        free.free = free_mb * 1_000_000
        finding = machine.check_disk(config)
        assert (finding.verdict, finding.figures["kept_mb"]) == (verdict, 30)
    assert machine.check_disk(RecordConfig()).verdict == "skip"
    clip = tmp_path / "piano" / "roof" / "00001.000s_az+000_el+00_p0.50.flac"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(bytes(2_000_000))
    free.free = 900_000_000
    finding = machine.check_clips(ClipsConfig(dir=str(tmp_path), max_mb=1000))
    assert (finding.verdict, finding.figures["kept_mb"]) == ("warn", 2)
    assert finding.remedy.startswith("use --clips-max-mb 811")
    assert machine.check_clips(ClipsConfig()).verdict == "skip"


def test_addresses_and_keys(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert "in use" in examine(lambda: check_address(PublisherConfig(bind=url))).text
        assert examine(lambda: check_address(PublisherConfig(bind="tcp://127.0.0.1:*", control=url))).verdict == "fail"
    assert check_address(PublisherConfig(bind=f"ipc://{tmp_path}/s")).verdict == "pass"
    assert check_address(PublisherConfig(bind="tcp://0.0.0.0:*", insecure_bind=True)).verdict == "warn"
    folder = tmp_path / "keys"
    keys = PublisherConfig(curve_keys=str(folder))
    assert examine(lambda: check_keys(keys)).verdict == "fail"
    make_keys(folder, "server")
    assert check_keys(keys).verdict == "warn"
    make_keys(folder, "kitchen")
    assert check_keys(keys).figures["clients"] == ["kitchen"]
    (folder / "server.key_secret").chmod(0o644)
    assert "chmod 600" in examine(lambda: check_keys(keys)).text
    assert check_keys(PublisherConfig()).verdict == "skip"


# --- the command ----------------------------------------------------------------------------------------------------

OF_FILES = [
    "python",
    "engine",
    "device",
    "channels",
    "level",
    "format",
    "model",
    "address",
    "keys",
    "clock",
    "disk",
    "clips",
]
OF_DEVICES = [*OF_FILES[:2], "portaudio", "device", "flow", *OF_FILES[3:]]


FAKES = """
import sys, threading
from tests.seldrt import energy_pipeline, fake_sounddevice as fake
fake.get_portaudio_version = lambda: (1, "PortAudio V19, x")
"""


def doctor(*arguments: Any, before: str = "") -> tuple[int, dict[str, Any], str]:
    """Exit code, findings and stderr of the command, with the small pipeline as its model."""
    program = f"{FAKES}\n{before}\n"
    command = [sys.executable, "-c", program + "energy_pipeline.main()", "doctor", "--json", *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("SELDRT_")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    return done.returncode, report["checks"], done.stderr


def verdicts(checks: dict[str, Any], *names: str) -> list[str]:
    return [checks[name]["verdict"] for name in names]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "fuma.wav"
    soundfile.write(path, field("fuma", np.random.default_rng(7)), RATE, subtype="PCM_24")
    return path


def test_a_recording_is_examined(recording: Path) -> None:
    code, checks, _ = doctor("--file", recording, "--mic", "fuma", "--bind", "tcp://127.0.0.1:*")
    assert list(checks) == OF_FILES
    assert code == 0, checks
    assert checks["format"]["figures"]["looks_like"] == "fuma"
    assert checks["model"]["figures"]["real_time_factor"] < 1


def test_of_a_long_recording_the_first_minute_is_examined(tmp_path: Path) -> None:
    """A file of some kB can hold hours of silence."""
    soundfile.write(tmp_path / "long.flac", np.zeros((8000 * 61, 4), np.int16), 8000)
    assert len(read(tmp_path / "long.flac", ()).frames) == 8000 * 60
    _, checks, _ = doctor("--file", tmp_path / "long.flac", "--bind", "tcp://127.0.0.1:*")
    assert "the first 60 of 61 s at 8000 Hz" in checks["device"]["text"]


def test_one_failure_does_not_stop_the_next_check(recording: Path, tmp_path: Path) -> None:
    code, checks, _ = doctor("--file", recording, "--bind", "tcp://0.0.0.0:5577", "--curve-keys", tmp_path / "none")
    assert code == 1
    assert list(checks) == OF_FILES
    assert verdicts(checks, "device", "channels", "format", "address", "keys") == [
        "pass",
        "pass",
        "fail",
        "fail",
        "fail",
    ]
    soundfile.write(tmp_path / "slow.wav", np.ones((5, 4)), 1)
    for name, told in (("slow.wav", "its sample rate is 1 Hz"), (os.fsdecode(b"\xff.wav"), "the name is not UTF-8")):
        code, checks, _ = doctor("--file", tmp_path / name, "--bind", "tcp://127.0.0.1:*")
        assert code == 1
        assert told in checks["device"]["text"]
        assert verdicts(checks, "device", "channels", "level", "format") == ["fail", *["skip"] * 3]
    soundfile.write(tmp_path / "phone.wav", np.random.default_rng(0).standard_normal((32000, 4)) / 100, 8000)
    code, checks, _ = doctor("--file", tmp_path / "phone.wav", "--bind", "tcp://127.0.0.1:*")
    assert checks["device"]["verdict"] == "warn"
    assert "nothing above 4000 Hz" in checks["device"]["remedy"]
    code, checks, _ = doctor("--file", tmp_path / "missing.wav", "--bind", "tcp://127.0.0.1:*")
    assert code == 1
    assert verdicts(checks, "device", "channels", "level", "format", "model") == ["fail", *["skip"] * 3, "pass"]


def test_a_device_is_examined() -> None:
    code, checks, errors = doctor(
        *("--device", "h3", "--seconds", 4, "--bind", "tcp://127.0.0.1:*"),
        before="sys.modules['sounddevice'] = fake",
    )
    assert list(checks) == OF_DEVICES
    assert code == 0, checks
    assert verdicts(checks, "portaudio", "device", "flow", "channels") == ["pass"] * 4
    assert checks["device"]["figures"]["rate_hz"] == 48000
    assert checks["flow"]["figures"]["frames"] >= 3 * 48000
    assert verdicts(checks, "format") == ["warn"]  # what it gives is noise of the electronics
    assert "listening" in errors


def test_a_device_that_goes_away_fails_and_the_rest_is_still_checked() -> None:
    code, checks, _ = doctor(
        *("--device", "h3", "--seconds", 10, "--bind", "tcp://127.0.0.1:*"),
        before="sys.modules['sounddevice'] = fake; start = fake.InputStream.start\n"
        "fake.InputStream.start = lambda self: (start(self), threading.Timer(1, fake.unplug).start())",
    )
    assert code == 1
    assert verdicts(checks, "device", "flow", "channels", "level", "format") == ["fail", *["skip"] * 4]
    assert "unplugged" in checks["device"]["text"]
    assert verdicts(checks, "model", "address") == ["pass", "pass"]


def test_without_portaudio_the_rest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    code, checks, _ = doctor("--bind", "tcp://127.0.0.1:*", before=f"sys.path.insert(0, {str(tmp_path)!r})")
    assert code == 1
    assert "libportaudio2" in checks["portaudio"]["text"]
    assert verdicts(checks, "device", "flow", "model") == ["skip", "skip", "pass"]


@pytest.mark.parametrize(("format_", "mic"), [("tetrahedron", "fuma"), ("fuma", "tetrahedron"), ("fuma", "ambix")])
@pytest.mark.parametrize("yaw_deg", [0.0, 90.0])
def test_claps_that_seem_to_come_from_the_right_place_in_the_wrong_format(
    format_: str, mic: str, yaw_deg: float
) -> None:
    finding, _ = judged(rotation(yaw_deg=-yaw_deg), format_, mic)
    assert finding.verdict == "fail"
    assert f"use --mic {format_}" in finding.remedy


def test_claps_in_a_recording_give_the_yaw_of_a_settings_file(tmp_path: Path) -> None:
    axes = rotation(yaw_deg=-50.0)
    path, toml = tmp_path / "claps.wav", tmp_path / "mine.toml"
    front, left = clapping(0, axes, "fuma"), clapping(90, axes, "fuma")
    pause = 1e-4 * np.random.default_rng(0).standard_normal((48000, 4))
    soundfile.write(path, np.concatenate([front, pause, left]), 48000, subtype="PCM_16")
    toml.write_text('# mine\n[capture]\nmic = "fuma"\n')
    arguments = ["--orientation", "--file", path]
    code, checks, _ = doctor(*arguments, "--write", toml)
    assert (code, list(checks)) == (0, ["orientation"])
    assert toml.read_text().startswith('# mine\n[capture]\nmic = "fuma"\n')
    assert load_toml(toml, DaemonConfig).capture.yaw_deg == pytest.approx(50, abs=6)
    assert doctor(*arguments, "--config", toml)[1]["orientation"]["text"].endswith("as it should be")
    code, checks, _ = doctor(*arguments, "--mic", "ambix")
    assert code == 1
    assert "--mic fuma" in checks["orientation"]["remedy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write", "mine.toml"], "--write needs --orientation"),
        (["--file", "a.wav", "--device", "h3"], "--file and --device exclude each other"),
        (["--seconds", "1"], "--seconds"),
        (["--seconds", "nan"], "'nan' is no number"),
        (["--mount", "sideways", "--threads", "0"], "--threads"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "seldrt", "doctor", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line
