"""Words that come after the first run reach the rows, their indexes and their readers; nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clip_features import ClipFeatures, read_features, write_features
from handloom.store.clips.commit import Committer
from handloom.store.clips.row_words import Behind, rows_behind, write_words
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes

SCHEMA = clips_schema(4)


def test_words_reach_rows_and_search(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    clips = [make_clip(n, narration="open drawer" if n % 2 else None) for n in range(5)]
    committer = Committer(db, RUN_KEY, SCHEMA)
    parts = [[make_row(clip) for clip in part] for part in (clips[:2], clips[2:])]
    committer.commit([write_fragment(db.uri, rows, SCHEMA) for rows in parts])
    build_indexes(db)
    keys = {clip.clip_id: RUN_KEY for clip in clips}
    features = ClipFeatures(tuple(keys), np.ones((5, 2), np.float16), np.ones((5, 1, 2), np.float16))
    write_features(db, "clips", keys, "e", features)
    before = digests(db.clips())

    told = [replace(clips[0], narration="take a cup", verb="take"), replace(clips[3], narration=None, split="val")]
    now = [told[0], clips[1], replace(clips[2], view="ego"), told[1], replace(clips[4], camera="{}"), make_clip(9)]
    behind = rows_behind(db, now)
    assert behind == Behind(told, [clips[2].clip_id, clips[4].clip_id])
    write_words(db, behind.words)

    assert rows_behind(db, told) == Behind([], [])
    after = {clip_id: digest for clip in told for clip_id, digest in digests(make_row(clip)).items()}
    assert digests(db.clips()) == before | after
    assert db.clips(["clip_id"]).column("clip_id").to_pylist() == [clip.clip_id for clip in clips]
    assert [hit.clip_id for hit in db.search(text="cup")] == [clips[0].clip_id]
    assert [hit.clip_id for hit in db.search(text="drawer")] == [clips[1].clip_id]
    left = read_features(db, "clips", keys, "e", 1, (2, 2)).ids
    assert set(left) == {clips[1].clip_id, clips[2].clip_id, clips[4].clip_id}
    assert Committer(db, RUN_KEY, SCHEMA).done == set(keys)


def test_rows_from_before_a_column_came_are_compared_without_it(tmp_path):
    """Tables before 0.4 have no `hand`."""
    db = Database.open(tmp_path / "db", create=True)
    clips = [make_clip(n) for n in range(2)]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(clip) for clip in clips], SCHEMA)])
    db.table("clips").drop_columns(["hand"])
    assert rows_behind(db, [clips[0], replace(clips[1], hand='{"length_m":0.17}')]) == Behind([], [clips[1].clip_id])
