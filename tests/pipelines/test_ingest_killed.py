"""An ingest that is killed anywhere: the same ingest, started again, gives what an undisturbed one gives."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.dying import Dying, Killed
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.pipelines.ingest.effects import apply, foresee
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.clip_list import add_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.video.fetch.version import VideoVersion

SCHEMA = clips_schema(4)
OLD, NEW = (VideoVersion(1, "mtime:1.000000000", content) for content in ("old", "new"))


def made(folder) -> Database:
    """Five clips with rows: three of one video, one of a video that is replaced, one of a third."""
    db = Database.open(folder, create=True)
    clips = [OLD.on(make_clip(n, narration="old", view="exo")) for n in (0, 1, 2, 10, 20)]
    add_clips(db, clips)
    rows = [[make_row(clip) for clip in part] for part in (clips[:2], clips[2:])]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, part, SCHEMA) for part in rows])
    return db


GIVEN = [
    OLD.on(make_clip(0, narration="new", view="exo")),  # other words
    OLD.on(make_clip(1, narration="old", view="ego")),  # outdated
    NEW.on(make_clip(10, narration="new")),  # of another file
    OLD.on(make_clip(20, narration="old", view="exo")),
    OLD.on(make_clip(21)),
]
GONE = {make_clip(2).clip_id}


def ingest(db: Database, remake: bool) -> None:
    apply(db, GIVEN, GONE, whole_videos=True, remake=remake)


def state(db: Database) -> tuple[object, ...]:
    return {clip.clip_id: clip for clip in read_clips(db)}, digests(db.clips())


@settings(max_examples=8)
@given(opens=st.integers(0, 40), remake=st.booleans())
def test_the_same_ingest_finishes_it(tmp_path_factory, opens, remake):
    folder = tmp_path_factory.mktemp("killed")
    whole, db = made(folder / "whole"), made(folder / "db")
    ingest(whole, remake)
    with contextlib.suppress(Killed):
        ingest(Dying(db.location, iter(range(opens))), remake)
    ingest(db, remake)
    assert state(db) == state(whole)
    listed, rows = state(db)
    assert listed == {clip.clip_id: clip for clip in GIVEN}
    left = [0, 20] if remake else [0, 1, 20]
    assert rows.keys() == {make_clip(n).clip_id for n in left}
    said = {row["clip_id"]: row["narration"] for row in db.clips(["clip_id", "narration"]).to_pylist()}
    assert said == {clip_id: listed[clip_id].narration for clip_id in said}
    done = foresee(db, GIVEN, GONE, whole_videos=True, remake=False)
    assert replace(done, already_there=0, num_clips=0, outdated={}, examples={}) == type(done)()
