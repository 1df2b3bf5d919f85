"""Which format four channels are in, told from any sound: A-format, or AmbiX, FuMa or N3D.

In SN3D a plane wave from anywhere has as much power in X, Y and Z together as in W, and the powers of waves that have
nothing to do with each other add. So ``(X + Y + Z) / W`` is 0 dB in every band of every sound at every time, wherever
it comes from, in the right format only: AmbiX read as FuMa gives -3 dB, as N3D -4.8 dB. Capsules of A-format hear the
same sound and agree (in a diffuse field cardioids correlate by +0.67 in all pairs), as B-format does only for a single
wave from one direction. What cannot be told: the order of X, Y and Z, which takes a clap (`axes`); N3D from the
noise of the electronics alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seldrt.microphones import profile
from seldrt.microphones.layout import Layout

Floats = NDArray[np.floating]

OCTAVES_HZ = (250.0, 500.0, 1000.0, 2000.0)  # above: capsules apart; below: little sound, near fields
SEGMENT_S = 0.5
WINDOW_S = 0.04
SILENCE_DBFS = -100.0  # of a band, power of all channels
AGREEMENT = 0.25  # mean correlation of the pairs, above which capsules hear the same sound
SURE_DB = 1.0
LIKELY_DB = 2.0

FORMATS = {
    "ambix": "AmbiX: W Y Z X, SN3D",
    "fuma": "FuMa: W X Y Z, W at -3 dB",
    "n3d": "N3D",
    "tetrahedron": "A-format: four cardioids",
    "capsules": "A-format of capsules without much direction, as on a sphere",
}


class Sniff(NamedTuple):
    """What the channels look like; ``format`` is a key of `FORMATS`, "" when it cannot be told."""

    format: str
    sure: bool
    off_db: dict[str, float]  # how far the power of X + Y + Z is from that of W, read as each format
    correlation: float  # mean of the pairs of channels
    why: str


def sniff(frames: Floats, rate: int) -> Sniff:
    """Looks at frames (n, 4) as the device gave them; a few seconds of any broadband sound will do."""
    cells, octaves = covariances(frames, rate)
    if len(cells) < 2 * len(OCTAVES_HZ):
        return Sniff("", False, {}, 0.0, "too little sound: make some noise for a few seconds")
    off_db = {name: _off_db(cells, octaves, weight) for name, weight in _WEIGHTS.items()}
    deviation_db = {name: float(np.median(abs(least))) for name, (least, *_) in off_db.items()}
    shown_db = {name: round(float(np.median(least)), 2) for name, (least, *_) in off_db.items()}
    pairs = _correlations(cells)
    correlation = round(float(pairs.mean()), 3)
    agree = correlation > AGREEMENT and bool((pairs > 0).all())
    del deviation_db["n3d" if agree else "tetrahedron"]
    if agree and min(deviation_db.values()) > SURE_DB and _spread_db(cells) < 3.0:
        return Sniff("capsules", correlation > 0.8, shown_db, correlation, "the channels agree in all pairs")
    (best, off), (second, other) = sorted(deviation_db.items(), key=lambda item: item[1])[:2]
    if off > LIKELY_DB:
        why = f"read as {best} the levels are off by {off:.1f} dB: own noise of the microphone, or no 4-channel array"
        return Sniff("", False, shown_db, correlation, why)
    if other - off < SURE_DB / 2:
        why = f"{best} and {second} fit as well as each other: a single direction? move about, and make another noise"
        return Sniff("", False, shown_db, correlation, why)
    if best == "n3d":
        why = "four channels of equal power that have nothing in common: N3D, or the noise of the electronics"
        return Sniff("", False, shown_db, correlation, why)
    least, *others = map(np.median, off_db[best])
    if best == "fuma" and (not others or others[0] - least > SURE_DB):
        why = "levels differ from octave to octave: FuMa, or AmbiX in the own noise of the microphone; be louder"
        return Sniff("", False, shown_db, correlation, why)
    return Sniff(best, off < SURE_DB <= other - off, shown_db, correlation, f"{off:.1f} dB off, next {other:.1f}")


def covariances(frames: Floats, rate: int) -> tuple[Floats, Floats]:
    """Real covariances (cells, 4, 4) of the channels in each octave of each half second that is not silent.

    And the octaves (cells,) that they are of, by their centres.
    """
    size = round(WINDOW_S * rate)
    count = len(frames) // size
    if not count:
        return np.zeros((0, 4, 4)), np.zeros(0)
    windows = np.asarray(frames[: count * size], float).reshape(count, size, 4) * np.hanning(size)[:, None]
    spectra = np.fft.rfft(windows, axis=1)
    frequencies_hz = np.fft.rfftfreq(size, 1 / rate)
    together = max(round(SEGMENT_S / WINDOW_S), 1)
    cells, octaves = [], []
    for centre_hz in OCTAVES_HZ:
        band = (frequencies_hz >= centre_hz / 2**0.5) & (frequencies_hz < centre_hz * 2**0.5)
        for start in range(0, count - together + 1, together):
            x = spectra[start : start + together, band].reshape(-1, 4)
            cell = (x.T @ x.conj()).real / (together * size**2 * 0.375 / 2)  # 0.375: power of the window
            if np.trace(cell) > 10 ** (SILENCE_DBFS / 10):
                cells.append(cell)
                octaves.append(centre_hz)
    return np.array(cells).reshape(-1, 4, 4), np.array(octaves)


def format_of(layout: Layout) -> str:
    """The format that the channels of a profile are in."""
    if layout.capsules is None:
        return {"sn3d": "ambix", "n3d": "n3d", "fuma": "fuma"}[str(layout.convention)]
    return "capsules" if layout.capsules.baffle == "rigid-sphere" else "tetrahedron"


def _powers(matrix: Floats) -> Floats:
    """What of a covariance is power of W and of X + Y + Z: (2, 4, 4) for the way to AmbiX, a matrix (4, 4)."""
    w, xyz = matrix[:1], matrix[1:]
    return np.stack([w.T @ w, xyz.T @ xyz])


def _off_db(cells: Floats, octaves: Floats, weight: Floats) -> list[Floats]:
    """X + Y + Z over W in each octave, the least one first: own noise, wind and near sounds only add to X, Y and Z."""
    w, xyz = np.einsum("kab,cab->kc", weight, cells)
    off_db = np.clip(10 * np.log10(np.maximum(xyz, 1e-30) / np.maximum(w, 1e-30)), -20, 20)
    return sorted((off_db[octaves == centre_hz] for centre_hz in np.unique(octaves)), key=np.median)


def _correlations(cells: Floats) -> Floats:
    """Of the six pairs of channels, with all cells at the same power."""
    mean = (cells / np.trace(cells, axis1=1, axis2=2)[:, None, None]).mean(0)
    scale = np.sqrt(np.maximum(np.diag(mean), 1e-12))
    return (mean / scale / scale[:, None])[np.triu_indices(4, 1)]


def _spread_db(cells: Floats) -> float:
    powers = np.maximum(np.diagonal(cells, axis1=1, axis2=2), 1e-30)
    return float(np.median(10 * np.log10(powers.max(1) / powers.min(1))))


TO_AMBIX = {name: profile(name).layout.matrix for name in ("ambix", "fuma", "n3d", "tetrahedron")}
_WEIGHTS = {name: _powers(matrix) for name, matrix in TO_AMBIX.items()}
