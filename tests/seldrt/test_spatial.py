"""Directions pinned to the room, and angles against outside formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from seldrt.spatial import (
    angle_deg,
    azimuth_elevation,
    foa_gains,
    normalized,
    rotation,
    unit_vector,
    within,
    wrap_azimuth,
)

FRONT, LEFT, UP = np.eye(3)

azimuths = st.floats(-180, 180, exclude_max=True)
elevations = st.floats(-89.9, 89.9)
turns = st.floats(-360, 360)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "doa"),
    [
        (0, 0, FRONT),
        (90, 0, LEFT),
        (-90, 0, -LEFT),
        (-180, 0, -FRONT),
        (180, 0, -FRONT),
        (30, 90, UP),
        (0, -90, -UP),
    ],
)
def test_the_axes_of_the_room(azimuth, elevation, doa):
    np.testing.assert_allclose(unit_vector(azimuth, elevation), doa, atol=1e-12)


def test_angles_broadcast():
    assert unit_vector([0, 90, 180], 10).shape == (3, 3)
    assert unit_vector(np.zeros((2, 1)), np.zeros(5)).shape == (2, 5, 3)
    assert angle_deg(np.ones((4, 1, 3)), np.ones((5, 3))).shape == (4, 5)


@given(azimuths, elevations, st.floats(1e-3, 1e3))
def test_azimuth_and_elevation_come_back_from_a_vector_of_any_length(azimuth, elevation, length):
    back_azimuth, back_elevation = azimuth_elevation(length * unit_vector(azimuth, elevation))
    assert -180 <= back_azimuth < 180
    assert abs(wrap_azimuth(back_azimuth - azimuth)) < 1e-9
    assert back_elevation == pytest.approx(elevation, abs=1e-9)


def test_the_azimuth_straight_behind_is_minus_180():
    azimuth, _ = azimuth_elevation([[-1.0, 0.0, 0.0], [-1.0, -0.0, 0.0]])
    np.testing.assert_array_equal(azimuth, [-180, -180])


@given(st.floats(-1e6, 1e6))
def test_a_wrapped_azimuth_is_in_range_and_points_the_same_way(azimuth):
    wrapped = wrap_azimuth(azimuth)
    assert -180 <= wrapped < 180
    np.testing.assert_allclose(unit_vector(wrapped, 0), unit_vector(azimuth, 0), atol=1e-7)


@given(azimuths, elevations, azimuths, elevations)
def test_the_angle_is_that_of_the_haversine_formula(a1, e1, a2, e2):
    la1, la2, dl = np.radians(e1), np.radians(e2), np.radians(a2 - a1)
    h = np.sin((la2 - la1) / 2) ** 2 + np.cos(la1) * np.cos(la2) * np.sin(dl / 2) ** 2
    expected = np.degrees(2 * np.arcsin(np.sqrt(min(h, 1.0))))
    assert angle_deg(unit_vector(a1, e1), unit_vector(a2, e2)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1.0, 90.0, 179.99999, 180.0])
def test_small_and_opposite_angles_are_exact(angle):
    assert angle_deg(FRONT, unit_vector(angle, 0)) == pytest.approx(angle, rel=1e-9, abs=1e-14)


def test_normalized_keeps_zero_at_zero():
    np.testing.assert_allclose(normalized([[3, 0, 4], [0, 0, 0]]), [[0.6, 0, 0.8], [0, 0, 0]])


@given(turns, turns, turns)
def test_rotation_is_that_of_scipy(yaw, pitch, roll):
    expected = Rotation.from_euler("ZYX", [yaw, pitch, roll], degrees=True).as_matrix()
    np.testing.assert_allclose(rotation(yaw, pitch, roll), expected, atol=1e-12)


def test_the_senses_of_rotation():
    np.testing.assert_allclose(rotation(yaw_deg=90) @ FRONT, LEFT, atol=1e-12)
    np.testing.assert_allclose(rotation(pitch_deg=90) @ FRONT, -UP, atol=1e-12)
    np.testing.assert_allclose(rotation(roll_deg=90) @ LEFT, UP, atol=1e-12)


@given(azimuths, elevations)
def test_the_gains_are_the_sn3d_spherical_harmonics_in_acn_order(azimuth, elevation):
    theta, phi = np.radians(90 - elevation), np.radians(azimuth)
    first = sph_harm_y(1, 1, theta, phi) * -np.sqrt(8 * np.pi / 3)  # no Condon-Shortley phase, SN3D
    level = sph_harm_y(1, 0, theta, phi) * np.sqrt(4 * np.pi / 3)
    expected = [1.0, first.imag, level.real, first.real]
    np.testing.assert_allclose(foa_gains(unit_vector(azimuth, elevation)), expected, atol=1e-12)


@given(st.integers(-180, 179), st.integers(-360, 360), st.integers(1, 359))
def test_a_sector_goes_counter_clockwise_from_its_first_end_to_its_last(azimuth: int, first: int, width: int) -> None:
    expected = azimuth in {(first + step + 180) % 360 - 180 for step in range(width + 1)}
    assert within(np.array([azimuth]), [(first, first + width)]).tolist() == [expected]
    assert within(np.array([azimuth]), [(first, (first + width + 180) % 360 - 180)]).tolist() == [expected]


def test_several_sectors_are_one_place_and_none_is_nowhere() -> None:
    azimuths = np.array([[-180.0, -150.0], [0.0, 59.9], [60.1, 179.0]])
    assert within(azimuths, [(20, 60), (150, -150)]).tolist() == [[True, True], [False, True], [False, True]]
    assert not within(azimuths, []).any()
