"""What a benchmark keeps, so that an interrupted one goes on where it was, and which database it is of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.atomic import atomic_file
from handloom.io.folder import Folder
from handloom.store.embodiment import HUMAN, condition_of

TRIAL = "quick"


def place_of(folder: Path, quick: bool) -> Path:
    """The folder of what a benchmark that trains has finished, which is made: `folder`, with `--quick` one in it. A
    trial's networks and cells have the names of those of the whole."""
    place = folder / TRIAL if quick else folder
    place.mkdir(parents=True, exist_ok=True)
    return place


def kept(place: Path, asked: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What the JSON file `place` holds: `asked` and what was measured. It is measured again where the file is not
    there, or was asked for otherwise. One file each: several processes may measure parts of one benchmark.

    asked: what the numbers depend on, as JSON has it.

    Raises StoreError where the file is damaged.
    """
    found = _read(place) if place.exists() else {}
    if {key: found.get(key) for key in asked} != dict(asked):
        found = {**asked, **measure()}
        with atomic_file(place) as draft:
            draft.write_text(json.dumps(found, indent=1))
    return found


def _read(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        raise StoreError(f"{place} is damaged: {error}", "remove it: this part is then measured again") from error
    return found


def with_cpu_s(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, and `cpu_s`: seconds of CPU that this process and its children took for it."""
    before = sum(os.times()[:4])
    found = measure()
    return found | {"cpu_s": round(sum(os.times()[:4]) - before, 1)}


def identity_of(db: Database) -> str:
    """16 hexadecimal digits that tell the clips of a database, at its newest version, from any others: other clips, and
    the same ones computed again, have other ones. A copy of the database in another place has the same.

    Raises ConfigError where it has no clips of people.
    """
    table = db.table("clips")
    if table is None or not db.count("clips", condition_of(db, HUMAN)):
        problem = f"{db.uri} has no clips of people: robots alone, or none was processed yet"
        raise ConfigError(problem, "give a database with clips of people; `handloom run --db DB` processes them")
    # Lance names each file by a random number.
    content = [table.version, [fragment.metadata.to_json() for fragment in table.get_fragments()]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def init_of(place: Path, init: Path) -> str:
    """The `init` of a training in `place`, as its checkpoint has it if that folder has the same name: of a folder that
    was moved or copied, another path would be that of another job. It is only read where there is no checkpoint yet."""
    from handloom.train.checkpoint import peek

    found = peek(Folder.parse(place))
    before = str(found[0].settings.get("init", "")) if found else ""
    return before if Path(before).name == init.name else str(init)
