"""Directions, angles and first-order ambisonic gains.

x points to the front, y to the left, z up. Azimuth is counter-clockwise in [-180, 180): +90 deg is left.
Elevation is in [-90, 90], +90 deg is up. A *doa* is a unit vector of shape (..., 3). First-order ambisonics
(FOA) is AmbiX: ACN channel order W, Y, Z, X with SN3D gains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wrap_azimuth(azimuth_deg: ArrayLike) -> NDArray[np.float64]:
    """Azimuth in degrees, wrapped to [-180, 180)."""
    return (np.asarray(azimuth_deg, dtype=float) + 180.0) % 360.0 - 180.0


def unit_vector(azimuth_deg: ArrayLike, elevation_deg: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors (..., 3) that point to azimuth and elevation (degrees, broadcast together)."""
    azimuth, elevation = np.broadcast_arrays(np.radians(azimuth_deg), np.radians(elevation_deg))
    cos_elevation = np.cos(elevation)
    return np.stack([np.cos(azimuth) * cos_elevation, np.sin(azimuth) * cos_elevation, np.sin(elevation)], axis=-1)


def azimuth_elevation(doa: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Azimuth in [-180, 180) and elevation in [-90, 90], degrees, of vectors (..., 3) of any length."""
    x, y, z = np.moveaxis(np.asarray(doa, dtype=float), -1, 0)
    return wrap_azimuth(np.degrees(np.arctan2(y, x))), np.degrees(np.arctan2(z, np.hypot(x, y)))


def normalized(vector: ArrayLike) -> NDArray[np.float64]:
    """Vectors (..., 3) scaled to length 1; a zero vector stays zero."""
    vector = np.asarray(vector, dtype=float)
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.divide(vector, length, out=np.zeros_like(vector), where=length > 0)


def angle_deg(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Great-circle angle in [0, 180] degrees between vectors (..., 3); exact for small and for opposite angles."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.degrees(np.arctan2(cross, np.sum(a * b, axis=-1)))


def rotation(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) to apply as ``matrix @ vector``: roll about x, then pitch about y, then yaw about z.

    Yaw turns to the left. A positive pitch lowers the nose (right-hand rule about y).
    """
    cy, cp, cr = np.cos(np.radians([yaw_deg, pitch_deg, roll_deg]))
    sy, sp, sr = np.sin(np.radians([yaw_deg, pitch_deg, roll_deg]))
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    pitch = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return yaw @ pitch @ roll


def foa_gains(doa: ArrayLike) -> NDArray[np.float64]:
    """AmbiX gains (..., 4) in the order W, Y, Z, X of a plane wave from unit vectors (..., 3)."""
    x, y, z = np.moveaxis(np.asarray(doa, dtype=float), -1, 0)
    return np.stack([np.ones_like(x), y, z, x], axis=-1)


def within(azimuth_deg: NDArray[np.floating], sectors: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    """Whether azimuths lie in any of the sectors: degrees, from the first counter-clockwise to the second, both in."""
    inside = np.zeros(np.shape(azimuth_deg), bool)
    for first, last in sectors:
        inside |= (azimuth_deg - first) % 360 <= (last - first) % 360
    return inside
