"""What the correction for the distance of capsules is worth, on simulated plane waves: python -m benchmarks.microphones

RMS angle between the source and the active intensity, over 300 directions all around, for a plain matrix, for the
textbook's inversion 1 / b_n of the modes, and for the filters of `seldrt.microphones`; and what the gains of W and of
X, Y, Z are worth in a diffuse field.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn

from offline.arrays import CAPSULE_DOAS, SPEED_OF_SOUND_M_PER_S, sphere_grid, sphere_response, tetrahedron_response
from seldrt.microphones import Profile, profile
from seldrt.spatial import angle_deg

Floats = NDArray[np.floating[Any]]
Gains = NDArray[np.complexfloating[Any, Any]]

RATE = 24000
DIRECTIONS = 300
FREQUENCIES_HZ = (250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
OPEN = ("zoom-h3vr-a", "ambeo", "tetramic")


def transfer(mic: Profile, frequencies_hz: Floats) -> Gains:
    """The conversion of a profile as matrices (f, 4, 4), from its response to an impulse in each channel."""
    length, start = 4096, 100
    columns = []
    for channel in range(4):
        impulse = np.zeros((length, 4), np.float32)
        impulse[start, channel] = 1
        columns.append(mic.to_foa(impulse, RATE))
    turns = np.exp(-2j * np.pi * np.asarray(frequencies_hz)[:, None] * (np.arange(length) - start) / RATE)
    matrices: Gains = np.stack([turns @ column for column in columns], axis=-1)
    return matrices


def quality(matrices: Gains, heard: Gains, doas: Floats) -> tuple[Floats, Floats, Floats]:
    """What matrices (f, 4, 4) make of the gains (m, f, 4) of capsules for plane waves from unit vectors (m, 3).

    By frequency: the RMS angle of the active intensity off the source (degrees), and how much W, and X, Y and Z, are
    above what they should be in a diffuse field (dB).
    """
    foa = np.einsum("fab,mfb->mfa", matrices, heard)
    intensity = np.real(foa[..., :1].conj() * foa[..., [3, 1, 2]])
    error = np.sqrt((angle_deg(intensity, doas[:, None]) ** 2).mean(axis=0))
    power = (np.abs(foa) ** 2).mean(axis=0)
    return error, 10 * np.log10(power[:, 0]), 10 * np.log10(power[:, 1:].sum(axis=-1))


def inverted(radius_m: float, frequencies_hz: Floats) -> Gains:
    """The textbook's matrices for open cardioids: 1 / b_0 for W, 1 / b_1 for X, Y and Z."""
    kr = 2 * np.pi * frequencies_hz * radius_m / SPEED_OF_SOUND_M_PER_S
    b = [1j**n * 0.5 * (spherical_jn(n, kr) - 1j * spherical_jn(n, kr, derivative=True)) for n in (0, 1)]
    coincident = transfer(profile("tetrahedron"), frequencies_hz)
    matrices: Gains = coincident * np.stack([0.5 / b[0], *[0.5 / 3 / b[1]] * 3], axis=-1)[..., None]
    return matrices


def row(name: str, way: str, figures: Floats) -> str:
    return f"| {name} | {way} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |"


def main() -> None:
    doas, frequencies = sphere_grid(DIRECTIONS), np.array(FREQUENCIES_HZ, float)
    print("| | | " + " | ".join(f"{hz} Hz" for hz in FREQUENCIES_HZ) + " |\n" + "|---" * (len(frequencies) + 2) + "|")
    for name in OPEN:
        mic = profile(name)
        assert mic.layout.capsules is not None
        radius_m = (mic.layout.capsules.radius_mm or 0) / 1000
        heard = tetrahedron_response(doas, frequencies, radius_m)
        plain = quality(transfer(profile("tetrahedron"), frequencies), heard, doas)
        ours = quality(transfer(mic, frequencies), heard, doas)
        print(row(f"`{name}`", "matrix, degrees", plain[0]))
        print(row("", "1 / b_n, degrees", quality(inverted(radius_m, frequencies), heard, doas)[0]))
        print(row("", "filters, degrees", ours[0]))
        for part, was, now in (("W", plain[1], ours[1]), ("X, Y, Z", plain[2], ours[2])):
            print(row("", f"matrix, {part}, dB", was))
            print(row("", f"filters, {part}, dB", now))
    heard = np.stack([sphere_response(doas @ look, frequencies) for look in CAPSULE_DOAS], axis=-1)
    error, w_db, xyz_db = quality(transfer(profile("tau-mic"), frequencies), heard, doas)
    print(row("`tau-mic`", "filters, degrees", error))
    print(row("", "filters, W, dB", w_db))
    print(row("", "filters, X, Y, Z, dB", xyz_db))


if __name__ == "__main__":
    main()
