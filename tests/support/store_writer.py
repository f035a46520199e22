"""A driver to be killed: commits clips in shards, and pauses for the axe after the step it is told.

    python -m support.store_writer DB STEP

A clip of video `lost` is rejected. STEP counts what changes the database: fragment written, clips committed, rejects
committed, fragments copied into a larger one, put in their place; after step STEP the process says "ready" and waits to
be killed. 0: never.
"""

from __future__ import annotations

import sys
import time

from support.rows import RUN_KEY, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import pending_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.upkeep import plan, put_in_place, rewrite
from handloom.store.fragments import write_fragment

SCHEMA = clips_schema(4)
SHARD = 2


def main(uri: str, stop_after: int) -> None:
    db = Database.open(uri)
    steps = iter(range(1, 10_000))

    def step() -> None:
        if next(steps) == stop_after:
            print("ready", flush=True)
            time.sleep(60)

    committer = Committer(db, RUN_KEY, SCHEMA)
    pending = pending_clips(db, retry_reasons=["fetch_failed"])
    for start in range(0, len(pending), SHARD):
        shard = pending[start : start + SHARD]
        lost = [c for c in shard if c.video_id == "lost"]
        rows = [make_row(c) for c in shard if c not in lost]
        records = [write_fragment(db.uri, rows, SCHEMA)] if rows else []
        step()
        committer.commit(records)
        step()
        committer.commit([], [Reject(c.clip_id, "decode", "damaged", "cut short") for c in lost])
        step()
        merged = [rewrite(db.uri, task) for task in plan(db, max_small=1)]
        step()
        put_in_place(db, merged)
        step()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
