"""The table `segments` says what the column says, whatever came between."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.segments import SEGMENT, SEGMENTS
from handloom.store.clips import segments as room
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.removal import remove_clips, remove_rows
from handloom.store.clips.segments import bring_segments
from handloom.store.fragments import write_fragment
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

OLD, NEW = "0" * 16, "1" * 16


def segment(number: int, hand: str = "right", **values) -> dict:
    pose = np.eye(4).reshape(-1).tolist()
    cell = dict.fromkeys(field.name for field in SEGMENT) | {
        "start_s": float(number), "end_s": number + 0.5, "start_frame": number, "end_frame": number + 1, "hand": hand,
        "phase": "grasping", "master": "object_1", "slave": f"hand_{hand}", "keyframes": [number], "object_tracks": [],
        "grasp_pose": pose, "trajectory": [pose, [float("nan")] * 16], "confidence": 0.5,
    }  # fmt: skip
    return cell | values


CELLS = [[segment(0), segment(1, "left")], [], None, [segment(2, grasp_pose=None)]]


@pytest.fixture
def db(tmp_path) -> Database:
    """Four rows: two segments, none, no value, one segment; and one whose stage was not computed."""
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(number, verb=f"verb {number}") for number in range(5)])
    rows = pa.Table.from_batches([make_row(make_clip(number, verb=f"verb {number}")) for number in range(5)])
    rows = with_keys(rows, {"segments": [OLD] * 4 + [None]})
    rows = with_own_column(rows, "segments", "segments", pa.array([*CELLS, None], pa.list_(SEGMENT)))
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    return db


def told(db: Database) -> list[tuple]:
    rows = db.table("segments").to_table().to_pylist()
    return sorted((r["segment_id"], r["stage_key"], r["verb"], r["start_s"], r["hand"]) for r in rows)


def expected(db: Database) -> list[tuple]:
    rows = db.clips(["clip_id", "stage_key_segments", "verb", "segments"]).to_pylist()
    return sorted(
        (f"{r['clip_id']}#{n}", r["stage_key_segments"], r["verb"], one["start_s"], one["hand"])
        for r in rows for n, one in enumerate(r["segments"] or ())
    )  # fmt: skip


def test_it_has_one_row_a_segment_with_all_fields(db):
    assert bring_segments(db).num_clips == 2
    table = db.table("segments")
    assert table.schema.names == SEGMENTS.names
    assert told(db) == expected(db)
    assert len(told(db)) == 3
    row = table.to_table(filter="hand = 'left'").to_pylist()[0]
    assert {name: row[name] for name in ("clip_id", "phase", "start_frame")} == {
        "clip_id": make_clip(0).clip_id, "phase": "grasping", "start_frame": 1,
    }  # fmt: skip
    assert np.isnan(row["trajectory"][1]).all()
    assert row["contact_start_s"] is None


def test_without_a_new_version_of_clips_nothing_is_read(db, monkeypatch):
    bring_segments(db)
    version = db.table("segments").version
    monkeypatch.setattr(room, "_of_clips", None)
    assert bring_segments(db).num_clips == 0
    assert db.table("segments").version == version


def test_changed_clips_are_written_again_and_no_others(db):
    bring_segments(db)
    clip_id = make_clip(3).clip_id
    fields = [db.table("clips").schema.field(name) for name in ("segments", "stage_key_segments")]
    cells = pa.array([[segment(7), segment(8), segment(9)]], pa.list_(SEGMENT))
    columns = [pa.array([clip_id]), cells, pa.array([NEW])]
    rows = pa.table(columns, schema=pa.schema([pa.field("clip_id", pa.string()), *fields]))
    ColumnCommitter(db, RUN_KEY, fields).commit([write_update(db.uri, rows, "run")])
    done = bring_segments(db)
    assert (done.num_clips, done.num_removed) == (1, 0)
    assert told(db) == expected(db)
    assert [start_s for *_, start_s, _ in told(db)] == [0.0, 1.0, 7.0, 8.0, 9.0]


def test_removed_clips_have_no_segments(db):
    bring_segments(db)
    remove_rows(db, [make_clip(0).clip_id])
    assert len(told(db)) == 1
    remove_clips(db, [make_clip(3).clip_id])
    assert told(db) == []
    assert bring_segments(db).num_removed == 0


@pytest.mark.parametrize("step", ["delete", "merge", "config"])
def test_a_kill_between_any_two_commits_is_mended(db, monkeypatch, step):
    monkeypatch.setattr(room, "CLIPS_PER_COMMIT", 1)
    bring_segments(db)
    lance.dataset(db.location.table_uri("clips")).delete(f"clip_id = '{make_clip(0).clip_id}'")  # not by `remove`
    lance.dataset(db.location.table_uri("clips")).update(
        {"verb": "'other'"}, where=f"clip_id = '{make_clip(3).clip_id}'"
    )

    def killed(*_, **__):
        raise KeyboardInterrupt

    name = {"delete": "delete", "merge": "merge_insert", "config": "update_config"}[step]
    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, name, killed)
        with pytest.raises(KeyboardInterrupt):
            bring_segments(db)
    bring_segments(db)
    assert told(db) == expected(db)
    assert [verb for _, _, verb, *_ in told(db)] == ["other"]


def test_a_database_without_the_stage_has_no_table(tmp_path):
    empty = Database.open(tmp_path / "other", create=True)
    assert bring_segments(empty).num_clips == 0
    assert empty.table("segments") is None
