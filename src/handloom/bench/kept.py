"""Finished parts of a benchmark in files, so that an interrupted one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from handloom.io.atomic import atomic_file


def kept(place: Path, asked: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What the JSON file `place` holds: `asked` and what was measured. It is measured again where the file is not
    there, or was asked for otherwise. One file each: several processes may measure parts of one benchmark.

    asked: what the numbers depend on, as JSON has it.
    """
    found: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    if {key: found.get(key) for key in asked} != dict(asked):
        found = {**asked, **measure()}
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(place) as draft:
            draft.write_text(json.dumps(found, indent=1))
    return found
