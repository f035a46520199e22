"""A database for training in tests, and the history of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.io.folder import Folder
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.training import TrainSettings
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment

SCHEMA = clips_schema(4)


def training_db(
    uri: str | Path, clips: range = range(12), options: dict[str, str] | None = None, **row: Any
) -> Database:
    """A database with rows of random hands, one clip of eight frames per video; called again, it adds rows."""
    db = Database.open(uri, options, create=True)
    made = [make_clip(10 * number) for number in clips]
    add_clips(db, made)
    rows = [make_row(clip, **{"num_frames": 8, "hands_seen": (True, True)} | row) for clip in made]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA, db.storage_options)])
    return db


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A job's history."""
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]


def curve(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Every step and every held-out number of a job, without the times."""
    steps = [(line["step"], line["loss"], line["lr"], line["grad_norm"]) for line in lines if line["kind"] == "step"]
    return steps + [(line["step"], *line["numbers"].values()) for line in lines if line["kind"] == "held_out"]


def kept(folder: Path, network: Any, settings: TrainSettings, facts: dict[str, Any], recipe: str = "robomirror") -> str:
    """The address of a checkpoint of a network that was not trained."""
    from handloom.train.checkpoint import CheckpointFacts, save  # torch need not be installed for the others

    content = CheckpointFacts(
        recipe, settings.model_dump(mode="json"), "", 1, 1, 0, True, 1, "", 1, facts, {}, 0.0, "stage"
    )
    return save(Folder.parse(str(folder)), content, network, {}, "", keep=1)
