"""What index building and compaction leave."""

from datetime import timedelta

import pytest
from support.rows import RUN_KEY, digests, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.search.index import compact

SCHEMA = clips_schema(4)


@pytest.fixture
def db(tmp_path):
    """A database whose `clips` has had a version for each of four rows."""
    db = Database.open(tmp_path / "db", create=True)
    committer = Committer(db, RUN_KEY, SCHEMA)
    for number in range(4):
        committer.commit([write_fragment(db.uri, [make_row(number)], SCHEMA)])
    return db


@pytest.mark.parametrize(("age", "kept"), [(None, "all"), (timedelta(days=1), "all"), (timedelta(0), "newest")])
def test_old_versions_go_when_they_are_to(db, age, kept):
    """`timedelta(0)` is false in Python: it kept every version."""
    rows, before = digests(db.clips()), len(db.table("clips").versions())
    version = compact(db, drop_versions_older_than=age)
    left = [known["version"] for known in db.table("clips").versions()]
    assert len(left) > before if kept == "all" else left == [version]
    assert digests(db.clips()) == rows
    assert len(db.table("clips").get_fragments()) == 1
