"""The doctor: checks of a computer and a microphone, each with a verdict and a remedy, none stopping the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from seldrt.config import CaptureConfig, DaemonConfig, PublisherConfig, SeldrtError
from seldrt.microphones import CHANNELS, Profile, choose_profile, orientation, profile_of_recording
from seldrt.runtime.devices import LOWEST_RATE_HZ, list_inputs, with_channels
from seldrt.runtime.doctor import machine, signals
from seldrt.runtime.doctor.axes import Axes, halves, judge
from seldrt.runtime.doctor.finding import Check, Finding, bad, doubtful, examine, good, not_checked
from seldrt.runtime.doctor.listening import Heard, Shown, check_flow, check_opened, listen, read
from seldrt.runtime.publisher import Publisher

NO_SOUND = "there is no sound to look at: see `device`"
CLAPS_S = 8.0  # to clap in


class Patient:
    """What is looked at: settings, and the sound of a device, or of a ``file``.

    ``shown`` sees the sound as it comes.
    """

    def __init__(self, config: DaemonConfig, file: Path | None, seconds: float, shown: Shown) -> None:
        self.config, self.file = config, file
        self.capture = config.capture
        self._seconds, self._shown = seconds, shown
        self._heard: Heard | None = None

    def checks(self) -> Iterator[tuple[str, Check]]:
        """All checks in order, by ids that never change their meaning."""
        config = self.config
        yield "python", machine.check_python
        yield "engine", lambda: machine.check_engine(config.pipeline)
        if self.file is None:
            yield "portaudio", machine.check_portaudio
        yield "device", self._check_device
        if self.file is None:
            yield "flow", self._of_sound(check_flow)
        yield "channels", self._of_sound(signals.check_channels)
        yield "level", self._of_sound(signals.check_level)
        yield "format", self._of_sound(lambda heard: signals.check_format(heard, self.profile(heard.name)))
        yield "model", lambda: machine.check_model(config.pipeline, config.postprocess)
        yield "address", lambda: check_address(config.publisher)
        yield "keys", lambda: check_keys(config.publisher)
        yield "clock", machine.check_clock
        yield "disk", lambda: machine.check_disk(config.record)
        yield "clips", lambda: machine.check_clips(config.clips)

    def profile(self, device: str) -> Profile:
        """What the channels mean, as `run` and `replay` choose it."""
        capture = self.capture
        mic = profile_of_recording(capture.mic) if self.file else choose_profile(capture.mic, device)
        return mic.turned(orientation(capture.mount, capture.yaw_deg))

    def judge_orientation(self, ask: Callable[[str], None]) -> tuple[Finding, Axes | None]:
        """The check of the axes; ``ask`` tells where to clap, before it listens for that."""
        if self.file:
            heard = read(self.file, self.capture.channels)
            front, left = halves(heard.frames, heard.rate)
            if not len(left):
                remedy = "record claps in front, a pause of some seconds, and claps at the left, in a quiet room"
                return bad(f"{self.file}: there are no two claps in it", remedy), None
        else:
            self.capture = only_input(self.capture)
            ask(f"clap three times in FRONT of the microphone, an arm's length away, within {CLAPS_S:.0f} s")
            heard = listen(self.capture, CLAPS_S, self._shown)
            front = heard.frames
            ask(f"now three times at its LEFT, within {CLAPS_S:.0f} s")
            left = listen(self.capture, CLAPS_S, self._shown).frames
        mic = self.profile(heard.name)
        return judge(front, left, heard.rate, lambda frames: mic.to_foa(frames, heard.rate))

    def _check_device(self) -> Finding:
        if self.file:
            self._heard = heard = read(self.file, self.capture.channels)
            length_s = len(heard.frames) / heard.rate
            whole = f"the first {length_s:.0f} of {length_s + heard.left_out_s:.0f} s"
            text = f"{self.file}: {whole if heard.left_out_s else f'{length_s:.1f} s'} at {heard.rate} Hz"
            figures = {"rate_hz": heard.rate, "seconds": length_s}
            if heard.rate < LOWEST_RATE_HZ:
                remedy = f"record at {LOWEST_RATE_HZ} Hz or more: there is nothing above {heard.rate // 2} Hz in it"
                return doubtful(text, remedy, **figures)
            return good(text, **figures)
        try:
            self.capture = only_input(self.capture)
        except SeldrtError as error:
            return not_checked(str(error))
        try:
            self._heard = heard = listen(self.capture, self._seconds, self._shown)
        except SeldrtError as error:
            return bad(str(error), "see `seldrt devices`; plug it in again; is another program using it?")
        return check_opened(heard)

    def _of_sound(self, check: Callable[[Heard], Finding]) -> Check:
        return lambda: check(self._heard) if self._heard else not_checked(NO_SOUND)


def only_input(capture: CaptureConfig) -> CaptureConfig:
    """The settings with a device: the one that is named, else the only one that will do; `SeldrtError` else."""
    if capture.device:
        return capture
    names = [device.name for device in with_channels(list_inputs())]
    if len(names) != 1:
        raise SeldrtError(
            f"which microphone? give --device NAME; with {CHANNELS} channels: {', '.join(names) or 'none'}"
        )
    return replace(capture, device=names[0])


def check_address(config: PublisherConfig) -> Finding:
    """The addresses of `run` can be bound."""
    with closing(Publisher(config.bind, config.insecure_bind, config.control, config.curve_keys)) as publisher:
        bound = ", ".join(filter(None, (publisher.endpoint, publisher.control_endpoint)))
        figures = {"bind": publisher.endpoint, "control": publisher.control_endpoint}
    if config.insecure_bind and not config.curve_keys:
        remedy = "make keys (`seldrt keys new NAME`) and use --curve-keys instead of --insecure-bind"
        return doubtful(f"{bound} can be bound, and anybody in reach may listen", remedy, **figures)
    return good(f"{bound} can be bound", **figures)


def check_keys(config: PublisherConfig) -> Finding:
    """The folder of keys is whole, its secret is one, and somebody may listen."""
    if not config.curve_keys:
        return not_checked("no keys are asked for: no --curve-keys")
    from seldrt.keys import load_allowed, load_server

    folder = Path(config.curve_keys)
    load_server(folder)
    allowed, damaged = load_allowed(folder)
    clients = sorted(allowed)
    if damaged:
        return doubtful("; ".join(damaged), "remove it, or make it anew with `seldrt keys new`", clients=clients)
    if not clients:
        remedy = f"seldrt keys new NAME --dir {folder}"
        return doubtful(f"{folder}: no client may listen", remedy, clients=clients)
    return good(f"{folder}: {len(clients)} clients may listen: {', '.join(clients)}", clients=clients)


def examine_all(patient: Patient) -> Iterator[tuple[str, Finding]]:
    """One finding after the other, as they are found."""
    for name, check in patient.checks():
        yield name, examine(check)
