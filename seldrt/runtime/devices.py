"""Input devices by name, through PortAudio (the `sounddevice` package, imported only when a device is asked for)."""

from __future__ import annotations

import atexit
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from seldrt.config import SeldrtError, printable
from seldrt.microphones import CHANNELS, names_device, plain_words

FIRST_CHANNELS = tuple(range(1, CHANNELS + 1))
LOWEST_RATE_HZ = 24_000
USUAL_RATES_HZ = (16000, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
WASAPI = "Windows WASAPI"  # Windows shows each device by several host APIs: this one with its whole name, and soonest
# Words that people put before the name of a device, and that operating systems often leave out.
MAKERS = frozenset(
    ["audient", "behringer", "focusrite", "minidsp", "motu", "presonus", "rme", "roland", "rode", "røde"]
    + ["sennheiser", "soundfield", "steinberg", "tascam", "yamaha", "zoom"]
)


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
        remedy = ": on Debian or Ubuntu install the package libportaudio2" if sys.platform == "linux" else ""
        raise CaptureError(f"{error}{remedy}") from None
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
            name=printable(device["name"]),  # whoever made it chose it
            host=hosts[device["hostapi"]]["name"],
            channels=device["max_input_channels"],
            rate=round(device["default_samplerate"]),
        )
        for number, device in enumerate(found)
        if device["max_input_channels"] > 0
    ]


def find_input(wanted: str, channels: int = CHANNELS) -> Device:
    """The one input device of that number or name with so many channels; `CaptureError` says what there is.

    A name counts as people type it: part of it, without regard to case and punctuation, with or without the maker's
    ("Zoom H3-VR" finds "H3VR: USB Audio"); "NAME, HOST" chooses where several host APIs show it; else `WASAPI` does.
    """
    found = list_inputs()
    hits = matching(wanted, found)
    usable = with_channels(hits, channels)
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise CaptureError(f"device {wanted!r} fits several: {_listed(usable)}; give the number, or more of the name")
    known = f"inputs with {channels} or more channels: {_listed([d for d in found if d.channels >= channels])}"
    if hits:
        raise CaptureError(f"{hits[0].name} has {hits[0].channels} input channels, {channels} are needed; {known}")
    near = _nearest(wanted, found)
    raise CaptureError(f"no input device {wanted!r}; {f'nearest is {near!r}; ' if near else ''}{known}")


def with_channels(found: Sequence[Device], channels: int = CHANNELS) -> list[Device]:
    """Those with so many channels; where `WASAPI` shows any, these alone."""
    usable = [d for d in found if d.channels >= channels]
    return [d for d in usable if d.host == WASAPI] or usable


def matching(wanted: str, found: Sequence[Device]) -> list[Device]:
    """The devices that ``wanted`` means: the strictest way to read it that fits any."""
    if wanted.isdecimal():
        return [d for d in found if d.number == int(wanted)]
    words = plain_words(wanted)
    own = [word for word in words if word not in MAKERS]
    exact = [d for d in found if wanted.casefold() in (d.name.casefold(), f"{d.name}, {d.host}".casefold())]
    return exact or _named(words, found) or _named(own, found)


def _named(words: Sequence[str], found: Sequence[Device]) -> list[Device]:
    """Those whose name is, else holds, else has somewhere all of the words; the host counts as part of it."""
    joined = "".join(words)
    for fits in (
        lambda d: joined == "".join(plain_words(d.name)),
        lambda d: joined in "".join(plain_words(f"{d.name} {d.host}")),
        lambda d: all(names_device(word, f"{d.name} {d.host}") for word in words),
    ):
        if words and (hits := [d for d in found if fits(d)]):
            return hits
    return []


def of_its_kind(device: Device) -> list[Device]:
    """The inputs that are called the same but for their place; itself among them while it is there."""
    kind = _without_place(device.name)
    return [d for d in list_inputs() if d.host == device.host and _without_place(d.name) == kind]


def find_again(device: Device, was_alone: bool) -> Device:
    """The same device after PortAudio has looked anew: its number may be another then, and its place.

    One that was not the only one of its kind must be at its old place: another microphone hears other things.
    """
    kind = of_its_kind(device)
    there = [d for d in kind if d.name == device.name]
    if len(there) > 1:
        there = [d for d in there if d.number == device.number]
    if not there and was_alone:
        there = kind
    if len(there) != 1:
        raise CaptureError(f"no input device {device.name!r}")
    return there[0]


def restart_portaudio() -> None:
    """Lets PortAudio look for devices anew; it knows only those that were there when it began. Closes all streams."""
    with portaudio("PortAudio does not come up") as sd:
        with suppress(sd.PortAudioError):  # it has not begun: the last attempt ended half way
            sd._terminate()
        sd._initialize()


def abandon_portaudio(stderr: int) -> None:
    """Lets the program end although a call of PortAudio hangs, be it in the midst of the import.

    The package puts file descriptor 2 aside while PortAudio starts: ``stderr``, a copy made before, takes its place.
    """
    if handler := getattr(sys.modules.get("sounddevice"), "_exit_handler", None):
        atexit.unregister(handler)
    os.dup2(stderr, 2)


def open_input(
    device: Device,
    rate: int,
    block_frames: int,
    captured: Callable[[Any, bool], None],
    channels: Sequence[int] = FIRST_CHANNELS,
) -> Any:
    """A stream of four float32 channels, not yet started; PortAudio's thread calls ``captured(frames, overflow)``.

    Exactly this rate is asked for, and as many channels as the last of ``channels`` (numbers from 1) needs.
    """
    count = _channels_to_ask(device, max(channels))
    picked = None if tuple(channels) == tuple(range(1, count + 1)) else [c - 1 for c in channels]

    def callback(frames: Any, _count: int, _time: Any, flags: Any) -> None:
        captured(frames if picked is None else frames[:, picked], bool(flags.input_overflow))

    with portaudio(f"cannot open {device.name} with {count} channels at {rate} Hz") as sd:
        return sd.InputStream(
            device=device.number,
            channels=count,
            samplerate=rate,
            blocksize=block_frames,
            dtype="float32",
            callback=callback,
        )


def check_rate(name: str, rate: int, wanted_rate: int) -> None:
    """`CaptureError` when a device gives less than the networks learnt from, and nobody asked for that rate."""
    if 0 < rate < LOWEST_RATE_HZ and not wanted_rate:
        raise CaptureError(
            f"{name} gives {rate} Hz: nothing above {rate // 2} Hz would be heard, and the networks learnt from sounds "
            f"up to {LOWEST_RATE_HZ // 2} Hz; --device-rate {rate} listens all the same, `seldrt devices` shows others"
        )


def rate_to_ask(device: Device, channels: int = CHANNELS) -> int:
    """The rate, in Hz, to open a device with: the one that it prefers.

    On ALSA nobody knows that: PortAudio says 44100 for all that can be talked into it, and servers convert silently.
    There it is 48000, where the device takes it: what microphones are built for, and twice the rate of the models.
    """
    unknown = device.host == "ALSA" and device.rate == 44100
    return 48000 if unknown and 48000 in accepted_rates(device, channels, (48000,)) else device.rate


def accepted_rates(device: Device, channels: int = CHANNELS, rates_hz: Sequence[int] = USUAL_RATES_HZ) -> list[int]:
    """Of these rates and the one that it prefers, in Hz, those that the device takes with so many channels.

    None when others have it in use.
    """
    sd, count = _sounddevice(), _channels_to_ask(device, channels)
    accepted = []
    for rate in sorted({*rates_hz, device.rate}):
        try:
            sd.check_input_settings(device=device.number, channels=count, dtype="float32", samplerate=rate)
        except (sd.PortAudioError, ValueError):
            continue
        accepted.append(rate)
    return accepted


def _channels_to_ask(device: Device, needed: int) -> int:
    """WASAPI, which shares devices, gives all channels or none."""
    return device.channels if device.host == WASAPI else needed


def _nearest(wanted: str, found: Sequence[Device]) -> str:
    heads = {"".join(plain_words(d.name.split(":")[0])): d.name for d in found}
    near = difflib.get_close_matches("".join(plain_words(wanted)), heads, 1)
    return heads[near[0]] if near else ""


def _without_place(name: str) -> str:
    """Without the ``(hw:1,0)`` of ALSA, and the ``2-`` that Windows puts into "Microphone (2- H3-VR)"."""
    return re.sub(r" \(hw:\d+,\d+\)$|(?<=\()\d+- ", "", name)


def _listed(found: Sequence[Device]) -> str:
    hosts = len({d.host for d in found}) > 1
    return ", ".join(f"{d.number} {d.name!r}{f' ({d.host})' if hosts else ''}" for d in found) or "none"
