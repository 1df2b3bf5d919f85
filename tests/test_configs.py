"""The files in configs/ show every key with its true default."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from offline.config import TRAIN_PRESETS, SceneConfig
from seldrt import features, networks
from seldrt.config import DaemonConfig, PostprocessConfig

CONFIGS = Path(__file__).parent.parent / "configs"


def plain(section: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(section))


def test_offline_defaults() -> None:
    shown = tomllib.loads((CONFIGS / "offline.toml").read_text())
    expected = {
        "scenes": SceneConfig(),
        "features": features.PRESETS["compact"],
        "network": networks.preset("compact", "sed"),
        "train": TRAIN_PRESETS["compact"],
    }
    assert shown == {name: plain(section) for name, section in expected.items()}


def test_daemon_defaults() -> None:
    text = (CONFIGS / "seldrt.toml").read_text()
    shown = tomllib.loads(text)
    defaults = plain(DaemonConfig())
    assert shown == {name: defaults[name] for name in shown}
    assert set(DaemonConfig.__struct_fields__) - set(shown) == {"postprocess"}


def test_post_processing_is_shown_commented_out() -> None:
    lines = (CONFIGS / "seldrt.toml").read_text().split("# [postprocess]\n")[1].splitlines()
    section = tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))
    assert section == plain(PostprocessConfig())


def test_who_only_listens_needs_all_but_pytorch() -> None:
    """And numba instead of librosa, which brings it, and PortAudio's module."""
    project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())["project"]
    needed = {*project["dependencies"], *project["optional-dependencies"]["live"]}
    lines = (CONFIGS / "listen.txt").read_text().splitlines()
    listed = {line for line in lines if not line.startswith(("#", "numba"))}
    assert needed - listed == {one for one in needed if one.startswith(("torch", "librosa"))}
    assert not listed - needed
