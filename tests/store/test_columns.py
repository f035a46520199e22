"""Tables of older versions, and columns that users have added to theirs."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import CLIP_LIST, REJECTS, RUNS, clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import add_clips, pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import end_run, list_runs, start_run
from handloom.store.search.index import build_indexes, compact

SCHEMA = clips_schema(4)
# The tables as handloom 0.3.0 made them.
OLD_LIST = [
    "clip_id",
    "dataset",
    "video_id",
    "video_uri",
    "start_s",
    "end_s",
    "narration",
    "verb",
    "noun",
    "participant",
    "split",
    "licence",
    "view",
    "camera",
]
OLD_REJECTS = ["clip_id", "stage", "reason", "detail", "attempts", "run_key", "at"]
OLD_RUNS = [
    "run_id",
    "run_key",
    "started_at",
    "ended_at",
    "exit",
    "settings",
    "resources",
    "versions",
    "num_clips",
    "num_rejects",
    "num_frames",
    "wall_s",
    "stage_s",
]


def write(db, *numbers):
    return write_fragment(db.uri, [make_row(n) for n in numbers], SCHEMA)


def ids(*numbers):
    return [make_clip(n).clip_id for n in numbers]


def values(db, table="clips", column="mine"):
    rows = db.read(table, ["clip_id", column])
    return dict(zip(*(rows.column(name).to_pylist() for name in ("clip_id", column)), strict=True))


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


@pytest.fixture
def old(tmp_path):
    """A database of 0.3.0 with three clips, a reject and a run."""
    db = Database.open(tmp_path / "new", create=True)
    add_clips(db, [make_clip(n) for n in range(3)])
    Committer(db, RUN_KEY, SCHEMA).commit([], [Reject(ids(2)[0], "decode", "damaged", "cut short")])
    run = start_run(db, RUN_KEY, settings={}, resources={}, versions={})
    end_run(db, run, "done", num_clips=0, num_rejects=1, num_frames=0, stage_s={})
    for name, columns in (("clip_list", OLD_LIST), ("rejects", OLD_REJECTS), ("runs", OLD_RUNS)):
        rows = db.read(name, columns)
        plain = pa.schema([field.remove_metadata() for field in rows.schema])
        lance.write_dataset(pa.Table.from_arrays(rows.columns, schema=plain), str(tmp_path / "old" / f"{name}.lance"))
    return Database.open(tmp_path / "old")


def test_a_list_of_an_older_version_is_read_and_grows_when_it_is_written(old):
    before = old.table("clip_list").version
    assert read_clips(old) == [make_clip(n) for n in range(3)]
    assert [clip.clip_id for clip in pending_clips(old)] == ids(0, 1)
    assert old.read("clip_list").schema.names == CLIP_LIST.names
    assert old.table("clip_list").version == before
    assert add_clips(old, [make_clip(1), make_clip(2, narration="new"), make_clip(3)]).total == 3
    assert old.table("clip_list").schema.equals(CLIP_LIST, check_metadata=True)
    found = sorted(read_clips(old), key=lambda clip: clip.clip_id)
    assert found == [make_clip(0), make_clip(1), make_clip(2, narration="new"), make_clip(3)]


def test_runs_and_rejects_of_an_older_version(old):
    (run,) = list_runs(old)
    assert (run.exit, run.num_rejects, run.holder, run.heartbeat_at, run.left_nodes) == ("done", 1, None, None, None)
    assert old.rejects().schema.names == REJECTS.names
    assert old.read("runs", ["holder"]).to_pylist() == [{"holder": None}]
    start_run(old, RUN_KEY, settings={}, resources={}, versions={})
    Committer(old, RUN_KEY, SCHEMA).commit([], [Reject(ids(2)[0], "decode", "damaged", "again")])
    assert old.table("runs").schema.equals(RUNS, check_metadata=True)
    assert old.table("rejects").schema.equals(REJECTS, check_metadata=True)
    assert [row["attempts"] for row in old.rejects().to_pylist()] == [2]
    assert len(list_runs(old)) == 2


def test_rows_without_a_digest_of_their_camera_get_the_column(db):
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 0)])
    db.table("clips").drop_columns(["camera_digest"])
    assert values(db, column="camera_digest") == {ids(0)[0]: None}
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 1)])
    assert values(db, column="camera_digest") == dict(zip(ids(0, 1), (None, make_clip(1).camera_digest), strict=True))


def test_a_column_of_another_type_is_refused(db):
    db.ensure_table("runs", pa.schema([*(f for f in RUNS if f.name != "wall_s"), pa.field("wall_s", pa.string())]))
    with pytest.raises(StoreError, match=r"table runs has other columns than this run writes: wall_s"):
        start_run(db, RUN_KEY, settings={}, resources={}, versions={})


def test_columns_of_a_user_in_clips_stay_through_everything(db):
    """`num_frames * 2` is a column that cannot be null: Lance takes that over from `num_frames`."""
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 0, 1)])
    written_before = write(db, 2)
    db.table("clips").add_columns({"mine": "num_frames * 2"})
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([written_before, write(db, 3, 4)])
    committer.commit([write(db, 4, 5)])  # rewritten: clip 4 is there
    expected = dict.fromkeys(ids(0, 1), 6) | dict.fromkeys(ids(2, 3, 4, 5))
    assert values(db) == expected
    build_indexes(db, ann_threshold_rows=1)
    compact(db)
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 6)])
    assert values(db) == expected | {ids(6)[0]: None}
    hits = db.search(clip=ids(0)[0], where="mine = 6", columns=["mine"])
    assert [(hit.clip_id, hit.more["mine"]) for hit in hits] == [(ids(1)[0], 6)]
    assert db.row(ids(1)[0], ["mine"]).to_pylist() == [{"mine": 6}]


def test_columns_of_a_user_are_fields_of_windows(db):
    pytest.importorskip("torch")
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 0)])
    db.table("clips").add_columns({"mine": "num_frames * 2"})
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 1)])
    windows = db.windows(fields=["mine", "hands"], where="mine IS NOT NULL")
    assert [windows[n]["mine"] for n in range(len(windows))] == [6, 6, 6]
    assert np.isfinite(windows[0]["hand_keypoints_px"][0, 0]).all()
    (batch,) = db.windows(fields=["mine"]).loader(6)
    assert sorted(batch["mine"], key=str) == [6, 6, 6, None, None, None]


def test_a_column_added_during_a_run_does_not_stop_it(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    db.table("clips").add_columns({"mine": "num_frames * 2"})
    committer.commit([write(db, 1)])
    assert values(db) == {ids(0)[0]: 6, ids(1)[0]: None}


def test_columns_of_a_user_in_the_other_tables(db):
    add_clips(db, [make_clip(n) for n in range(3)])
    Committer(db, RUN_KEY, SCHEMA).commit([], [Reject(ids(0)[0], "decode", "damaged", "cut short")])
    start_run(db, RUN_KEY, settings={}, resources={}, versions={})
    for name in ("clip_list", "rejects", "runs"):
        db.table(name).add_columns({"mine": "length(run_id)" if name == "runs" else "length(clip_id)"})
    add_clips(db, [make_clip(1, narration="new"), make_clip(3)])
    Committer(db, RUN_KEY, SCHEMA).commit([], [Reject(i, "decode", "damaged", "again") for i in ids(0, 1)])
    end_run(db, list_runs(db)[0], "done", num_clips=0, num_rejects=1, num_frames=0, stage_s={})
    assert values(db, "clip_list") == {i: len(i) for i in ids(0, 1, 2)} | {ids(3)[0]: None}
    assert values(db, "rejects") == {ids(0)[0]: len(ids(0)[0]), ids(1)[0]: None}
    assert db.runs().column("mine").to_pylist() == [12]
