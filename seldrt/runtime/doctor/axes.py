"""Does the microphone point where it should: two kinds of claps, in front and at the left, and their directions.

The direction of a clap is that of the sound intensity in its first milliseconds, before walls and floor answer:
closed form, no network. Two directions tell how the axes lie: turned, swapped, or mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seldrt.microphones import orientation
from seldrt.runtime.doctor.finding import Finding, bad, doubtful, good
from seldrt.runtime.doctor.formats import FORMATS, SURE_DB, TO_AMBIX
from seldrt.spatial import angle_deg, azimuth_elevation, normalized, rotation, unit_vector, wrap_azimuth

Floats = NDArray[np.floating]
ToFoa = Callable[[Floats], Floats]  # device frames (n, 4) -> AmbiX (n, 4)

BAND_HZ = (300.0, 4000.0)  # where claps are loud and capsules together
TOGETHER_HZ = 1500.0  # up to here, as a low-pass, capsules are together whose distance nobody corrects
LOUD_DB = 20.0  # above the room
ATTACK_DB = 15.0  # above what came just before
APART_S = 0.25
WEAK_DB = 12.0  # below the loudest clap: an echo, or something else
DIRECT_S = 0.0025  # sound from the floor comes later, if the microphone stands higher than half a metre
BEFORE_S = 0.0003
FOCUS = 0.5  # share of the energy that flows in one direction; below it the direction means little
CLOSE_DEG = 30.0  # a clap by hand, and claps differ by so much
WELL_DEG = 12.0  # turned by less is not worth a word

FRONT, LEFT = unit_vector(0.0, 0.0), unit_vector(90.0, 0.0)

# Ways to stand, by their --mount.
STANDS = {
    "upright": "it stands as it should",
    "upside-down": "it hangs upside down, or left and right are swapped (a clap from above would tell)",
    "endfire": "it lies with its front down",
    "pitch=-90": "it lies with its front up",
}


class Clap(NamedTuple):
    """A clap: when, and where from (a unit vector); ``focus`` in 0..1 tells how much of it has one direction.

    ``off_db`` is the power of X + Y + Z over that of W: 0 in the right format, wherever it comes from.
    """

    at_s: float
    doa: Floats
    focus: float
    off_db: float


class Seen(NamedTuple):
    """Where the claps seem to come from, all together (unit vectors), and how well that is told."""

    front: Floats
    left: Floats
    spread_deg: float
    focus: float
    off_db: float

    @property
    def clear(self) -> bool:
        return self.spread_deg <= CLOSE_DEG and self.focus >= FOCUS


class Axes(NamedTuple):
    """How the axes lie: read as ``format``, turned back by ``mount``, the front is at ``yaw_deg``."""

    format: str  # "" = as it is read now
    mount: str
    yaw_deg: float
    error_deg: float  # what is left then
    cost: float  # less is likelier


def reading_by(to_ambix: Floats) -> ToFoa:
    """How a matrix (4, 4) reads the frames of a device."""
    return lambda frames: frames @ to_ambix.T


def onsets(frames: Floats, rate: int) -> list[int]:
    """The frames at which something begins at once, and much louder than the room."""
    millisecond = max(rate // 1000, 1)
    energy = np.square(np.asarray(frames, float)).sum(1)
    blocks = energy[: len(energy) // millisecond * millisecond].reshape(-1, millisecond).sum(1)
    room = max(float(np.median(blocks)), 1e-12) if len(blocks) else 1e-12
    found: list[int] = []
    for i in np.flatnonzero(blocks > room * 10 ** (LOUD_DB / 10)).tolist():
        before = blocks[max(i - 30, 0) : max(i - 3, 0)]
        if len(before) < 20 or blocks[i] < before.mean() * 10 ** (ATTACK_DB / 10):
            continue
        near = energy[(i - 2) * millisecond : (i + 5) * millisecond]
        onset = (i - 2) * millisecond + int(np.argmax(near > near.max() / 10))
        if not found or onset - found[-1] > APART_S * rate:
            found.append(onset)
    return found


def claps(frames: Floats, rate: int, to_foa: ToFoa) -> list[Clap]:
    """The claps in frames (n, 4) as the device gave them."""
    from scipy.signal import butter, sosfilt

    top_hz = min(BAND_HZ[1], 0.45 * rate)
    heard = sosfilt(butter(2, (BAND_HZ[0], top_hz), "bandpass", fs=rate, output="sos"), frames, axis=0)
    foa = np.asarray(to_foa(heard), float)
    lows = sosfilt(butter(2, TOGETHER_HZ, fs=rate, output="sos"), foa, axis=0)
    found = []
    for onset in onsets(heard, rate):
        w, y, z, x = foa[max(onset - round(BEFORE_S * rate), 0) : onset + round(DIRECT_S * rate)].T
        flow = np.array([w @ x, w @ y, w @ z])
        energy = (w @ w + x @ x + y @ y + z @ z) / 2
        power = np.square(lows[onset : onset + round(DIRECT_S * rate)]).sum(0) + 1e-30
        off_db = 10 * np.log10(power[1:].sum() / power[0])
        clap = Clap(onset / rate, normalized(flow), float(np.linalg.norm(flow) / max(energy, 1e-30)), float(off_db))
        found.append((energy, clap))
    loudest = max((energy for energy, _ in found), default=0.0)
    return [clap for energy, clap in found if energy >= loudest * 10 ** (-WEAK_DB / 10)]


def explain(seen: Seen, mount: str, format_: str) -> Axes:
    """The axes, if mounted so, when claps from the front and from the left seem to come from there."""
    turned_front, turned_left = (orientation(mount) @ doa for doa in (seen.front, seen.left))
    azimuths_deg = np.array([azimuth_elevation(turned_front)[0], azimuth_elevation(turned_left)[0] - 90.0])
    yaw_deg = float(azimuth_elevation(unit_vector(azimuths_deg, 0.0).sum(0))[0])
    back = rotation(yaw_deg=-yaw_deg)
    error_deg = float(max(angle_deg(back @ turned_front, FRONT), angle_deg(back @ turned_left, LEFT)))
    cost = error_deg + abs(yaw_deg) / 10 + 50 * (1 - seen.focus) + 10 * abs(seen.off_db)
    return Axes(format_, mount, yaw_deg, error_deg, cost)


def judge(front: Floats, left: Floats, rate: int, to_foa: ToFoa) -> tuple[Finding, Axes | None]:
    """What claps in front, and claps at the left, say of the axes; the frames (n, 4) are as the device gave them.

    The axes are None unless they can be mended by a yaw alone.
    """
    for frames, where in ((front, "in front"), (left, "at the left")):
        if not claps(frames, rate, to_foa):
            return bad(f"no clap was heard {where}", "clap louder or nearer, in a quiet moment"), None
    seen = look(front, left, rate, to_foa)
    figures: dict[str, Any] = {
        name: [round(float(angle), 1) for angle in azimuth_elevation(doa)]
        for name, doa in (("front_deg", seen.front), ("left_deg", seen.left))
    } | {"spread_deg": round(seen.spread_deg, 1), "focus": round(seen.focus, 2)}
    axes = _likeliest(seen, front, left, rate)
    if axes is None:
        text = f"the claps have no clear direction: {seen.spread_deg:.0f} deg apart, {seen.focus:.0%} of one direction"
        remedy = "clap an arm's length away, away from walls; or see what `format` and `channels` say"
        return bad(text, remedy, **figures), None
    figures |= {"yaw_deg": round(axes.yaw_deg, 1), "error_deg": round(axes.error_deg, 1), "mount": axes.mount}
    text = "claps in front come from azimuth {:.0f} elevation {:.0f}, at the left from {:.0f}, {:.0f}: ".format(
        *figures["front_deg"], *figures["left_deg"]
    )
    if axes.error_deg > CLOSE_DEG:
        remedy = "clap once more, exactly in front and at the left; see what `channels` says; compare --mic"
        return bad(text + "no way of reading or mounting it explains that", remedy, **figures), None
    if axes.format:
        text += f"the channels are {FORMATS[axes.format]}"
        return bad(text, f"use --mic {axes.format} and check again", **figures), None
    if axes.mount != "upright":
        remedy = f"turn it, or use --mount {axes.mount} if it stood upright in the settings; then check again"
        return bad(text + STANDS[axes.mount], remedy, **figures), None
    if abs(axes.yaw_deg) <= WELL_DEG:
        return good(f"{text}as it should be", **figures), axes
    text += f"its front points {abs(axes.yaw_deg):.0f} deg to the {'right' if axes.yaw_deg > 0 else 'left'}"
    return doubtful(text, "turn it, or let `--write FILE` put the yaw into the settings", **figures), axes


def new_yaw_deg(axes: Axes, yaw_deg: float) -> float:
    """The yaw that makes the front the front, when ``yaw_deg`` was applied before."""
    return round(float(wrap_azimuth(yaw_deg - axes.yaw_deg)), 1)


def halves(frames: Floats, rate: int) -> tuple[Floats, Floats]:
    """A recording of claps in front, a pause, and claps at the left, cut in the longest pause between claps."""
    begins_s = np.array([clap.at_s for clap in claps(frames, rate, np.asarray)])
    if len(begins_s) < 2:
        return frames, frames[:0]
    last = int(np.argmax(np.diff(begins_s)))
    cut = round((begins_s[last] + begins_s[last + 1]) / 2 * rate)
    return frames[:cut], frames[cut:]


def look(front: Floats, left: Floats, rate: int, to_foa: ToFoa) -> Seen:
    """Where claps in front and claps at the left seem to come from, read with ``to_foa``."""
    middles, spreads_deg, focus, off_db = [], [], [], []
    for frames in (front, left):
        heard = claps(frames, rate, to_foa)
        middle = normalized(sum(clap.doa for clap in heard))
        middles.append(middle)
        spreads_deg += [float(angle_deg(clap.doa, middle)) for clap in heard]
        focus.append(float(np.median([clap.focus for clap in heard])))
        off_db.append(float(np.median([clap.off_db for clap in heard])))
    return Seen(middles[0], middles[1], max(spreads_deg), min(focus), float(np.mean(off_db)))


def _likeliest(seen: Seen, front: Floats, left: Floats, rate: int) -> Axes | None:
    """As it is read and stands now, if that fits; else what fits best: another mount, another format.

    None when the claps have no clear direction in any format.
    """
    axes = [explain(seen, mount, "") for mount in STANDS] if seen.clear else []
    if axes and axes[0].error_deg <= CLOSE_DEG and abs(seen.off_db) <= SURE_DB:
        return axes[0]
    for name, matrix in TO_AMBIX.items():
        other = look(front, left, rate, reading_by(matrix))
        if other.clear:
            axes.append(explain(other, "upright", name))
    return min(axes, key=lambda found: found.cost, default=None)
