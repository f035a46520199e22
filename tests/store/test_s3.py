"""The same commit and search on S3, against a server on this machine."""

import threading

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.column_tables import new_columns
from support.rows import RUN_KEY, digests, make_clip, make_row
from support.s3_server import s3_server
from support.window_tables import clip_row, write_clips

from handloom.api import Database
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.schemas.tables.stage_columns import stage_fields
from handloom.store.clips.clip_list import add_clips, pending_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.location import storage_options_from
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import list_runs
from handloom.store.search.index import build_indexes
from handloom.store.stages.columns import add_columns_for
from handloom.store.stages.staged import remove_leftovers, staged_files, write_update
from handloom.store.stages.update import ColumnCommitter
from handloom.windows.neighbours import Neighbours

SCHEMA = clips_schema(4)


@pytest.fixture(scope="module")
def options():
    with s3_server() as env:
        yield storage_options_from(env)


def write(db, *numbers):
    rows = [make_row(make_clip(n, narration="open the drawer")) for n in numbers]
    return write_fragment(db.uri, rows, SCHEMA, db.storage_options)


def test_ingest_commit_index_and_search(options):
    with pytest.raises(StoreError, match="handloom ingest"):
        Database.open("s3://bucket/a/db", options)
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        Database.open("s3://nowhere/db", options, create=True)
    assert "create the bucket" in caught.value.hint
    db = Database.open("s3://bucket/a/db/", options, create=True)
    add_clips(db, [make_clip(n) for n in range(5)])
    committer = Committer(db, RUN_KEY, SCHEMA)
    first = write(db, 0, 1)
    committer.commit([first])
    committer.commit([first, write(db, 1, 2)], [Reject(make_clip(3).clip_id, "decode", "damaged", "cut short")])
    assert pending_clips(db) == [make_clip(4)]
    expected = {}
    for n in range(3):
        expected |= digests(make_row(make_clip(n, narration="open the drawer")))
    assert digests(Database.open("s3://bucket/a/db", options).clips()) == expected
    build_indexes(db)
    assert len(db.search(text="drawers")) == 3
    assert len(db.search(clip=make_clip(0).clip_id, where="duration_s < 4")) == 2


def test_new_columns_of_rows(options):
    """Staged files are written, listed, read and deleted in the table's folder."""
    db = Database.open("s3://bucket/columns", options, create=True)
    rows = Committer(db, RUN_KEY, SCHEMA)
    rows.commit([write(db, 0, 1), write(db, 2)])
    fields = [SCHEMA.field("embedding_motion"), *stage_fields(["motion"])]
    add_columns_for(db, fields, ours=SCHEMA.names)
    columns = ColumnCommitter(db, RUN_KEY, fields)
    updates = [write_update(db.uri, new_columns(part, ["motion"], 1), "run", options) for part in ((2, 0), (1,))]
    assert staged_files(db) == sorted(update.file for update in updates)
    result = columns.commit(updates[:1])
    assert (result.num_clips, result.fragments, staged_files(db)) == (2, 2, [updates[1].file])
    assert remove_leftovers(db) == 1
    assert staged_files(db) == []
    found = db.clips(["embedding_motion", "stage_key_motion"])
    assert found.column(1).to_pylist() == ["motion-1", None, "motion-1"]
    assert found.column(0)[0] == new_columns([0], ["motion"], 1).column("embedding_motion")[0]


def test_two_writers_at_once_lose_and_double_nothing(options):
    """S3 has no rename: Lance's commits must be conditional puts, and ours must see the other writer."""
    db = Database.open("s3://bucket/b", options, create=True)
    committers = [Committer(db, RUN_KEY, SCHEMA) for _ in range(2)]
    records = [[write(db, 0, 1), write(db, 2)] for _ in committers]
    counts = []

    def commit(committer, offered):
        counts.append(committer.commit(offered).num_clips)

    threads = [threading.Thread(target=commit, args=pair) for pair in zip(committers, records, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == db.count("clips") == 3
    assert digests(db.clips()).keys() == {make_clip(n).clip_id for n in range(3)}


def test_simultaneous_appends_of_lance_all_land(options):
    db = Database.open("s3://bucket/c", options, create=True)
    Committer(db, RUN_KEY, SCHEMA)
    uri, version = db.location.table_uri("clips"), db.version
    appends = [lance.LanceOperation.Append(write(db, n).metadata()) for n in range(4)]

    def commit(append):
        lance.LanceDataset.commit(uri, append, read_version=version, storage_options=options)

    threads = [threading.Thread(target=commit, args=(append,)) for append in appends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests(db.clips()).keys() == {make_clip(n).clip_id for n in range(4)}


def test_windows_loaders_and_statistics_are_as_on_disk(options, tmp_path):
    """Loader processes get the credentials from the windows: this test's are in no environment."""
    pytest.importorskip("torch")
    rows = [clip_row(n, 8) for n in range(5)]
    db = Database.open("s3://bucket/d", options, create=True)
    table = pa.Table.from_batches(rows)
    lance.write_dataset(table, db.location.table_uri("clips"), storage_options=options, max_rows_per_file=2)
    asked = {"past": 2, "future": 1, "fields": ["hands", "images"], "neighbours": Neighbours(2)}
    there, here = db.windows(**asked), write_clips(tmp_path, rows).windows(**asked)
    assert len(there) == len(here) == 30
    np.testing.assert_array_equal(there[17]["images"], here[17]["images"])
    expected = list(here.loader(7, seed=1))
    for num_workers in (0, 2):
        batches = list(there.loader(7, seed=1, num_workers=num_workers))
        assert [batch["clip_id"] for batch in batches] == [batch["clip_id"] for batch in expected]
        for found, batch in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(found["hand_keypoints_px"], batch["hand_keypoints_px"])
            np.testing.assert_array_equal(found["neighbours"]["images"], batch["neighbours"]["images"])
    mean = there.statistics(["hand_keypoints_px"])["hand_keypoints_px"]["mean"]
    np.testing.assert_array_equal(mean, here.statistics(["hand_keypoints_px"])["hand_keypoints_px"]["mean"])
    assert Database.open("s3://bucket/d", options).count("window_statistics") == 1


def test_one_lease_in_s3_as_on_disk(options):
    db = Database.open("s3://bucket/e", options, create=True)
    add_clips(db, [make_clip(n) for n in range(3)])
    together, said = threading.Barrier(3), []

    def begin():
        together.wait()
        try:
            with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as lease:
                said.append(lease.run.run_id)
                lease.check()
                together.wait()
        except StoreError as error:
            said.append(error.problem)
            together.wait()

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (run,) = list_runs(db)
    assert sorted(words.startswith(f"run {run.run_id} works on s3://bucket/e") for words in said) == [False, True, True]
    assert run.run_id in said
