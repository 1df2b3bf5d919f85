"""Impulse responses against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve, firwin
from scipy.special import eval_legendre, hankel2

from offline.arrays import (
    CAPSULE_DOAS,
    FREQUENCIES_HZ,
    SAMPLE_RATE,
    SPEED_OF_SOUND_M_PER_S,
    SPHERE_RADIUS_M,
    array_named,
    sphere_grid,
    sphere_response,
)
from offline.convolution import convolve, convolve_moving, convolve_sum
from offline.rooms import (
    MIN_DISTANCE_M,
    Room,
    band_weights,
    diffuse_tail,
    draw_open_space,
    draw_room,
    early_response,
    free_field,
)
from seldrt.spatial import angle_deg

FOA, MIC = array_named("foa"), array_named("mic")


def responses(doas, distance_m, array=FOA, room=None):
    room = room or free_field()
    return early_response(room, np.array(room.array_m) + np.atleast_2d(distance_m).T * doas, array)


def uniform_room(size, alpha):
    walls = tuple(tuple([alpha] * 7) for _ in range(6))
    return Room(tuple(size), tuple(0.45 * side for side in size), walls, diffuse=True)


def test_intensity_points_at_the_source_all_over_the_sphere():
    doas = sphere_grid(200)
    w, y, z, x = np.moveaxis(responses(doas, 1.7), 2, 0)
    intensity = np.stack([np.sum(w * axis, axis=1) for axis in (x, y, z)], axis=1)
    assert angle_deg(intensity, doas).max() < 0.1


def test_the_direct_sound_falls_with_distance_and_comes_late_by_it():
    distances = np.array([0.8, 1.0, 2.0, 5.0, 8.0])
    w = responses(np.tile([0.0, 1.0, 0.0], (5, 1)), distances)[..., 0]
    time = np.arange(w.shape[1]) / SAMPLE_RATE
    delay = np.sum(w**2 * time, axis=1) / np.sum(w**2, axis=1)
    np.testing.assert_allclose(delay, distances / SPEED_OF_SOUND_M_PER_S, atol=5e-6)
    at_1_khz = np.abs(np.exp(-2j * np.pi * 1000 * time) @ w.T)
    np.testing.assert_allclose(at_1_khz * distances, 1, rtol=0.02)


def test_a_source_too_near_is_refused():
    with pytest.raises(ValueError, match=r"0\.30 m"):
        responses(np.array([[1.0, 0, 0]]), 0.3)


def test_outdoors_the_only_reflection_is_the_ground():
    room = draw_open_space(np.random.default_rng(0))
    w = responses(np.array([[1.0, 0, 0]]), 3.0, room=room)[0, :, 0]
    mirrored_m = np.hypot(3.0, 2 * room.array_m[2])
    left = w**2
    for metres in (3.0, mirrored_m):
        arrival = round(metres / SPEED_OF_SOUND_M_PER_S * SAMPLE_RATE)
        assert left[arrival - 20 : arrival + 20].sum() > 1e-3
        left[arrival - 20 : arrival + 20] = 0
    assert left.sum() < 1e-3 * np.sum(w**2)
    assert len(diffuse_tail(room, FOA, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("rt60_s", [0.15, 0.25, 0.8, 1.2])
def test_the_tail_decays_at_the_rooms_rate_by_schroeder_integration(rt60_s):
    rng = np.random.default_rng(3)
    room = draw_room(rng, (rt60_s, rt60_s))
    assert room.rt60_s[3] == pytest.approx(rt60_s, rel=0.15)
    tail = diffuse_tail(room, FOA, rng)[:, 0]
    for band in (2, 3, 4, 5):
        edges = 1000 * 2.0 ** (band - 3 + np.array([-0.4, 0.4]))
        filtered = fftconvolve(tail, firwin(801, edges, fs=SAMPLE_RATE, pass_zero=False))[400:]
        left = 10 * np.log10(np.cumsum(filtered[::-1] ** 2)[::-1] + 1e-30)
        left = left[round(room.mixing_time_s * SAMPLE_RATE) :]
        use = (left < left[0] - 3) & (left > left[0] - 23)
        slope = np.polyfit(np.flatnonzero(use) / SAMPLE_RATE, left[use], 1)[0]
        assert -60 / slope == pytest.approx(room.rt60_s[band], rel=0.2)


def test_the_tail_takes_over_where_the_images_end():
    """Beyond the mixing time the tail has the energy of the images it stands for."""
    room = uniform_room((6.1, 5.3, 3.7), 0.2)
    rng = np.random.default_rng(1)
    end = round(room.mixing_time_s * SAMPLE_RATE)
    width = round(0.012 * SAMPLE_RATE)
    source_doas = sphere_grid(40)
    early = responses(source_doas, 1.5, room=room)[:, end - width - 40 : end - 40, 0]
    tails = np.stack([diffuse_tail(room, FOA, rng)[end + 64 : end + 64 + width, 0] for _ in range(20)])
    before, after = np.mean(np.sum(early**2, 1)), np.mean(np.sum(tails**2, 1))
    fall_db = 60 * (width + 104) / SAMPLE_RATE / room.rt60_s[3]
    assert 10 * np.log10(before / after) - fall_db == pytest.approx(0, abs=2)


def test_the_tail_is_isotropic():
    room = uniform_room((6, 5, 3), 0.1)
    tail = diffuse_tail(room, FOA, np.random.default_rng(2))
    covariance = tail.T @ tail / np.sum(tail[:, 0] ** 2)
    np.testing.assert_allclose(covariance, np.diag([1, 1 / 3, 1 / 3, 1 / 3]), atol=0.12)


def test_the_capsules_of_a_diffuse_field_have_the_power_and_coherence_of_the_sphere():
    mixing = MIC.diffuse_mixing
    gains = MIC.response(sphere_grid(3000))
    expected = np.einsum("mfa,mfb->fab", gains, gains.conj()) / 3000
    np.testing.assert_allclose(mixing @ mixing.swapaxes(1, 2), expected.real, atol=0.02)
    assert np.abs(expected.imag).max() < 0.02
    assert expected[0].real == pytest.approx(np.ones((4, 4)), abs=1e-3)


@pytest.mark.parametrize("frequency_hz", [200.0, 1000.0, 4000.0, 9000.0])
def test_the_rigid_sphere_equals_the_series_of_hankel_functions(frequency_hz):
    """Another form of the series: Hankel functions of half order, and the derivative by recurrence."""
    cosines = np.linspace(-1, 1, 21)
    x = 2 * np.pi * frequency_hz * SPHERE_RADIUS_M / SPEED_OF_SOUND_M_PER_S

    def h(n):
        return np.sqrt(np.pi / (2 * x)) * hankel2(n + 0.5, x)

    expected = np.zeros(21, dtype=complex)
    for n in range(31):
        slope = h(n - 1) - (n + 1) / x * h(n) if n else -h(1)
        expected += 1j ** (n - 1) / slope * (2 * n + 1) * eval_legendre(n, cosines) / x**2
    np.testing.assert_allclose(sphere_response(cosines, np.array([frequency_hz]))[:, 0], expected, atol=1e-9)


def test_the_capsule_that_faces_the_source_hears_it_first_and_louder():
    pulses = responses(CAPSULE_DOAS, 2.0, MIC)
    energy = np.sum(pulses**2, axis=1)
    time = np.arange(pulses.shape[1])[:, None] / SAMPLE_RATE
    arrival = np.sum(pulses**2 * time, axis=1) / energy
    assert (np.argmax(energy, axis=1) == np.arange(4)).all()
    assert (np.argmin(arrival, axis=1) == np.arange(4)).all()
    lead = 2.0 / SPEED_OF_SOUND_M_PER_S - np.diag(arrival)
    np.testing.assert_allclose(lead, SPHERE_RADIUS_M / SPEED_OF_SOUND_M_PER_S, rtol=0.2)


def test_octave_bands_sum_to_one_and_peak_at_their_centres():
    assert band_weights(FREQUENCIES_HZ).sum(axis=0) == pytest.approx(1)
    np.testing.assert_allclose(band_weights(125 * 2.0 ** np.arange(7)), np.eye(7), atol=1e-12)


def test_a_path_that_stands_still_is_a_plain_convolution():
    rng = np.random.default_rng(0)
    dry = rng.standard_normal(5000).astype(np.float32)
    response = rng.standard_normal((300, 4)).astype(np.float32)
    expected = np.stack([fftconvolve(dry, column) for column in response.T], axis=1)
    moving = convolve_moving(dry, np.tile(response, (6, 1, 1)), 1200)
    np.testing.assert_allclose(moving, expected, atol=1e-3)
    np.testing.assert_allclose(convolve(dry, response), expected, atol=1e-3)
    summed = convolve_sum(np.tile(dry, (3, 1)), np.tile(response, (3, 1, 1)))
    np.testing.assert_allclose(summed, 3 * expected[:5000], atol=1e-2)


def test_a_room_keeps_its_sources_inside():
    rng = np.random.default_rng(5)
    for _ in range(50):
        room = draw_room(rng, (0.15, 1.0))
        doas = sphere_grid(100)
        places = np.array(room.array_m) + room.reach_m(doas)[:, None] * doas
        assert (places > 0.19).all()
        assert (places < np.array(room.size_m) - 0.19).all()
        assert room.reach_m(doas).min() > 0.75


def test_a_source_at_the_smallest_distance_may_be_rounded():
    nearest = np.float64(MIN_DISTANCE_M)
    assert responses(np.array([[0.0, 1.0, 0.0]]), nearest - 1e-9).shape[0] == 1
    with pytest.raises(ValueError, match=r"less than 0\.5 m"):
        responses(np.array([[0.0, 1.0, 0.0]]), nearest - 1e-3)
