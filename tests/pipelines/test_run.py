"""The main job on Ray: one table whatever the scheduling, and every clip a row or a reject."""

from __future__ import annotations

import contextlib
import resource
import threading

import pytest
import ray
from support.extraction import new_database, row_digests
from support.in_process import HERE

from handloom.errors import StoreError
from handloom.pipelines.run.run import run
from handloom.schemas.settings import Resources, RunConfig
from handloom.store.clips.clip_list import pending_clips

pytestmark = pytest.mark.usefixtures("ray_address")

FUSED = Resources(mode="fused", num_actors=2, shard_clips=1, commit_clips=1)
SPLIT = Resources(mode="split", num_actors=1, num_decode_actors=1, shard_clips=4)


def test_rows_do_not_depend_on_scheduling(tmp_path, clips, expected):
    """Two clips, split; the tests below compare rows of fused actors. All clips in each mode: the next test."""
    db = new_database(tmp_path / "db", clips[:4:3])
    summary = run(db, RunConfig(resources=SPLIT), quiet=True)
    assert (summary.exit, summary.num_clips, summary.num_rejects, summary.num_frames) == ("done", 2, 0, 20)
    found = row_digests(db)
    assert found == {clip.clip_id: expected[clip.clip_id] for clip in clips[:4:3]}
    again = run(db, None, quiet=True)
    assert (again.exit, again.num_clips) == ("done", 0)
    assert row_digests(db) == found
    assert not pending_clips(db)


@pytest.mark.slow
@pytest.mark.parametrize(("resources", "reverse"), [(FUSED, False), (SPLIT, True)], ids=["fused", "split"])
def test_all_clips_in_each_mode(tmp_path, clips, expected, resources, reverse):
    db = new_database(tmp_path / "db", clips[::-1] if reverse else clips)
    summary = run(db, RunConfig(resources=resources), quiet=True)
    assert (summary.exit, summary.num_clips, summary.num_rejects, summary.num_frames) == ("done", 6, 0, 60)
    assert row_digests(db) == expected


def test_a_full_disk_and_a_row_that_is_gone_at_the_end_fail_the_run_and_cost_nothing_else(tmp_path, clips, expected):
    """What was committed stays, and the next run does the rest; the database alone says how the run ended."""
    db = new_database(tmp_path / "db", clips[:3])
    config = RunConfig(resources=Resources(num_actors=1, shard_clips=1, commit_clips=1))
    full = pytest.raises(StoreError, match=r"(?i)write \d rows?\b.*too large\b[\s\S]*free some space")
    with Watcher(lambda pid, clip_id: limit_file_size(pid), after_rows=1) as watch, full:
        run(db, config, quiet=True, watch=watch)
    wanted = {clip.clip_id: expected[clip.clip_id] for clip in clips[:3]}
    kept = row_digests(db)
    assert kept
    assert kept.items() < wanted.items()
    looks, gone_id = [], clips[2].clip_id

    def lose(ledger) -> None:
        looks.append(ledger)
        if len(looks) == 2:  # all clips are finished
            db.table("clips").delete(f"clip_id = '{gone_id}'")

    with pytest.raises(StoreError, match=f"1 clip has neither a row nor a reject at the end of the run: {gone_id}"):
        run(db, config, quiet=True, watch=lose, parts=HERE)
    assert db.runs().column("exit").to_pylist() == ["failed", "failed"]
    assert row_digests(db) == {clip_id: digest for clip_id, digest in wanted.items() if clip_id != gone_id}
    assert [clip.clip_id for clip in pending_clips(db)] == [gone_id]


class Watcher:
    """Until the block ends, calls `act(pid, clip_id)` for every worker at work, once `after_rows` are finished."""

    def __init__(self, act, after_rows: int = 0) -> None:
        self._act = act
        self._after_rows = after_rows
        self._ended = threading.Event()
        self._thread = None

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def __call__(self, ledger) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, args=(ledger,))
            self._thread.start()

    def _watch(self, ledger) -> None:
        while not self._ended.wait(0.03):
            progress = ray.get(ledger.progress.remote())
            if progress.num_rows >= self._after_rows:
                for pid, clip_id in progress.working.items():
                    with contextlib.suppress(ProcessLookupError):
                        self._act(pid, clip_id)


def limit_file_size(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, 1000))
