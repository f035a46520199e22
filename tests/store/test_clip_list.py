"""Ingesting twice adds nothing; a moved video gets its new place."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import RUN_KEY, make_clip, make_row

from handloom.schemas.reject import Reject
from handloom.schemas.tables import clips_schema
from handloom.store.clip_list import AddResult, add_clips, pending_clips, read_clips
from handloom.store.commit import Committer
from handloom.store.database import Database
from handloom.store.fragments import write_fragment
from handloom.store.runs import end_run, latest_run, list_runs, start_run, stored_settings


@settings(max_examples=15, deadline=None)
@given(calls=st.lists(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("ab")), max_size=8), max_size=4))
def test_each_clip_once_with_its_last_values(tmp_path_factory, calls):
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    expected = {}
    for call in calls:
        clips = [make_clip(number, video_uri=uri) for number, uri in call]
        before = set(expected)
        result = add_clips(db, iter(clips))
        expected |= {clip.clip_id: clip for clip in clips}
        assert result.added == len(expected) - len(before)
        assert result.total + result.repeated == len(clips)
    assert {c.clip_id: c for c in read_clips(db)} == expected
    assert db.count("clip_list") == len(expected)
    again = add_clips(db, expected.values())
    assert again == AddResult(0, 0, len(expected), 0)


def test_every_field_comes_back(tmp_path):
    db = Database.open(tmp_path, create=True)
    full = make_clip(0, narration="öffnet die Lade", verb="open", noun="drawer", participant="P01", split="train")
    full = replace(full, licence="CC", view="ego", camera='{"camera_matrix": [1]}')
    open_end = make_clip(1, end_s=None)
    add_clips(db, [full, open_end])
    assert read_clips(db) == [full, open_end]
    assert read_clips(db, ids=[open_end.clip_id]) == [open_end]
    assert read_clips(db, where="verb = 'open'") == [full]


def test_a_time_that_is_none_is_not_new_every_time(tmp_path):
    db = Database.open(tmp_path, create=True)
    clip = make_clip(0, start_s=math.nan)
    assert add_clips(db, [clip]).added == 1
    assert add_clips(db, [replace(clip, start_s=float("nan"))]).already_there == 1


def test_pending_is_what_has_neither_row_nor_reject(tmp_path):
    db = Database.open(tmp_path, create=True)
    clips = [make_clip(i) for i in range(4)]
    add_clips(db, clips)
    assert pending_clips(db) == clips
    schema = clips_schema(4)
    lost = Reject(clips[2].clip_id, "fetch", "fetch_failed", "no network")
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [make_row(0)], schema)], [lost])
    assert pending_clips(db) == [clips[1], clips[3]]
    assert pending_clips(db, retry_reasons=["fetch_failed"]) == clips[1:]


def test_runs_and_stored_settings(tmp_path):
    db = Database.open(tmp_path, create=True)
    assert latest_run(db) is None
    first = start_run(db, RUN_KEY, settings={"video": {"sample_hz": 15}}, resources={}, versions={"hands": "1"})
    assert latest_run(db) == first
    assert first.exit is None
    assert stored_settings(db) is None  # nothing is made with them yet
    schema = clips_schema(4)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [make_row(0)], schema)])
    assert stored_settings(db).settings == {"video": {"sample_hz": 15}}
    ended = end_run(db, first, "done", num_clips=1, num_rejects=0, num_frames=3, stage_s={"decode": 0.5})
    second = start_run(db, RUN_KEY, settings={}, resources={}, versions={})
    assert list_runs(db) == [ended, second]
    assert ended.wall_s >= 0
