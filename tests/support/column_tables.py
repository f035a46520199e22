"""New columns for rows of `support.rows`, and the table that they must give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import pyarrow as pa
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import key_column, stage_fields
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.stages.columns import add_columns_for

SCHEMA = clips_schema(4)
STAGES = ("hands_2d", "motion", "quality")
FIELDS = [
    *(SCHEMA.field(name) for name in ("hand_left", "hand_keypoints_px", "embedding_motion", "quality", "thumbnail")),
    *stage_fields(STAGES),
]
COLUMNS = {
    "hands_2d": ("hand_left", "hand_keypoints_px", "thumbnail", "stage_state_hands_2d"),
    "motion": ("embedding_motion",),
    "quality": ("quality",),
}


def database(uri, shards: Iterable[Sequence[int]]) -> Database:
    """A database with one fragment a shard, and the columns of `STAGES` without values."""
    db = Database.open(uri, create=True)
    committer = Committer(db, RUN_KEY, SCHEMA)
    for shard in shards:
        committer.commit([write_fragment(db.uri, [make_row(number) for number in shard], SCHEMA)])
    add_columns_for(db, FIELDS, ours=SCHEMA.names)
    return db


def new_columns(numbers: Sequence[int], stages: Sequence[str], seed: int) -> pa.Table:
    """`clip_id`, and the columns and keys of some stages, other values for another seed."""
    rows = pa.Table.from_batches([made(number, seed) for number in numbers])
    names = [name for stage in stages for name in (*COLUMNS[stage], key_column(stage))]
    return rows.select(["clip_id", *names])


@cache
def made(number: int, seed: int) -> pa.RecordBatch:
    """A whole row with every stage of a seed."""
    row = make_row(make_clip(number), seed=1000 * seed + number, hands_seen=(bool(seed % 2), True))
    for name in STAGES:
        row = row.append_column(key_column(name), pa.array([f"{name}-{seed}"]))
    return row.append_column("stage_state_hands_2d", pa.array([bytes([seed]) * 8], pa.binary()))


def expected(first: Iterable[int], changes: Mapping[tuple[int, str], int]) -> dict[str, str]:
    """`support.rows.digests` of the clips `first`, with the columns of each changed (clip, stage) from its seed."""
    found: dict[str, str] = {}
    for number in first:
        found |= _digest(number, tuple(changes.get((number, stage), 0) for stage in STAGES))
    return found


@cache
def _digest(number: int, seeds: tuple[int, ...]) -> dict[str, str]:
    row = make_row(number)
    for field in stage_fields(STAGES):
        row = row.append_column(field, pa.nulls(1, field.type))
    for stage, seed in zip(STAGES, seeds, strict=True):
        new = made(number, seed)
        for name in (*COLUMNS[stage], key_column(stage)) if seed else ():
            row = row.set_column(row.schema.get_field_index(name), row.schema.field(name), new.column(name))
    return digests(row)
