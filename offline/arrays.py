"""Microphone arrays: what they make of a plane wave and of a diffuse field.

Gains are re the free field at the centre of the array, with the time convention exp(+i w t), at
FREQUENCIES_HZ: the bins of a pulse of TAPS samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from seldrt.microphones.capsules import SPEED_OF_SOUND_M_PER_S, modal
from seldrt.spatial import foa_gains, unit_vector

Floats = NDArray[np.floating]

SAMPLE_RATE = 24000
TAPS = 64  # length of the pulse of one plane wave
FREQUENCIES_HZ = np.fft.rfftfreq(TAPS, 1 / SAMPLE_RATE)

# Rigid sphere of the DCASE microphone array (TAU-SRIR DB README).
SPHERE_RADIUS_M = 0.042
CAPSULE_DOAS = unit_vector([45, -45, 135, -135], [35, -35, -35, 35])
SPHERE_ORDER = 30

# Soundfield tetrahedron, FLU FRD BLD BRU: the A-format of the profile `tetrahedron` of seldrt.microphones.
TETRAHEDRON_DOAS = unit_vector([45, -45, 135, -135], np.degrees(np.arcsin(3**-0.5)) * np.array([1, -1, -1, 1]))


@dataclass(frozen=True)
class Array:
    """What a microphone array makes of a plane wave and of a diffuse field.

    response: unit vectors (m, 3) -> gains (m, f, 4) at FREQUENCIES_HZ, or (m, 1, 4) when all are alike.
    diffuse_mixing: (f or 1, 4, 4) real; turns four independent noises of power 1 into the diffuse field.
    """

    name: str
    response: Callable[[Floats], NDArray[np.complex128] | NDArray[np.float64]]
    diffuse_mixing: Floats


def sphere_response(cos_angle: Floats, frequencies_hz: Floats) -> NDArray[np.complex128]:
    """Pressure (m, f) at a capsule of the rigid sphere for plane waves from cos_angle (m,) off its direction.

    The formula is the one of the TAU-SRIR DB README, with 31 orders.
    """
    kr = 2 * np.pi * np.maximum(np.asarray(frequencies_hz), 1.0) * SPHERE_RADIUS_M / SPEED_OF_SOUND_M_PER_S
    total = np.zeros((len(cos_angle), len(kr)), dtype=complex)
    for n in range(SPHERE_ORDER + 1):
        total += eval_legendre(n, cos_angle)[:, None] * (2 * n + 1) * modal(n, kr, None)
    return total


@cache
def array_named(name: str) -> Array:
    """The array `foa` (AmbiX, ideal at all frequencies) or `mic` (four capsules on a rigid sphere)."""
    if name == "foa":
        return Array("foa", lambda doas: foa_gains(doas)[:, None, :], np.diag([1, *[3**-0.5] * 3])[None])
    if name != "mic":
        raise ValueError(f"unknown array {name!r}: use foa or mic")
    steps = 1800  # of 0.1 degrees
    table = sphere_response(np.cos(np.linspace(0, np.pi, steps + 1)), FREQUENCIES_HZ)

    def response(doas: Floats) -> NDArray[np.complex128]:
        angle = np.arccos(np.clip(doas @ CAPSULE_DOAS.T, -1, 1))
        return table[np.rint(angle * steps / np.pi).astype(int)].swapaxes(1, 2)

    return Array("mic", response, _diffuse_mixing(response))


def cardioid_tetrahedron(radius_m: float, patterns: Sequence[float] = (0.5,) * 4) -> Array:
    """Four open capsules a + (1 - a) cos on TETRAHEDRON_DOAS, radius_m from the centre, a by capsule in patterns."""

    def response(doas: Floats) -> NDArray[np.complex128]:
        return tetrahedron_response(doas, FREQUENCIES_HZ, radius_m, patterns)

    return Array("tetrahedron", response, _diffuse_mixing(response))


def tetrahedron_response(
    doas: Floats, frequencies_hz: Floats, radius_m: float, patterns: Sequence[float] = (0.5,) * 4
) -> NDArray[np.complex128]:
    """Gains (m, f, 4) of the open tetrahedron for plane waves from unit vectors (m, 3)."""
    cosines = doas @ TETRAHEDRON_DOAS.T
    a = np.asarray(patterns)
    lead_s = cosines * radius_m / SPEED_OF_SOUND_M_PER_S
    turn = 2j * np.pi * np.asarray(frequencies_hz)[None, :, None]
    return (a + (1 - a) * cosines)[:, None, :] * np.exp(turn * lead_s[:, None, :])


def _diffuse_mixing(response: Callable[[Floats], NDArray[np.complex128]]) -> Floats:
    gains = response(sphere_grid(1000))
    covariance = np.einsum("mfa,mfb->fab", gains, gains.conj()).real / len(gains)
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0))[:, None, :] @ vectors.swapaxes(1, 2)
    return root


def sphere_grid(n: int) -> Floats:
    """n unit vectors (n, 3) spread evenly over the sphere (Fibonacci spiral)."""
    i = np.arange(n) + 0.5
    return unit_vector(i * np.degrees(np.pi * (3 - 5**0.5)), np.degrees(np.arcsin(1 - 2 * i / n)))
