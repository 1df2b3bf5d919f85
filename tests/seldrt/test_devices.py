"""Input devices by number and by names as people type them, their channels and rates, and clear refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from seldrt.cli.chain import channel_numbers
from seldrt.cli.listener import microphone_lines
from seldrt.config import CaptureConfig, ConfigError, SeldrtError
from seldrt.microphones import profile, profile_of_recording
from seldrt.runtime.devices import (
    CaptureError,
    Device,
    accepted_rates,
    check_rate,
    find_again,
    find_input,
    list_inputs,
    matching,
    of_its_kind,
    open_input,
    rate_to_ask,
    restart_portaudio,
)
from seldrt.runtime.doctor import only_input
from seldrt.runtime.microphone import Microphone
from seldrt.runtime.recording import Recording
from tests.seldrt import fake_sounddevice


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    fake_sounddevice.reset()
    yield fake_sounddevice
    fake_sounddevice.reset()


def named(*names: str, host: str = "ALSA", channels: int = 4) -> list[Device]:
    return [Device(number, name, host, channels, 48000) for number, name in enumerate(names)]


# --- which one ------------------------------------------------------------------------------------------------------


def test_devices_are_found_by_number_name_or_part_of_it(sounddevice: ModuleType) -> None:
    assert [device.number for device in list_inputs()] == [0, 1, 3]
    for wanted in ("h3-vr", "0", "ZOOM H3-VR: usb audio (hw:1,0)", "hw:1", "h3vr", "zoom", "Zoom H3-VR, ALSA"):
        assert find_input(wanted).number == 0


@pytest.mark.parametrize("shown", ["H3-VR: USB Audio (hw:1,0)", "ZOOM H3VR Analog Stereo", "H3-VR", "Zoom H3-VR"])
@pytest.mark.parametrize("typed", ["Zoom H3-VR", "zoom h3vr", "H3VR", "h3-vr", "ZOOM_H3-VR", "zoom-h3vr"])
def test_a_device_is_found_however_its_name_is_typed(typed: str, shown: str) -> None:
    others = ["Built-in Microphone", "UMC404HD: USB Audio (hw:2,0)", "H3: USB Audio (hw:3,0)"]
    assert [d.name for d in matching(typed, named(*others, shown))] == [shown]


def test_the_strictest_reading_wins() -> None:
    two = named("Zoom H3-VR", "Zoom H3-VR 2ch")
    assert [d.number for d in matching("zoom h3-vr", two)] == [0]
    assert [d.number for d in matching("2ch zoom", two)] == [1]
    assert [d.number for d in matching("vr", two)] == [0, 1]
    assert [d.number for d in matching("1", named("Interface 1", "Interface 2"))] == [1]
    assert matching("zoom", named("H3-VR")) == []  # a maker alone names no device
    assert [d.number for d in matching("zoom h3-vr", named("H3-VR", "H3-VR 2ch"))] == [0]
    hosts = [*named("H3-VR", host="MME"), *named("H3-VR", host="Windows WASAPI")]
    assert [d.host for d in matching("H3-VR, windows wasapi", hosts)] == ["Windows WASAPI"]
    assert [d.host for d in matching("wasapi h3-vr", hosts)] == ["Windows WASAPI"]


@pytest.fixture
def windows(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Two microphones by four host APIs, as Windows names them."""
    shown = [
        ("MME", "Microphone (H3-VR Audio", 4),
        ("MME", "Microphone (2- UMC404HD 192k Au", 4),
        ("Windows DirectSound", "Microphone (H3-VR Audio)", 4),
        ("Windows DirectSound", "Microphone (2- UMC404HD 192k Audio)", 4),
        ("Windows WASAPI", "Microphone (H3-VR Audio)", 4),
        ("Windows WASAPI", "Microphone (2- UMC404HD 192k Audio)", 2),  # as its settings in Windows say
        ("Windows WDM-KS", "Input (H3-VR Audio)", 4),
    ]
    hosts = list(dict.fromkeys(host for host, *_ in shown))
    monkeypatch.setattr(sounddevice, "query_hostapis", lambda: [{"name": host} for host in hosts])
    devices = [
        {"name": name, "hostapi": hosts.index(host), "max_input_channels": channels, "default_samplerate": 48000.0}
        for host, name, channels in shown
    ]
    monkeypatch.setattr(sounddevice, "DEVICES", devices)
    return sounddevice


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("Zoom H3-VR", 4), ("h3vr", 4), ("h3vr wasapi", 4), ("h3-vr mme", 0), ("6", 6), ("microphone", 4)]
    + [("Microphone (H3-VR Audio), MME", 0), ("Microphone (H3-VR Audio), Windows DirectSound", 2)]
    + [("Zoom H3-VR, Windows WASAPI", 4), ("Zoom H3-VR, MME", 0), ("zoom h3vr mme", 0), ("mme zoom h3vr", 0)],
)
def test_of_the_ways_to_one_microphone_wasapi_is_taken(windows: ModuleType, wanted: str, number: int) -> None:
    assert find_input(wanted).number == number


def test_what_wasapi_shows_with_too_few_channels_is_found_elsewhere(windows: ModuleType) -> None:
    with pytest.raises(CaptureError, match=r"fits several: 1 .*MME.*, 3 .*DirectSound"):
        find_input("umc404")
    assert find_input("UMC404HD DirectSound").number == 3


def test_the_doctor_sees_the_only_microphone_once(windows: ModuleType) -> None:
    assert only_input(CaptureConfig()).device == "Microphone (H3-VR Audio)"


@given(st.text(max_size=12))
def test_no_name_whatsoever_is_a_mistake_of_the_program(typed: str) -> None:
    found = named("Zoom H3-VR: USB Audio (hw:1,0)", "Røde NT-SF1", "", "(:)")
    assert set(matching(typed, found)) <= set(found)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Soundfield", r"no input device 'Soundfield'; inputs with 4 or more channels: 0 'Zoom H3-VR.*3 'UMC404HD"),
        ("Zom H3VR", r"'Zom H3VR'; nearest is 'Zoom H3-VR: USB Audio \(hw:1,0\)'; inputs with 4"),
        ("", "no input device ''"),
        ("usb", "fits several: 0 'Zoom.*, 3 'UMC404HD.*number"),
        ("Built-in", "Built-in Microphone has 2 input channels, 4 are needed; inputs with 4 or more channels: 0"),
        ("2", "no input device '2'"),
    ],
)
def test_devices_that_do_not_fit_are_refused(sounddevice: ModuleType, wanted: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        find_input(wanted)


def test_as_many_channels_as_are_needed_are_looked_for(sounddevice: ModuleType, monkeypatch: Any) -> None:
    wide = dict(sounddevice.DEVICES[3], max_input_channels=8)
    monkeypatch.setattr(sounddevice, "DEVICES", [*sounddevice.DEVICES[:3], wide])
    assert find_input("usb", 8).number == 3
    with pytest.raises(CaptureError, match="has 4 input channels, 8 are needed; inputs with 8 or more channels: 3"):
        find_input("h3", 8)


def test_a_device_is_found_again_though_its_number_and_place_changed(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = find_input("h3")
    moved = [dict(device) for device in reversed(sounddevice.DEVICES)]
    monkeypatch.setattr(sounddevice, "DEVICES", moved)
    restart_portaudio()
    assert find_again(before, was_alone=True) == before._replace(number=3)
    moved[3]["name"] = "Zoom H3-VR: USB Audio (hw:4,0)"
    assert find_again(before, was_alone=True).number == 3
    with pytest.raises(CaptureError, match="no input device"):  # it may be the other one of its kind
        find_again(before, was_alone=False)
    moved[0]["name"] = "Zoom H3-VR: USB Audio (hw:5,0)"
    assert len(of_its_kind(before)) == 2
    with pytest.raises(CaptureError, match="no input device"):  # which of them?
        find_again(before, was_alone=True)
    moved[0]["name"] = before.name
    assert find_again(before, was_alone=False).number == 0
    moved[3]["name"], moved[0]["name"] = "Microphone (H3-VR Audio)", "Microphone (2- H3-VR Audio)"
    assert len(of_its_kind(before._replace(name="Microphone (3- H3-VR Audio)"))) == 2
    monkeypatch.setattr(sounddevice, "DEVICES", moved[1:3])
    restart_portaudio()
    with pytest.raises(CaptureError, match="no input device 'Zoom H3-VR: USB Audio"):
        find_again(before, was_alone=True)


def test_missing_portaudio_is_told_with_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SeldrtError, match="libportaudio2"):
        list_inputs()
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # type: ignore[arg-type]
    with pytest.raises(SeldrtError, match=r"pip install 'seldrt\[live\]'"):
        list_inputs()


# --- how it is opened -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "opened"), [((1, 2, 3, 4), 4), ((5, 6, 7, 8), 8), ((4, 3, 2, 1), 4)])
def test_exactly_the_rate_and_the_channels_are_asked_for(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch, channels: tuple[int, ...], opened: int
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(sounddevice, "InputStream", lambda **given: asked.update(given))
    got: list[np.ndarray] = []
    device = Device(3, "UMC", "ALSA", 8, 44100)
    open_input(device, 96000, 480, lambda frames, _overflow: got.append(frames.copy()), channels)
    assert (asked["device"], asked["channels"], asked["samplerate"], asked["dtype"]) == (3, opened, 96000, "float32")
    frames = np.arange(1, opened + 1, dtype=np.float32)[None].repeat(5, axis=0)
    asked["callback"](frames, 5, None, SimpleNamespace(input_overflow=False))
    np.testing.assert_array_equal(got[0], np.array(channels, np.float32)[None].repeat(5, axis=0))


def test_wasapi_is_asked_for_all_channels_of_a_device(sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    device = Device(3, "UMC", "Windows WASAPI", 8, 48000)
    callbacks: list[Any] = []
    monkeypatch.setattr(
        sounddevice, "InputStream", lambda channels, callback, **_: (asked.append(channels), callbacks.append(callback))
    )
    monkeypatch.setattr(sounddevice, "check_input_settings", lambda channels, **_: asked.append(channels))
    got: list[np.ndarray] = []
    open_input(device, 48000, 480, lambda frames, _overflow: got.append(frames.copy()))
    callbacks[0](np.arange(8, dtype=np.float32)[None], 1, None, SimpleNamespace(input_overflow=False))
    np.testing.assert_array_equal(got[0], [[0, 1, 2, 3]])
    assert accepted_rates(device, rates_hz=()) == [48000]
    assert asked == [8, 8]


def test_the_map_of_channels_holds_from_the_device_to_the_samples(
    sounddevice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the very chain of `run`: an interface of eight, the microphone on 5 to 8."""
    wide = dict(sounddevice.DEVICES[0], max_input_channels=8)
    monkeypatch.setattr(sounddevice, "DEVICES", [wide, *sounddevice.DEVICES[1:]])
    begun: list[int] = []

    class Eight(fake_sounddevice.InputStream):
        def __init__(self, channels: int, **others: Any) -> None:
            begun.append(channels)
            super().__init__(channels=4, **others)

        def deliver(self, frames: np.ndarray, overflow: bool = False) -> None:
            super().deliver(np.tile(np.arange(1, 9, dtype=np.float32), (len(frames), 1)), overflow)

    monkeypatch.setattr(sounddevice, "InputStream", Eight)
    fuma = profile("fuma")
    names: list[str] = []
    microphone = Microphone(
        CaptureConfig(device="h3", device_rate=24000, channels=(5, 6, 7, 8)), lambda name: names.append(name) or fuma
    )
    samples = next(block.samples for block in microphone.blocks(24000) if len(block.samples))
    microphone.stop()
    microphone.close()
    assert (begun, names) == ([8], ["Zoom H3-VR: USB Audio (hw:1,0)"])
    np.testing.assert_allclose(samples[0], [5 * 2**0.5, 7, 8, 6], rtol=1e-6)


def test_a_profile_that_refuses_the_device_closes_it(sounddevice: ModuleType) -> None:
    def refuse(name: str) -> Any:
        raise SeldrtError(f"{name} will not do")

    with pytest.raises(SeldrtError, match=r"Zoom H3-VR.* will not do"):
        Microphone(CaptureConfig(device="h3"), refuse)
    assert not any(stream.active for stream in sounddevice.streams)


def test_the_rates_of_a_device_are_tried(sounddevice: ModuleType) -> None:
    assert accepted_rates(find_input("h3")) == [44100, 48000]
    assert accepted_rates(find_input("h3"), channels=8) == []


def test_the_rate_that_alsa_does_not_know_is_48_khz(sounddevice: ModuleType) -> None:
    device = find_input("h3")
    assert rate_to_ask(device) == 48000
    assert rate_to_ask(device._replace(rate=44100)) == 48000
    assert rate_to_ask(device._replace(rate=44100, host="Core Audio")) == 44100
    assert rate_to_ask(device._replace(rate=96000)) == 96000
    assert rate_to_ask(device._replace(rate=44100), channels=8) == 44100  # nothing goes: opening will say why


def test_a_device_of_16_khz_is_refused_unless_asked_for() -> None:
    with pytest.raises(CaptureError, match=r"gives 16000 Hz: nothing above 8000 Hz.*--device-rate 16000 listens"):
        check_rate("ReSpeaker", 16000, 0)
    check_rate("ReSpeaker", 16000, 16000)
    check_rate("H3-VR", 24000, 0)
    check_rate("not there yet", 0, 0)


# --- what is said and typed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"), [("5,6,7,8", (5, 6, 7, 8)), ("5-8", (5, 6, 7, 8)), ("1-2,8,7", (1, 2, 8, 7))]
)
def test_channels_are_lists_and_ranges(text: str, numbers: tuple[int, ...]) -> None:
    assert channel_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1-", "1-2-3", "99999", "1 2 3 4", "3", "1-5", "5-3,6,7,8"])
def test_channels_that_cannot_be_read_are_told(text: str) -> None:
    with pytest.raises(ConfigError, match="give four numbers from 1, like"):
        channel_numbers(text)


def test_the_start_says_what_the_channels_are_taken_for_and_what_is_done_to_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "low.wav"
    soundfile.write(path, np.zeros((100, 4)), 16000)
    recording = Recording(path, profile_of_recording(""))
    lines = microphone_lines(recording, 24000)
    recording.close()
    assert lines[0].startswith("microphone profile ambix, as --mic says nothing else: AmbiX")
    assert lines[1:] == [
        "resampling from 16000 to 24000 Hz",
        "warning: there is nothing above 8000 Hz in this sound, and the networks expect it",
    ]
    recording = Recording(path, profile_of_recording("nt-sf1"))
    lines = microphone_lines(recording, 16000)
    recording.close()
    assert len(lines) == 2
    assert "not confirmed" in lines[1]
