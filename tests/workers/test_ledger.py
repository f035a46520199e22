"""Who is to blame for a worker's death."""

from __future__ import annotations

import time

import pytest
import ray
from support.extraction import new_database, row_digests
from support.rows import digests

from handloom.schemas.settings import Resources, Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import read_rows
from handloom.workers.extraction.versions import model_versions
from handloom.workers.ledger import MAX_DEATHS, MAX_HANGS, Doing, Ledger, start_ledger
from handloom.workers.process import ShardProcessor, WorkerSetup
from handloom.workers.work import Work

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


def test_a_pool_that_was_cut_off_blames_no_clip_but_those_of_nodes_that_are_gone():
    ledger = Ledger()
    for pid, node_id in ((1, "here"), (2, "gone")):
        clip_id = f"clip{pid}"
        ledger.enter((clip_id,))
        ledger.begin(clip_id, pid)
        ledger.at(Doing(f"worker{pid}", pid, node_id, node_id, (clip_id,), clip_id, "hands", 60.0), 0.0)
    ledger.cut_off(["gone"])
    ledger.resume()
    assert [ledger.enter((clip_id,)).deaths[clip_id] for clip_id in ("clip1", "clip2")] == [0, 1]


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
    assert [ledger.decode(SHARD).num_deaths for _ in range(3)] == [0, 1, 2]


def doing(clip_id: str | None, stage: str, limit_s: float, pid: int = 1) -> Doing:
    return Doing("actor", pid, "host", "node", SHARD, clip_id, stage, limit_s)


def test_nobody_is_idle_who_is_at_work_within_its_limit():
    ledger = Ledger()
    time.sleep(0.2)
    assert ledger.progress().idle_s >= 0.2
    ledger.at(doing("a", "hands", 60.0), 0.0)
    assert ledger.progress().idle_s == 0
    ledger.rest("actor")
    assert 0 < ledger.progress().idle_s < 0.2


def test_a_hang_is_no_death_and_counts_for_its_clip():
    ledger = Ledger()
    for number in range(1, MAX_HANGS + 1):
        assert [len(hangs) for hangs in ledger.enter(SHARD).hangs.values()] == [number - 1] * (number > 1)
        ledger.begin("b", number)
        ledger.at(doing("b", "hands", 60.0, number), 0.0, ["handle"])
        assert not ledger.overdue()
        ledger.at(doing("b", "tracks", 60.0, number), 70.0)
        (late,) = ledger.overdue()
        assert (late.doing.stage, late.handle) == ("tracks", "handle")
        assert late.seconds == pytest.approx(70, abs=1)
        assert ledger.give_up(late) == number
        assert ledger.give_up(late) == 0
        assert not ledger.overdue()
        assert ledger.progress().working == {}
    entry = ledger.enter(SHARD)
    assert (entry.deaths["b"], entry.careful) == (0, False)
    assert [(hang.stage, hang.limit_s) for hang in entry.hangs["b"]] == [("tracks", 60.0)] * MAX_HANGS
    assert ledger.decode(SHARD).hung == {"b"}


def test_what_a_worker_has_gone_on_from_is_not_given_up():
    ledger = Ledger()
    ledger.at(doing("b", "hands", 60.0), 61.0)
    (late,) = ledger.overdue()
    ledger.at(doing("b", "tracks", 60.0), 0.0)
    assert ledger.give_up(late) == 0
    ledger.at(doing(None, "write", 60.0), 61.0)
    (late,) = ledger.overdue()
    assert ledger.give_up(late) == 1
    assert ledger.enter(SHARD).hangs == {}


def test_a_video_that_is_still_coming_is_no_hang_and_nothing_else_hides_one(ray_address):
    ledger = start_ledger()
    work = Work(ledger, Resources(stage_s=0.001, stage_frame_s=0.001, decode_timeout_s=0.001))

    def late_s() -> float:
        time.sleep(0.5)
        work.video_comes()  # from the thread that fetches, whatever the worker is at
        until = time.monotonic() + 30
        while not (overdue := ray.get(ledger.overdue.remote())) and time.monotonic() < until:
            time.sleep(0.02)
        return overdue[0].seconds

    with work.on(SHARD, "shard"):
        began = time.monotonic()
        work.clip("a", "decode")
        assert late_s() < time.monotonic() - began - 0.4
        work.begin("hands", 1)
        assert late_s() > 0.4
    assert not ray.get(ledger.overdue.remote())


@pytest.fixture(scope="module")
def processor(ray_address, tmp_path_factory, clips):
    """A worker in this process, its database and its ledger."""
    db = new_database(tmp_path_factory.mktemp("careful") / "db", clips)
    settings = Settings()
    versions = model_versions(settings)
    run_key = settings.run_key(versions)
    schema = clips_schema(settings.num_tracks(), num_grid=settings.num_grid())
    ledger = start_ledger()
    setup = WorkerSetup(settings, Resources(), versions, db.uri, {}, {})
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
    schema = clips_schema(Settings().num_tracks(), num_grid=Settings().num_grid())
    rows = read_rows(db.uri, result.record, shard, schema)
    found = {clip_id: digest for row in rows for clip_id, digest in digests(row).items()}
    assert found == {clip_id: expected[clip_id] for clip_id in shard}
    committer.commit([result.record])
    assert row_digests(db) == found
    assert set(ray.get(ledger.finished.remote())) == set(shard)
    assert set(ray.get(ledger.enter.remote(shard)).deaths.values()) == {0}


def test_a_clip_that_has_hung_is_to_come_again_alone_or_not_at_all(processor, clips, expected):
    worker, _, _, ledger = processor
    shard = [clip.clip_id for clip in clips[3:]]
    node_id = ray.get_runtime_context().get_node_id()

    def hang(clip_id: str) -> None:
        ray.get(ledger.at.remote(Doing("actor", 1, "host", node_id, tuple(shard), clip_id, "hands", 1.0), 2.0))
        for late in ray.get(ledger.overdue.remote()):
            assert ray.get(ledger.give_up.remote(late))

    hang(shard[0])
    result = worker.process(clips[3:], worker.stream)
    assert result.alone == (shard[0],)
    assert result.record.clip_ids == tuple(shard[1:])
    alone = worker.process(clips[3:4], worker.stream)
    assert (alone.alone, alone.record.clip_ids) == ((), (shard[0],))
    hang(shard[0])
    (reject,) = worker.process(clips[3:], worker.stream).rejects
    assert (reject.clip_id, reject.reason, reject.stage, reject.attempts) == (shard[0], "hung", "hands", 2)
