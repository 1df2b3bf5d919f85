"""What the sound itself says of a microphone: channels, level, format."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from seldrt.levels import decibels
from seldrt.microphones import Profile
from seldrt.runtime.channels import PATIENCE_S, ChannelCheck
from seldrt.runtime.doctor.finding import Finding, bad, doubtful, good, not_checked
from seldrt.runtime.doctor.formats import FORMATS, SURE_DB, format_of, sniff
from seldrt.runtime.doctor.listening import Heard

QUIET_DBFS = -85.0  # RMS of the loudest channel; the noise of a quiet room is above
UNEVEN_DB = 30.0
OFFSET_DBFS = -40.0
BLOCK_MS = 20
METER_DBFS = -90.0  # where the bars begin
METER_WIDTH = 40
METER_S = 0.1
SWITCHES = {  # that silence channels, by system
    "linux": "the mixer (alsamixer) for channels that are switched off",
    "darwin": "System Settings > Privacy & Security > Microphone: may the terminal hear?",
    "win32": "Settings > Privacy & security > Microphone: may programs hear?",
}


def check_channels(heard: Heard) -> Finding:
    """All channels alive, different, moving, unclipped."""
    if len(heard.frames) < PATIENCE_S * heard.rate:
        return not_checked(f"{PATIENCE_S:.0f} s of sound are needed to tell")
    check = ChannelCheck(heard.frames.shape[1], heard.rate)
    size = max(heard.rate * BLOCK_MS // 1000, 1)
    told: dict[str, str] = {}
    for start in range(0, len(heard.frames), size):
        check.push(heard.frames[start : start + size])
        told |= check.complaints()
    if told:
        lines = "; ".join(f"{where}: {what}" for where, what in told.items())
        remedy = f"look at cable, gain, phantom power, and at {SWITCHES.get(sys.platform, 'the mixer of the system')}"
        return bad(lines, remedy, channels=told)
    return good("all four are alive, different, and unclipped")


def check_level(heard: Heard) -> Finding:
    """Loud enough, and about as loud as each other."""
    frames = np.nan_to_num(heard.frames.astype(float))
    offsets = frames.mean(0)
    rms_dbfs = decibels(np.sqrt(np.square(frames - offsets).mean(0)))
    peak_dbfs = decibels(abs(frames).max(0))
    offset_dbfs = decibels(abs(offsets))
    figures = {"rms_dbfs": rms_dbfs, "peak_dbfs": peak_dbfs, "offset_dbfs": offset_dbfs}
    text = "RMS " + ", ".join(f"{level:.0f}" for level in rms_dbfs) + " dBFS, loudest peak "
    text += f"{max(peak_dbfs):.0f} dBFS"
    if max(rms_dbfs) < QUIET_DBFS:
        return doubtful(f"{text}: very quiet", "turn the gain up; is it the right input?", **figures)
    if max(rms_dbfs) - min(rms_dbfs) > UNEVEN_DB:
        weakest = int(np.argmin(rms_dbfs)) + 1
        return doubtful(
            f"{text}: channel {weakest} is far weaker", "look at its cable, gain and phantom power", **figures
        )
    if max(offset_dbfs) > OFFSET_DBFS:
        remedy = "a high-pass (low cut) at the device helps; it may be defective"
        return doubtful(f"{text}: channel {int(np.argmax(offset_dbfs)) + 1} has a constant offset", remedy, **figures)
    return good(text, **figures)


def check_format(heard: Heard, mic: Profile) -> Finding:
    """The format is the one that the profile says."""
    found = sniff(heard.frames, heard.rate)
    expected = format_of(mic.layout)
    figures = {
        "looks_like": found.format,
        "sure": found.sure,
        "off_db": found.off_db,
        "correlation": found.correlation,
        "expected": expected,
    }
    word = "surely" if found.sure else "probably"
    alike = {"tetrahedron", "capsules"} if expected in ("tetrahedron", "capsules") else {expected}
    if not found.format:
        fits = expected in found.off_db and abs(found.off_db[expected]) < SURE_DB and expected != "n3d"
        text = f"cannot be told: {found.why}" + (f"; {mic.name} is possible" if fits else "")
        remedy = "make broadband noise around it (paper, water, speech) and repeat; a clap tells: --orientation"
        return doubtful(text, remedy, **figures)
    text = f"{word} {FORMATS[found.format]} ({found.why})"
    if found.format in alike:
        return good(f"{text}, as --mic {mic.name} says; a clap tells the order of the axes: --orientation", **figures)
    if found.format == "capsules":
        return bad(f"{text}; but --mic {mic.name} says otherwise", "choose the --mic of that array", **figures)
    contradiction = bad if found.sure else doubtful
    remedy = f"use --mic {found.format}, or set the device to what --mic {mic.name} says"
    return contradiction(f"{text}; but --mic {mic.name} says otherwise", remedy, **figures)


class LiveMeter:
    """Bars on a terminal for the last tenth of a second of each channel; nothing without a terminal."""

    def __init__(self, terminal: TextIO | None) -> None:
        self._terminal = terminal
        self._due_s = 0.0
        self._lines = 0

    def show(self, frames: NDArray[np.float32]) -> None:
        """Takes what has just come (n, channels)."""
        if self._terminal is None or time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + METER_S
        lines = meter(frames)
        up = f"\x1b[{self._lines}A" if self._lines else ""
        self._terminal.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        self._terminal.flush()
        self._lines = len(lines)


def meter(frames: NDArray[np.float32]) -> list[str]:
    """A bar for each channel of frames (n, channels): its RMS, and a mark at its peak."""
    rms_dbfs = decibels(np.sqrt(np.square(frames.astype(float)).mean(0)))
    peak_dbfs = decibels(abs(frames).max(0))
    lines = []
    for number, (rms, peak) in enumerate(zip(rms_dbfs, peak_dbfs, strict=True), 1):
        length, mark = (round(METER_WIDTH * min(max(1 - level / METER_DBFS, 0), 1)) for level in (rms, peak))
        bar = ("#" * length).ljust(METER_WIDTH)
        if mark:
            bar = bar[: mark - 1] + "|" + bar[mark:]
        lines.append(f"  {number} [{bar}] {rms:6.1f} dBFS, peak {peak:6.1f}")
    return lines
