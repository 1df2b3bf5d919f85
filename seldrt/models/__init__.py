"""The models that ship, and how a model is named."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from seldrt.config import ConfigError
from seldrt.files import check_utf8

DEFAULT_MODEL = "compact"


def shipped() -> dict[str, Path]:
    """The files of the models that ship, by name."""
    return {path.stem: path for path in sorted(Path(str(resources.files(__name__))).glob("*.safetensors"))}


def model_path(model: str | Path | None) -> Path:
    """The file of a model, given its path, its name if it ships, or None for the default; `ConfigError` if none."""
    name, known = str(model or DEFAULT_MODEL), shipped()
    if Path(name).is_file():
        check_utf8(name)
        return Path(name)
    if name in known:
        return known[name]
    raise ConfigError(f"model {name!r} was not found; give a .safetensors file or a shipped name ({', '.join(known)})")
