"""python -m benchmarks.soak --minutes N: the daemon on a virtual microphone, with random faults, for as long as wished.

A sound is played over and over; the microphone is unplugged, its server killed or frozen; subscribers come, go, and
some of them never read. In the end: what became of memory, file descriptors, latency and samples.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgpack
import numpy as np
import soundfile
import soxr
import zmq

from seldrt.runtime.demo import demo_files
from tests.live.audio_server import RATE, AudioServer, missing

MICROPHONE = "Zoom H3-VR"
LOOK_S = 5.0
CALM_S = (15.0, 45.0)  # between faults
FAULT_S = (0.5, 12.0)  # how long one lasts
STUCK = 0.2  # share of the subscribers that never read
MIB = 1024.0  # kB


class Subject:
    """The daemon, what it says, and what it takes of the machine."""

    def __init__(self, server: AudioServer) -> None:
        options = ["--device", MICROPHONE, "--bind", "tcp://127.0.0.1:*", "--quiet"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "seldrt", "run", *options], env=server.environment, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.endpoint = next(
            found[1] for line in self.process.stderr if (found := re.search(r"publishing \S+ at (\S+)", line))
        )
        self.lines: list[str] = []
        self.delays_ms: list[float] = []
        self.statuses: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []  # minutes, MiB
        self.descriptors: list[int] = []
        self._ending, self._looked = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._hear, self._look)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def _hear(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.subscribe("seld1.")
        socket.connect(self.endpoint)
        while not self._ending.is_set():
            if not socket.poll(200):
                continue
            message = msgpack.unpackb(socket.recv_multipart()[1])
            self.counts[message["type"]] += 1
            if message["type"] == "frame":
                self.delays_ms.append((message["t_pub_ns"] - message["t_capture_ns"]) / 1e6)
            elif message["type"] == "status":
                self.statuses.append(message)
        context.destroy(linger=0)

    def _look(self) -> None:
        proc, began_s = Path(f"/proc/{self.process.pid}"), time.monotonic()
        while not self._looked.wait(LOOK_S) and self.process.poll() is None:
            resident = re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())
            if resident:
                self.memory.append(((time.monotonic() - began_s) / 60, int(resident[1]) / MIB))
                self.descriptors.append(len(list((proc / "fd").iterdir())))

    def end(self) -> int:
        self._looked.set()  # what it takes while it ends is no news
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        time.sleep(0.5)
        self._ending.set()
        for thread in self._threads:
            thread.join()
        return code


def play(server: AudioServer, ending: threading.Event) -> None:
    """The demonstration, over and over, whatever happens to the server."""
    sound, rate = soundfile.read(demo_files()[0], always_2d=True)
    played = np.round(soxr.resample(sound, rate, RATE) * 32767).clip(-32768, 32767).astype(np.int16)
    while not ending.wait(0.5):
        player = server.play(played, MICROPHONE)
        while player.poll() is None and not ending.wait(0.2):
            pass
        player.kill()
        player.wait()


def subscribe(endpoint: str, rng: random.Random, ending: threading.Event) -> None:
    """Subscribers that come and go; some never read."""
    context = zmq.Context()
    while not ending.wait(rng.uniform(0.0, 2.0)):
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 10)
        socket.subscribe("seld1.")
        socket.connect(endpoint)
        stuck, until_s = rng.random() < STUCK, time.monotonic() + rng.uniform(0.1, 20.0)
        while time.monotonic() < until_s and not ending.wait(0.05):
            while not stuck and socket.poll(0):
                socket.recv_multipart()
        socket.close(linger=0)
    context.destroy(linger=0)


def strike(server: AudioServer, fault: str, seconds: float) -> None:
    if fault == "unplug":
        server.unplug(MICROPHONE)
        time.sleep(seconds)
    elif fault == "kill":
        server.kill()
        time.sleep(seconds)
        server.start()
    else:
        server.freeze()
        time.sleep(seconds)
        server.thaw()
    server.plug(MICROPHONE)


def figures(subject: Subject, faults: Counter[str], minutes: float) -> dict[str, Any]:
    """What is told at the end; memory in MiB, and its slope after the first fifth."""
    when, memory = np.array(subject.memory).T
    settled = when > when[-1] / 5
    last = subject.statuses[-1]
    p99s_ms = [s["latency_p99_ms"] for s in subject.statuses if s["latency_p99_ms"] is not None]
    return {
        "minutes": round(minutes, 1),
        "faults": dict(faults),
        "openings_again": sum(line.startswith("resolved: device") for line in subject.lines),
        "gaps": subject.counts["gap"],
        "lost_s": round(last["lost_samples"] / 24000, 1),
        "overruns": last["overruns"],
        "frames": subject.counts["frame"],
        "frame_delay_ms_p50_p99": np.percentile(subject.delays_ms, [50, 99]).round().tolist(),
        "latency_ms_p50": float(np.median([s["latency_p50_ms"] or 0.0 for s in subject.statuses])),
        "latency_ms_p99_median_worst": [float(np.median(p99s_ms)), max(p99s_ms)],
        "memory_mib_start_end_most": [round(memory[settled][0]), round(memory[-1]), round(memory.max())],
        "memory_mib_per_hour": round(float(np.polyfit(when[settled], memory[settled], 1)[0]) * 60, 1),
        "descriptors_start_end_most": [subject.descriptors[0], subject.descriptors[-1], max(subject.descriptors)],
        "final_state": last["state"],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(1.0), default=30.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(minutes: float, seed: int) -> None:
    """Live capture on a virtual microphone with random faults and subscribers that come and go."""
    if reason := missing():
        raise click.ClickException(reason)
    rng, faults, ending = random.Random(seed), Counter[str](), threading.Event()
    server = AudioServer()
    try:
        server.plug(MICROPHONE)
        subject = Subject(server)
        workers = [threading.Thread(target=play, args=(server, ending))]
        for number in range(5):
            arguments = (subject.endpoint, random.Random(f"{seed} {number}"), ending)
            workers.append(threading.Thread(target=subscribe, args=arguments))
        for worker in workers:
            worker.start()
        end_s = time.monotonic() + minutes * 60
        while (calm_s := rng.uniform(*CALM_S)) < end_s - time.monotonic() and subject.process.poll() is None:
            time.sleep(calm_s)
            fault, seconds = rng.choice(("unplug", "kill", "freeze")), rng.uniform(*FAULT_S)
            faults[fault] += 1
            click.echo(f"{fault} for {seconds:.1f} s", err=True)
            strike(server, fault, seconds)
        time.sleep(max(0.0, end_s - time.monotonic()))
        code = subject.end()
        ending.set()
        for worker in workers:
            worker.join()
    finally:
        ending.set()
        server.close()
    for key, value in figures(subject, faults, minutes).items():
        click.echo(f"{key:<28} {json.dumps(value)}")
    sys.exit(code)


if __name__ == "__main__":
    main()
