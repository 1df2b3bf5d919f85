"""How settings are read and refused: sections of typed values, from TOML or the command line.

Whatever is wrong is a `ConfigError` in one line: where it stands, which value, what is expected.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

NAMED = 5  # names that an error has room for
MOST_VALUES = 1000  # of a setting that takes several: no file can ask for all memory

SectionT = TypeVar("SectionT", bound=msgspec.Struct)


class SeldrtError(Exception):
    """A mistake outside the program, told in one line: what, which value, what to do."""


class ConfigError(SeldrtError):
    """A setting that cannot be used."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every section of the configuration shares."""


def require(section: Section, names: Sequence[str], fits: Callable[[Any], bool], what: str) -> None:
    """`ValueError` when a number of these settings, each one or a tuple (of tuples), does not fit."""
    for name in names:
        numbers = _numbers(getattr(section, name))
        if len(numbers) > MOST_VALUES:
            raise ValueError(f"{name} has {len(numbers)} values: give at most {MOST_VALUES}")
        if not all(map(fits, numbers)):
            raise ValueError(f"{name} is {', '.join(map(str, numbers))}: it {what}")


def require_range(section: Section, names: Sequence[str], lowest: float, highest: float) -> None:
    """`ValueError` when a number of these settings lies outside both bounds."""
    require(section, names, lambda number: lowest <= number <= highest, f"must be {lowest} to {highest}")


def named(names: Sequence[str]) -> str:
    """The first few of some names, for an error."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def printable(text: str) -> str:
    """Text from others without what could command a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _numbers(value: Any) -> list[Any]:
    return [number for part in value for number in _numbers(part)] if isinstance(value, tuple) else [value]


def decode(plain: dict[str, Any], kind: type[SectionT], where: str) -> SectionT:
    """A section from plain values; `ConfigError` says where and which key is wrong."""
    _refuse_unknown_keys(plain, kind, where)
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_plainly(str(error), kind)}") from None


PLAIN_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a section",
    "null": "nothing",
    "datetime": "a time",
    "date": "a date",
    "time": "a time of day",
}


def _plainly(error: str, kind: type[Any]) -> str:
    """What msgspec says of a value, for those who wrote it: first where it stands, then in words what is wrong."""
    message, _, place = error.partition(" - at `$")
    place = place.strip(".`")
    if choices := message.startswith("Invalid enum value") and _choices(kind, place):
        message += f": use {' or '.join(map(repr, choices))}"
    if message.startswith("Expected `"):
        message = re.sub(r"`([a-z |]+)`", lambda kinds: _kinds_in_words(kinds[1]), message)
    if place and message.startswith(("Expected ", "Invalid ", "Object ")):  # not a name that our own errors begin with
        message = message[0].lower() + message[1:]
    return f"{place}: {message}" if place else message


def _choices(kind: Any, place: str) -> list[Any]:
    """What a `Literal` setting, or one that may be missing, can be, by its keys with dots between them."""
    for key in place.split("."):
        fields = msgspec.structs.fields(kind) if _is_section(kind) else ()
        kind = next((field.type for field in fields if field.name == key), None)
    return [choice for of in (kind, *get_args(kind)) if get_origin(of) is Literal for choice in get_args(of)]


def _kinds_in_words(kinds: str) -> str:
    return " or ".join(PLAIN_WORDS.get(kind, kind) for kind in kinds.split(" | "))


def load_toml(path: str | Path, kind: type[SectionT]) -> SectionT:
    """A section, or a struct of sections, from a TOML file; `ConfigError` names file and key."""
    try:
        plain = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, letters that are none, numbers without end
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return decode(plain, kind, str(path))


def override(section: SectionT, **values: Any) -> SectionT:
    """The section with those values that are not None; `ConfigError` as for a file."""
    given = {key: value for key, value in values.items() if value is not None}
    return decode(msgspec.to_builtins(section) | given, type(section), "flags or environment") if given else section


def _refuse_unknown_keys(
    plain: dict[str, Any], kind: type[Any], where: str, siblings: Mapping[str, type[Any]] = MappingProxyType({})
) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    sections = {
        name: section
        for name, of in known.items()
        for section in getattr(of, "__args__", (of,))
        if _is_section(section)
    }
    for key, value in plain.items():
        if key not in known:
            places = {**siblings, **sections}.items()
            homes = [f"[{name}]" for name, section in places if key in section.__struct_fields__]
            what = f"it belongs under {' or '.join(homes)}" if homes else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {what}")
        if key in sections and isinstance(value, dict):
            _refuse_unknown_keys(value, sections[key], f"{where} [{key}]", sections)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
