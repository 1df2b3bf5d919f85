"""Input devices by name, through PortAudio (the `sounddevice` package, imported only when a device is asked for)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from seldrt.config import SeldrtError
from seldrt.microphones import CHANNELS


class CaptureError(SeldrtError):
    """A device or a recording that cannot be listened to."""


class Device(NamedTuple):
    """An input device as the operating system shows it."""

    number: int
    name: str
    host: str
    channels: int
    rate: int  # Hz, what it prefers


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise CaptureError("live capture needs the package sounddevice: pip install 'seldrt[live]'") from None
    except OSError as error:
        raise CaptureError(f"{error}: on Debian or Ubuntu install the package libportaudio2") from None
    return sounddevice


@contextmanager
def portaudio(failure: str) -> Iterator[Any]:
    """The package; what it raises inside becomes a `CaptureError`: the ``failure``, then why."""
    sd = _sounddevice()
    try:
        yield sd
    except (sd.PortAudioError, ValueError) as error:
        raise CaptureError(f"{failure}: {error}") from None


def list_inputs() -> list[Device]:
    """All devices that can record."""
    with portaudio("cannot list the sound devices") as sd:
        hosts, found = sd.query_hostapis(), sd.query_devices()
    return [
        Device(
            number=number,
            name=device["name"],
            host=hosts[device["hostapi"]]["name"],
            channels=device["max_input_channels"],
            rate=round(device["default_samplerate"]),
        )
        for number, device in enumerate(found)
        if device["max_input_channels"] > 0
    ]


def find_input(wanted: str) -> Device:
    """The one input device of that number, name or part of a name; `CaptureError` says what there is."""
    found = list_inputs()
    hits = [d for d in found if wanted.lower() in (str(d.number), d.name.lower())]
    if not hits and wanted and not wanted.isdecimal():
        hits = [d for d in found if wanted.lower() in d.name.lower()]
    usable = [d for d in hits if d.channels >= CHANNELS]
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise CaptureError(f"device {wanted!r} fits several: {_listed(usable)}; give the number")
    known = _listed([d for d in found if d.channels >= CHANNELS])
    if hits:
        has = f"{hits[0].name} has {hits[0].channels} input channels, {CHANNELS} are needed"
        raise CaptureError(f"{has}; devices that do: {known}")
    raise CaptureError(f"no input device {wanted!r}; devices with {CHANNELS} or more channels: {known}")


def open_input(device: Device, rate: int, block_frames: int, captured: Callable[[Any, bool], None]) -> Any:
    """A stream of four float32 channels, not yet started; PortAudio's thread calls ``captured(frames, overflow)``."""

    def callback(frames: Any, _count: int, _time: Any, flags: Any) -> None:
        captured(frames, bool(flags.input_overflow))

    with portaudio(f"cannot open {device.name} with {CHANNELS} channels at {rate} Hz") as sd:
        return sd.InputStream(
            device=device.number,
            channels=CHANNELS,
            samplerate=rate,
            blocksize=block_frames,
            dtype="float32",
            callback=callback,
        )


def _listed(found: list[Device]) -> str:
    return ", ".join(f"{d.number} {d.name!r}" for d in found) or "none"
