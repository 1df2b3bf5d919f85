"""Plane waves on the microphones of every profile come out as AmbiX, from where they came in the room."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from benchmarks.microphones import quality, transfer
from offline.arrays import SPEED_OF_SOUND_M_PER_S, sphere_grid, sphere_response, tetrahedron_response
from seldrt.config import ConfigError
from seldrt.microphones import (
    MOUNTS,
    Profile,
    choose_profile,
    names_device,
    orientation,
    profile,
    profile_of_device,
    profile_of_recording,
)
from seldrt.microphones.capsules import LOOKAHEAD_SAMPLES
from seldrt.microphones.layout import Capsules, Layout, read_refused, shipped
from seldrt.runtime.capture import Resampler
from seldrt.samples import LOUDEST, is_sound
from seldrt.spatial import angle_deg, azimuth_elevation, foa_gains, unit_vector
from tests.contracts import assert_streaming_law

RATE = 24000
OPEN_ARRAYS = {"zoom-h3vr-a": 0.012, "ambeo": 0.014, "tetramic": 0.020}  # m
CORNERS = unit_vector([45, -45, 135, -135], np.degrees(np.arcsin(1 / np.sqrt(3))) * np.array([1, -1, -1, 1]))
azimuths, elevations, turns = st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180)
quick = settings(max_examples=25)


def own(folder: Path, text: str) -> Profile:
    path = folder / "mine.toml"
    path.write_text(text)
    return profile(str(path))


# --- B-format and capsules at one point: exact ----------------------------------------------------------------------


def encoded(name: str, doa: np.ndarray) -> np.ndarray:
    """What the microphone delivers for plane waves of amplitude 1 from ``doa`` (n, 3), from its own definition."""
    x, y, z = doa.T
    one = np.ones_like(x)
    if name in ("ambix", "zoom-h3vr"):
        return np.stack([one, y, z, x], -1)
    if name in ("fuma", "zoom-h3vr-fuma"):
        return np.stack([one / np.sqrt(2), x, y, z], -1)
    if name == "n3d":
        return np.stack([one, np.sqrt(3) * y, np.sqrt(3) * z, np.sqrt(3) * x], -1)
    return 0.5 + 0.5 * doa @ CORNERS.T


COINCIDENT = sorted(set(shipped()) - set(OPEN_ARRAYS) - {"tau-mic"})


@pytest.mark.parametrize("name", COINCIDENT)
@quick
@given(azimuth=azimuths, elevation=elevations)
def test_plane_waves_become_ambix(name: str, azimuth: float, elevation: float) -> None:
    doa = unit_vector([azimuth], [elevation])
    foa = profile(name).to_foa(encoded(name, doa))
    assert foa.dtype == np.float32
    np.testing.assert_allclose(foa, foa_gains(doa), atol=1e-6)


def test_ambix_passes_unchanged() -> None:
    x = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    np.testing.assert_array_equal(profile("ambix").to_foa(x), x)


@pytest.mark.parametrize("name", ["ambix", "tetrahedron", "ambeo", "tau-mic"])
def test_every_way_to_ambix_keeps_the_streaming_law_to_the_bit(name: str) -> None:
    mic = profile(name).turned(orientation("yaw=20,pitch=10", 30.0))
    x = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    assert_streaming_law(lambda: mic.stage(RATE), x, atol=0)
    corrected = name in ("ambeo", "tau-mic")
    assert mic.stage(RATE).latency == (LOOKAHEAD_SAMPLES if corrected else 0)
    assert mic.latency_ms(RATE) == (1.0 if corrected else 0.0)
    np.testing.assert_array_equal(mic.to_foa(np.zeros((100, 4))), np.zeros((100, 4)))
    assert mic.to_foa(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("rate", [RATE, 2 * RATE])
def test_what_is_as_loud_as_a_sample_can_be_stays_a_sample(rate: int) -> None:
    """A step overshoots where it is resampled, and capsules add up."""
    resampler = Resampler(rate, RATE, profile("tetrahedron"))
    steps = np.where(np.arange(rate) // 500 % 2, LOUDEST, -LOUDEST)
    y = resampler.push(np.repeat(steps[:, np.newaxis], 4, axis=1).astype(np.float32), last=True)
    assert is_sound(y).all()
    assert np.abs(y).max() == LOUDEST


@pytest.mark.parametrize("order", [*permutations(range(4))][::5])
def test_the_order_of_the_capsules_goes_by_their_names(tmp_path: Path, order: tuple[int, ...]) -> None:
    """And the letters come in any order: FLU is LFU. The corners of the other tetrahedron are known too."""
    names = np.array(["LFU", "RFD", "LBD", "RBU"])[list(order)]
    mic = own(tmp_path, f'about = "mine"\nchannels = {names.tolist()}\n[capsules]\n')
    doa = sphere_grid(20)
    np.testing.assert_allclose(mic.to_foa(0.5 + 0.5 * doa @ CORNERS[list(order)].T), foa_gains(doa), atol=1e-6)
    second = [n.translate(str.maketrans("UD", "DU")) for n in names]
    mic = own(tmp_path, f'about = "mine"\nchannels = {second}\n[capsules]\n')
    other = CORNERS[list(order)] * [1, 1, -1]
    np.testing.assert_allclose(mic.to_foa(0.5 + 0.5 * doa @ other.T), foa_gains(doa), atol=1e-6)


@quick
@given(
    attitude=st.tuples(turns, turns, turns),
    bent=st.lists(st.floats(-0.4, 0.4), min_size=12, max_size=12),  # with more of it, four may lie nearly in a plane
    pattern=st.floats(0.3, 0.75),
    field=st.lists(st.floats(-1, 1), min_size=4, max_size=4),
)
def test_any_tetrahedron_at_one_point_is_undone(
    attitude: tuple[float, float, float], bent: list[float], pattern: float, field: list[float]
) -> None:
    """B to A by the definition of a capsule, and back."""
    corners = Rotation.from_euler("ZYX", attitude, degrees=True).apply(CORNERS + np.reshape(bent, (4, 3)))
    looks = np.stack(azimuth_elevation(corners), axis=-1)
    directions = unit_vector(*looks.T)
    capsules = Capsules(directions_deg=dict(zip("abcd", looks.tolist(), strict=True)), pattern=pattern)
    layout = Layout(about="", channels=("a", "b", "c", "d"), capsules=capsules)
    w, y, z, x = field
    heard = pattern * w + (1 - pattern) * directions @ [x, y, z]
    np.testing.assert_allclose(Profile("mine", layout).to_foa(heard[None])[0], field, atol=2e-5)


# --- how it stands --------------------------------------------------------------------------------------------------


@quick
@given(turns, turns, turns, turns, azimuths, elevations)
def test_a_turned_microphone_hears_the_room_unturned(
    yaw: float, pitch: float, roll: float, room_yaw: float, azimuth: float, elevation: float
) -> None:
    """SciPy's rotations; a microphone that points elsewhere hears a wave of the room from where it is for itself."""
    angles = f"yaw={yaw:.3f},pitch={pitch:.3f},roll={roll:.3f}"
    attitude = Rotation.from_euler("ZYX", [round(yaw, 3), round(pitch, 3), round(roll, 3)], degrees=True)
    to_room = Rotation.from_euler("z", room_yaw, degrees=True) * attitude
    room = unit_vector([azimuth], [elevation])
    heard = foa_gains(to_room.inv().apply(room))
    foa = profile("ambix").turned(orientation(angles, room_yaw)).to_foa(heard)
    np.testing.assert_allclose(foa, foa_gains(room), atol=2e-6)


@quick
@given(st.lists(turns, min_size=6, max_size=6))
def test_turning_twice_is_turning_once_by_both(angles: list[float]) -> None:
    first, second = (
        orientation(",".join(f"{n}={a:.4f}" for n, a in zip(("yaw", "pitch", "roll"), part, strict=True)))
        for part in (angles[:3], angles[3:])
    )
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    twice = profile("ambix").turned(second).to_foa(profile("ambix").turned(first).to_foa(x))
    once = profile("ambix").turned(second @ first).to_foa(x)
    np.testing.assert_allclose(once, twice, atol=1e-5)
    np.testing.assert_array_equal(once[:, 0], x[:, 0])


@pytest.mark.parametrize(
    ("mount", "yaw_deg", "own_axis", "room"),
    [
        ("upright", 0, (90, 0), (90, 0)),
        ("upside-down", 0, (0, 0), (0, 0)),  # its front is still in front
        ("upside-down", 0, (90, 0), (-90, 0)),  # its left is at the right
        ("upside-down", 0, (0, 90), (0, -90)),
        ("upside-down", 0, (30, 20), (-30, -20)),
        ("endfire", 0, (0, 90), (0, 0)),  # its top points to the front
        ("endfire", 0, (0, 0), (0, -90)),  # its front down
        ("endfire", 0, (90, 0), (90, 0)),
        ("upright", 30, (0, 0), (30, 0)),
        ("upside-down", 90, (0, 0), (90, 0)),
        ("yaw=180, pitch=-90", 0, (0, 0), (0, 90)),  # endfire with its front up
        ("yaw=180, pitch=-90", 0, (0, 90), (0, 0)),
    ],
)
@pytest.mark.parametrize("name", ["ambix", "tetrahedron"])
def test_directions_come_out_as_the_room_has_them(
    name: str, mount: str, yaw_deg: float, own_axis: tuple[float, float], room: tuple[float, float]
) -> None:
    foa = profile(name).turned(orientation(mount, yaw_deg)).to_foa(encoded(name, unit_vector(*own_axis)[None]))
    assert angle_deg(foa[0, [3, 1, 2]], unit_vector(*room)) < 1e-3
    assert foa[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "mount", ["", "sideways", "yaw", "yaw=1,yaw=2", "yaw=x", "pitch=90;roll=0", "upright,yaw=1", "yaw=" + "9" * 310]
)
def test_a_mount_that_cannot_be_read_is_told(mount: str) -> None:
    with pytest.raises(ConfigError, match=r"give upright, upside-down, endfire, or degrees like yaw="):
        orientation(mount)


def test_the_mounts_are_rotations() -> None:
    for mount in MOUNTS:
        np.testing.assert_allclose(orientation(mount) @ orientation(mount).T, np.eye(3), atol=1e-12)
        assert np.linalg.det(orientation(mount)) == pytest.approx(1)


# --- capsules that stand apart --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPEN_ARRAYS)
def test_the_correction_flattens_the_gains_and_straightens_the_directions(name: str) -> None:
    radius_m, doas = OPEN_ARRAYS[name], sphere_grid(300)
    limit_hz = SPEED_OF_SOUND_M_PER_S / (2 * np.pi * radius_m)  # k r = 1
    frequencies = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5]) * limit_hz
    heard = tetrahedron_response(doas, frequencies, radius_m)
    corrected = quality(transfer(profile(name), frequencies), heard, doas)
    plain = quality(transfer(profile("tetrahedron"), frequencies), heard, doas)
    assert (np.abs(corrected[1:]) < 0.2).all()
    assert np.abs(plain[1:]).max() > 2
    at = frequencies / limit_hz
    assert (corrected[0] < 3.5 * at**2 + 0.1).all()
    assert (corrected[0][at >= 0.5] < 0.72 * plain[0][at >= 0.5]).all()


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_radius_that_is_a_quarter_off_still_helps(tmp_path: Path, factor: float) -> None:
    doas, frequencies = sphere_grid(300), np.array([1000.0, 2000.0, 3000.0, 4000.0])
    mic = own(tmp_path, f'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules]\nradius_mm = {20 * factor}\n')
    heard = tetrahedron_response(doas, frequencies, 0.020)
    corrected = quality(transfer(mic, frequencies), heard, doas)
    plain = quality(transfer(profile("tetrahedron"), frequencies), heard, doas)
    assert (corrected[0] < 0.9 * plain[0]).all()
    for mended, was in zip(corrected[1:], plain[1:], strict=True):
        assert np.abs(mended).max() < 0.7 * np.abs(was).max()


def test_the_dcase_sphere_gives_directions_up_to_its_limit() -> None:
    """Against the response of the array that `offline` simulates scenes with."""
    doas, frequencies = sphere_grid(300), np.array([100.0, 200, 400, 800, 1200, 1500])
    looks = unit_vector([45, -45, 135, -135], [35, -35, -35, 35])
    heard = np.stack([sphere_response(doas @ look, frequencies) for look in looks], axis=-1)
    error, w_db, xyz_db = quality(transfer(profile("tau-mic"), frequencies), heard, doas)
    assert (error < [1, 1, 1, 1.5, 2.5, 4.5]).all()
    assert np.abs(w_db).max() < 0.7
    assert (np.abs(xyz_db) < [3, 1, 0.5, 0.5, 0.5, 0.5]).all()


@quick
@given(
    azimuth=azimuths,
    elevation=elevations,
    radius_mm=st.floats(5, 30),
    pattern=st.floats(0.3, 0.75),
    frequency_hz=st.floats(100, 400),
)
def test_b_to_a_to_b_is_the_identity_at_low_frequencies(
    azimuth: float, elevation: float, radius_mm: float, pattern: float, frequency_hz: float
) -> None:
    """A sinusoid of the field is what the stage makes of its capsules, but for the way from the centre to them.

    On it the phase turns by kr; where the pressure of a capsule outweighs its gradient, so does that turn.
    """
    capsules = Capsules(pattern=pattern, radius_mm=radius_mm)
    layout = Layout(about="", channels=("FLU", "FRD", "BLD", "BRU"), capsules=capsules)
    doa = unit_vector(azimuth, elevation)
    cosine = CORNERS @ doa
    angle = 2 * np.pi * frequency_hz * np.arange(2000) / RATE
    kr = 2 * np.pi * frequency_hz * radius_mm / 1000 / SPEED_OF_SOUND_M_PER_S
    heard = (pattern + (1 - pattern) * cosine) * np.cos(angle[:, None] + kr * cosine)
    foa = Profile("mine", layout).to_foa(heard)[500:1500]
    field = np.cos(angle[500:1500, None]) * foa_gains(doa)
    assert np.abs(foa - field).max() < 0.01 + 1.2 * kr * max(1, pattern / (1 - pattern))


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('channels = ["W", "Y", "Z", "X"]\nconvention = "sn3d"', "missing required field `about`"),
        (
            'about = ""\nchannels = ["W", "Y", "Z", "X"]\nconvention = "sid"',
            r"convention: .*'sid': use 'sn3d' or 'n3d' or 'fuma'$",
        ),
        ('about = ""\nchannels = ["W", "Y", "Z", "X"]', r"give either convention .* or a section \[capsules\]"),
        ('about = ""\nchannels = ["W", "Y", "Z"]\nconvention = "n3d"', r"\['W', 'Y', 'Z'\]: name 4 different channels"),
        (
            'about = ""\nchannels = ["W", "Y", "Z", "X", "X"]\nconvention = "n3d"',
            r"\['W', 'Y', 'Z', 'X', 'X'\]: name 4 different channels",
        ),
        (
            'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\nconvention = "n3d"\n[capsules]',
            r"give either convention .* or a section \[capsules\]",
        ),
        ('about = ""\nchannels = ["W", "Y", "Z", "V"]\nconvention = "n3d"', "a B-format has W, X, Y and Z"),
        ('about = ""\nchannels = ["FLU", "FRD", "BLD", "up"]\n[capsules]', r"'up' is no corner .*directions_deg"),
        ('about = ""\nchannels = ["FLU", "FRD", "BLD", "BRD"]\n[capsules]', None),
        ('about = ""\nchannels = ["FLU", "FRU", "BLU", "BRU"]\n[capsules]', r"in one plane .*tell the two sides"),
        ('about = ""\nchannel = 3', "unknown key 'channel'; known: about, channels"),
        ('about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules]\nradius = 2', "unknown key 'radius'"),
        (
            'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules]\nradius_mm = 0.02',
            "radius_mm is 0.02: use 1",
        ),
        ('about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules]\npattern = 1', r"pattern is 1.0: use 0\.3"),
        (
            'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules]\nbaffle = "rigid-sphere"',
            "'rigid-sphere' needs radius_mm",
        ),
        (
            'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules.directions_deg]\nFLU = [0, nan]',
            r"FLU looks to \[0.0, nan\]: give",
        ),
        (
            'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules.directions_deg]\nFLU = [45, 145]',
            r"FLU looks to \[45.0, 145.0\]: give",
        ),
        (
            'about = ""\nchannels = ["FLU", "FRD", "BLD", "BRU"]\n[capsules.directions_deg]\nUP = [0, 90]',
            "'UP', which is none of the channels",
        ),
        ("about = ", "not TOML"),
    ],
)
def test_a_file_of_ones_own_is_read_strictly(tmp_path: Path, text: str, message: str | None) -> None:
    if message is None:  # a skewed tetrahedron is one too
        assert own(tmp_path, text).name == "mine"
        return
    with pytest.raises(ConfigError, match=rf"mine\.toml.*{message}"):
        own(tmp_path, text)


def test_every_shipped_profile_says_what_it_is() -> None:
    assert set(shipped()) >= {"zoom-h3vr", "zoom-h3vr-fuma", "zoom-h3vr-a", "ambeo", "nt-sf1", "tetramic", "tau-mic"}
    for name in shipped():
        assert profile(name).layout.about
    names = [device for name in shipped() for device in profile(name).layout.devices]
    assert len(names) == len(set(names))
    assert read_refused()


def test_the_documentation_has_every_profile_and_an_example(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "microphones.md").read_text()
    assert [name for name in shipped() if f"| `{name}` |" not in text] == []
    (tmp_path / "mine.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    assert profile(str(tmp_path / "mine.toml")).latency_ms(RATE) == 1.0


# --- which one ------------------------------------------------------------------------------------------------------


def test_an_unknown_profile_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'zoomh3vr'; did you mean 'zoom-h3vr'\? known: ambeo, ambix, .*my_mic.toml"):
        profile("zoomh3vr")
    with pytest.raises(ConfigError, match=r"'nonsense'; known: ambeo"):
        profile("nonsense")


@pytest.mark.parametrize(
    "device",
    [
        "Zoom H3-VR",
        "Zoom H3-VR: USB Audio (hw:1,0)",
        "H3-VR: USB Audio (hw:2,0)",
        "ZOOM H3VR Analog Stereo",
        "h3_vr",
        "Microphone (H3-VR)",
    ],
)
def test_the_name_of_a_device_implies_its_profile(device: str) -> None:
    chosen = choose_profile("", device)
    assert (chosen.name, chosen.why) == ("zoom-h3vr", "as the name of the device implies")
    chosen = choose_profile("zoom-h3vr-a", device)
    assert (chosen.name, chosen.why) == ("zoom-h3vr-a", "as asked for")


@pytest.mark.parametrize("device", ["UMC404HD: USB Audio (hw:2,0)", "Zoom F8n", "Zoom H3", "pulse", "XH3-VRX"])
def test_an_unknown_device_needs_a_profile(device: str) -> None:
    assert profile_of_device(device) is None
    with pytest.raises(ConfigError, match=r"what do the channels of .* mean\? .*give --mic, one of ambeo"):
        choose_profile("", device)
    assert choose_profile("fuma", device).name == "fuma"


@pytest.mark.parametrize("mic", ["", "ambix"])
@pytest.mark.parametrize(
    "device", ["ReSpeaker 4 Mic Array (UAC1.0): USB Audio (hw:0,0)", "micArray RAW SPK", "Seeed reSpeaker XVF3800"]
)
def test_a_planar_array_is_refused_whatever_is_asked_for(tmp_path: Path, mic: str, device: str) -> None:
    with pytest.raises(ConfigError, match="cannot tell up from down"):
        choose_profile(mic, device)
    own(tmp_path, (shipped()["ambix"]).read_text())
    assert choose_profile(str(tmp_path / "mine.toml"), device).name == "mine"  # who writes a file knows


def test_recordings_are_ambix_unless_asked_otherwise() -> None:
    assert profile_of_recording("").name == "ambix"
    assert profile_of_recording("tau-mic").name == "tau-mic"


def test_names_of_devices_match_by_whole_words() -> None:
    assert names_device("H3-VR", "my h3vr")
    assert names_device("UMA-8", "miniDSP UMA8")
    for other in ("SH3-VRT", "SH3-VR", "H3-VRT"):
        assert not names_device("H3-VR", other)
