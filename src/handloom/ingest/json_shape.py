"""Checks on parsed JSON: what is wrong is named by its key's path."""

from __future__ import annotations

import json
from typing import Any

from handloom.errors import ConfigError

_SHOWN = 80
_LARGEST = 1e300
_LATEST_S = 1e8  # three years: no video is that long


class Shown(str):
    """A value that is already words."""


class BadEntry(Exception):
    """One entry of a file is wrong: it becomes a line of `problems`, and the good ones are kept."""

    def __init__(self, key: str, value: Any, expected: str) -> None:
        super().__init__(f"{key} is {value if isinstance(value, Shown) else shown(value)}, expected {expected}")


def member(entry: Any, key: str, where: str) -> Any:
    """`entry[key]`. Raises BadEntry naming `where.key` where it is missing."""
    if not isinstance(entry, dict):
        raise BadEntry(where, entry, "an object")
    if key not in entry:
        raise BadEntry(f"{where}.{key}", _Missing(), "a value")
    return entry[key]


def text(entry: Any, key: str, where: str) -> str:
    value = member(entry, key, where)
    if not isinstance(value, str) or not value.strip():
        raise BadEntry(f"{where}.{key}", value, "a text that is not empty")
    return value


def seconds(entry: Any, key: str, where: str) -> float:
    value = member(entry, key, where)
    if not is_number(value) or not 0 <= value < _LATEST_S:
        raise BadEntry(f"{where}.{key}", value, "a number of seconds, not negative, below 1e8")
    return float(value)


def entries(entry: Any, key: str, where: str) -> list[Any]:
    """A list; null and a missing key are an empty one."""
    if not isinstance(entry, dict):
        raise BadEntry(where, entry, "an object")
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadEntry(f"{where}.{key}", value, "a list")
    return value


def is_number(value: Any) -> bool:
    """A finite number; the comparison also holds for integers too long for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def need_list(content: Any, key: str, path: str, what: str, hint: str) -> list[Any]:
    """`content[key]` of a whole file; `hint` says which file it should be.

    Raises:
        ConfigError: the file has another shape.
    """
    if not isinstance(content, dict):
        problem = f"{what} {path}: the top level is {shown(content)}, expected an object with {key!r}"
        raise ConfigError(problem, f"check that it is {hint}")
    if not isinstance(content.get(key), list):
        found = shown(content[key]) if key in content else f"missing from {shown_keys(content)}"
        raise ConfigError(f"{what} {path}: {key} is {found}, expected a list", f"check that it is {hint}")
    return content[key]


class _Missing:
    pass


def shown_keys(entry: dict[str, Any]) -> Shown:
    """What an object holds, for a message."""
    names = ", ".join(list(entry)[:8])[:_SHOWN]
    return Shown(f"an object with {names}" if entry else "an empty object")


def shown(value: Any) -> str:
    """A value for a message: short, however large it is."""
    if isinstance(value, _Missing):
        return "missing"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    line = json.dumps(value)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
