"""The house plan: who may import whom, and what must not be loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offline.bundle import PACKAGES

ROOT = Path(__file__).parents[1]

# Room: the rooms it may import; a name stands for all modules in it. Rooms only know rooms further up.
SELDRT = {
    "seldrt": (),
    "seldrt.signals": (),
    "seldrt.samples": (),
    "seldrt.stream": (),
    "seldrt.spatial": (),
    "seldrt.config": (),
    "seldrt.files": ("config",),
    "seldrt.medians": (),
    "seldrt.models": ("config", "files"),
    "seldrt.microphones": ("config", "spatial", "stream", "samples"),
    "seldrt.gain": ("config", "stream"),
    "seldrt.rumble": ("config", "stream"),
    "seldrt.features": ("config", "stream", "medians", "gain", "rumble"),
    "seldrt.description": ("config",),
    "seldrt.graph": ("stream", "features", "description"),
    "seldrt.networks": ("config", "features", "description"),
    "seldrt.checkpoint": ("config", "files", "networks", "description", "graph"),
    "seldrt.inference": ("config", "stream", "features", "networks", "description", "checkpoint"),
    "seldrt.findings": (),
    "seldrt.events": ("findings",),
    "seldrt.smoothing": ("config", "stream", "spatial", "findings"),
    "seldrt.postprocess": ("config", "stream", "spatial", "medians", "findings", "smoothing"),
    "seldrt.pipeline": (
        *("config", "samples", "stream", "features", "models", "description", "graph", "checkpoint", "inference"),
        *("findings", "postprocess"),
    ),
    "seldrt.levels": ("findings",),
    "seldrt.detection": ("config", "findings"),
    "seldrt.keys": ("config", "files", "detection"),
    "seldrt.replies": ("detection",),
    "seldrt.connection": ("detection", "keys"),
    "seldrt.client": ("config", "connection", "detection", "replies"),
    "seldrt.runtime.ring": (),
    "seldrt.runtime.devices": ("config", "microphones"),
    "seldrt.runtime.clock": (),
    "seldrt.runtime.channels": ("samples",),
    "seldrt.runtime.health": (),
    "seldrt.runtime.systemd": (),
    "seldrt.runtime.background": ("runtime.health",),
    "seldrt.runtime.folders": ("config", "files"),
    "seldrt.runtime.origination": ("runtime.devices",),
    "seldrt.runtime.capture": ("microphones", "detection", "samples"),
    "seldrt.runtime.recording": (
        *("config", "files", "microphones", "detection", "samples"),
        *("runtime.channels", "runtime.devices", "runtime.capture"),
    ),
    "seldrt.runtime.watched": ("config", "microphones", "runtime.ring", "runtime.clock", "runtime.devices"),
    "seldrt.runtime.microphone": (
        *("config", "microphones", "detection", "samples"),
        *("runtime.clock", "runtime.channels", "runtime.capture", "runtime.watched"),
    ),
    "seldrt.runtime.sockets": ("connection", "detection", "keys"),
    "seldrt.runtime.publisher": ("detection", "replies", "runtime.sockets"),
    "seldrt.runtime.outputs": ("config", "files"),
    "seldrt.runtime.sinks": ("files", "findings", "levels", "detection", "runtime.outputs"),
    "seldrt.runtime.web": ("connection", "detection", "runtime.sockets"),
    "seldrt.runtime.patience": ("config", "connection", "client", "detection"),
    "seldrt.runtime.display": (
        *("config", "client", "connection", "detection", "runtime.patience", "runtime.sinks", "runtime.web"),
    ),
    "seldrt.runtime.demo": (
        *("config", "spatial", "models", "description", "findings"),
        *("runtime.devices", "runtime.sinks"),
    ),
    "seldrt.runtime.daemon": (
        *("config", "microphones", "findings", "events", "detection"),
        *("runtime.capture", "runtime.clock", "runtime.health", "runtime.systemd", "runtime.publisher"),
        "runtime.sinks",
    ),
    "seldrt.runtime.recorder": ("config", "files", "microphones", "runtime.clock", "runtime.folders", "runtime.health"),
    "seldrt.runtime.clip_folder": ("config", "files", "detection", "runtime.folders"),
    "seldrt.runtime.clips": ("config", "spatial", "findings", "detection", "runtime.clip_folder", "runtime.sinks"),
    "seldrt.runtime.doctor": (
        *("config", "spatial", "microphones", "levels", "keys", "pipeline", "runtime.channels"),
        *("runtime.devices", "runtime.recording", "runtime.watched", "runtime.publisher"),
        *("runtime.folders", "runtime.recorder", "runtime.clip_folder"),
    ),
    "seldrt.cli.shell": ("config", "files"),
    "seldrt.cli": (
        "config",
        "files",
        "signals",
        "microphones",
        "detection",
        "events",
        "models",
        "pipeline",
        "keys",
        "replies",
        "client",
        "runtime",
    ),
    "seldrt.__main__": ("cli",),
}
WIRE = ("seldrt.keys", "seldrt.replies", "seldrt.connection", "seldrt.client", "seldrt.runtime", "seldrt.cli")
CORE = tuple(room for room in SELDRT if not room.startswith(WIRE))
COMMANDS = {"offline.cli": ("seldrt.cli.shell",)}  # what both command lines need
OFFLINE = {
    "offline": (),
    "offline.config": (),
    "offline.workers": (),
    "offline.cluster": ("workers",),
    "offline.bundle": (),
    "offline.losses": (),
    "offline.arrays": (),
    "offline.files": (),
    "offline.dataset": ("files",),
    "offline.stretch": ("dataset", "files", "workers"),
    "offline.metrics": (),
    "offline.event_counts": ("metrics",),
    "offline.targets": ("event_counts",),
    "offline.convolution": (),
    "offline.encoding": ("arrays", "convolution", "dataset", "files"),
    "offline.rooms": ("arrays",),
    "offline.alarms": ("arrays", "files"),
    "offline.bank": ("arrays", "files"),
    "offline.plans": ("encoding", "rooms"),
    "offline.scenes": ("config", "arrays", "rooms", "bank", "encoding", "plans"),
    "offline.rendering": ("arrays", "rooms", "bank", "convolution", "encoding", "plans"),
    "offline.synthesis": (
        *("config", "arrays", "bank", "dataset", "files", "plans", "scenes", "rendering", "workers", "cluster"),
    ),
    "offline.extract": ("dataset", "encoding", "files", "targets", "workers"),
    "offline.batches": ("extract",),
    "offline.augment": ("config", "batches"),
    "offline.objective": ("config", "batches", "losses"),
    "offline.validation": ("config", "batches", "objective"),
    "offline.optimization": ("config",),
    "offline.processes": (),
    "offline.runs": ("config", "optimization"),
    "offline.transfer": (),
    "offline.graph": (),
    "offline.teacher": ("config", "batches", "objective"),
    "offline.weather": ("batches",),
    "offline.train": (
        *("config", "extract", "batches", "augment", "objective", "validation", "optimization", "processes", "runs"),
        *("transfer", "teacher", "weather"),
    ),
    "offline.evaluate": ("dataset", "event_counts", "files", "metrics"),
    "offline.estimates": ("dataset", "encoding", "workers"),
    "offline.thresholds": ("estimates", "metrics"),
    "offline.reliability": ("estimates", "metrics"),
    "offline.calibrate": ("dataset", "estimates", "event_counts", "metrics", "thresholds"),
    "offline.errors": ("dataset", "estimates", "event_counts", "metrics", "plans"),
    "offline.report": (
        "dataset",
        "errors",
        "estimates",
        "evaluate",
        "event_counts",
        "files",
        "metrics",
        "plans",
        "reliability",
    ),
    "offline.cli": (
        *("alarms", "config", "dataset", "bank", "bundle", "synthesis", "stretch", "extract", "train", "transfer"),
        *("batches", "graph"),
        *("evaluate", "estimates", "reliability", "calibrate", "report"),
    ),
}
# Only these rooms know what is heavy or tied to a machine.
ONLY_IN = {
    "torch": (
        *("seldrt.networks", "seldrt.checkpoint", "seldrt.inference", "seldrt.pipeline", "seldrt.runtime.doctor"),
        *("offline.augment", "offline.batches", "offline.losses", "offline.objective", "offline.validation"),
        *("offline.optimization", "offline.processes", "offline.runs", "offline.train", "offline.cli"),
        *("offline.transfer", "offline.graph", "offline.teacher", "offline.weather"),
    ),
    "onnxruntime": ("seldrt.graph",),
    "onnx": ("offline.graph",),
    "sounddevice": ("seldrt.runtime.devices",),
    "zmq": ("seldrt.keys", "seldrt.connection", "seldrt.client", "seldrt.runtime.sockets", "seldrt.runtime.publisher"),
    "numba": ("seldrt.medians",),
    "matplotlib": ("offline.report.plots", "offline.cli"),
    "librosa": (),
    "pyroomacoustics": ("offline.rooms",),
    "ray": ("offline.cluster",),
    "threading": ("seldrt.runtime", "offline.workers"),
    "tempfile": (),  # see `seldrt.files.try_out`
}


def modules() -> dict[str, Path]:
    """Every module of the two packages."""
    found = {}
    for package in ("seldrt", "offline"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of what import statements bring; those of our own packages to the module."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return names


def imports(module: str) -> set[str]:
    """What a module imports anywhere in it."""
    return imported(ast.walk(ast.parse(MODULES[module].read_text())))


def ours(module: str) -> set[str]:
    """What a module imports of the two packages, but for the version that stands in `seldrt` itself."""
    return {name for name in imports(module) if name.split(".")[0] in ("seldrt", "offline")} - {"seldrt"}


def room_of(module: str, table: dict[str, tuple[str, ...]]) -> str | None:
    """The entry of the table that a module belongs to: itself or the nearest package above it."""
    while module and module not in table:
        module = module.rpartition(".")[0]
    return module or None


def within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def test_every_room_is_in_the_plan_and_the_plan_has_no_other() -> None:
    plan = SELDRT | OFFLINE
    homeless = [m for m in MODULES if room_of(m, plan) in (None, "seldrt", "offline") and m not in plan]
    assert homeless == ["seldrt.runtime"], "a new room: enter it in the table, and in docs/architecture.md"
    assert [room for room in plan if room not in MODULES] == []


@pytest.mark.parametrize(("package", "table"), [("seldrt", SELDRT), ("offline", OFFLINE)])
def test_rooms_only_know_rooms_further_up(package: str, table: dict[str, tuple[str, ...]]) -> None:
    above: list[str] = []
    for room, allowed in table.items():
        known = [f"{package}.{name}" for name in allowed]
        lower = [name for name in known if not any(within(one, (name,)) for one in above)]
        assert not lower, f"{room} stands above {lower}"
        above.append(room)


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("seldrt") and m != "seldrt.runtime"])
def test_seldrt_imports_what_the_plan_allows(module: str) -> None:
    room = room_of(module, SELDRT)
    assert room is not None
    allowed = (room, *(f"seldrt.{name}" for name in SELDRT[room]))
    strange = {name for name in ours(module) if not within(name, allowed)}
    assert not strange, f"{module} must not import {strange}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("offline")])
def test_offline_imports_its_own_rooms_and_the_core(module: str) -> None:
    room = room_of(module, OFFLINE)
    assert room is not None
    allowed = (room, *CORE[1:], *COMMANDS.get(room, ()), *(f"offline.{name}" for name in OFFLINE[room]))
    strange = {name for name in ours(module) if not within(name, allowed)}
    assert not strange, f"{module} must not import {strange}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_in_their_rooms(library: str) -> None:
    users = {m for m in MODULES if any(name.split(".")[0] == library for name in imports(m))}
    assert {m for m in users if not within(m, ONLY_IN[library])} == set()


def test_the_bundle_carries_what_its_rooms_import() -> None:
    """Synthesis, extraction and training need numpy, scipy, torch and the wheels of `offline.bundle`, no more."""
    names = {"soundfile": "soundfile", **{name.replace("-", "_"): name for name in PACKAGES}}
    reached, waiting = set(), ["offline.cli", "offline.synthesis", "offline.extract", "offline.train"]
    foreign: set[str] = set()
    while waiting:
        module = waiting.pop()
        reached.add(module)
        for name in imported(iter(ast.parse(MODULES[module].read_text()).body)):
            if name in MODULES:
                waiting += [m for m in (name, name.rpartition(".")[0]) if m in MODULES and m not in reached]
            elif name.split(".")[0] not in sys.stdlib_module_names:
                foreign.add(name.split(".")[0])
    assert "offline.batches" in reached
    assert foreign - {"numpy", "scipy", "torch"} <= set(names)


# --- what is loaded ------------------------------------------------------------------------------------------------


def loaded(*arguments: str) -> set[str]:
    """Top-level names of the modules that a Python process with these arguments imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


def test_every_room_can_be_entered_without_a_sound_device_and_without_numba() -> None:
    rooms = [m for m in MODULES if not m.endswith("__main__")]
    blocked = "import sys; sys.modules['sounddevice'] = sys.modules['numba'] = None\n"
    found = loaded("-c", blocked + "".join(f"import {room}\n" for room in rooms))
    assert "librosa" not in found
