"""Removal of clips: after a kill no row is without its entry in the clip list."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dying import Dying, Killed
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.schemas.tables.robot import RobotEpisode, episode_row
from handloom.store.clips.clip_list import add_clips, pending_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.removal import Removed, remove_clips, remove_rows
from handloom.store.episodes import read_episodes, write_episodes
from handloom.store.fragments import write_fragment

SCHEMA = clips_schema(4)
NUM = 6
CLIPS = [make_clip(n) for n in range(NUM)]
IDS = [clip.clip_id for clip in CLIPS]


def ids_of(db, table):
    rows = db.read(table, ["clip_id"])
    return rows.column("clip_id").to_pylist() if rows.num_columns else []


def make_database(folder, done: set[int], lost: set[int]) -> Database:
    db = Database.open(folder, create=True)
    add_clips(db, CLIPS)
    finish(db, done, lost)
    return db


def finish(db, done, lost):
    rejects = [Reject(IDS[n], "decode", "damaged", "cut short") for n in sorted(lost)]
    committer = Committer(db, RUN_KEY, SCHEMA)  # makes the table that fragments are written into
    records = [write_fragment(db.uri, [make_row(n) for n in sorted(done)], SCHEMA)] if done else []
    committer.commit(records, rejects)


@settings(max_examples=12, deadline=None)
@given(
    states=st.lists(st.sampled_from(["row", "reject", "pending"]), min_size=NUM, max_size=NUM),
    chosen=st.sets(st.integers(0, NUM - 1)),
    opens=st.integers(0, 12),
    run_between=st.booleans(),
    found_in=st.sampled_from(["clip_list", "rejects", "clips"]),
)
def test_a_kill_and_the_same_removal_again(tmp_path_factory, states, chosen, opens, run_between, found_in):
    done = {n for n in range(NUM) if states[n] == "row"}
    lost = {n for n in range(NUM) if states[n] == "reject"}
    db = make_database(tmp_path_factory.mktemp("db"), done, lost)
    ids = {IDS[n] for n in chosen}
    if found_in != "clip_list":
        ids &= set(ids_of(db, found_in))
    chosen = {IDS.index(clip_id) for clip_id in ids}
    try:
        remove_clips(Dying(db.location, iter(range(opens))), ids, found_in=found_in)
    except Killed:
        listed = set(ids_of(db, "clip_list"))
        assert set(IDS) - ids <= listed
        if ids & listed or found_in == "clip_list":
            assert {*ids_of(db, "clips"), *ids_of(db, "rejects")} <= listed
        else:
            assert set(ids_of(db, found_in)) >= ids  # what it will be found by is still there
    if run_between:  # a run finds what the kill has left pending
        finish(db, {IDS.index(clip.clip_id) for clip in pending_clips(db)} & chosen, set())
    remove_clips(db, ids & set(ids_of(db, found_in)), found_in=found_in)
    assert sorted(ids_of(db, "clip_list")) == sorted(set(IDS) - ids)
    assert sorted(ids_of(db, "clips")) == sorted(IDS[n] for n in done - chosen)
    assert sorted(ids_of(db, "rejects")) == sorted(IDS[n] for n in lost - chosen)
    assert remove_clips(db, ids) == Removed()


def test_rows_alone_are_pending_again_and_come_back(tmp_path):
    db = make_database(tmp_path / "db", {0, 1, 2}, {3})
    assert remove_rows(db, [IDS[1], IDS[3], "none:of:0-1"]) == Removed(rows=1, rejects=1)
    assert [clip.clip_id for clip in pending_clips(db)] == [IDS[1], *IDS[3:]]
    finish(db, {1}, {3})
    assert sorted(ids_of(db, "clips")) == IDS[:3]
    assert ids_of(db, "rejects") == [IDS[3]]


def episode(index: int, clip_ids: tuple[str | None, ...]) -> pa.RecordBatch:
    cameras = tuple(f"camera{n}" for n in range(len(clip_ids)))
    given_ = {"source_uri": "/arm", "source_version": "lerobot v3.0", "source_key": "k"}
    times = np.arange(2) / 10
    return episode_row(RobotEpisode("arm", index, 10.0, times, None, None, cameras, clip_ids, None, **given_))


@pytest.mark.parametrize(("with_episodes", "left"), [(True, [1, 2]), (False, [0, 1, 2])])
def test_a_robots_episode_goes_with_the_last_of_its_clips(tmp_path, with_episodes, left):
    db = make_database(tmp_path / "db", {0, 1, 2}, set())
    write_episodes(db, [episode(0, (IDS[0], IDS[1])), episode(1, (IDS[1], IDS[2])), episode(2, (None,))])
    removed = remove_clips(db, IDS[:2], episodes=with_episodes)
    assert removed == Removed(2, 2, 0, int(with_episodes))
    assert read_episodes(db, ["episode_index"]).column("episode_index").to_pylist() == left
