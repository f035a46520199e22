"""What skills take from a database and leave in it: clips with their segments, and rows of the table `skills`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.plural import plural
from handloom.schemas.tables.segments import COLUMN
from handloom.schemas.tables.stage_columns import key_column
from handloom.skills.execution import Execution, read_execution
from handloom.skills.skill import Skill

MAX_CLIPS = 200
WORDS = ("narration", "verb", "noun")
VECTORS = ("text", "look")
MOST_WORDS = 6


def clip_rows(
    db: Database, clips: Sequence[str], where: str | None, version: int | None = None
) -> list[dict[str, Any]]:
    """Words, segments and vectors of the clips, in the order given. version: of the table, the newest by default.

    Raises:
        ConfigError: neither or both of `clips` and `where` are given, no clip passes, or more than `MAX_CLIPS` do.
        StoreError: a clip has no row, or no segments were computed.
    """
    if bool(clips) == (where is not None):
        both = "both" if clips else "none"
        raise ConfigError(f"learn takes --clips or --where, got {both}", "--clips ID, for each clip, or a filter")
    table = db.table("clips", version)
    if table is None:
        raise StoreError(f"no clip of {db.uri} is processed yet", "process them with `handloom run --db DB`")
    if COLUMN not in table.schema.names:
        raise StoreError("the table has no column segments", "the next `handloom run` computes it, without decoding")
    there = set(table.schema.names)
    columns = ["clip_id", *WORDS, COLUMN, key_column(COLUMN), *(f"embedding_{one}" for one in VECTORS)]
    columns = [column for column in columns if column in there]
    if clips:
        parts = [db.row(clip, columns, version) for clip in dict.fromkeys(clips)]
        rows = pa.concat_tables(parts).to_pylist()
    else:
        rows = db.read("clips", columns, where, version, limit=MAX_CLIPS + 1).to_pylist()
    if not rows:
        raise ConfigError(f"--where {where!r} passes no clip", words_there(db))
    if len(rows) > MAX_CLIPS:
        raise ConfigError(f"more than {MAX_CLIPS} clips", "a skill is learned from a handful: filter further")
    for row in rows:
        if row.get(key_column(COLUMN)) is None:
            raise StoreError(f"no segments were computed of clip {row['clip_id']}", "run `handloom run --db DB`")
        for one in VECTORS:
            field = table.schema.field(f"embedding_{one}") if f"embedding_{one}" in there else None
            row[f"{one}_version"] = None if field is None else _version_of(field)
    return rows


def words_there(db: Database) -> str:
    """Which words a filter could ask for: the commonest verbs with their nouns, and how many clips there are."""
    rows = db.read("clips", ["verb", "noun"]).to_pylist()
    verbs = Counter(row["verb"] for row in rows if row["verb"])
    nouns = Counter(row["noun"] for row in rows if row["noun"])
    told = [
        f"{name} is {', '.join(f'{word!r} ({num})' for word, num in found.most_common(MOST_WORDS))}"
        + (f" and {len(found) - MOST_WORDS} more" if len(found) > MOST_WORDS else "")
        for name, found in (("verb", verbs), ("noun", nouns))
        if found
    ]
    known = "; ".join(told) or "none of them has a verb or a noun: give --clips ID"
    return f"of the {plural(len(rows), 'clip')} with a row, {known}; `handloom status --db DB --clips` lists all"


def _version_of(field: pa.Field) -> str:
    """Which weights made a vector column."""
    return ((field.metadata or {}).get(b"version") or b"").decode()


def execution_of(row: Mapping[str, Any]) -> Execution:
    """What a clip shows."""
    return read_execution(row["clip_id"], row[COLUMN] or (), (row["verb"] or "").strip().lower())


def task_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The words that more than half of the clips share: the narration, else verb and noun, else the verb; empty where
    there are none."""
    narrations = [row["narration"] or "" for row in rows]
    both = [" ".join(filter(None, (row["verb"], row["noun"]))) for row in rows]
    for said in (narrations, both, [row["verb"] or "" for row in rows]):
        counts = Counter(words for words in said if words)
        if counts and counts.most_common(1)[0][1] > 0.5 * len(rows):
            return counts.most_common(1)[0][0]
    return ""


def skill_row(skill: Skill, taught: Sequence[Mapping[str, Any]], version: int) -> dict[str, Any]:
    """A row of the table `skills`. taught: rows of its clips, of this version of the table `clips`."""
    out = {
        "name": skill.name,
        "task": skill.task,
        "steps": skill.words,
        "num_clips": len(skill.clip_ids),
        "clip_ids": list(skill.clip_ids),
        "clips_version": version,
        "stage_keys": sorted({row[key_column(COLUMN)] for row in taught}),
        "reader": skill.reader,
        "constraints": skill.to_json(),
        "learned_at": datetime.now(UTC),
    }
    for one in VECTORS:
        vector = _mean([row.get(f"embedding_{one}") for row in taught])
        out |= {one: vector, f"{one}_version": None if vector is None else taught[0][f"{one}_version"]}
    return out


def _mean(vectors: Sequence[Sequence[float] | None]) -> list[float] | None:
    known = [np.array(vector, float) for vector in vectors if vector is not None]
    mean = np.mean(known, axis=0) if known else np.zeros(1)
    length = float(np.linalg.norm(mean))
    return (mean / length).tolist() if length > 0 else None


def stored_skill(row: Mapping[str, Any]) -> Skill:
    """The skill of a row. Raises StoreError: it cannot be read."""
    try:
        return Skill.from_json(row["constraints"])
    except ValueError as error:
        problem = (
            f"skill {row['name']!r} cannot be read, it was kept by another version of handloom or is damaged: {error}"
        )
        raise StoreError(problem, f"learn it again: `handloom skill learn --name {row['name']} --replace`") from error
