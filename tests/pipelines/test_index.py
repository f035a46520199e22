"""`handloom index` and what `status` says of indexes: coverage, recall, dropped versions."""

import json

import pytest
from support.rows import RUN_KEY, make_row

from handloom.api import Database
from handloom.pipelines.index import index_counts, index_lines, report_text, update_indexes
from handloom.pipelines.status.status import status, status_text
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import start_run
from handloom.store.search.index import build_indexes

SCHEMA = clips_schema(4)


@pytest.fixture
def db(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    commit(db, *range(12))
    return db


def commit(db, *numbers):
    rows = [make_row(number) for number in numbers]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA)])


def test_the_report_and_the_rows_that_wait(db):
    assert index_lines(index_counts(db), db.uri) == []  # before the first `index`
    text = report_text(build_indexes(db, ann_threshold_rows=10), 0)
    assert "  embedding_motion: IVF_RQ, 12 of 12 rows in 1 part, " in text
    assert "finds 100.0% of the 10 nearest, reads 1 of 1 partitions, built in" in text
    assert index_lines(index_counts(db), db.uri) == ["  indexes         15   cover all rows"]
    commit(db, 20, 21)
    (index,) = [one for one in status(db)["indexes"] if one["name"] == "embedding_motion_cosine"]
    assert (index["rows"], index["rows_waiting"], index["parts"], index["recall"]) == (12, 2, 1, 1.0)
    assert "15 lack up to 2 rows, which are searched one by one; add them: handloom index" in status_text(status(db))


def test_versions_are_dropped_as_the_last_run_would(db, cli):
    code, out, _ = cli("index", "--db", db.uri, "--json")
    assert (code, json.loads(out)["versions_dropped"]) == (0, 0)
    start_run(db, RUN_KEY, settings={}, resources={"keep_versions_days": 1e-9}, versions={})
    commit(db, 20)
    report, dropped, _ = update_indexes(db)
    assert dropped > 0
    assert [one["version"] for one in db.table("clips").versions()] == [report.version]
    assert f"{dropped} old versions dropped" in report_text(report, dropped)
