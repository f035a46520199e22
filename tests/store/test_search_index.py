"""Vector indexes: kind, recall, parts for new rows, kills, lost files; and what is found anyway."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from handloom.api import Database
from handloom.bench.search.rows import COLUMN, FILTER, NAME, Vectors, append, clip_id_of, schema_of
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.index import index_counts
from handloom.store.filters import in_list
from handloom.store.search.coverage import coverage
from handloom.store.search.index import build_indexes
from handloom.store.search.parts import MAX_SMALL_PARTS
from handloom.store.search.vectors.effort import KEY, kept_effort
from handloom.store.search.vectors.kind import kind_for
from handloom.store.stages.columns import add_columns_for

ROWS, DIM, K = 3000, 16, 10
VECTORS = Vectors(ROWS, DIM)
INDEX = f"{COLUMN}_cosine"
BUILD = """
import sys
from handloom.api import Database
from handloom.store.search.index import build_indexes
build_indexes(Database.open(sys.argv[1]), ann_threshold_rows=1000)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table with an index; tests that change it take a copy."""
    db = Database.open(tmp_path_factory.mktemp("made") / "db", create=True)
    grow(db, 0, ROWS)
    report = build_indexes(db, ann_threshold_rows=1000)
    return db, report


@pytest.fixture
def db(made, tmp_path):
    shutil.copytree(made[0].location.path, tmp_path / "db")
    return Database.open(tmp_path / "db")


def grow(db, first, num):
    for _ in append(db, VECTORS, first, num):
        pass


def brute_force(db, query, keep=None):
    rows = db.clips(["clip_id", COLUMN, "participant"])
    vectors = np.array(rows.column(COLUMN).to_pylist(), float)
    scores = np.round(vectors @ query / np.linalg.norm(vectors, axis=1), 6)
    ids, people = rows.column("clip_id").to_pylist(), rows.column("participant").to_pylist()
    return [
        clip_id
        for _, clip_id, person in sorted(zip(-scores, ids, people, strict=True))
        if keep is None or person == keep
    ][:K]


def found(db, query, **more):
    return [hit.clip_id for hit in db.search(vector=query, by=NAME, k=K, **more)]


def alike(some, others):
    """The same clips in the same order, but for two of ten: an index has random partitions, and may miss one."""
    both = {*some} & {*others}
    in_order = [one for one in some if one in both] == [one for one in others if one in both]
    return in_order and len(both) >= 0.8 * len(others)


def queries(num=5):
    return VECTORS.queries(num, VECTORS.centres()).astype(float)


def test_the_kind_follows_from_rows_and_width():
    assert (kind_for(1_000_000, 512).kind, kind_for(1_000_000, 512).num_partitions) == ("IVF_RQ", 1000)
    assert (kind_for(60_000, 1276).kind, kind_for(500, 1276).num_partitions) == ("IVF_FLAT", 1)


def test_the_report_says_how_much_is_found(made):
    db, report = made
    (index,) = report.vectors
    assert (index.column, index.kind, index.num_rows, index.num_waiting, index.parts) == (COLUMN, "IVF_RQ", ROWS, 0, 1)
    assert index.partitions == index.probes == 3
    assert index.recall >= 0.98
    assert index.built_s > 0
    assert report.exact == ()
    assert report.copies.num_rows == ROWS
    again = build_indexes(db, ann_threshold_rows=1000)
    assert (again.version, again.created, again.vectors[0].built_s) == (report.version, (), None)
    assert again.vectors[0].recall == index.recall


def test_more_rows_may_be_asked_for_than_there_are(made):
    """Lance allocates memory for as many rows as are asked for: with 2^31 the process was aborted."""
    db, _ = made
    hits = db.search(vector=queries(1)[0], by=NAME, k=1 << 31)
    assert len(hits) == ROWS
    assert [hit.clip_id for hit in hits[:K]] == brute_force(db, queries(1)[0])


@pytest.mark.parametrize("person", [None, "P07"])
def test_the_order_is_that_of_all_rows(made, person):
    db, _ = made
    for query in queries():
        assert alike(found(db, query, where=FILTER if person else None), brute_force(db, query, person))


def test_a_filter_that_few_rows_pass_finds_them_in_any_partition(db):
    """With Lance's `nprobes` only the nearest partitions were read: 0 of 7 rows that passed were found."""
    kept = kept_effort(db.table("clips"), COLUMN)
    db.table("clips").update_config({KEY + COLUMN: replace(kept, probes=1).to_json()})
    wanted = [clip_id_of(number) for number in range(0, ROWS, ROWS // 7)]
    for query in queries():
        assert set(found(db, query, where=in_list("clip_id", wanted))) == set(wanted)


def test_new_rows_are_found_at_once_and_indexed_beside_the_old(db):
    before = files(db)
    grow(db, ROWS, 40)
    new = VECTORS.rows(ROWS, 40, VECTORS.centres())
    assert coverage(db.table("clips"))[INDEX].num_waiting == 40
    assert found(db, new[7])[0] == clip_id_of(ROWS + 7)
    assert found(db, new[7], where="narration IS NOT NULL")[0] == clip_id_of(ROWS + 7)
    report = build_indexes(db, ann_threshold_rows=1000)
    (index,) = report.vectors
    assert (index.num_rows, index.num_waiting, index.parts, index.built_s) == (ROWS + 40, 0, 2, None)
    assert before.items() <= files(db).items()  # nothing was written again
    assert {one.num_waiting for one in coverage(db.table("clips")).values()} == {0}
    assert found(db, new[7])[0] == clip_id_of(ROWS + 7)


def files(db):
    folder = Path(db.location.table_uri("clips")) / "_indices"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_small_parts_are_merged_and_an_outgrown_index_is_built_anew(db):
    num = ROWS
    for _ in range(MAX_SMALL_PARTS + 2):
        grow(db, num, 20)
        num += 20
        (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
        assert index.parts <= MAX_SMALL_PARTS + 1
        assert (index.num_waiting, index.partitions) == (0, 3)
    grow(db, num, ROWS)
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert (index.parts, index.partitions, index.num_rows) == (1, 6, num + ROWS)
    for query in queries(2):
        assert alike(found(db, query), brute_force(db, query))


def test_rows_without_the_embedding(tmp_path):
    db = Database.open(tmp_path, create=True)
    grow(db, 0, ROWS)
    table = db.table("clips")
    table.update({COLUMN: "NULL"}, where="participant <> 'P07' AND hand_left")
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert index.recall >= 0.98
    rows = db.clips(["clip_id", COLUMN])
    without = {row["clip_id"] for row in rows.to_pylist() if row[COLUMN] is None}
    assert without
    assert not without & set(found(db, queries(1)[0]))


@pytest.mark.parametrize("delay_s", [0.0, 0.2])
def test_a_killed_build_hides_nothing_and_is_repeated(tmp_path, delay_s):
    db = Database.open(tmp_path / "db", create=True)
    grow(db, 0, ROWS)
    build_indexes(db, ann_threshold_rows=ROWS + 1)
    folder = Path(db.location.table_uri("clips")) / "_indices"
    before = set(os.listdir(folder))
    process = subprocess.Popen([sys.executable, "-c", BUILD, db.uri])
    while set(os.listdir(folder)) == before and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    query = queries(1)[0]
    assert found(db, query) == brute_force(db, query)
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert (index.num_waiting, index.recall > 0.98) == (0, True)
    assert alike(found(db, query), brute_force(db, query))


def test_an_index_that_was_killed_before_it_was_measured_is_measured(db):
    before = coverage(db.table("clips"))[INDEX]
    db.table("clips").update_config({KEY + COLUMN: None})
    assert alike(found(db, queries(1)[0]), brute_force(db, queries(1)[0]))
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert (index.recall > 0.98, index.built_s) == (True, None)
    assert coverage(db.table("clips"))[INDEX] == before


def test_an_index_of_an_earlier_version_is_used_and_replaced(db):
    old = {"metric": "cosine", "num_partitions": 3, "replace": True}
    db.table("clips").create_index(COLUMN, "IVF_FLAT", name=INDEX, **old)
    assert alike(found(db, queries(1)[0]), brute_force(db, queries(1)[0]))
    assert index_counts(db)[3]["recall"] is None
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert (index.kind, index.recall > 0.98) == ("IVF_RQ", True)
    assert index_counts(db)[3] | {"bytes": 0} == {
        "name": INDEX,
        "column": COLUMN,
        "kind": "IVF_RQ",
        "rows": ROWS,
        "rows_waiting": 0,
        "parts": 1,
        "bytes": 0,
        "recall": index.recall,
    }


@pytest.mark.parametrize("where", [None, FILTER])
def test_lost_index_files_hide_nothing(db, caplog, where):
    query = queries(1)[0]
    person = "P07" if where else None
    expected = brute_force(db, query, person)
    shutil.rmtree(Path(db.location.table_uri("clips")) / "_indices")
    with caplog.at_level(logging.WARNING):
        assert found(db, query, where=where) == expected
    assert "cannot be read, so all rows are" in caplog.text
    with pytest.raises(StoreError, match=r"cannot be read: (?s:.*)handloom index"):
        db.search(text="wash")
    before = db.version
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert (index.num_waiting, index.recall > 0.98, db.version > before) == (0, True, True)
    caplog.clear()
    assert alike(found(db, query, where=where), expected)
    assert not caplog.records
    assert len(db.search(text="wash"))


@pytest.mark.parametrize("name", [INDEX, "participant_scalar", "duration_s_scalar", "narration_text"])
@pytest.mark.parametrize("part", [0, 1])
def test_a_damaged_part_of_an_index_hides_nothing_and_is_built_again(db, caplog, name, part):
    """Files that are cut short. Of text the error says what to do: only the index knows how its words are stemmed."""
    grow(db, ROWS, 40)
    build_indexes(db, ann_threshold_rows=1000)
    query = queries(1)[0]
    wheres = [None, FILTER, "duration_s > 7.9"]
    expected = [(found(db, query, where=where), db.count("clips", where)) for where in wheres]
    said = [
        hit.clip_id for hit in db.search(text="wash", meaning=False, where="duration_s < 3 AND participant < 'P50'")
    ]
    found_by_part = coverage(db.table("clips"))[name].part_ids[part]
    for path in (Path(db.location.table_uri("clips")) / "_indices" / found_by_part).iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    db = Database.open(shutil.copytree(db.location.path, db.location.path.with_name("damaged")))  # nothing is kept open

    def check(text_too):
        for where, (clips, num) in zip(wheres, expected, strict=True):
            assert alike(found(db, query, where=where), clips)
            assert db.count("clips", where) == db.clips(["clip_id"], where).num_rows == num
            assert sum(batch.num_rows for batch in db.batches(["clip_id"], where)) == num
        if text_too:
            hits = db.search(text="wash", meaning=False, where="duration_s < 3 AND participant < 'P50'")
            assert [hit.clip_id for hit in hits] == said

    check(name != "narration_text")
    assert caplog.records or name == "narration_text"
    build_indexes(db, ann_threshold_rows=1000)
    caplog.clear()
    check(True)
    assert not caplog.records


def test_an_embedding_of_another_width_starts_again(db):
    wide = schema_of(2 * DIM).field(COLUMN)
    add_columns_for(db, [wide], ours=[COLUMN], replace=True)
    assert INDEX not in coverage(db.table("clips"))
    assert found(db, np.ones(2 * DIM)) == []
    with pytest.raises(ConfigError, match=rf"\[{DIM}\] numbers, {COLUMN} has {2 * DIM}"):
        found(db, np.ones(DIM))
    assert build_indexes(db, ann_threshold_rows=1000).exact == (COLUMN,)
    rows = db.table("clips").to_table(columns=["clip_id"])
    vectors = Vectors(ROWS, 2 * DIM).rows(0, ROWS, Vectors(ROWS, 2 * DIM).centres())
    rows = rows.append_column(COLUMN, pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 2 * DIM))
    db.table("clips").merge_insert("clip_id").when_matched_update_all().execute(rows)
    (index,) = build_indexes(db, ann_threshold_rows=1000).vectors
    assert (index.num_waiting, index.recall > 0.98) == (0, True)
    assert found(db, vectors[5])[0] == rows.column(0)[5].as_py()


def test_an_older_version_is_searched_with_its_own_index(db):
    pinned, query = db.version, queries(1)[0]
    expected = found(db, query)
    grow(db, ROWS, 30)
    build_indexes(db, ann_threshold_rows=1000)
    assert found(db, query, version=pinned) == expected
    assert kept_effort(db.table("clips", pinned), COLUMN).partitions == 3
