"""Hints for a wrong path: what is there in its place."""

from __future__ import annotations

import difflib
import os

NUM_SHOWN = 3
ANNOTATIONS = (".csv", ".json", ".jsonl")


def instead_of(path: str, *, folder: bool) -> str:
    """The hint for a local path that is not the folder (`folder`) or the file that is expected.

    If it is the other of the two: where to look. If it is missing: the deepest folder on its way that exists, and the
    names in it that are most like the missing one.
    """
    if os.path.isdir(path) and not folder:
        found = [name for name in names_in(path) if name.lower().endswith(ANNOTATIONS)]
        return f"it is a folder: give the file{f', such as {os.path.join(path, found[0])}' if found else ''}"
    if os.path.isfile(path) and folder:
        return f"give the folder that it lies in: {os.path.dirname(path)}"
    if os.path.exists(path):
        return "check its permissions"
    return _nearest(path)


def _nearest(path: str) -> str:
    missing = path
    while not os.path.exists(parent := os.path.dirname(missing)) and parent != missing:
        missing = parent
    if not os.path.isdir(parent):
        return f"check the path: {parent} is a file"
    name = os.path.basename(missing)
    names = names_in(parent)
    if not names:
        return f"check the path: {parent} is there, and empty"
    lower = {other.lower(): other for other in names}
    close = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, NUM_SHOWN, 0.6)]
    few = ", ".join(names[:NUM_SHOWN]) + (", ..." if len(names) > NUM_SHOWN else "")
    holds = f"near: {', '.join(close)}" if close else f"it holds {few}"
    return f"check the path: {parent} is there, {name} is not in it; {holds}"


def names_in(folder: str) -> list[str]:
    """What a folder holds, without hidden names; nothing where it may not be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
