"""The databases that earlier versions of handloom have made (tests/data/tables)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from handloom.api import Database

FOLDER = Path(__file__).parents[1] / "data" / "tables"
NUMBER_OF = {"0.1.0": 1, "0.2.0": 2, "0.3.0": 2, "0.4.dev1": 3, "0.4.dev2": 3}
"""`handloom_schema` by version."""
NUM_TRACKS, NUM_FRAMES = 16, 6
A, B = "folder:a:0-1000", "folder:b:0-1000"
"""The clips with rows."""


def old_table(version: str, folder: Path) -> Database:
    """A copy of a version's database."""
    shutil.unpack_archive(FOLDER / f"{version}.zip", folder)
    return Database.open(folder)


def recorded(db: Database) -> tuple[dict, dict]:
    """Settings and versions of its run."""
    (run,) = db.runs().to_pylist()
    return json.loads(run["settings"]), json.loads(run["versions"])
