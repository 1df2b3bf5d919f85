"""Four capsules around one point (A-format) to first-order ambisonics: a matrix, and filters for their distance.

With capsules at radius r, what arrives from the unit vector d at the capsule that looks to u is
``sum over n of (2 n + 1) b_n(k r) P_n(u . d)`` (time convention exp(+i w t)), with

    b_n = i**n (a j_n - i (1 - a) j_n')      open capsules of the pattern a + (1 - a) cos
    b_n = i**(n - 1) / ((k r)**2 h_n')       pressure capsules on a rigid sphere (h_n: Hankel, second kind)

(Rafaely, Fundamentals of Spherical Array Processing, chapters 2 and 4). A matrix parts the sum into b_0 W and
b_1 (X, Y, Z). What remains is one filter for W and one for X, Y and Z:

- their magnitudes make the response to a diffuse field flat, which is 1 / |b_n| where the capsules are close in terms
  of the wavelength, and never blows up where they are not;
- their phases differ so that the second order, which four capsules cannot tell from the first, stands in quadrature to
  W: then it does not bend the active intensity, of which directions are made. The textbook's 1 / b_n bends it more
  than no filter at all; docs/microphones.md has the figures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SPEED_OF_SOUND_M_PER_S = 343.0
LOOKAHEAD_SAMPLES = 24  # half the length of the filters
# The second-order rule holds as long as the second order is the worst of what is confused; then the phase fades out.
QUADRATURE_KR, COHERENT_KR = 1.8, 3.0
# Pressure on a small sphere hardly differs between its sides: below this frequency it is not amplified any further.
SPHERE_FROM_HZ = 80.0

_ORDERS = 20  # of the sums over n: enough for k r = 13
_GRID = 4096  # points of the design on the unit circle


class Correction(NamedTuple):
    """Filters for W (index 0) and for X, Y and Z (index 1): ``taps`` (2, 2 * LOOKAHEAD_SAMPLES + 1), centred, and the
    pole of a recursion before the second (0 = none)."""

    taps: Floats
    pole: float


def modes(directions: Floats) -> Floats:
    """The matrix (4, 4) from capsules that look to ``directions`` (4, 3) to b_0 W and b_1 (X, Y, Z)."""
    inverse: Floats = np.linalg.inv(_shares(directions))
    return inverse


def condition(directions: Floats) -> float:
    """How much worse the weakest direction is told than the best: 1 for a regular tetrahedron, infinite for a plane."""
    return float(np.linalg.cond(_shares(directions) * [1, 3**-0.5, 3**-0.5, 3**-0.5]))


def coincident_gains(pattern: float) -> tuple[float, float]:
    """1 / b_0 and 1 / b_1 of open capsules at one point."""
    return 1 / pattern, 3 / (1 - pattern)


def design_correction(directions: Floats, radius_m: float, pattern: float | None, sample_rate: int) -> Correction:
    """The filters for capsules (4, 3) at that radius; ``pattern`` None means pressure on a rigid sphere."""
    frequency = np.arange(_GRID // 2 + 1) * sample_rate / _GRID
    frequency[0] = frequency[1] / 100  # the limits at 0 Hz are finite, but not their formulas
    kr = 2 * np.pi * frequency * radius_m / SPEED_OF_SOUND_M_PER_S
    b = np.stack([modal(n, kr, pattern) for n in range(_ORDERS)])
    response = _diffuse_gains(directions, b).astype(complex)
    response[1] *= np.exp(1j * _relative_phase(kr, b))
    pole = 0.0
    if pattern is None:
        pole = float(np.exp(-2 * np.pi * SPHERE_FROM_HZ / sample_rate))
        response[1] *= 1j * frequency / (1j * frequency + SPHERE_FROM_HZ)
        response[1] *= 1 - pole * np.exp(-2j * np.pi * frequency / sample_rate)
    impulse = np.roll(np.fft.irfft(response), LOOKAHEAD_SAMPLES, axis=-1)[:, : 2 * LOOKAHEAD_SAMPLES + 1]
    return Correction(impulse * np.hanning(2 * LOOKAHEAD_SAMPLES + 3)[1:-1], pole)


def _shares(directions: Floats) -> Floats:
    return np.column_stack([np.ones(len(directions)), 3 * np.asarray(directions)])


def modal(order: int, kr: Floats, pattern: float | None) -> NDArray[np.complexfloating]:
    """What a plane wave of that order is at a capsule, by wave number times radius (f,); pattern as above."""
    from scipy.special import spherical_jn, spherical_yn

    slope = spherical_jn(order, kr, derivative=True)
    if pattern is not None:
        open_: NDArray[np.complexfloating] = 1j**order * (
            pattern * spherical_jn(order, kr) - 1j * (1 - pattern) * slope
        )
        return open_
    with np.errstate(over="ignore", invalid="ignore"):  # h_n' overflows where 1 / h_n' vanishes
        hankel = slope - 1j * spherical_yn(order, kr, derivative=True)
        return np.where(np.isfinite(hankel), 1j ** (order - 1) / hankel / kr**2, 0)


def _diffuse_gains(directions: Floats, b: NDArray[np.complexfloating]) -> Floats:
    """Gains (2, f) that give W the power 1 and X, Y, Z together the power 1 in a diffuse field of power 1."""
    from scipy.special import eval_legendre

    cosine = np.clip(directions @ directions.T, -1, 1)
    n = np.arange(len(b))
    power = (2 * n + 1)[:, None] * np.abs(b) ** 2
    covariance = np.einsum("nf,nij->fij", power, eval_legendre(n[:, None, None], cosine))
    matrix = modes(directions)
    powers = np.einsum("ai,fij,aj->af", matrix, covariance, matrix)
    gains: Floats = np.stack([powers[0], powers[1:].sum(axis=0)]) ** -0.5
    return gains


def _relative_phase(kr: Floats, b: NDArray[np.complexfloating]) -> Floats:
    """Phase of the filter of X, Y, Z over that of W: b_2 at 90 degrees to b_0, b_1 as near to it as that allows."""
    in_phase = -np.angle(b[1] / b[0])
    quadrature = np.pi / 2 - np.angle(b[2] / b[0])
    phase = in_phase + (quadrature - in_phase + np.pi / 2) % np.pi - np.pi / 2
    held = np.interp(kr, kr[kr <= QUADRATURE_KR], phase[kr <= QUADRATURE_KR])
    fade: Floats = np.clip((COHERENT_KR - kr) / (COHERENT_KR - QUADRATURE_KR), 0, 1)
    return held * fade
