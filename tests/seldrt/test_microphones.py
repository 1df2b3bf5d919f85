"""Plane waves through the encoding of each profile come out as AmbiX."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seldrt.config import ConfigError
from seldrt.microphones import PROFILES, profile
from seldrt.spatial import foa_gains, unit_vector

CAPSULES = unit_vector([45, -45, 135, -135], np.degrees(np.arcsin(1 / np.sqrt(3))) * np.array([1, -1, -1, 1]))


def encoded(name: str, doa: np.ndarray) -> np.ndarray:
    """What the microphone delivers for plane waves of amplitude 1 from ``doa`` (n, 3), from its own definition."""
    x, y, z = doa.T
    one = np.ones_like(x)
    return {
        "ambix": lambda: np.stack([one, y, z, x], -1),
        "zoom-h3vr": lambda: np.stack([one, y, z, x], -1),
        "fuma": lambda: np.stack([one / np.sqrt(2), x, y, z], -1),
        "n3d": lambda: np.stack([one, np.sqrt(3) * y, np.sqrt(3) * z, np.sqrt(3) * x], -1),
        "tetrahedron": lambda: 0.5 + 0.5 * doa @ CAPSULES.T,
    }[name]()


@pytest.mark.parametrize("name", PROFILES)
@settings(deadline=None)
@given(azimuth=st.floats(-180, 180), elevation=st.floats(-90, 90))
def test_plane_waves_become_ambix(name: str, azimuth: float, elevation: float) -> None:
    doa = unit_vector([azimuth], [elevation])
    foa = profile(name).to_foa(encoded(name, doa))
    assert foa.dtype == np.float32
    np.testing.assert_allclose(foa, foa_gains(doa), atol=1e-6)


@pytest.mark.parametrize("name", PROFILES)
def test_any_cut_gives_the_same_bits(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    whole = profile(name).to_foa(x)
    for size in (1, 7, 64, 999):
        cut = np.concatenate([profile(name).to_foa(x[i : i + size]) for i in range(0, len(x), size)])
        np.testing.assert_array_equal(cut, whole)


def test_ambix_passes_unchanged() -> None:
    x = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    np.testing.assert_array_equal(profile("ambix").to_foa(x), x)


def test_an_unknown_profile_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'ambeo'.*ambix, fuma, n3d, tetrahedron, zoom-h3vr"):
        profile("ambeo")
