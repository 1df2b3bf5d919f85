"""What a bare machine with a GPU and without network needs to make scenes, extract and train: one folder to carry.

    run.sh                 what to run there; says which variables it knows
    sources/               the Python files of seldrt and offline
    sounds/                the bank: train/, val/, and the files beside them (index.csv, who made the sounds)
    wheels/                what Python lacks there beside numpy, scipy and torch
    config.toml            [scenes], [features], [network] and [train], when given
    runs/TASK/             runs to go on with, when given: best.safetensors, last.pt, log.jsonl

Its results have the layout of runs/. A last.pt holds the weights three or four times (12 MiB for a compact network):
beside a large bank there is room for one of them, or for the best weights of all.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from seldrt.config import ConfigError
from seldrt.description import TASKS

LIMIT_MIB = 60
MIB = 2**20
COMMAND = "MINUTES=30 SCENES=300 OUT=out bash {}/run.sh"
PACKAGES = (
    "cffi",
    "click",
    "markdown-it-py",
    "mdurl",
    "msgspec",
    "pycparser",
    "pygments",
    "pyroomacoustics",
    "rich",
    "safetensors",
    "soundfile",
    "soxr",
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PARTS = {"run.sh", "sources", "sounds", "wheels", "config.toml", "runs"}

Fetch = Callable[[Path, str], None]


def fetch_wheels(folder: Path, python: str) -> None:
    """Download `PACKAGES`, in the versions installed here, for x86-64 Linux and a Python such as "3.12".

    `ConfigError` with the last line that pip says when it fails.
    """
    wanted = [f"{name}=={metadata.version(name)}" for name in PACKAGES]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    kind = ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run(
        [*pip, *kind, *platforms, f"--dest={folder}", *wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip says nothing"]
        raise ConfigError(f"the wheels cannot be fetched: {lines[-1]}")


def pack(
    events: Path,
    out: Path,
    python: str = "3.12",
    config: Path | None = None,
    runs: Sequence[Path] = (),
    weights_only: bool = False,
    fetch: Fetch = fetch_wheels,
) -> dict[str, float]:
    """Make the folder ``out`` anew; gives the size of each part in MiB.

    Runs are folders named by their task; ``weights_only`` takes of them the best weights, to begin with.

    `ConfigError` when the bank has no train or val, when ``out`` is something else, when a wheel cannot be fetched, or
    when all together is larger than `LIMIT_MIB`; then ``out`` stays as it was.
    """
    for split in ("train", "val"):
        if not (events / split).is_dir():
            raise ConfigError(f"{events}: has no folder {split}; a bundle needs sounds to train and to validate with")
    if out.exists() and not _is_bundle(out):
        raise ConfigError(f"{out} is there and no bundle: give another --out, or remove it")
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _fill(partial, events, config)
        for run in runs:
            _copy_run(run, partial / "runs", weights_only)
        (partial / "wheels").mkdir()
        fetch(partial / "wheels", python)
        sizes = {part.name: _mib(part) for part in sorted(partial.iterdir())}
        if sum(sizes.values()) > LIMIT_MIB:
            parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.1)
            raise ConfigError(
                f"the bundle would be {sum(sizes.values()):.1f} MiB ({parts}), {LIMIT_MIB} are allowed; "
                "leave runs or sounds out, or take only the weights of the runs"
            )
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sizes


def _is_bundle(folder: Path) -> bool:
    """Whether nothing lies there but what `pack` makes."""
    here = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    return here <= PARTS and (folder / "sources" / "offline" / Path(__file__).name).is_file()


def _fill(folder: Path, events: Path, config: Path | None) -> None:
    here = Path(__file__).parent
    folder.mkdir(parents=True)
    shutil.copy(here / "bundle.sh", folder / "run.sh")
    if config:
        shutil.copy(config, folder / "config.toml")
    for package in ("seldrt", "offline"):
        sources = (path for path in (here.parent / package).rglob("*") if path.suffix in (".py", ".toml"))
        for source in sorted(sources):
            target = folder / "sources" / source.relative_to(here.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for split in ("train", "val"):
        shutil.copytree(events / split, folder / "sounds" / split)
    for beside in events.iterdir():
        if beside.is_file():
            shutil.copy(beside, folder / "sounds")


def _copy_run(run: Path, runs: Path, weights_only: bool) -> None:
    patterns = ("best.safetensors",) if weights_only else ("best.safetensors", "last.pt*", "log.jsonl")
    found = [path for pattern in patterns for path in sorted(run.glob(pattern))]
    if run.name not in TASKS or not found:
        raise ConfigError(f"{run}: no run of a network, a folder {', '.join(TASKS)} with {' or '.join(patterns[:2])}")
    for path in found:
        (runs / run.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, runs / run.name)


def _mib(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / MIB
