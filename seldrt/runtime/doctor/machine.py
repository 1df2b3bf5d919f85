"""What the computer says of itself: Python, the engine, PortAudio, the model's speed, clock, disk."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seldrt.config import LEAST_FOLDER_MB, ClipsConfig, PipelineConfig, RecordConfig
from seldrt.microphones import CHANNELS
from seldrt.runtime.devices import list_inputs, portaudio, with_channels
from seldrt.runtime.doctor.finding import Finding, bad, doubtful, good, not_checked

OLDEST_PYTHON = (3, 11)
WARM_UP_S, MEASURED_S = 2.0, 5.0  # of sound
COMFORTABLE, REAL_TIME = 0.7, 1.0  # real-time factor
TIME_ERROR = 5  # <sys/timex.h>: the clock is not synchronised
LEAST_MB = 100


def check_python() -> Finding:
    version = platform.python_version()
    text = f"Python {version} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    figures = {"python": version, "system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    if sys.version_info < OLDEST_PYTHON:
        return bad(text, "install Python {}.{} or later".format(*OLDEST_PYTHON), **figures)
    return good(text, **figures)


def check_engine(config: PipelineConfig) -> Finding:
    """The networks compute where they should, on no more threads than there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"on {config.compute}, {config.threads} of {cores} cores"
    figures = {"compute": config.compute, "threads": config.threads, "cores": cores}
    present = {"cpu": True}
    if config.compute != "cpu":
        try:
            import torch
        except (ImportError, OSError) as error:
            return bad(f"{text}: PyTorch cannot be loaded: {error}", "pip install 'seldrt[offline]'", **figures)
        present |= {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[config.compute]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        return bad(f"{text}: there is no {config.compute} here", f"use --compute {there}", **figures)
    if config.threads > cores:
        return doubtful(f"{text}: they will wait for each other", f"use --threads {cores} or less", **figures)
    return good(text, **figures)


def check_portaudio() -> Finding:
    """PortAudio is there, and shows devices of four channels."""
    with portaudio("PortAudio does not answer") as sd:
        version = sd.get_portaudio_version()[1].split(",")[0]
    found = list_inputs()
    usable = [device.name for device in with_channels(found)]
    text = f"{version}, {len(found)} inputs, {len(usable)} of them with {CHANNELS} channels or more"
    figures = {"portaudio": version, "inputs": [device.name for device in found], "usable": usable}
    if not usable:
        remedy = f"plug in a {CHANNELS}-channel microphone; set a Zoom H3-VR to audio interface, Ambisonics"
        return doubtful(text, remedy, **figures)
    return good(text, **figures)


def check_model(config: PipelineConfig, changes: Mapping[str, Any]) -> Finding:
    """The model loads and keeps up: computing time for a second of noise."""
    from seldrt.pipeline import open_pipeline

    start_s = time.perf_counter()
    pipeline = open_pipeline(config, changes)
    loaded_s = time.perf_counter() - start_s
    rate, label = pipeline.sample_rate, pipeline.samples_per_label
    sound = np.random.default_rng(0).standard_normal((round((WARM_UP_S + MEASURED_S) * rate), CHANNELS))
    spent_s = []
    for start in range(0, len(sound), label):
        block = sound[start : start + label].astype(np.float32) / 10
        start_s = time.perf_counter()
        pipeline.push(block)
        spent_s.append(time.perf_counter() - start_s)
    measured_s = spent_s[round(WARM_UP_S * rate) // label :]
    factor = sum(measured_s) * rate / (len(measured_s) * label)
    worst_ms = max(measured_s) * 1000
    engine = pipeline.model_card["engine"]
    name = f"{pipeline.model_id}, run by {engine},"
    text = f"{name} takes {factor:.2f} s for a second of sound; the longest block took {worst_ms:.0f} ms"
    figures = {
        "model": pipeline.model_id,
        "engine": engine,
        "load_s": round(loaded_s, 2),
        "real_time_factor": round(factor, 4),
        "longest_ms": round(worst_ms, 1),
        "latency_ms": round(sum(ms for _, ms in pipeline.latency_table), 1),
    }
    smaller = "" if pipeline.model_id == "light" else "choose --model light, "
    remedy = f"{smaller}close other programs, or try more --threads"
    if config.compute == "cpu" and engine == "PyTorch":
        remedy = f"give it a graph if its networks are causal (`offline merge`), {remedy}"
    if factor > REAL_TIME:
        return bad(f"{text}: too slow", remedy, **figures)
    if factor > COMFORTABLE:
        return doubtful(f"{text}: hardly any reserve", remedy, **figures)
    return good(text, **figures)


def check_clock() -> Finding:
    """The kernel says whether anything keeps this computer's clock right (NTP, PTP); no rights are needed to ask."""
    how = ": `timedatectl set-ntp true`, or install chrony" if sys.platform == "linux" else " in the system's settings"
    remedy = f"switch on a time service{how}"
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        answer = (ctypes.c_long * 32)()  # struct ntptimeval: time (2 longs), maxerror, esterror in microseconds, ...
        state = libc.ntp_gettime(answer)
    except (OSError, AttributeError, TypeError):
        return not_checked("this system does not say whether its clock is kept right")
    if state < 0 or state == TIME_ERROR:
        return doubtful("nothing keeps the clock right: capture times may be off", remedy, synchronised=False)
    error_ms = answer[2] / 1000
    return good(f"kept right, within {error_ms:.0f} ms", synchronised=True, max_error_ms=error_ms)


def check_disk(config: RecordConfig) -> Finding:
    """There is room for what ``--record`` may keep."""
    from seldrt.runtime.recorder import RECORDING, kept_files

    return _check_room(config, "--record", RECORDING, kept_files)


def check_clips(config: ClipsConfig) -> Finding:
    """There is room for what ``--clips`` may keep."""
    from seldrt.runtime.clip_folder import CLIPPING, kept_clips

    return _check_room(config, "--clips", CLIPPING, kept_clips)


def _check_room(
    config: RecordConfig | ClipsConfig, option: str, purpose: str, kept: Callable[[Path], list[Path]]
) -> Finding:
    if not config.dir:
        return not_checked(f"nothing is to be kept: no {option}")
    from seldrt.runtime.folders import fitting_bytes, kept_bytes, writable_folder

    folder = writable_folder(config.dir, purpose)
    there = kept_bytes(kept(folder))
    free_mb, kept_mb = shutil.disk_usage(folder).free / 1e6, there / 1e6
    fitting_mb = fitting_bytes(folder, there, config.max_mb * 1_000_000) // 1_000_000
    text = f"{folder}: {free_mb:.0f} MB free, {kept_mb:.0f} MB of {config.max_mb} MB kept"
    figures = {"free_mb": round(free_mb), "kept_mb": round(kept_mb), "max_mb": config.max_mb}
    if free_mb < LEAST_MB:
        return bad(text, "make room, or choose another folder", **figures)
    if fitting_mb < config.max_mb:
        smaller = f"use {option}-max-mb {fitting_mb}, or " if fitting_mb >= LEAST_FOLDER_MB else ""
        return doubtful(text, f"{smaller}make room", **figures)
    return good(text, **figures)
