"""Stages that failed on clips that have a row."""

import pytest
from support.column_tables import FIELDS, STAGES, database, expected, new_columns
from support.rows import RUN_KEY, digests, make_clip

from handloom.errors import ClipError, ShapeError
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.clips.removal import remove_clips, remove_rows
from handloom.store.stages.rejects import StageReject, count_rejects, reconcile_rejects, rejected_clips
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter


def clip_id(number):
    return make_clip(number).clip_id


def reject(number, stage="motion", key="motion-1", reason="model_failed", **values):
    return StageReject(clip_id(number), stage, key, reason, "no network", **values)


def update(db, numbers, stages=STAGES, seed=1):
    return write_update(db.uri, new_columns(numbers, stages, seed), "run")


def rows(db, *columns):
    return [tuple(row[name] for name in columns) for row in db.read("stage_rejects").sort_by("reject_id").to_pylist()]


@pytest.fixture
def db(tmp_path):
    return database(tmp_path / "db", [range(3), range(3, 5)])


def test_rejects_and_columns_of_one_commit(db):
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    result = columns.commit([update(db, [0, 1], ["hands_2d"])], [reject(0), reject(1, host="a"), reject(9)])
    assert (result.num_clips, result.num_rejects) == (2, 2)
    assert rows(db, "reject_id", "stage_key", "attempts", "run_key", "host") == [
        (f"{clip_id(0)}/motion", "motion-1", 1, RUN_KEY, None),
        (f"{clip_id(1)}/motion", "motion-1", 1, RUN_KEY, "a"),
    ]
    assert digests(db.clips()) == expected(range(5), {(0, "hands_2d"): 1, (1, "hands_2d"): 1})
    assert rejected_clips(db, {"motion": "motion-1", "quality": "x"}) == {
        "motion": {clip_id(0), clip_id(1)},
        "quality": set(),
    }
    assert rejected_clips(db, {"motion": "motion-2"}) == {"motion": set()}


def test_attempts_of_one_key_add_up(db):
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    columns.commit([], [reject(0, attempts=2), reject(1)])
    columns.commit([], [reject(0), reject(1, key="motion-2")])
    ColumnCommitter(db, RUN_KEY, FIELDS).commit([], [reject(0, reason="hung")])
    assert rows(db, "stage_key", "attempts", "reason") == [("motion-1", 4, "hung"), ("motion-2", 1, "model_failed")]
    assert count_rejects(db) == {("motion", "hung"): 1, ("motion", "model_failed"): 1}


def test_a_stage_that_succeeds_loses_its_reject_and_others_keep_theirs(db):
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    columns.commit([], [reject(0), reject(0, "quality", "quality-1"), reject(1)])
    columns.commit([update(db, [0, 2], ["motion"], seed=2)])
    assert rows(db, "clip_id", "stage") == [(clip_id(0), "quality"), (clip_id(1), "motion")]
    assert columns.rejects.attempts.keys() == {f"{clip_id(0)}/quality", f"{clip_id(1)}/motion"}


def test_a_kill_between_columns_and_rejects_is_repaired(db):
    ColumnCommitter(db, RUN_KEY, FIELDS).commit([update(db, [0, 1], ["motion"])])
    stale = ColumnCommitter(db, RUN_KEY, FIELDS).rejects
    stale.write([reject(0), reject(1, key="motion-2"), reject(2), reject(9), reject(3, "gripper", "g")])
    assert reconcile_rejects(db) == 2  # clip 0 has the key, clip 9 no row
    assert [key for _, key in rows(db, "clip_id", "stage_key")] == ["motion-2", "motion-1", "g"]
    assert ColumnCommitter(db, RUN_KEY, FIELDS).rejects.attempts.keys() == {
        f"{clip_id(1)}/motion",
        f"{clip_id(2)}/motion",
        f"{clip_id(3)}/gripper",
    }


@pytest.mark.parametrize("remove", [remove_rows, remove_clips])
def test_a_removed_clip_loses_its_rejects(db, remove):
    ColumnCommitter(db, RUN_KEY, FIELDS).commit([], [reject(0), reject(1)])
    remove(db, [clip_id(0)])
    assert rows(db, "clip_id") == [(clip_id(1),)]


def test_reading_without_the_table(tmp_path):
    db = database(tmp_path / "db", [[0]])
    assert db.table("stage_rejects") is None
    assert count_rejects(db) == {}
    assert rejected_clips(db, {"motion": "m"}) == {"motion": set()}
    assert reconcile_rejects(db) == 0


def test_a_part_of_a_stage_is_told_in_the_detail():
    error = ClipError(clip_id(0), "decode", "damaged", "41 of 96 frames", "drop it")
    made = StageReject.from_error(error, "gripper", "k")
    assert (made.stage, made.reason, made.detail) == ("gripper", "damaged", "decode: 41 of 96 frames\nhint: drop it")


def test_a_key_of_a_stage_that_has_failed_is_no_update(db):
    table = new_columns([0], ["motion"], 1)
    index = table.schema.get_field_index(key_column("motion"))
    table = table.set_column(index, key_column("motion"), [[None]])
    with pytest.raises(
        ShapeError, match="stage_key_motion holds null, expected the keys of stages that have succeeded"
    ):
        write_update(db.uri, table, "run")
