"""A private audio server with virtual microphones: PulseAudio in user space, without a sound card.

A virtual microphone is the monitor of a null sink: what is played into the sink is captured, sample for sample, in
real time. PortAudio sees it as an ALSA device by the name that a private ALSA configuration gives it. Nothing is read
from or written to the user's own settings.
"""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.processes import PATIENCE_S, until

RATE = 48000
CHANNEL_MAP = "front-left,front-right,rear-left,rear-right"
ALSA_CONFIG = Path("/usr/share/alsa/alsa.conf")
PACKAGES = "libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins"


def missing() -> str:
    """What keeps an audio server from running here; "" when nothing does."""
    if not sys.platform.startswith("linux"):
        return "virtual microphones are made with PulseAudio and ALSA on Linux"
    absent = [name for name in ("pulseaudio", "pactl", "pacat") if shutil.which(name) is None]
    if not ALSA_CONFIG.is_file() or not list(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")):
        absent.append("ALSA's plugin for PulseAudio")
    if ctypes.util.find_library("portaudio") is None:
        absent.append("PortAudio")
    return f"not installed: {', '.join(absent)} (Debian: apt-get install {PACKAGES})" if absent else ""


class AudioServer:
    """A server of its own with microphones of four channels; `environment` lets a program see them."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="seldrt-audio-"))  # short: the path of a socket has 107 bytes
        self._socket = self._folder / "native"
        self._alsa = self._folder / "alsa.conf"
        self._modules: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        own = {"HOME": self._folder, "XDG_RUNTIME_DIR": self._folder, "PULSE_RUNTIME_PATH": self._folder / "pulse"}
        self._own = {k: v for k, v in os.environ.items() if not k.startswith(("PULSE_", "XDG_", "DBUS_", "DISPLAY"))}
        self._own |= {key: str(path) for key, path in own.items()} | {"PULSE_SERVER": f"unix:{self._socket}"}
        self._write_alsa([])
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        assert self._alsa.is_file()  # ALSA aborts the program when it is not
        return os.environ | {"ALSA_CONFIG_PATH": str(self._alsa)}

    def start(self) -> None:
        """Brings the server up, without microphones."""
        self._socket.unlink(missing_ok=True)
        self._modules.clear()
        script = self._folder / "server.pa"
        script.write_text(f"load-module module-native-protocol-unix socket={self._socket} auth-anonymous=1\n")
        options = "--daemonize=no --exit-idle-time=-1 --use-pid-file=no --disable-shm=yes --realtime=no"
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["pulseaudio", "-n", "-F", str(script), *options.split(), "--high-priority=no"],
                env=self._own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._ask("info", check=False).returncode == 0, "the audio server does not come up")

    def plug(self, name: str) -> None:
        """A microphone of that name, with silence; the same name is the same microphone."""
        if name not in self._modules:
            # without norewinds the first samples come seconds late
            arguments = f"sink_name={_node(name)} format=s16le rate={RATE} channels=4 channel_map={CHANNEL_MAP}"
            loaded = self._ask("load-module", "module-null-sink", *arguments.split(), "norewinds=1")
            self._modules[name] = loaded.stdout.strip()
        self._write_alsa([*self._modules])

    def unplug(self, name: str) -> None:
        """It goes; programs still find its name, as with hardware until PortAudio looks anew."""
        self._ask("unload-module", self._modules.pop(name))

    def play(self, samples: np.ndarray, name: str) -> subprocess.Popen[bytes]:
        """Plays int16 samples (n, 4) at 48 kHz into a microphone; the process ends when all is played."""
        assert samples.dtype == np.int16
        path = self._folder / f"played-{time.monotonic_ns()}.raw"
        path.write_bytes(np.ascontiguousarray(samples).tobytes())
        shape = ["--raw", "--format=s16le", f"--rate={RATE}", "--channels=4", f"--channel-map={CHANNEL_MAP}"]
        command = ["pacat", "--playback", f"--device={_node(name)}", *shape, str(path)]
        return subprocess.Popen(command, env=self._own, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """The server dies without a word."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _ask(self, *request: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pactl", *request], env=self._own, capture_output=True, text=True, check=check, timeout=PATIENCE_S
        )

    def _write_alsa(self, names: list[str]) -> None:
        lines = [f"<{ALSA_CONFIG}>"]
        for name in names:
            source = f'type pulse server "unix:{self._socket}" device "{_node(name)}.monitor"'
            lines.append(f'pcm."{name}" {{ type asym capture.pcm {{ {source} }} }}')
        part = self._alsa.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        os.replace(part, self._alsa)


def _node(name: str) -> str:
    return "microphone_" + re.sub(r"[^A-Za-z0-9]", "_", name)
