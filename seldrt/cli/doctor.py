"""seldrt doctor: does everything work here, and what to do if not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seldrt.cli.chain import setting_options, settings
from seldrt.cli.shell import Number, say, setting
from seldrt.config import ConfigError, DaemonConfig, load_toml, printable
from seldrt.files import whole

if TYPE_CHECKING:
    from seldrt.runtime.doctor import Patient, Shown
    from seldrt.runtime.doctor.finding import Finding

MARKS = {"pass": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red"), "skip": ("-   ", None)}


@click.command()
@setting("--device", env="DEVICE", metavar="NAME", meaning="Input device; by default the only one with four channels.")
@setting("--device-rate", env="DEVICE_RATE", type=int, metavar="HZ", meaning="Rate to open it with.")
@click.option("--file", metavar="FILE", help="Look at (the first minute of) a recording instead of a device.")
@click.option("--seconds", type=Number(4, 600), default=6.0, show_default=True, help="How long to listen.")
@setting("--record", env="RECORD", metavar="DIR", meaning="Also check the folder that `run` would record to.")
@setting("--record-max-mb", env="RECORD_MAX_MB", type=int, metavar="MB", meaning="Largest size of that folder.")
@click.option(
    "--orientation", is_flag=True, help="Find out from claps in front and at the left how the microphone stands."
)
@click.option("--write", metavar="FILE.toml", help="With --orientation: save the yaw in this settings file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@setting_options
def doctor(file: str | None, seconds: float, orientation: bool, write: str | None, as_json: bool, **flags: Any) -> None:
    """Check this computer and a microphone; the exit code is 1 when something will not work.

    With --file, a recording made with the microphone is checked instead: a few seconds of any sound, or with
    --orientation some claps in front, a pause, and some claps at the left.
    """
    if write and not orientation:
        raise ConfigError("--write needs --orientation: the yaw is told by claps")
    if file and flags["device"]:
        raise ConfigError("--file and --device exclude each other")
    if write and os.path.exists(write):
        flags["config"] = flags["config"] or write
    from seldrt.runtime.doctor import Patient

    patient = Patient(settings(flags), Path(file) if file else None, seconds, meter(not as_json))
    found = {}
    for name, finding in oriented(patient, write) if orientation else examined(patient):
        found[name] = finding
        if not as_json:
            tell(name, finding)
    failed = any(finding.verdict == "fail" for finding in found.values())
    if as_json:
        print_json(found, ok=not failed)
    if failed:
        sys.exit(1)


def examined(patient: Patient) -> Iterator[tuple[str, Finding]]:
    """All checks but that of the axes."""
    from seldrt.runtime.doctor import examine_all

    if patient.file is None:
        say("listening for some seconds; a little noise around the microphone helps (speak, rustle paper)")
    yield from examine_all(patient)


def oriented(patient: Patient, write: str | None) -> Iterator[tuple[str, Finding]]:
    """The check of the axes; the yaw goes into the settings ``write``, where it is all that is wrong."""
    from seldrt.runtime.doctor.axes import new_yaw_deg
    from seldrt.runtime.doctor.finding import examine, good

    def check() -> Finding:
        finding, axes = patient.judge_orientation(say)
        if axes is None or write is None:
            return finding
        yaw_deg = new_yaw_deg(axes, patient.capture.yaw_deg)
        write_yaw(Path(write), yaw_deg)
        return good(f"{finding.text}; {write} has yaw_deg = {yaw_deg} now", **finding.figures)

    yield "orientation", examine(check)


def write_yaw(path: Path, yaw_deg: float) -> None:
    """Puts the yaw into a TOML file of settings and keeps the rest of it, comments too; `ConfigError` else."""
    import tomlkit

    if path.exists():
        load_toml(path, DaemonConfig)
    elif not path.parent.is_dir():
        raise ConfigError(f"{path}: cannot be written: there is no folder {path.parent}")
    try:
        before = path.read_bytes().decode("utf-8-sig") if path.exists() else ""  # with the ends of its lines
        document = tomlkit.parse(before)
        document.setdefault("capture", tomlkit.table())["yaw_deg"] = yaw_deg
        real = path.resolve()
        with whole(real) as partial:
            partial.write_bytes(tomlkit.dumps(document).encode())
            if real.exists():
                partial.chmod(real.stat().st_mode & 0o777)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def tell(name: str, finding: Finding) -> None:
    """A line for the finding, and one for its remedy."""
    mark, colour = MARKS[finding.verdict]
    click.echo(f"{click.style(mark, fg=colour)}  {name:<12}{printable(finding.text)}")
    if finding.remedy:
        click.echo(f"{'':18}-> {printable(finding.remedy)}")


def print_json(found: dict[str, Finding], ok: bool) -> None:
    """All findings by the ids of their checks."""
    import msgspec

    from seldrt import __version__
    from seldrt.runtime.doctor.finding import Report

    click.echo(msgspec.json.encode(Report(seldrt=__version__, ok=ok, checks=found)))


def meter(wanted: bool) -> Shown:
    """Shows how loud the channels are, ten times a second, where there is a terminal to show it on."""
    from seldrt.runtime.doctor.signals import LiveMeter

    return LiveMeter(sys.stderr if wanted and sys.stderr.isatty() else None).show
