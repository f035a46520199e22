"""Databases whose clips have given segments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.segments import SEGMENT
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment


def segment_table(
    folder: Path,
    segments: Mapping[str, Any],
    num_frames: int = 3,
    columns: Mapping[str, Any] | None = None,
    apart: int = 1,
) -> tuple[Database, list[str]]:
    """Clips with these segments, by narration `WORDS/NUMBER`, whose first word is the verb; and their ids in order.
    None: not computed. columns: values that each clip is given, too. apart: 10: each clip is of a video of its
    own."""
    db = Database.open(folder, create=True)
    words = [name.split("/")[0] for name in segments]
    clips = [make_clip(apart * number, narration=name, verb=name.split()[0]) for number, name in enumerate(words)]
    add_clips(db, clips)
    rows = pa.Table.from_batches([make_row(clip, num_frames=num_frames) for clip in clips])
    for name, value in (columns or {}).items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array([value] * len(rows), rows.schema.field(at).type))
    rows = with_keys(rows, {"segments": [None if one is None else "1" * 16 for one in segments.values()]})
    rows = with_own_column(rows, "segments", "segments", pa.array(list(segments.values()), pa.list_(SEGMENT)))
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    return db, [clip.clip_id for clip in clips]
