"""Which clip is blamed when a worker crashes or hangs."""

from __future__ import annotations

import gc
import time
import weakref

import pytest
import ray
from support.extraction import new_database, row_digests
from support.rows import digests

from handloom.schemas.settings import Resources, Settings
from handloom.stages.pools.travel import UnderWay
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.commit import Committer
from handloom.store.fragments import read_rows
from handloom.workers.blame import hung_here, stage_errors
from handloom.workers.groups.processor import GroupProcessor
from handloom.workers.ledger import MAX_CRASHES, MAX_HANGS, Doing, Ledger, start_ledger
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import Shard
from handloom.workers.stage_report import Work

SHARD = ("a", "b", "c")


def test_a_clip_is_blamed_for_crashes_of_workers_that_began_it():
    ledger = Ledger()
    for pid in (1, 2):
        entry = ledger.enter(SHARD)
        assert entry.crashes == {"a": 0, "b": pid - 1, "c": 0}
        assert not entry.one_by_one
        ledger.begin("a", pid)
        ledger.begin("a", pid)  # a second call
        ledger.leave("a")  # failed, will be a reject at the end of the shard
        ledger.begin("b", pid)
        assert ledger.progress().working == {pid: "b"}
    assert ledger.enter(SHARD).crashes == {"a": 0, "b": MAX_CRASHES, "c": 0}
    assert ledger.progress().working == {}
    ledger.end("b", 3, False, 0)
    ledger.begin("c", 3)
    ledger.end("c", 3, True, 5)
    ledger.end("a", 3, False, 0)
    assert ledger.enter(SHARD).crashes == dict.fromkeys(SHARD, 0)
    progress = ledger.progress()
    assert (progress.num_rows, progress.num_rejects, progress.num_frames) == (1, 2, 5)
    assert list(ledger.finished()) == ["b", "c", "a"]


def test_a_pool_that_was_ended_blames_only_clips_of_lost_nodes():
    ledger = Ledger()
    for pid, node_id in ((1, "here"), (2, "gone")):
        clip_id = f"clip{pid}"
        ledger.enter((clip_id,))
        ledger.begin(clip_id, pid)
        ledger.report(Doing(f"worker{pid}", pid, node_id, node_id, (clip_id,), clip_id, "hands", 60.0), 0.0)
    ledger.cut_off(["gone"])
    ledger.resume()
    assert [ledger.enter((clip_id,)).crashes[clip_id] for clip_id in ("clip1", "clip2")] == [0, 1]


def test_after_crashes_between_clips_they_are_processed_one_by_one():
    ledger = Ledger()
    for number in range(3):
        entry = ledger.enter(SHARD)
        assert entry.one_by_one == (number >= MAX_CRASHES)
        ledger.begin("a", number)
        ledger.end("a", number, True, 1)  # then it crashes while writing
    assert not ledger.enter(SHARD[:2]).one_by_one


def test_crashes_of_decode_workers_are_counted():
    ledger = Ledger()
    assert [ledger.decode(SHARD).num_crashes for _ in range(3)] == [0, 1, 2]


def doing(clip_id: str | None, stage: str, limit_s: float, pid: int = 1) -> Doing:
    return Doing("actor", pid, "host", "node", SHARD, clip_id, stage, limit_s)


def test_a_busy_worker_is_not_idle():
    ledger = Ledger()
    time.sleep(0.2)
    assert ledger.progress().idle_s >= 0.2
    ledger.report(doing("a", "hands", 60.0), 0.0)
    assert ledger.progress().idle_s == 0
    worked_until = time.monotonic()
    ledger.idle("actor")
    assert 0 < ledger.progress().idle_s <= time.monotonic() - worked_until


def test_a_hang_counts_for_its_clip_and_not_as_a_crash():
    ledger = Ledger()
    for number in range(1, MAX_HANGS + 1):
        assert [len(hangs) for hangs in ledger.enter(SHARD).hangs.values()] == [number - 1] * (number > 1)
        ledger.begin("b", number)
        ledger.report(doing("b", "hands", 60.0, number), 0.0, ["handle"])
        assert not ledger.overdue()
        told = time.monotonic()
        ledger.report(doing("b", "tracks", 60.0, number), 70.0)
        (late,) = ledger.overdue()
        assert (late.doing.stage, late.handle) == ("tracks", "handle")
        assert 70 <= late.seconds <= 70 + time.monotonic() - told
        assert ledger.give_up(late) == number
        assert ledger.give_up(late) == 0
        assert not ledger.overdue()
        assert ledger.progress().working == {}
    entry = ledger.enter(SHARD)
    assert (entry.crashes["b"], entry.one_by_one) == (0, False)
    assert [(hang.stage, hang.limit_s) for hang in entry.hangs["b"]] == [("tracks", 60.0)] * MAX_HANGS
    assert ledger.decode(SHARD).hung == {"b"}


def test_a_stage_that_has_ended_meanwhile_is_no_hang():
    ledger = Ledger()
    ledger.report(doing("b", "hands", 60.0), 61.0)
    (late,) = ledger.overdue()
    ledger.report(doing("b", "tracks", 60.0), 0.0)
    assert ledger.give_up(late) == 0
    ledger.report(doing(None, "write", 60.0), 61.0)
    (late,) = ledger.overdue()
    assert ledger.give_up(late) == 1
    assert ledger.enter(SHARD).hangs == {}


def test_a_slow_fetch_is_no_hang_and_hides_none_of_another_stage(ray_address):
    ledger = start_ledger()
    work = Work(ledger, Resources(stage_s=0.001, stage_frame_s=0.001, decode_timeout_s=0.001))

    def late_s() -> float:
        ray.get(ledger.overdue.remote())  # the ledger knows what has begun: its clock starts when it is told
        time.sleep(0.5)
        work.still_fetching()  # from the thread that fetches, in any stage of the worker
        until = time.monotonic() + 240
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
def processor(local_ray, tmp_path_factory, clips):
    """A worker in this process, its database and its ledger."""
    local_ray.address()
    db = new_database(tmp_path_factory.mktemp("careful") / "db", clips)
    settings = Settings()
    versions = model_versions(settings)
    run_key = settings.run_key(versions)
    schema = stage_graph(settings).schema()
    ledger = start_ledger()
    setup = WorkerSetup(settings, Resources(), versions, db.uri, {}, {})
    worker = GroupProcessor(setup, ledger)
    yield worker, db, Committer(db, run_key, schema), ledger
    worker.close()


def test_one_by_one_gives_the_same_rows(processor, clips, expected):
    worker, db, committer, ledger = processor
    shard = [clip.clip_id for clip in clips[:2]]
    for _ in range(MAX_CRASHES + 1):
        ray.get(ledger.enter.remote(shard))  # crashed before the first clip
    result = worker.first(Shard(tuple(clips[:2]))).result
    assert len(result.record.fragments) == 2
    schema = stage_graph(Settings()).schema()
    rows = read_rows(db.uri, result.record, shard, schema)
    found = {clip_id: digest for row in rows for clip_id, digest in digests(row).items()}
    assert found == {clip_id: expected[clip_id] for clip_id in shard}
    committer.commit([result.record])
    assert row_digests(db) == found
    assert set(ray.get(ledger.finished.remote())) == set(shard)
    assert set(ray.get(ledger.enter.remote(shard)).crashes.values()) == {0}


def test_a_clip_is_forgotten_before_the_frames_of_the_next_one_come(processor, clips):
    """The memory of a worker does not grow with its shard."""
    worker, _, _, ledger = processor
    before, sent, seen = ray.get(ledger.finished.remote()), [], []
    others = [one for one in gc.get_objects() if isinstance(one, UnderWay)]  # of tests before

    def watched(some):
        for frames in worker.stream(some):
            finished = ray.get(ledger.finished.remote())
            num_ended = sum(one != before.get(clip_id) for clip_id, one in finished.items())
            found = [one for one in gc.get_objects() if isinstance(one, UnderWay)]
            num_held = sum(bool(one.values) for one in found if not any(one is other for other in others))
            del found
            assert sum(one() is not None for one in sent) <= 1  # a stream may still name the last ones
            seen.append((num_ended, num_held))
            sent.append(weakref.ref(frames))
            yield frames

    result = worker.first(Shard(tuple(clips[2:4])), watched).result
    assert len(result.record.clip_ids) == 2
    assert seen == [(0, 0), (1, 0)]


def test_a_clip_that_has_hung_comes_again_alone_and_is_then_rejected(processor, clips, expected):
    worker, _, _, ledger = processor
    shard = [clip.clip_id for clip in clips[4:]]
    node_id = ray.get_runtime_context().get_node_id()

    def hang(clip_id: str) -> None:
        ray.get(ledger.report.remote(Doing("actor", 1, "host", node_id, tuple(shard), clip_id, "hands", 1.0), 2.0))
        for late in ray.get(ledger.overdue.remote()):
            assert ray.get(ledger.give_up.remote(late))

    hang(shard[0])
    result = worker.first(Shard(tuple(clips[4:]))).result
    assert result.alone == (shard[0],)
    assert result.record.clip_ids == tuple(shard[1:])
    alone = worker.first(Shard((clips[4],))).result
    assert (alone.alone, alone.record.clip_ids) == ((), (shard[0],))
    hang(shard[0])
    (reject,) = worker.first(Shard(tuple(clips[4:]))).result.rejects
    assert (reject.clip_id, reject.reason, reject.stage, reject.attempts) == (shard[0], "hung", "hands", 2)


def test_a_stage_that_hangs_on_a_row_that_exists_costs_only_what_reads_it(processor, clips):
    worker, _, committer, ledger = processor
    clip = clips[0]
    committer.commit([worker.first(Shard((clip,))).result.record])
    node_id = ray.get_runtime_context().get_node_id()
    for _ in range(MAX_HANGS):
        doing = Doing("actor", 1, "host", node_id, (clip.clip_id,), clip.clip_id, "hands_3d", 1.0)
        ray.get(ledger.report.remote(doing, 2.0))
        for late in ray.get(ledger.overdue.remote()):
            assert ray.get(ledger.give_up.remote(late))
    shard = Shard((clip,), ("hands_3d", "world", "appearance"))
    ray.get(ledger.use.remote([node_id, "another"]))
    result = worker.first(shard).result
    (moved,) = result.moved
    assert (moved.stage, moved.node_id, result.clip_ids()) == ("hands_3d", node_id, ())
    ray.get(ledger.use.remote([node_id]))
    result = worker.first(shard).result
    assert (result.rejects, result.updated) == ((), (clip.clip_id,))
    failed = [(reject.stage, reject.reason) for reject in result.stage_rejects]
    assert failed == [("hands_3d", "hung"), ("world", "hung")]
    (update,) = result.updates
    assert {"embedding_appearance", "stage_key_appearance"} < set(update.columns)


def test_a_stage_that_hangs_on_one_node_is_tried_on_another_one():
    """As a clip that hangs at a stage of every clip."""
    ledger = Ledger()

    def hang(node_id: str) -> None:
        ledger.report(Doing("actor", 1, f"host {node_id}", node_id, SHARD, "a", "mine", 1.0), 2.0)
        for late in ledger.overdue():
            ledger.give_up(late)

    def verdict(node_id: str) -> tuple[str | None, set[str]]:
        entry = ledger.enter(SHARD)
        away = hung_here(entry, "a", ["mine"], node_id)
        return away and away.stage, set(stage_errors(entry, "a", ["mine"], node_id))

    ledger.use(["x", "y"])
    hang("x")
    assert verdict("x") == (None, set())
    hang("x")
    assert verdict("x") == ("mine", set())
    assert verdict("y") == (None, set()), "it is tried there"
    ledger.use(["x"])
    assert verdict("x") == (None, {"mine"}), "there is no other node"
    ledger.use(["x", "y", "z"])
    hang("y")
    assert {verdict(node_id)[1] == {"mine"} for node_id in "xyz"} == {True}, "two nodes are enough"


def test_groups_count_their_own_crashes_and_say_at_which_stage():
    ledger, shard = Ledger(), ("a", "b")
    ledger.enter(shard)
    ledger.begin("a", 1)
    ledger.leave("a")
    for pid in (11, 12):
        assert ledger.enter(shard, group=1).crashes == {"a": 0, "b": 0} if pid == 11 else True
        ledger.begin("a", pid, group=1)
        ledger.pause("a", pid, group=1)
        ledger.begin("b", pid, group=1)
        ledger.report(Doing(f"w{pid}", pid, "host", "node", shard, "b", "gripper", 1.0, group=1), 0.0)
    entry = ledger.enter(shard, group=1)
    assert entry.crashes == {"a": 0, "b": 2}
    assert entry.at["b"] == {"gripper": 2}
    assert not entry.one_by_one
    assert ledger.enter(shard).crashes == {"a": 0, "b": 0}
    assert ledger.drain() == 1, "a shard has begun when the first group has it"
