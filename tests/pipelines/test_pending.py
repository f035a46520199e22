"""How often a run commits."""

import pytest
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import HandloomError
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.run.pending import MAX_PAUSE_S, CommitTally, Pending
from handloom.schemas.settings import Resources
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.stages.rejects import StageReject
from handloom.store.stages.update import UpdateResult
from handloom.workers.shard import ShardResult

SCHEMA = clips_schema(4)


class Clock:
    """Time that passes only when told, and during each commit."""

    def __init__(self):
        self.now_s = self.commit_s = 0.0

    def __call__(self):
        return self.now_s

    def commit(self):
        self.now_s += self.commit_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


def start(db, clock, **resources):
    committer = Committer(db, RUN_KEY, SCHEMA, allowed=clock.commit)
    return Pending(committer, Resources(**resources), CommitTally(), Interrupts(), clock)


def result(db, *numbers):
    record = write_fragment(db.uri, [make_row(n, num_frames=1) for n in numbers], SCHEMA)
    return ShardResult(record=record, rejects=(), num_frames=len(numbers))


def test_all_that_waits_is_one_commit_after_a_number_of_clips_or_seconds(db, clock):
    pending = start(db, clock, commit_clips=4, commit_s=30)
    versions = db.version
    for numbers in ((0,), (1, 2), (3,)):
        assert db.count("clips") == 0
        pending.add(result(db, *numbers))
    assert (db.count("clips"), db.version) == (4, versions + 1)
    pending.add(result(db, 4))
    clock.now_s = 29.0
    pending.tick()
    assert db.count("clips") == 4
    clock.now_s = 30.0
    pending.tick()  # without a new result
    assert db.count("clips") == 5
    clock.now_s = 90.0
    pending.tick()
    assert db.version == versions + 2  # nothing to commit: no version


def test_slow_commits_are_rare(db, clock):
    """A commit that took a second was followed by the next at once: 150 hours of committing at ten million clips."""
    pending = start(db, clock, commit_clips=1, commit_s=1)
    clock.commit_s = 2.0
    pending.add(result(db, 0))
    clock.now_s += 39.0
    pending.add(result(db, 1))
    assert db.count("clips") == 1
    clock.now_s += 1.0
    pending.tick()
    assert db.count("clips") == 2
    clock.commit_s = 1000.0
    clock.now_s += 40.0
    pending.add(result(db, 2))
    clock.now_s += MAX_PAUSE_S  # the most that a kill loses
    pending.add(result(db, 3))
    assert db.count("clips") == 4
    pending.keep(result(db, 4))
    pending.flush()  # at the end of a run
    assert db.count("clips") == 5


class Columns:
    """In place of `ColumnCommitter`: every row is in fragment 0."""

    def fragment_of(self, clip_id):
        return 0

    def commit(self, updates, rejects):
        return UpdateResult(len(list(updates)), (), 0, 0, 0, len(rejects))


def test_a_stage_that_fails_on_most_clips_ends_the_run(db, clock):
    resources = Resources(commit_clips=1, min_clips_before_stop=4)
    committer, tally = Committer(db, RUN_KEY, SCHEMA), CommitTally()
    targets = {make_clip(number).clip_id: ("mine",) for number in range(8)}
    options = {"columns": Columns(), "stage_keys": {"mine": "0" * 16}, "targets": targets}
    pending = Pending(committer, resources, tally, Interrupts(), clock, **options)

    def tried(number: int, reason: str | None) -> ShardResult:
        clip_id = make_clip(number).clip_id
        failed = (
            [StageReject(clip_id, "mine", "0" * 16, reason, "ValueError: no idea\nhint: mend it")] if reason else []
        )
        return ShardResult(None, (), 1, targets=("mine",), updated=(clip_id,), stage_rejects=tuple(failed))

    for number, reason in enumerate(("bug", "bad_output", "no_frames", None, "no_frames", None)):
        pending.add(tried(number, reason))  # what a stage says of a clip is no bug
    for number in (6, 7):
        pending.add(tried(number, "bug"))
    with pytest.raises(HandloomError, match=r"(?s)the stage mine failed on 5 of 9 clips.*no idea\n") as stopped:
        pending.add(tried(7, "bug"))
    assert "stages.mine=null" in stopped.value.hint
