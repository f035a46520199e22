"""Licences of weights, as the models' own files say: the front matter of their README.md (a card of the hub)."""

from __future__ import annotations

import re
from pathlib import Path

MOST_BYTES = 1 << 20
"""A longer README is read up to here; the front matter comes first."""


def licence_of_folder(folder: Path) -> str | None:
    """The licence that a model's README.md names, in the hub's spelling; None where there is none.

    Of a licence that is not on the hub's list (`license: other`) it is the `license_name`, such as `dinov3-license`.
    """
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return None
    return licence_of_card(text)


def licence_of_card(text: str) -> str | None:
    """The licence in a card's front matter, None without one."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines))
    found = _value(lines[1:end], "license")
    if found is None or found.lower() != "other":
        return found
    return _value(lines[1:end], "license_name") or found


def _value(lines: list[str], key: str) -> str | None:
    """The text after `key:`, or the items of a YAML list below it, joined."""
    for number, line in enumerate(lines):
        if not line.startswith(f"{key}:"):
            continue
        inside = _plain(line.partition(":")[2])
        if inside:
            items = inside.strip("[]").split(",") if inside.startswith("[") else [inside]
        else:
            items = []
            for below in lines[number + 1 :]:
                if not re.match(r"\s*-\s", below):
                    break
                items.append(below.partition("-")[2])
        return ", ".join(filter(None, map(_plain, items))) or None
    return None


def _plain(text: str) -> str:
    """Without a comment, spaces and quotes."""
    return re.sub(r"(^|\s)#.*", "", text).strip().strip("\"'")
