"""The files in configs/ show every key with its true default."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from offline.config import TRAIN_PRESETS, SceneConfig
from seldrt import features, networks
from seldrt.config import DaemonConfig, PostprocessConfig
from tests.test_architecture import MODULES, imports, within

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


def test_the_packages_need_what_the_project_installs() -> None:
    """PyTorch for `offline`, not for a computer that only listens."""
    project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def installed(names: list[str]) -> set[str]:
        return {re.split("[<>=]", name)[0].replace("pyzmq", "zmq") for name in names}

    assert needed("seldrt") - {"torch"} == installed(project["dependencies"] + extras["live"]) - {"msgpack"}
    assert needed("offline") - {"ray"} <= installed(project["dependencies"] + extras["offline"])


def needed(package: str) -> set[str]:
    """What its modules import that neither is ours nor comes with Python."""
    names = {name.split(".")[0] for module in MODULES if within(module, (package,)) for name in imports(module)}
    return names - sys.stdlib_module_names - {"seldrt", "offline"}
