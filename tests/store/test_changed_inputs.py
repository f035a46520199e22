"""Rows that were made with another view, camera or hand size are found, by digests, in tables of any version."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips import changed_inputs as module
from handloom.store.clips.changed_inputs import changed_inputs, outdated_rows
from handloom.store.clips.clip_list import add_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.copied_values import store_digests
from handloom.store.fragments import write_fragment
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

SCHEMA = clips_schema(4)


def camera(fov_deg):
    return json.dumps({"fov_deg": fov_deg})


@pytest.fixture
def made(tmp_path):
    """A database with rows of four clips, of which one has no camera."""
    db = Database.open(tmp_path / "db", create=True)
    clips = [make_clip(n, camera=camera(90 + n) if n else None, view="exo") for n in range(4)]
    add_clips(db, clips)
    rows = [[make_row(clip) for clip in part] for part in (clips[:1], clips[1:])]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, part, SCHEMA) for part in rows])
    return db, clips


def test_each_field_that_has_changed_is_named(made):
    db, clips = made
    assert changed_inputs(db) == {}
    hand = '{"length_m":0.17}'
    add_clips(db, [replace(clips[0], camera=camera(70), hand=hand), replace(clips[2], view=None), make_clip(9)])
    found = {clips[0].clip_id: {"camera", "hand"}, clips[2].clip_id: {"view"}}
    assert changed_inputs(db) == found == outdated_rows(db)
    assert changed_inputs(db, [clips[2].clip_id, clips[3].clip_id]) == {clips[2].clip_id: {"view"}}
    add_clips(db, clips)
    assert changed_inputs(db) == {}


def test_cameras_that_were_written_again_count_once(made):
    """Lance's own sum counts the bytes of replaced columns in other ones."""
    db, clips = made
    table = db.table("clips")
    before = module._num_bytes(db, "clips", table, "camera")
    field = SCHEMA.field("thumbnail")
    rows = pa.table(
        {"clip_id": [clip.clip_id for clip in clips], "thumbnail": pa.array([b"x" * 50_000] * 4, field.type)}
    )
    ColumnCommitter(db, RUN_KEY, [field]).commit([write_update(db.uri, rows, "run")])
    assert module._num_bytes(db, "clips", db.table("clips"), "camera") == before


@pytest.mark.parametrize("tables", [("clips",), ("clip_list",), ("clips", "clip_list")])
def test_tables_without_digests_get_them_once(made, tables, monkeypatch):
    """Tables before 0.4: the cameras themselves are read, until something writes their digests."""
    db, clips = made
    add_clips(db, [replace(clips[1], camera=camera(70)), replace(clips[0], camera=camera(71))])
    found = changed_inputs(db)
    assert set(found) == {clips[0].clip_id, clips[1].clip_id}
    for name in tables:
        db.table(name).drop_columns(["camera_digest"])
    assert changed_inputs(db) == found == outdated_rows(db)
    monkeypatch.setattr(module, "_MAX_BYTES", 1)
    assert outdated_rows(db) is None
    assert store_digests(db) == 4 * len(tables)
    assert changed_inputs(db) == found == outdated_rows(db)
    assert store_digests(db) == 0
    versions = [db.table(name).version for name in ("clips", "clip_list")]
    assert store_digests(db) == 0
    assert [db.table(name).version for name in ("clips", "clip_list")] == versions
    assert {row["clip_id"]: row["camera_digest"] for row in db.read("clip_list").to_pylist()} == {
        clip.clip_id: clip.camera_digest for clip in read_clips(db)
    }


def test_rows_older_than_a_column_are_compared_without_it(made):
    """Tables before 0.4 have no `hand`."""
    db, clips = made
    db.table("clips").drop_columns(["hand"])
    add_clips(db, [replace(clips[1], hand='{"length_m":0.17}')])
    assert changed_inputs(db) == {clips[1].clip_id: {"hand"}}


def test_a_row_is_not_outdated_because_a_key_was_renamed(tmp_path):
    """`seen_size` is `keypoint_scale` since 0.4: lists and rows from before say the same, and stay."""
    db = Database.open(tmp_path / "db", create=True)
    old, now = (f'{{"{name}":0.75,"source":"preset egodex"}}' for name in ("seen_size", "keypoint_scale"))
    listed = [make_clip(0, hand=old), make_clip(1, hand=old), make_clip(2, hand='["seen_size"]')]
    add_clips(db, listed)
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(clip) for clip in listed], SCHEMA)])
    given = [replace(listed[0], hand=now), replace(listed[1], hand=now.replace("0.75", "0.8")), listed[2]]
    foreseen = pa.table(
        {name: [getattr(clip, name) for clip in given] for name in ("clip_id", "view", "camera_digest")}
    )
    foreseen = foreseen.append_column("hand", pa.array([clip.hand for clip in given], pa.string()))
    foreseen = foreseen.set_column(1, "view", pa.nulls(3, pa.string()))
    assert changed_inputs(db, listed=foreseen) == {listed[1].clip_id: {"hand"}}
    assert changed_inputs(db) == {}
    assert add_clips(db, given).changed == 1
    assert {clip.hand for clip in read_clips(db)} == {old, given[1].hand, listed[2].hand}
    assert changed_inputs(db) == {listed[1].clip_id: {"hand"}}
