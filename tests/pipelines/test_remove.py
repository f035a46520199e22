"""`handloom remove`: what is chosen, what is kept, what is printed."""

from __future__ import annotations

import json

import pytest
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.remove import remove
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import add_clips, pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import alone, leased
from handloom.store.runs.runs import end_run, list_runs

SCHEMA = clips_schema(4)


@pytest.fixture
def db(tmp_path):
    """Videos a (there) and b (gone), three clips each: a row, a reject, a pending one."""
    (tmp_path / "a.mp4").touch()
    clips = [
        make_clip(n, clip_id=f"test:{video}:{n}-{n + 1}", video_id=video, video_uri=f"{tmp_path}/{video}.mp4")
        for video in "ab"
        for n in range(3)
    ]
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, clips)
    rejects = [Reject(clip.clip_id, "fetch", "video_missing", "gone") for clip in clips if clip.start_s == 1]
    rows = [make_row(clip) for clip in clips if clip.start_s == 0]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA)], rejects)
    return db


@pytest.mark.parametrize(
    ("choice", "gone", "counts"),
    [
        ({"clips": ["test:a:0-1"]}, ["a:0-1"], (1, 1, 0)),
        ({"videos": ["a"]}, ["a:0-1", "a:1-2", "a:2-3"], (3, 1, 1)),
        ({"where": "video_id = 'b' AND start_s > 0"}, ["b:1-2", "b:2-3"], (2, 0, 1)),
        ({"where": "reason = 'video_missing'"}, ["a:1-2", "b:1-2"], (2, 0, 2)),
        ({"where": "quality.blur > 1"}, ["a:0-1", "b:0-1"], (2, 2, 0)),
        ({"missing": True}, ["b:1-2", "b:2-3"], (2, 0, 1)),
        ({"missing": True, "where": "start_s = 2"}, ["b:2-3"], (1, 0, 0)),
    ],
)
def test_what_is_chosen_goes(db, choice, gone, counts):
    gone = [f"test:{clip_id}" for clip_id in gone]
    tried = remove(db, **choice, dry_run=True)
    assert db.count("clip_list") == 6
    done = remove(db, **choice)
    assert list(done.clip_ids) == list(tried.clip_ids) == gone
    assert (done.listed, done.rows, done.rejects) == (tried.listed, tried.rows, tried.rejects) == counts
    assert done.num_clips == tried.num_clips == 6 - len(gone) == db.count("clip_list")
    assert done.kept_rows == int("missing" in choice)
    assert not {clip.clip_id for clip in read_clips(db)} & set(gone)


def test_rows_only_leaves_the_clips_pending(db):
    done = remove(db, videos=["a"], rows_only=True)
    assert (done.listed, done.rows, done.rejects, done.num_clips) == (0, 1, 1, 6)
    assert {clip.clip_id for clip in pending_clips(db) if clip.video_id == "a"} == set(done.clip_ids)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({}, "no clips are chosen"),
        ({"clips": ["x"], "missing": True}, "more than one way"),
        ({"clips": ["test:a:0-2"]}, r"no clip 'test:a:0-2' is in .*near: .*test:a:0-1"),
        ({"videos": ["test:a"]}, "no video 'test:a'"),
        ({"where": "nouns = 'cup'"}, "no column 'nouns'; near: noun"),
        ({"where": " "}, "it is empty"),
    ],
)
def test_mistakes_are_named_and_remove_nothing(db, choice, says):
    with pytest.raises(ConfigError, match=says):
        remove(db, **choice)
    assert (db.count("clip_list"), db.count("clips"), db.count("rejects")) == (6, 2, 2)


def test_a_disk_that_is_not_mounted_empties_no_list(db, tmp_path):
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(ConfigError, match=r"none of the 2 videos .* is there"):
        remove(db, missing=True)
    assert db.count("clip_list") == 6
    remove(db, videos=["b"])
    with pytest.raises(ConfigError, match=r"none of the 1 videos .* is there"):
        remove(db, missing=True)  # of one video, it cannot be told either
    assert db.count("clip_list") == 3
    remove(db, videos=["a"])
    assert remove(db, missing=True).listed == 0


def test_a_video_that_cannot_be_asked_for_is_kept(db):
    add_clips(db, [make_clip(9, video_uri="zip://x.mp4"), make_clip(8, video_uri="http://localhost:9/x.mp4")])
    done = remove(db, missing=True)
    assert done.unknown_videos == ("zip://x.mp4", "http://localhost:9/x.mp4")
    assert db.count("clip_list") == 6


def lease(db):
    return leased(db, RUN_KEY, settings={}, resources={}, versions={}, stale_s=2.0)


def test_nothing_is_removed_while_a_run_works(db):
    assert db.table("runs") is None
    remove(db, clips=["test:a:0-1"])
    assert db.table("runs") is None  # no run ever began here: nothing is written for it
    with lease(db) as held:
        with pytest.raises(StoreError, match=f"run {held.run.run_id} works on .*: nothing can be removed meanwhile"):
            remove(db, videos=["b"])
        assert remove(db, videos=["b"], dry_run=True).listed == 3
        end_run(db, held.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    assert db.count("clip_list") == 5
    with alone(db, "remove"), pytest.raises(StoreError, match="works on"), lease(db):
        pass
    assert remove(db, videos=["b"]).listed == 3
    assert [run.exit for run in list_runs(db)] == ["done"]


def test_the_command(db, cli):
    code, out, _ = cli("remove", "--db", db.uri, "--missing", "--dry-run")
    assert (code, out.splitlines()) == (
        0,
        [
            "would remove 2 clips from the list, 0 rows, 1 reject; 4 clips would be left in the list",
            "  test:b:1-2",
            "  test:b:2-3",
        ],
    )
    code, out, err = cli("remove", "--db", db.uri, "--missing")
    assert out.startswith("removed 2 clips from the list")
    assert "kept 1 clip whose video is not there: it has a row" in err
    code, out, _ = cli("remove", "--db", db.uri, "--clip", "test:b:0-1", "--clip", "test:a:2-3", "--json")
    assert (code, json.loads(out)["num_clips"]) == (0, 2)
    assert cli("remove", "--db", db.uri, "--video", "b")[0] == 2
    _, out, _ = cli("remove", "--db", db.uri, "--video", "a", "--rows-only")
    assert out.startswith("removed 1 row, 1 reject; their clips stay in the list: `handloom run` makes them anew\n")


def test_the_list_of_clips(db, cli):
    code, out, _ = cli("status", "--db", db.uri, "--clips")
    assert (code, [line.split()[:2] for line in out.splitlines()[:3]]) == (
        0,
        [["row", "test:a:0-1"], ["video_missing", "test:a:1-2"], ["pending", "test:a:2-3"]],
    )
    listed = json.loads(cli("status", "--db", db.uri, "--clips", "--json")[1])
    assert [one["state"] for one in listed] == ["row", "rejected", "pending"] * 2
