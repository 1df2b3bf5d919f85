"""A folder of synthetic scenes: each from its own seed, the same wherever and however often it is made."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

import seldrt
from offline.arrays import SAMPLE_RATE, array_named
from offline.bank import Bank, bank_digest, class_order
from offline.config import SceneConfig
from offline.dataset import (
    audio_folder,
    content_digest,
    list_recordings,
    metadata_folder,
    read_classes,
    write_classes,
    write_metadata,
)
from offline.files import read_json, write_audio, write_file
from offline.plans import plan_folder
from offline.rendering import Samples, render
from offline.scenes import plan_scene
from offline.workers import results
from seldrt.config import ConfigError

ARRAYS = ("foa", "mic")
Engine = Literal["local", "ray"]


class Job(msgspec.Struct, frozen=True):
    """A folder of scenes to make: from what, where to, of which kind."""

    bank: Bank
    out: Path
    config: SceneConfig
    class_indices: dict[str, int]
    formats: tuple[str, ...]
    audio_format: str
    fold: int
    seed: int


def choose_classes(bank: Bank, out: Path) -> dict[str, int]:
    """The class of each class folder; writes classes.json to the dataset, or keeps to the one that is there.

    `ConfigError` when the bank has a class that the dataset has not.
    """
    indices, names = class_order(sorted(bank.clips))
    if not (out / "classes.json").is_file():
        write_classes(out, names)
        return indices
    known = read_classes(out)
    name_of = {folder: names[i] for folder, i in indices.items()}
    strange = sorted(set(name_of.values()) - set(known))
    if strange:
        raise ConfigError(f"{out / 'classes.json'}: has no class {strange[0]}; use another --out for this bank")
    return {folder: known.index(name) for folder, name in name_of.items()}


class _Plan(msgspec.Struct, frozen=True):
    """What `check_seed` asks of the plan of a scene."""

    seed: tuple[int, int]


def check_seed(out: Path, fold: int, seed: int) -> None:
    """`ConfigError` when the fold has scenes of another seed, which would be overwritten, or a plan is damaged."""
    for path in plan_folder(out).glob(f"fold{fold}_*.json"):
        other, _ = read_json(path, _Plan, "is no plan of a scene; remove it, and the scene is made again").seed
        if other != seed:
            raise ConfigError(f"{out}: fold {fold} has seed {other}; use that, or another --fold or --out")
        return


def synthesize(
    job: Job, scenes: int, workers: int, engine: Engine = "local"
) -> Generator[tuple[str, bool], None, None]:
    """Make scenes 0..scenes - 1 in processes of an engine; yields each name, and False if it was there."""
    if engine == "local":
        yield from results(make_scene, job, range(scenes), workers)
    else:
        from offline.cluster import ray_results

        yield from ray_results(make_scene, job, range(scenes), workers)


def make_scene(job: Job, index: int) -> tuple[str, bool]:
    """Plan, render and write one scene, unless its files are there and come from the same plan.

    What it writes follows from the job and the index alone, each file is there whole or not at all, and the plan
    comes last: it may be killed and run again, on any machine that sees the bank and the folder.
    """
    if not (job.out / "classes.json").is_file():
        raise ConfigError(f"{job.out}: is not seen from {socket.gethostname()}; all machines must share --out")
    scene = plan_scene(job.config, job.bank, job.class_indices, job.seed, index, job.fold)
    plan = msgspec.json.format(msgspec.json.encode(scene))
    manifest = plan_folder(job.out) / f"{scene.name}.json"
    audio = {name: audio_folder(job.out, name) / f"{scene.name}.{job.audio_format}" for name in job.formats}
    same_plan = manifest.is_file() and manifest.read_bytes() == plan
    if same_plan and all(path.is_file() for path in audio.values()):
        return scene.name, False
    replaced = audio if same_plan else ARRAYS
    for folder in (*(audio_folder(job.out, name) for name in replaced), metadata_folder(job.out), manifest.parent):
        for path in folder.glob(f"fold{job.fold}_room*_mix{index + 1:03d}_ov*.*"):
            path.unlink()
    for name, path in audio.items():
        samples, rows = render(scene, job.bank, array_named(name))
        _write_audio(path, samples)
    write_metadata(metadata_folder(job.out) / f"{scene.name}.csv", rows)
    write_file(manifest, plan)
    return scene.name, True


class FoldManifest(msgspec.Struct, frozen=True):
    """What the scenes of one fold were made from, and what came out.

    recipe: SHA-256 of settings, bank and seed. content: `content_digest` of each array's recordings.
    """

    seldrt: str
    scenes: int
    seed: int
    settings: SceneConfig
    bank: str
    recipe: str
    content: dict[str, str]


def write_fold_manifest(job: Job) -> FoldManifest:
    """Write manifests/foldF.json of what lies in the folder now; scenes of other settings are not told apart."""
    bank = bank_digest(job.bank)
    recipe = hashlib.sha256(msgspec.json.encode((job.config, bank, job.seed), order="sorted")).hexdigest()
    made = {name: list_recordings(job.out, name, (job.fold,)) for name in job.formats}
    manifest = FoldManifest(
        seldrt=seldrt.__version__,
        scenes=min(len(recordings) for recordings in made.values()),
        seed=job.seed,
        settings=job.config,
        bank=bank,
        recipe=recipe,
        content={name: content_digest(recordings) for name, recordings in made.items()},
    )
    write_file(plan_folder(job.out) / f"fold{job.fold}.json", msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def _write_audio(path: Path, samples: Samples) -> None:
    """16-bit audio; WAV and FLAC hold the same numbers."""
    write_audio(path, np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16), SAMPLE_RATE, "PCM_16")
