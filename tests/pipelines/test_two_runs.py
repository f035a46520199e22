"""Two runs on one database: the second names the first, or works on other clips; a run that was taken over stops."""

from __future__ import annotations

import os

import pytest
from support.extraction import new_database, row_digests
from support.in_process import HERE

from handloom.errors import ConfigError, StoreError
from handloom.pipelines.run.run import run
from handloom.schemas.settings import Resources, RunConfig
from handloom.store.runs.runs import list_runs

pytestmark = pytest.mark.usefixtures("ray_address")
ONE = RunConfig(resources=Resources(num_actors=1, commit_clips=1))


class Once:
    """Calls `job` when the run has its ledger, before the first clip; `said` is what it returned."""

    def __init__(self, job):
        self.job = job
        self.said = None

    def __call__(self, ledger):
        if self.job is not None:
            job, self.job = self.job, None
            self.said = job()


def test_a_second_run_is_refused_or_takes_other_clips(tmp_path, clips, expected, cli):
    first, second = clips[0], clips[2]
    db = new_database(tmp_path / "db", [first, second])

    def meanwhile():
        refused = cli("run", "--db", db.uri)
        return refused, run(db, ONE, where=f"video_id = '{second.video_id}'", quiet=True, parts=HERE)

    watch = Once(meanwhile)
    summary = run(db, ONE, where=f"video_id = '{first.video_id}'", quiet=True, watch=watch, parts=HERE)
    (code, _, err), other = watch.said
    assert code == 1
    assert f"run {summary.run_id} works on {db.uri} since" in err
    assert f"process {os.getpid()}" in err
    assert "1 clip of the list is in both runs" in err
    assert "hint: wait until it has ended" in err
    assert "Traceback" not in err
    assert [(one.exit, one.num_clips) for one in (other, summary)] == [("done", 1)] * 2
    assert row_digests(db) == {clip.clip_id: expected[clip.clip_id] for clip in (first, second)}
    assert [run.exit for run in list_runs(db)] == ["done", "done"]
    with pytest.raises(ConfigError, match="no column 'hand_left'"):
        run(db, ONE, where="hand_left", quiet=True)
    with pytest.raises(ConfigError, match=r"--where \"split = 'tran'\" passes none of the 2 clips in the list of "):
        run(db, ONE, where="split = 'tran'", quiet=True)


@pytest.mark.slow
def test_a_run_that_was_taken_for_dead_writes_nothing_more(tmp_path, clips):
    db = new_database(tmp_path / "db", clips[:1])
    taken = Once(lambda: db.table("runs").update({"exit": "'killed'"}))
    with pytest.raises(StoreError, match="saw no heartbeat and took over its clips"):
        run(db, ONE, quiet=True, watch=taken)
    assert db.count("clips") == db.count("rejects") == 0
    assert [run.exit for run in list_runs(db)] == ["failed"]
    assert run(db, None, quiet=True).num_clips == 1
