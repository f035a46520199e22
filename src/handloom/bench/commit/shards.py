"""Synthetic shards: rows with every column of `clips` and hardly any values, so that only their number counts."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from handloom.schemas.clip import Clip
from handloom.schemas.settings import Resources
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.row import one_row
from handloom.store.fragments import FragmentRecord, write_fragment
from handloom.store.tables import Tables

RUN_KEY = "5ca1ab1e5ca1ab1e"
SCHEMA = clips_schema(1)
SHARD_CLIPS = Resources().shard_clips
LINKS = 10_000  # names of one file; ext4 allows 65,000


def clips(numbers: Sequence[int]) -> list[Clip]:
    """Clips of one second, 16 of a video."""
    return [
        Clip(
            clip_id=f"bench:v{number // SHARD_CLIPS}:{number % SHARD_CLIPS}",
            dataset="bench",
            video_id=f"v{number // SHARD_CLIPS}",
            video_uri=f"/videos/v{number // SHARD_CLIPS}.mp4",
            start_s=float(number % SHARD_CLIPS),
            end_s=number % SHARD_CLIPS + 1.0,
        )
        for number in numbers
    ]


def written(db: Tables, listed: Sequence[Clip]) -> Iterator[FragmentRecord]:
    """A fragment for every 16 clips, not yet committed."""
    row = one_row(SCHEMA, _cells(listed[0]))
    for start in range(0, len(listed), SHARD_CLIPS):
        shard = listed[start : start + SHARD_CLIPS]
        rows = pa.Table.from_batches([row] * len(shard)).combine_chunks()
        for name in ("clip_id", "video_id", "start_s", "end_s"):
            field = SCHEMA.field(name)
            values = pa.array([getattr(clip, name) for clip in shard], field.type)
            rows = rows.set_column(SCHEMA.get_field_index(name), field, values)
        yield write_fragment(db.uri, rows.combine_chunks().to_batches(), SCHEMA)


class Shards:
    """As many shards as asked for, each of 16 clips: a file of its own by name, a hard link to one of a few by content.

    Their clips have ids in the commits only, and the same 16 ids in the files: for measuring commits and merges, which
    do not read them.
    """

    def __init__(self, db: Tables) -> None:
        self._db = db
        self._data = Path(db.location.table_uri("clips")) / "data"
        self._num = 0

    def take(self, num: int) -> list[FragmentRecord]:
        """The next shards, not yet committed."""
        return [self._next() for _ in range(num)]

    def merged(self, num: int) -> list[FragmentRecord]:
        """The table's first fragment, which a merge has made, `num` times, not yet committed."""
        fragment = self._db.existing_table("clips").get_fragments()[0].metadata.to_json() | {"id": 0}
        return [self._link(fragment, 1) for _ in range(num)]

    def _next(self) -> FragmentRecord:
        if self._num % LINKS == 0:
            self._record = next(written(self._db, clips(range(SHARD_CLIPS))))
        return self._link(json.loads(self._record.fragments[0]), SHARD_CLIPS)

    def _link(self, fragment: dict[str, Any], num_clips: int) -> FragmentRecord:
        self._num += 1
        file = fragment["files"][0]
        name = f"{uuid.uuid4().hex}{uuid.uuid4().hex[:14]}.lance"  # as long as Lance's own
        os.link(self._data / file["path"], self._data / name)
        file["path"] = name
        return FragmentRecord((json.dumps(fragment),), tuple(f"s{self._num}:{n}" for n in range(num_clips)))


def _cells(clip: Clip) -> dict[str, object]:
    return clip.to_dict() | {
        "duration_s": 1.0,
        "num_frames": 1,
        "width": 640,
        "height": 360,
        "fps": 30.0,
        "codec": "h264",
        "decoder": "decord",
        "frame_s": [clip.start_s],
        "hand_left": True,
        "hand_right": False,
        "run_key": RUN_KEY,
    }
