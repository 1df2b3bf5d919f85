"""seldrt service: a systemd unit that keeps the daemon running."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence

import click
from click.core import ParameterSource

from seldrt.cli.chain import Flags, check_publishing, check_wanted
from seldrt.cli.run import run, run_settings
from seldrt.cli.shell import say
from seldrt.config import ConfigError, DaemonConfig
from seldrt.models import model_path

WATCHDOG_S = 30  # the daemon is heard of once a second
START_S = 120  # to load the model on a small computer
RESTART_S = 5
STATE = "/var/lib/seldrt"  # of seldrt.service: a unit of another name has a folder of that name

COMMON = """\
[Unit]
Description=seldrt: what sounds, where from, and when
After={after}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
{environment}ExecStart={command}
TimeoutStartSec={start_s}
WatchdogSec={watchdog_s}
Restart=always
RestartSec={restart_s}
LimitCORE=0
UMask=0077
"""
# A user of its own that may open sound devices, read nearly everything, and write to its own folders only.
SYSTEM = """\
DynamicUser=yes
SupplementaryGroups=audio
StateDirectory=%N
CacheDirectory=%N
RuntimeDirectory=%N
WorkingDirectory=%S/%N
MemoryMax=80%
LimitNOFILE=65536
Environment=NUMBA_CACHE_DIR=%C/%N
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictSUIDSGID=yes
RestrictNamespaces=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
LockPersonality=yes

[Install]
WantedBy=multi-user.target
"""
USER = """\
NoNewPrivileges=yes
LimitNOFILE=65536

[Install]
WantedBy=default.target
"""


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--user",
    "for_user",
    is_flag=True,
    help="Make a user service (with a desktop's audio server) instead of a system service.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF RUN...]")
def service(for_user: bool, arguments: tuple[str, ...]) -> None:
    """Print a systemd unit that runs the daemon with these options, and starts it again whenever it ends.

    Settings of `run` in the environment (SELDRT_...) go into the unit. It waits for a microphone that is not there
    (--wait). Units of different names, roof.service and cellar.service, share no folder.

    \b
    seldrt service -- --device "Zoom H3-VR" | sudo tee /etc/systemd/system/seldrt.service
    sudo systemctl enable --now seldrt

    \b
    seldrt service --user -- --device "Zoom H3-VR" > ~/.config/systemd/user/seldrt.service
    systemctl --user enable --now seldrt
    """
    context = run.make_context("run", list(arguments))
    options = context.params
    if not options["device"] and not options["config"]:
        raise ConfigError('which microphone? give its options after --, like: seldrt service -- --device "Zoom H3-VR"')
    config = check(options)
    program = own_program()
    for told in [*remarks(options, config), *([] if for_user else warnings(program[0], options, config))]:
        say(f"note: {told}")
    if sys.platform != "linux":
        say("note: systemd exists on Linux only; this system starts services in another way")
    waiting = [] if config.capture.wait else ["--wait"]
    click.echo(unit([*program, "run", *waiting, *arguments], for_user, given_by_environment(context)), nl=False)


def check(flags: Flags) -> DaemonConfig:
    """What the service will use; refuses what `run` would before it opens anything.

    A file that is not there yet may still come; a model without a folder is a bundled one.
    """
    if flags["config"] and not os.path.exists(flags["config"]):
        flags = flags | {"config": None, "device": flags["device"] or "as the file will say"}
    if flags["model"] and not os.path.dirname(flags["model"]):
        model_path(flags["model"])
    if (flags["mic"] or "").endswith(".toml") and not os.path.exists(flags["mic"]):
        flags = flags | {"mic": None}
    if flags["dcase"]:
        raise ConfigError(f"--dcase {flags['dcase']}: a service never ends, so the table never appears; use --csv")
    config, _ = run_settings(flags)
    check_publishing(config.publisher, flags)
    model = config.pipeline.model
    if not os.path.dirname(model) or os.path.exists(model):
        check_wanted(config)
    return config


def given_by_environment(context: click.Context) -> list[str]:
    """The settings that a command took from environment variables, as NAME=VALUE."""
    return [
        f"{option.envvar}={os.environ[str(option.envvar)]}"
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT
    ]


def unit(command: list[str], for_user: bool, environment: Sequence[str] = ()) -> str:
    """The text of the unit for a command line, and for environment variables NAME=VALUE."""
    after = "pipewire.service pulseaudio.service" if for_user else "sound.target network.target time-sync.target"
    text = COMMON.format(
        after=after,
        environment="".join(f"Environment={quoted(setting).replace('$$', '$')}\n" for setting in environment),
        command=" ".join(map(quoted, command)),
        start_s=START_S,
        watchdog_s=WATCHDOG_S,
        restart_s=RESTART_S,
    )
    return text + (USER if for_user else SYSTEM)


def quoted(word: str) -> str:
    """A word as ExecStart takes it (systemd.service(5), "Command lines"): % and $ mean something else there."""
    if any(ord(letter) < 32 for letter in word):
        raise ConfigError(f"{word!r}: a unit cannot hold control characters")
    plain = word.replace("%", "%%").replace("$", "$$")
    if plain and all(letter.isalnum() or letter in "/._-:=,@+%$*[]" for letter in plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def own_program() -> list[str]:
    """How systemd starts this very program: an absolute path."""
    script = sys.argv[0]  # a Path would forget the ./
    if os.path.basename(script) == "seldrt" and (found := shutil.which(script)):
        return [os.path.abspath(found)]
    return [os.path.abspath(sys.executable), "-m", "seldrt"]


def remarks(flags: Flags, config: DaemonConfig) -> list[str]:
    """What a service had better be told."""
    found = []
    if not config.publisher.source:
        found.append("no --source: it is named after its device, as all stations of that kind are; try --source roof")
    if not flags["quiet"]:
        found.append("no --quiet: each event adds two lines to the journal")
    return found


def warnings(program: str, flags: Flags, config: DaemonConfig) -> list[str]:
    """What a service of the system could not do, as flags or the settings want it."""
    found = []
    publisher = config.publisher
    wanted = {"record": config.record.dir, "clips": config.clips.dir, "model": config.pipeline.model}
    wanted |= {"mic": config.capture.mic, "curve_keys": publisher.curve_keys}
    wanted |= {"bind": publisher.bind, "control": publisher.control}
    wanted |= {option: str(value) for option, value in flags.items() if value}
    home = os.path.expanduser("~")
    if program.startswith(("/root/", "/home/", home.rstrip("/") + "/", "/tmp/", "/var/tmp/")):
        found.append(f"{program} is where the service cannot read it: install it in /opt, or use --user")
    for option in ("record", "clips", "csv", "jsonl"):
        name = wanted.get(option)
        if name and name != "-" and not is_own(name):
            found.append(f"--{option} {name}: the service can write to {STATE} only (as seldrt.service)")
    for option in () if flags["no_publish"] else ("bind", "control"):
        name = wanted.get(option, "")
        if name.startswith("ipc://") and not re.match(r"ipc:///run/[^/]+/.", name):
            found.append(f"--{option} {name}: the service can make sockets in /run/seldrt only (as seldrt.service)")
    keys = wanted["curve_keys"]
    if os.path.isdir(keys) and not is_own(os.path.abspath(keys)):
        found.append(
            f"--curve-keys {keys}: only its owner may read what is secret there, and the service is a user of its own: "
            f"move the folder to {STATE}/keys and, once that exists, `chown -R --reference={STATE} {STATE}/keys`"
        )
    certain = ("config", "curve_keys")  # models and microphones have names, too
    for option in ("config", "model", "mic", "curve_keys"):
        name, flag = wanted.get(option, ""), f"--{option.replace('_', '-')}"
        if os.path.exists(name) and not os.path.isabs(name):
            found.append(f"{flag} {name}: give the whole path, the service starts in {STATE}")
        elif name and not os.path.exists(name) and (os.path.dirname(name) or option in certain or name[-5:] == ".toml"):
            found.append(f"{flag} {name}: there is no such file yet, and the service cannot start without it")
    return found


def is_own(name: str) -> bool:
    """Whether a path, as the service sees it, lies in its own folder; for a whole path, in one of any unit's name."""
    place = os.path.normpath(os.path.join(STATE, name))
    return place.startswith(f"{STATE}/") or bool(os.path.isabs(name) and re.match("/var/lib/[^/]+/.", place))
