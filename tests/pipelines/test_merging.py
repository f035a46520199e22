"""Fragments are merged and versions dropped beside a run's commits, by tasks of Ray."""

import time

import pytest
from support.rows import RUN_KEY, digests, make_row

from handloom.api import Database
from handloom.errors import StoreError
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.run.upkeep import MAX_FAILURES, Upkeep
from handloom.schemas.settings import Resources
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment

SCHEMA = clips_schema(4)
pytestmark = pytest.mark.usefixtures("ray_address")


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


@pytest.fixture
def committer(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, number) for number in range(3)])
    return committer


def write(db, number):
    return write_fragment(db.uri, [make_row(number)], SCHEMA)


def upkeep_of(db, allowed=lambda: None, **resources):
    return Upkeep(db, Resources(**resources), Interrupts(), allowed)


def wait_for(reached, upkeep, committer, limit_s=120):
    until = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < until
        upkeep.tick(committer.version)
        time.sleep(0.05)


def num_fragments(db):
    return len(db.table("clips").get_fragments())


def num_versions(db) -> int:
    try:
        return len(db.table("clips").versions())
    except ValueError:  # one was dropped while they were read
        return 0


def test_merged_beside_commits_and_old_versions_dropped(db, committer):
    with upkeep_of(db, max_small_fragments=2, keep_versions_days=1e-9) as upkeep:
        upkeep.tick(committer.version)
        committer.commit([write(db, 3)])  # while the fragments are copied
        wait_for(lambda: num_fragments(db) == 2, upkeep, committer)
        wait_for(lambda: num_versions(db) == 1, upkeep, committer)
        committer.commit([write(db, 0), write(db, 4)])
        upkeep.tick(committer.version)
    assert num_fragments(db) == 1  # what is being copied at the end of a run is committed
    rows = digests(make_row(0))
    for number in range(1, 5):
        rows |= digests(make_row(number))
    assert digests(db.clips()) == rows


def test_few_fragments_stay(db, committer):
    with upkeep_of(db) as upkeep:
        upkeep.tick(committer.version)
    assert num_fragments(db) == 3


def test_an_interrupted_run_leaves_its_fragments(db, committer):
    def interrupted():
        with upkeep_of(db, max_small_fragments=1) as upkeep:
            upkeep.tick(committer.version)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert num_fragments(db) == 3


def test_a_driver_that_may_not_write_any_more_merges_nothing(db, committer):
    def allowed():
        raise StoreError("another has it")

    with pytest.raises(StoreError, match="another has it"), upkeep_of(db, allowed, max_small_fragments=1) as upkeep:
        wait_for(lambda: False, upkeep, committer)
    assert num_fragments(db) == 3


def test_a_failure_is_no_failure_of_the_run(db, committer, caplog):
    """It is reported, tried again with later versions, and given up."""
    (db.location.path / "clips.lance" / "data" / write_and_lose(db, committer)).unlink()
    with upkeep_of(db, max_small_fragments=1) as upkeep:
        for number in range(10, 14):
            committer.commit([write(db, number)])
            failures = min(number - 9, MAX_FAILURES)
            wait_for(lambda n=failures: caplog.text.count("are not merged") == n, upkeep, committer)
    assert num_fragments(db) == 8
    assert "clips.lance" in caplog.text


def write_and_lose(db, committer):
    """Commit a row; returns the name of its file."""
    record = write(db, 9)
    committer.commit([record])
    return record.files()[0]
