"""Finished parts of a benchmark in a file, so that an interrupted one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from handloom.io.atomic import atomic_file


def kept(place: Path, name: str, asked: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The part `name` of the JSON file `place`: `asked` and what was measured. It is measured again where it is not
    there, or was asked for otherwise.

    asked: what the numbers depend on, as JSON has it.
    """
    known: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    found: dict[str, Any] = known.get(name, {})
    if {key: found.get(key) for key in asked} != dict(asked):
        found = {**asked, **measure()}
        with atomic_file(place) as draft:
            draft.write_text(json.dumps(known | {name: found}, indent=1))
    return found
