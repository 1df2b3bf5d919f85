"""From capsules to FOA: against closed forms, and against the direction that a plane wave comes from."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soundfile

from offline.arrays import (
    SAMPLE_RATE,
    SPEED_OF_SOUND_M_PER_S,
    TETRAHEDRON_DOAS,
    array_named,
    cardioid_tetrahedron,
    sphere_grid,
)
from offline.dataset import Recording
from offline.encoding import BINS_HZ, CapsuleArray, capsule_errors, filtered, foa_blocks, read_foa, to_foa
from offline.rooms import plane_waves
from seldrt.spatial import angle_deg, azimuth_elevation, unit_vector

SPHERE = CapsuleArray("sphere", 0.042)
LIKE_H3VR = CapsuleArray("tetrahedron", 0.012)
LOW, HIGH = (200, 1500), (6000, 10000)


def hears(capsules, doas, band_hz, errors=None):
    """Directions (m, 3) of the intensity in a band that an encoded array gives for plane waves from `doas`."""
    array = array_named("mic") if capsules.kind == "sphere" else cardioid_tetrahedron(capsules.radius_m)
    pulses = np.pad(plane_waves(doas, array), ((0, 0), (2000, 2000), (0, 0)))
    foa = to_foa(pulses.reshape(-1, 4), errors or capsules).reshape(pulses.shape)
    spectra = np.fft.rfft(foa, axis=1)
    frequency = np.fft.rfftfreq(foa.shape[1], 1 / SAMPLE_RATE)
    w, y, z, x = np.moveaxis(spectra[:, (frequency >= band_hz[0]) & (frequency < band_hz[1])], 2, 0)
    intensity = np.stack([np.sum(np.conj(w) * axis, axis=1).real for axis in (x, y, z)], axis=1)
    return intensity, np.sum(np.abs(w) ** 2, axis=1)


@pytest.mark.parametrize("capsules", [SPHERE, LIKE_H3VR], ids=lambda c: c.kind)
def test_an_encoded_array_points_at_the_source_all_over_the_sphere(capsules):
    doas = sphere_grid(60)
    intensity, power = hears(capsules, doas, LOW)
    assert angle_deg(intensity, doas).max() < 3
    level_db = 10 * np.log10(power / power.mean())
    assert np.abs(level_db).max() < 1
    above_aliasing, _ = hears(capsules, doas, HIGH)
    assert np.median(angle_deg(above_aliasing, doas)) > 3  # four capsules can do no better there


def test_filters_keep_the_time_and_the_length():
    samples = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    np.testing.assert_allclose(filtered(samples, np.ones((len(BINS_HZ), 4), complex)), samples, atol=1e-4)
    late = filtered(
        samples, capsule_errors(CapsuleArray("sphere", 0.042, delays_us=(0.0, 1e6 / SAMPLE_RATE, 0.0, 0.0)))
    )
    np.testing.assert_allclose(late[600:-600, 1], samples[599:-601, 1], atol=1e-3)
    np.testing.assert_allclose(late[600:-600, 0], samples[600:-600, 0], atol=1e-3)


def test_capsules_are_late_and_lose_their_lows_as_planned():
    capsules = CapsuleArray("sphere", 0.042, delays_us=(0.0, 50.0, -20.0, 0.0), low_cuts_hz=(0.0, 0.0, 0.0, 100.0))
    gains = capsule_errors(capsules)
    k = 40
    assert np.angle(gains[k]) == pytest.approx(
        [0, -2 * np.pi * BINS_HZ[k] * 50e-6, 2 * np.pi * BINS_HZ[k] * 20e-6, np.arctan(100 / BINS_HZ[k])], abs=1e-9
    )
    b, a = scipy.signal.butter(1, 2 * np.pi * 100, "highpass", analog=True)
    expected = scipy.signal.freqs(b, a, 2 * np.pi * BINS_HZ[1:])[1]
    np.testing.assert_allclose(gains[1:, 3], expected, rtol=1e-9)


def test_capsules_that_differ_blur_the_direction():
    doas = sphere_grid(30)
    errors = CapsuleArray(
        "tetrahedron", 0.012, delays_us=(15.0, -15.0, 10.0, -10.0), low_cuts_hz=(5.0, 60.0, 20.0, 40.0)
    )
    ideal, _ = hears(LIKE_H3VR, doas, (50, 300))
    blurred, _ = hears(LIKE_H3VR, doas, (50, 300), errors)
    assert angle_deg(ideal, doas).mean() + 1 < angle_deg(blurred, doas).mean() < 30


def test_open_capsules_hear_the_front_louder_and_sooner():
    radius_m = 0.02
    pulses = plane_waves(TETRAHEDRON_DOAS, cardioid_tetrahedron(radius_m))
    energy = np.sum(pulses**2, axis=1)
    assert (np.argmax(energy, axis=1) == np.arange(4)).all()
    # Cardioids at the tetrahedral angle: 0.5 + 0.5 / -3 = 1 / 3 of the front.
    others = energy / np.diag(energy)[:, None]
    assert others[~np.eye(4, dtype=bool)] == pytest.approx(1 / 9, rel=0.02)
    time = np.arange(pulses.shape[1])[:, None] / SAMPLE_RATE
    arrival = np.sum(pulses**2 * time, axis=1) / energy
    lead = arrival[0, 1] - arrival[0, 0]
    assert lead == pytest.approx(radius_m * (1 + 1 / 3) / SPEED_OF_SOUND_M_PER_S, rel=0.05)


def test_a_recording_of_the_mic_format_is_read_as_foa(tmp_path):
    """Noise from the left at the sphere's capsules, as in mic_dev, arrives at the networks from the left."""
    doa = unit_vector(90, 20)
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    response = plane_waves(doa[None], array_named("mic"))[0]
    capsules = scipy.signal.oaconvolve(noise[:, None], response, axes=0)
    path = tmp_path / "fold1_room1_mix001_ov1.wav"
    soundfile.write(path, 0.05 * capsules, SAMPLE_RATE, subtype="PCM_16")
    recording = Recording(path.stem, path, None, 1, 1, "mic")
    foa = read_foa(recording, SAMPLE_RATE)
    assert foa.shape == capsules.shape
    low = scipy.signal.sosfilt(scipy.signal.butter(4, 1500, fs=SAMPLE_RATE, output="sos"), foa, axis=0)
    heard = [np.sum(low[:, 0] * low[:, i]) for i in (3, 1, 2)]
    assert azimuth_elevation(heard) == (pytest.approx(90, abs=2), pytest.approx(20, abs=2))
    np.testing.assert_array_equal(np.concatenate(list(foa_blocks(recording, SAMPLE_RATE))), foa)
