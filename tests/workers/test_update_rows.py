"""New columns of a row are made from what the clip list says now, and the row says so."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from support import own_stages
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.schemas.settings import RunConfig
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import key_column
from handloom.stages.extract import Extractor
from handloom.store.clips.changed_inputs import changed_inputs
from handloom.store.clips.changed_labels import WordsBrought, bring_words
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.stages.columns import add_columns_for
from handloom.store.stages.rows import StoredRows
from handloom.store.stages.update import ColumnCommitter
from handloom.workers.update_rows import RowUpdater, stage_updates

SCHEMA = clips_schema(4)
KEY = "1" * 16
CAMERA = '{"fov_deg":90}'


@pytest.fixture
def made(tmp_path):
    """A database with one row, its clip, what computes the stage that is asked for, and `commit` of what it gives."""
    db = Database.open(tmp_path / "db", create=True)
    clip = make_clip(0, narration="open")
    add_clips(db, [clip])
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(clip)], SCHEMA)])

    def updater(cls, **others):
        stages = {"mine": {"class": f"{own_stages.HERE}:{cls}"}, **others}
        settings = RunConfig(**{"stages": stages}).settings()
        extractor = Extractor(settings, RUN_KEY, keys={"mine": KEY}, stages=["mine"])
        fields = [*extractor.graph.own_fields("mine"), *(pa.field(key_column(n), pa.string()) for n in stages)]
        add_columns_for(db, fields, ours=SCHEMA.names)
        rows = RowUpdater(extractor, {"mine": KEY}, ["mine"], StoredRows(db.uri), {}, {})

        def compute(clip):
            one = rows.begin(clip, rows.plan(clip))
            extractor.compute(one, ["mine"])
            return rows.end(one)

        return compute, extractor, fields

    def commit(found, extractor, fields):
        columns = ColumnCommitter(db, RUN_KEY, [*SCHEMA, *fields])
        assert columns.commit(stage_updates([found], extractor.schema, db.uri, "run", {})).num_clips == 1
        return db.clips().to_pylist()[0]

    return db, clip, updater, commit


def test_words_that_an_ingest_changes_before_the_commit_make_the_stage_missing(made):
    db, clip, updater, commit = made
    compute, *how = updater("Words")
    found = compute(clip)
    add_clips(db, [replace(clip, narration="close the box", verb="close")])
    assert bring_words(db) == WordsBrought(1, {"mine": 1})
    row = commit(found, *how)
    assert (row["num_letters"], row["narration"], row["verb"]) == (4, "open", "close")
    assert bring_words(db) == WordsBrought(1, {"mine": 1})
    row = db.clips().to_pylist()[0]
    assert (row["stage_key_mine"], row["narration"]) == (None, "close the box")
    row = commit(updater("Words")[0](replace(clip, narration="close the box")), *how)
    assert (row["stage_key_mine"], row["num_letters"]) == (KEY, 13)
    assert bring_words(db) == WordsBrought(0, {})


def test_another_camera_is_what_a_stage_gets_and_what_its_row_then_has(made):
    db, clip, updater, commit = made
    now = replace(clip, camera=CAMERA, view="ego")
    add_clips(db, [now])
    other = {"class": f"{own_stages.HERE}:Reads", "settings": {"reads": ["camera"], "writes": ["more"]}}
    compute, *how = updater("LooksAtCamera", other=other)
    db.table("clips").update({"stage_key_other": "'2'"})
    row = commit(updater("LooksAtCamera", other=other)[0](now), *how)
    assert (row["camera_letters"], row["camera"], row["stage_key_mine"]) == (len(CAMERA), None, KEY)
    assert changed_inputs(db) == {clip.clip_id: {"camera", "view"}}, "the other stage's columns are of the old one"
    db.table("clips").update({"stage_key_other": "NULL"})
    compute, *how = updater("LooksAtCamera", other=other)
    row = commit(compute(now), *how)
    assert (row["camera_letters"], row["camera"], row["camera_digest"]) == (len(CAMERA), CAMERA, now.camera_digest)
    assert changed_inputs(db) == {clip.clip_id: {"view"}}
