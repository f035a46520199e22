"""Ingesting twice adds nothing; a moved video gets its new URI."""

import contextlib
import math
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from support.dying import Dying, Killed
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import AddResult, add_clips, listed_videos, pending_clips, read_clips, renew_videos
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import end_run, latest_run, list_runs, settings_to_go_on, start_run, stored_settings
from handloom.video.fetch.version import VideoVersion

NOTHING = {"num_clips": 0, "num_rejects": 0, "num_frames": 0, "stage_s": {}}


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


def test_a_start_that_is_nan_equals_itself(tmp_path):
    db = Database.open(tmp_path, create=True)
    clip = make_clip(0, start_s=math.nan)
    assert add_clips(db, [clip]).added == 1
    assert add_clips(db, [replace(clip, start_s=float("nan"))]).already_there == 1


def of_file(clip, content: str, at: int = 1, num_bytes: int = 5):
    return VideoVersion(num_bytes, f"mtime:{at}.000000000", content).on(clip)


def finish(db, numbers, lost=()):
    schema = clips_schema(4)
    rejects = [Reject(make_clip(n).clip_id, "decode", "damaged", "") for n in lost]
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [make_row(n) for n in numbers], schema)], rejects)


def test_a_replaced_video_loses_its_rows_and_rejects(tmp_path):
    """Clip 3 of the same video is of another annotation file, clip 10 of another video."""
    db = Database.open(tmp_path, create=True)
    old = [of_file(make_clip(n), "old") for n in (0, 1, 2, 3, 10)]
    add_clips(db, old)
    finish(db, [0, 10], lost=[1])
    touched = [of_file(clip, "old", at=2) for clip in old]
    assert add_clips(db, touched) == AddResult(0, 0, 5, 0)
    assert read_clips(db) == touched
    assert pending_clips(db) == touched[2:4]

    new = [of_file(make_clip(n), "new", at=3) for n in (0, 1, 2)]
    assert add_clips(db, new) == AddResult(0, 0, 3, 0, changed_videos=1, redone=2)
    assert {c.clip_id: c.video_digest for c in read_clips(db)} == dict(
        zip([c.clip_id for c in old], ["new"] * 4 + ["old"], strict=True)
    )
    assert {c.clip_id for c in pending_clips(db)} == {c.clip_id for c in old[:4]}
    assert db.clips(["clip_id"]).column("clip_id").to_pylist() == [old[4].clip_id]
    assert add_clips(db, new) == AddResult(0, 0, 3, 0)


def test_clips_that_no_longer_fit_are_removed_with_the_old_file(tmp_path):
    db = Database.open(tmp_path, create=True)
    add_clips(db, [of_file(make_clip(n), "old") for n in (0, 1, 2, 10)])
    finish(db, [0, 1, 2, 10])
    new = [
        of_file(make_clip(0), "new", num_bytes=4),
        of_file(make_clip(1, clip_id="test:v0:1000-1500"), "new", num_bytes=4),
    ]
    assert add_clips(db, new, whole_videos=True) == AddResult(1, 0, 1, 0, changed_videos=1, dropped=2, redone=3)
    assert {c.clip_id for c in read_clips(db)} == {new[0].clip_id, new[1].clip_id, make_clip(10).clip_id}
    assert {c.clip_id for c in pending_clips(db)} == {c.clip_id for c in new}


def test_a_missing_video_keeps_its_version(tmp_path):
    db = Database.open(tmp_path, create=True)
    known = of_file(make_clip(0), "old")
    add_clips(db, [known])
    finish(db, [0])
    assert add_clips(db, [make_clip(0, narration="said")]) == AddResult(0, 1, 0, 0)
    assert read_clips(db) == [replace(known, narration="said")]
    assert listed_videos(db) == {known.video_uri: VideoVersion.of_clip(known)}
    assert not pending_clips(db)


def test_a_video_of_two_datasets_is_replaced_in_the_one_that_lists_the_old_file(tmp_path):
    db = Database.open(tmp_path, create=True)
    old = of_file(make_clip(0), "old")
    there = of_file(make_clip(1, dataset="other", video_uri=old.video_uri), "new")
    add_clips(db, [there, old])
    finish(db, [0, 1])
    found = {old.video_uri: VideoVersion.of_clip(there)}
    assert renew_videos(db, found) == AddResult(0, 0, 0, 0, changed_videos=1, redone=1)
    assert [clip.clip_id for clip in pending_clips(db)] == [old.clip_id]
    assert {VideoVersion.of_clip(clip) for clip in read_clips(db)} == set(found.values())
    assert renew_videos(db, found) == AddResult(0, 0, 0, 0)


@settings(max_examples=10, deadline=None)
@given(opens=st.integers(0, 14))
def test_a_kill_while_a_video_is_replaced_loses_nothing(tmp_path_factory, opens):
    """The next ingest goes on, and no row of the old file is left."""
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    add_clips(db, [of_file(make_clip(n), "old") for n in range(3)])
    finish(db, [0, 1], lost=[2])
    new = [of_file(make_clip(n), "new", at=3) for n in (0, 1)]
    with contextlib.suppress(Killed):
        add_clips(Dying(db.location, iter(range(opens))), new, whole_videos=True)
    add_clips(db, new, whole_videos=True)
    assert read_clips(db) == new
    assert pending_clips(db) == new
    assert not db.count("rejects")


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


def test_the_newest_run_began_last_whatever_the_clocks_say(tmp_path):
    """The first driver's clock is a day ahead: the next run went on with the settings of before, and computed all rows
    back to them."""
    db = Database.open(tmp_path, create=True)
    early = start_run(db, RUN_KEY, settings={"video": {"sample_hz": 15}}, resources={}, versions={}, stage_keys={})
    schema = clips_schema(4)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [make_row(0)], schema)])
    end_run(db, replace(early, started_at=early.started_at + timedelta(days=1)), "done", **NOTHING)
    late = start_run(db, RUN_KEY, settings={"video": {"sample_hz": 10}}, resources={}, versions={}, stage_keys={})
    assert [run.run_id for run in list_runs(db)] == [early.run_id, late.run_id]
    assert (early.number, late.number) == (1, 2)
    assert stored_settings(db).settings == {"video": {"sample_hz": 10}}
    db.table("runs").update({"number": "NULL"})  # as of before 0.4
    assert [run.run_id for run in list_runs(db)] == [late.run_id, early.run_id]
    assert start_run(db, RUN_KEY, settings={}, resources={}, versions={}) == list_runs(db)[-1]


def test_a_run_that_ends_before_its_first_commit_leaves_its_settings_to_the_next(tmp_path):
    db = Database.open(tmp_path, create=True)
    assert settings_to_go_on(db) is None
    begun = {"settings": {"video": {"sample_hz": 10}}, "resources": {}, "versions": {}}
    start_run(db, RUN_KEY, **begun, stage_keys={"probe": "a"})
    start_run(db, "ingest", settings={}, resources={}, versions={})  # of a killed one
    assert stored_settings(db) is None, "there is nothing that they could outdate"
    assert settings_to_go_on(db).settings == {"video": {"sample_hz": 10}}
    assert settings_to_go_on(db).stage_keys == {"probe": "a"}
