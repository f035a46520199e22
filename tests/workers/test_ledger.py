"""Who is to blame for a worker's death."""

from __future__ import annotations

import time

import pytest
import ray
from support.extraction import new_database, row_digests
from support.rows import digests

from handloom.schemas.settings import Resources, Settings
from handloom.schemas.tables import clips_schema
from handloom.store.commit import Committer
from handloom.store.fragments import read_rows
from handloom.workers.ledger import MAX_DEATHS, Ledger, pulse, start_ledger
from handloom.workers.process import ShardProcessor, WorkerSetup
from handloom.workers.versions import model_versions

SHARD = ("a", "b", "c")


def test_a_clip_is_blamed_for_the_workers_that_began_and_never_ended_it():
    ledger = Ledger()
    for pid in (1, 2):
        entry = ledger.enter(SHARD)
        assert entry.deaths == {"a": 0, "b": pid - 1, "c": 0}
        assert not entry.careful
        ledger.begin("a", pid)
        ledger.begin("a", pid)  # said twice
        ledger.leave("a")  # failed, will be a reject at the end of the shard
        ledger.begin("b", pid)
        assert ledger.progress().working == {pid: "b"}
    assert ledger.enter(SHARD).deaths == {"a": 0, "b": MAX_DEATHS, "c": 0}
    assert ledger.progress().working == {}
    ledger.end("b", 3, False, 0)
    ledger.begin("c", 3)
    ledger.end("c", 3, True, 5)
    ledger.end("a", 3, False, 0)
    assert ledger.enter(SHARD).deaths == dict.fromkeys(SHARD, 0)
    progress = ledger.progress()
    assert (progress.num_rows, progress.num_rejects, progress.num_frames) == (1, 2, 5)
    assert list(ledger.finished()) == ["b", "c", "a"]


def test_deaths_between_clips_make_the_next_worker_careful():
    ledger = Ledger()
    for number in range(3):
        entry = ledger.enter(SHARD)
        assert entry.careful == (number >= MAX_DEATHS)
        ledger.begin("a", number)
        ledger.end("a", number, True, 1)  # and dies while writing
    assert not ledger.enter(SHARD[:2]).careful


def test_decoding_is_given_up_after_two_deaths():
    ledger = Ledger()
    assert [ledger.decode(SHARD) for _ in range(3)] == [0, 1, 2]


def test_idle_is_the_time_since_the_last_word(ray_address):
    ledger = start_ledger()
    with pulse(ledger, every_s=0.05):
        time.sleep(0.6)
        assert ray.get(ledger.progress.remote()).idle_s < 0.5
    time.sleep(0.5)
    assert ray.get(ledger.progress.remote()).idle_s > 0.3


@pytest.fixture(scope="module")
def processor(ray_address, tmp_path_factory, clips):
    """A worker in this process, its database and its ledger."""
    db = new_database(tmp_path_factory.mktemp("careful") / "db", clips)
    settings = Settings()
    versions = model_versions(settings)
    run_key = settings.run_key(versions)
    schema = clips_schema(settings.num_tracks())
    ledger = start_ledger()
    setup = WorkerSetup(settings, Resources(), versions, db.uri, {}, {}, str(tmp_path_factory.mktemp("cache")))
    worker = ShardProcessor(setup, ledger)
    yield worker, db, Committer(db, run_key, schema), ledger
    worker.close()


def test_careful_work_gives_the_same_rows(processor, clips, expected):
    worker, db, committer, ledger = processor
    shard = [clip.clip_id for clip in clips[:3]]
    for _ in range(MAX_DEATHS + 1):
        ray.get(ledger.enter.remote(shard))  # died before the first clip
    result = worker.process(clips[:3], worker.stream)
    assert len(result.record.fragments) == 3
    rows = read_rows(db.uri, result.record, shard, clips_schema(Settings().num_tracks()))
    found = {clip_id: digest for row in rows for clip_id, digest in digests(row).items()}
    assert found == {clip_id: expected[clip_id] for clip_id in shard}
    committer.commit([result.record])
    assert row_digests(db) == found
    assert set(ray.get(ledger.finished.remote())) == set(shard)
    assert set(ray.get(ledger.enter.remote(shard)).deaths.values()) == {0}
