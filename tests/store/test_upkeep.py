"""Small fragments are merged and old versions dropped, beside commits, readers and workers."""

import json
from datetime import timedelta

import lance
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.commit import Committer
from handloom.store.clips.upkeep import SMALL_ROWS, drop_old_versions, plan, put_in_place, rewrite, tidy
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes, compact

SCHEMA = clips_schema(4)


class CountsReads(Committer):
    """Counts how often the ids of the whole table are read: once, at the start."""

    num_reads = 0

    def _load(self, table):
        self.num_reads += 1
        super()._load(table)


@pytest.fixture
def db(tmp_path):
    """A database whose `clips` has had a version for each of four rows."""
    db = Database.open(tmp_path / "db", create=True)
    committer = Committer(db, RUN_KEY, SCHEMA)
    for number in range(4):
        committer.commit([write(db, number)])
    return db


def write(db, *numbers, **values):
    return write_fragment(db.uri, [make_row(n, **values) for n in numbers], SCHEMA)


def expected(*numbers):
    found = {}
    for number in numbers:
        found |= digests(make_row(number))
    return found


def sizes(db):
    return [fragment.physical_rows for fragment in db.table("clips").get_fragments()]


def copied(db):
    return [rewrite(db.uri, task) for task in plan(db, max_small=1)]


@pytest.mark.parametrize(("age", "kept"), [(None, "all"), (timedelta(days=1), "all"), (timedelta(0), "newest")])
def test_old_versions_are_deleted_when_asked(db, age, kept):
    """`timedelta(0)` is false in Python: it kept every version."""
    rows, before = digests(db.clips()), len(db.table("clips").versions())
    version = compact(db, drop_versions_older_than=age)
    left = [known["version"] for known in db.table("clips").versions()]
    assert len(left) > before if kept == "all" else left == [version]
    assert digests(db.clips()) == rows
    assert len(db.table("clips").get_fragments()) == 1


def test_only_small_fragments_are_merged_and_only_if_they_are_many(db):
    assert plan(db, max_small=4) == []
    rows = pa.Table.from_batches([make_row(100, num_frames=0)] * SMALL_ROWS)
    ids = pa.array([make_clip(n).clip_id for n in range(100, 100 + SMALL_ROWS)])
    large = rows.set_column(0, SCHEMA.field("clip_id"), ids).combine_chunks().to_batches()
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write_fragment(db.uri, large, SCHEMA)])
    committer.commit([write(db, 4), write(db, 5)])
    assert plan(db, max_small=6) == []
    tasks = plan(db, max_small=5)
    assert [len(json.loads(task)["task"]["fragments"]) for task in tasks] == [4, 2]  # neighbours: the large one stays
    put_in_place(db, [rewrite(db.uri, task) for task in tasks])
    assert sorted(sizes(db)) == [2, 4, SMALL_ROWS]
    assert digests(db.clips(where="num_frames > 0")) == expected(*range(6))


def test_rows_that_are_committed_while_fragments_are_copied_stay(db):
    committer = CountsReads(db, RUN_KEY, SCHEMA)
    merged = copied(db)
    committer.commit([write(db, 4)])
    assert put_in_place(db, merged) == db.version
    assert committer.commit([write(db, 0, 5)]).num_clips == 1
    assert (sorted(sizes(db)), committer.num_reads) == ([1, 1, 4], 1)
    assert digests(db.clips()) == expected(*range(6))
    assert committer.done == {make_clip(n).clip_id for n in range(6)}


def test_a_merge_of_indexed_rows_is_no_second_writer(db):
    """pylance 14.0.2 cannot read its transaction: the driver took it for any change, and read every id again."""
    build_indexes(db, ann_threshold_rows=1)
    committer = CountsReads(db, RUN_KEY, SCHEMA)
    put_in_place(db, copied(db))
    assert committer.commit([write(db, 0, 4)]).num_clips == 1
    assert committer.num_reads == 1
    assert digests(db.clips()) == expected(*range(5))
    assert db.row(make_clip(2).clip_id, ["clip_id"]).num_rows == 1


def test_fragments_that_another_writer_has_changed_are_not_replaced(db):
    """Both ways: what was copied is dropped after a delete or new values, new values are refused after a merge."""
    merged = copied(db)
    db.table("clips").delete("start_s = 1")
    assert put_in_place(db, merged) is None
    assert digests(db.clips()) == expected(0, 2, 3)

    merged, update = copied(db), new_verb(db, "cut")
    update()
    assert put_in_place(db, merged) is None
    assert db.read("clips", ["verb"], "verb = 'cut'").num_rows == 1

    merged, update = copied(db), new_verb(db, "wash")
    assert put_in_place(db, merged) == db.version
    with pytest.raises(OSError, match="conflict"):
        update()
    assert sizes(db) == [3]
    assert db.read("clips", ["verb"], "verb = 'cut'").num_rows == 1


def new_verb(db, verb):
    """Write a value for the first row; returns what commits it."""
    table = db.table("clips")
    rows = pa.table({"clip_id": table.to_table(columns=["clip_id"]).column(0)[:1], "verb": [verb]})
    changed, fields = table.get_fragments()[0].update_columns(rows, left_on="clip_id", right_on="clip_id")
    update = lance.LanceOperation.Update(updated_fragments=[changed], fields_modified=fields)
    return lambda: lance.LanceDataset.commit(table, update, read_version=table.version)


def test_dropping_versions_keeps_what_readers_and_workers_need(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    record = write(db, 4)  # of a shard that is not yet committed
    pinned = db.version
    put_in_place(db, copied(db))
    assert drop_old_versions(db, timedelta(hours=1)) == 0
    assert digests(db.clips(version=pinned)) == expected(*range(4))
    db.table("clips").tags.create("training", pinned)
    assert drop_old_versions(db, timedelta(0)) > 0
    assert digests(db.clips(version=pinned)) == expected(*range(4))
    with pytest.raises(StoreError, match=f"no version {pinned - 1}"):
        db.clips(version=pinned - 1)
    assert committer.commit([record]).num_clips == 1
    assert digests(db.clips()) == expected(*range(5))


def test_fragments_of_rejects_are_merged(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    for number in range(70):
        committer.commit([], [Reject(make_clip(100 + number).clip_id, "decode", "damaged", "cut short")])
    tidy(db, timedelta(days=1))
    assert len(db.table("rejects").get_fragments()) == 1
    assert db.count("rejects") == 70
