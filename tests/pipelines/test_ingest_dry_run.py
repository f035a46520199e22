"""`ingest ... --dry-run` writes nothing and says exactly what the ingest then does."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.calvin_data import language, make_calvin
from support.lerobot_data import edit_table, make_v3
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.pipelines.ingest.effects import apply, foresee
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.changed_inputs import changed_inputs
from handloom.store.clips.clip_list import add_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.removal import remove_clips
from handloom.store.fragments import write_fragment
from handloom.video.fetch.version import VideoVersion

SCHEMA = clips_schema(4)


def contents(folder):
    """Every file and folder below, with bytes and times."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted([folder, *folder.rglob("*")])
    }


def finish(db, clips, rejects=()):
    lost = [Reject(clip.clip_id, "fetch", "video_missing", "gone") for clip in rejects]
    Committer(db, RUN_KEY, SCHEMA).commit(
        [write_fragment(db.uri, [make_row(clip) for clip in clips], SCHEMA)] if clips else [], lost
    )


values = st.fixed_dictionaries(
    {},
    optional={
        "narration": st.sampled_from([None, "open"]),
        "split": st.sampled_from([None, "val"]),
        "view": st.sampled_from([None, "ego"]),
        "camera": st.sampled_from([None, '{"fov_deg":90}']),
        "hand": st.sampled_from([None, '{"length_m":0.17}']),
        "video_uri": st.just("/moved.mp4"),
    },
)
some = st.tuples(
    st.dictionaries(st.sampled_from([0, 1, 2, 10, 11, 20]), values, max_size=5),
    st.lists(st.sampled_from("ab"), min_size=3, max_size=3),  # what each video's file holds
)


def clips_of(numbers, files):
    versions = [VideoVersion(1, "mtime:1.000000000", file) for file in files]
    return [versions[number // 10].on(make_clip(number, **fields)) for number, fields in numbers.items()]


@settings(max_examples=12)
@given(
    first=some,
    second=some,
    ends=st.lists(st.sampled_from(["row", "reject", None]), min_size=5, max_size=5),
    gone=st.sets(st.sampled_from([0, 1, 2, 10]), max_size=2),
    whole=st.booleans(),
    remake=st.booleans(),
)
def test_what_is_foreseen_is_what_happens(tmp_path_factory, first, second, ends, gone, whole, remake):
    folder = tmp_path_factory.mktemp("db")
    db = Database.open(folder, create=True)
    clips = clips_of(*first)
    add_clips(db, clips)
    finish(db, *([c for c, end in zip(clips, ends, strict=False) if end == kind] for kind in ("row", "reject")))
    now = clips_of(*second)
    gone = {make_clip(number).clip_id for number in gone - set(second[0])}
    before = contents(folder)
    seen = foresee(db, now, gone, whole_videos=whole, remake=remake)
    assert contents(folder) == before
    done = apply(db, now, gone, whole_videos=whole, remake=remake)
    assert replace(seen, examples={}) == replace(done, examples={})
    again = foresee(db, now, gone, whole_videos=whole, remake=remake)
    assert (again.added, again.changed, again.removed, again.rows_reworded) == (0, 0, 0, 0)
    assert again.outdated == ({} if remake else done.outdated)


EPIC = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb,noun,narration\n"


def folder(tmp_path, video):
    shutil.copy(video, tmp_path)
    return (tmp_path,), lambda text: (tmp_path / "clips.csv").write_text(f"video,narration\nvideo0.mp4,{text}\n")


def epic(tmp_path, video):
    shutil.copy(video, tmp_path / "P01_01.MP4")
    row, file = "P01_01_0,P01,P01_01,00:00:00.50,00:00:01.50,move,it,", tmp_path / "EPIC_100_train.csv"
    return ("--annotations", file, "--videos", tmp_path), lambda text: file.write_text(f"{EPIC}{row}{text}\n")


def ego4d(tmp_path, video):
    shutil.copy(video, tmp_path / "u1.mp4")
    manifest, file = tmp_path / "ego4d.json", tmp_path / "narration.json"
    manifest.write_text(json.dumps({"videos": [{"video_uid": "u1", "duration_sec": 30.0}]}))

    def say(text):
        file.write_text(json.dumps({"videos": {"u1": {"narrations": [{"time": 3, "text": text}]}}}))

    return ("--manifest", manifest, "--narrations", file, "--videos", tmp_path), say


def lerobot(tmp_path, video):
    make_v3(tmp_path, [3, 3])

    def say(text):
        edit_table(tmp_path / "meta/tasks.parquet", lambda rows: rows[0].update(__index_level_0__=text))
        episodes = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
        edit_table(episodes, lambda rows: rows[0].update(tasks=[text]))

    return (tmp_path,), say


def calvin(tmp_path, video):
    make_calvin(tmp_path, end=104, windows=(((100, 103), "x", "y"),))
    file = tmp_path / "training/lang_annotations/auto_lang_ann.npy"
    return (tmp_path,), lambda text: np.save(file, language((((100, 103), text, "y"),)))


@pytest.mark.parametrize("source", [folder, epic, ego4d, lerobot, calvin])
def test_every_command_says_what_it_would_do_and_then_does_it(tmp_path, rendered, cli, source):
    (tmp_path / "input").mkdir()
    where, say = source(tmp_path / "input", rendered / "video0.mp4")
    home = tmp_path / "new"
    home.mkdir()
    command = ("ingest", source.__name__, *where, "--db", home / "db", "--json")

    def foreseen():
        before = contents(home)
        code, out, err = cli(*command, "--dry-run")
        assert (code, contents(home) == before) == (0, True), err
        return json.loads(out)

    def ingested():
        code, out, err = cli(*command)
        assert code == 0, err
        return json.loads(out)

    def same(seen, done):
        unlike = {"dry_run", "examples", "version"}
        assert (seen["dry_run"], done["dry_run"]) == (True, False)
        assert {k: v for k, v in seen.items() if k not in unlike} == {k: v for k, v in done.items() if k not in unlike}

    say("open the drawer")
    seen = foreseen()
    same(seen, ingested())
    assert seen["num_clips"] == len(seen["examples"]["added"]) > 0
    db = Database.open(home / "db")
    finish(db, read_clips(db))
    say("close the box")
    seen = foreseen()
    _, out, _ = cli(*command[:-1], "--dry-run")
    assert out.startswith("nothing was written (--dry-run); the ingest would do this:\n")
    assert re.search(r"narration of \d listed clips?:\n    \S+ '.*open the drawer' -> '.*close the box'\n", out)
    same(seen, ingested())
    assert seen["fields"]["narration"] == seen["rows_reworded"] > 0
    assert len(db.search(text="box", embodiment="all")) == seen["rows_reworded"]
    assert not db.search(text="drawer", embodiment="all")
    assert not foreseen()["fields"]


def test_robot_rows_of_another_view_are_outdated_and_clips_that_were_removed_come_back(tmp_path, cli):
    where, say = lerobot(tmp_path / "arm", None)
    say("put it in")
    command = ("ingest", "lerobot", *where, "--db", tmp_path / "db", "--no-pictures")
    cli(*command)
    db = Database.open(tmp_path / "db")
    clips = read_clips(db)
    finish(db, clips)
    remove_clips(db, [clips[1].clip_id], episodes=False)
    for more, added in ((("--dry-run",), 1), ((), 1), (("--dry-run",), 0)):
        assert f"clips: added {added}, changed 0: 2 in the list" in cli(*command, *more)[1]
    for more in (("--dry-run",), ()):
        code, out, err = cli(*command, "--view", "ego", *more)
        assert (code, "  view of 2 listed clips:\n" in out) == (0, True)
        assert "problem: 1 row was made with another view than the list has now, for example arm:" in err
    assert set(changed_inputs(db).values()) == {frozenset({"view"})}


def test_clips_of_robot_episodes_whose_times_change_are_named_and_episodes_that_are_gone(tmp_path, cli):
    make_v3(tmp_path / "arm", [5, 5, 5])
    command = ("ingest", "lerobot", tmp_path / "arm", "--db", tmp_path / "db", "--no-pictures")
    assert "problem" not in cli(*command)[2]
    db = Database.open(tmp_path / "db")
    clips = read_clips(db)
    finish(db, clips[1:])
    shutil.rmtree(tmp_path / "arm")
    make_v3(tmp_path / "arm", [4, 5])
    for more in (("--dry-run",), ()):
        code, out, err = cli(*command, *more)
        assert (code, "added 0, replaced 2, already there 0" in out) == (0, True)
        assert "times of episodes have changed: 2 clips stay in the list that no episode has any more, 0 of them" in err
        assert f"for example {clips[0].clip_id}; `handloom remove --db {db.uri} --clip {clips[0].clip_id}`" in err
        assert "changed videos 2: 1 row or reject of their old files was removed" in out
        assert "1 stored episode is no longer in the dataset, for example arm:2\n" in err


def test_a_refusal_and_what_cannot_be_used_are_said_before(tmp_path, rendered, cli):
    """Another cut is refused with 2, as by the ingest; an unreadable video is named, and the exit code is 0."""
    shutil.copy(rendered / "video0.mp4", tmp_path)
    (tmp_path / "clips.csv").write_text("video,start_s,end_s,verb\nvideo0.mp4,0,1,open\nvideo0.mp4,1,99,close\n")
    command = ("ingest", "folder", tmp_path, "--db", tmp_path / "db")
    code, out, err = cli(*command, "--dry-run")
    assert (code, "added 1" in out, "problem: " in err, (tmp_path / "db").exists()) == (0, True, True, False)
    assert cli(*command)[0] == 3
    db = Database.open(tmp_path / "db")
    finish(db, read_clips(db))
    (tmp_path / "clips.csv").write_text("video,start_s,end_s,verb\nvideo0.mp4,0.5,1.5,open\n")
    before = contents(tmp_path / "db")
    code, _, err = cli(*command, "--dry-run")
    assert code == 2
    assert "for example folder:video0:500-1500 and folder:video0:0-1000, which has a row" in err
    _, out, _ = cli(*command, "--dry-run", "--replace")
    assert "added 1, changed 0, already there 0, removed 1 (rows 1, rejects 0): 1 clip in the list" in out
    assert "  removed, for example: folder:video0:0-1000\n" in out
    assert contents(tmp_path / "db") == before
    _, out, _ = cli(*command, "--add")
    assert (
        "1 other clip of these videos stays in the list, 1 of them with a row, for example folder:video0:0-1000" in out
    )
