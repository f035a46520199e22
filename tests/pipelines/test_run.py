"""The main job on Ray: one table whatever the scheduling, and every clip a row or a reject."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from support.extraction import new_database, outcome, row_digests

from handloom.errors import StoreError
from handloom.pipelines.run import run
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Resources, RunConfig
from handloom.store.clip_list import add_clips, pending_clips

pytestmark = pytest.mark.usefixtures("ray_address")


FUSED = Resources(mode="fused", num_actors=2, shard_clips=1, commit_clips=1)
SPLIT = Resources(mode="split", num_actors=1, num_decode_actors=1, shard_clips=4)


def test_rows_do_not_depend_on_scheduling(tmp_path, clips, expected):
    """Half of the clips fused and half of them split, in one table."""
    db = new_database(tmp_path / "db", clips[::2])
    for resources, added in ((FUSED, ()), (SPLIT, clips[1::2])):
        add_clips(db, list(added))
        summary = run(db, RunConfig(resources=resources), quiet=True)
        assert (summary.exit, summary.num_clips, summary.num_rejects, summary.num_frames) == ("done", 3, 0, 30)
    assert row_digests(db) == expected
    again = run(db, None, quiet=True)
    assert (again.exit, again.num_clips) == ("done", 0)
    assert row_digests(db) == expected
    assert not pending_clips(db)


@pytest.mark.slow
@pytest.mark.parametrize(("resources", "reverse"), [(FUSED, False), (SPLIT, True)], ids=["fused", "split"])
def test_all_clips_in_each_mode(tmp_path, clips, expected, resources, reverse):
    db = new_database(tmp_path / "db", clips[::-1] if reverse else clips)
    summary = run(db, RunConfig(resources=resources), quiet=True)
    assert (summary.exit, summary.num_clips, summary.num_rejects, summary.num_frames) == ("done", 6, 0, 60)
    assert row_digests(db) == expected


def test_everything_goes_wrong_and_nothing_is_lost(tmp_path, clips, expected):
    """A full disk stops the run; a clip that kills its workers and missing videos are rejects; all can be cured."""
    missing = [gone(clip, tmp_path / f"gone{i}.mp4") for i, clip in enumerate(clips)]
    order = (missing[:1], clips[:2], missing[1:2], clips[2:4], missing[2:4], clips[4:], missing[4:])
    listed = [clip for some in order for clip in some]
    killer = clips[4].clip_id  # in one shard with a missing video before it, which is not to blame
    db = new_database(tmp_path / "db", listed)
    config = RunConfig(resources=Resources(num_actors=1, shard_clips=3, commit_clips=1))

    full = pytest.raises(StoreError, match=r"(?i)write \d rows.*too large\b[\s\S]*free some space")
    with Watcher(lambda pid, clip_id: limit_file_size(pid), after_rows=2) as watch, full:
        run(db, config, quiet=True, watch=watch)
    kept = row_digests(db)
    assert kept.items() <= expected.items()
    assert set(kept) == {clip.clip_id for clip in clips[:2]}

    killed: list[int] = []

    def kill(pid: int, clip_id: str) -> None:
        if clip_id == killer and pid not in killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    with Watcher(kill) as watch:
        summary = run(db, config, quiet=True, watch=watch)
    assert len(killed) == 2
    assert (summary.exit, summary.num_clips) == ("rejects", len(expected) - 1 - len(kept))
    found = outcome(db)
    lost = {clip.clip_id: "video_missing" for clip in missing} | {killer: "worker_died"}
    assert found == dict.fromkeys(expected, "row") | lost
    assert row_digests(db) == {i: digest for i, digest in expected.items() if i != killer}
    attempts = {r["clip_id"]: r["attempts"] for r in db.rejects().to_pylist()}
    assert attempts[killer] == 2

    for clip in missing:
        shutil.copy(clips[0].video_uri, clip.video_uri)
    summary = run(db, None, quiet=True, retry_rejects=("worker_died",))
    assert (summary.exit, summary.num_clips, row_digests(db)) == ("done", 1, expected)
    summary = run(db, None, quiet=True, retry_rejects=("all",))
    assert (summary.exit, summary.num_clips) == ("done", len(missing))
    assert set(outcome(db).values()) == {"row"}
    assert not db.count("rejects")


def test_the_end_of_a_run_believes_the_database_alone(tmp_path, clips):
    """A row that is gone before the run ends, however it went, fails the run, which names it."""
    db = new_database(tmp_path / "db", clips[:2])
    looks = []

    def lose(ledger) -> None:
        looks.append(ledger)
        if len(looks) == 2:  # all clips are finished
            db.table("clips").delete(f"clip_id = '{clips[0].clip_id}'")

    lost = f"1 clip has neither a row nor a reject at the end of the run: {clips[0].clip_id}"
    with pytest.raises(StoreError, match=lost):
        run(db, RunConfig(resources=FUSED), quiet=True, watch=lose)
    assert db.runs().column("exit").to_pylist() == ["failed"]
    assert [clip.clip_id for clip in pending_clips(db)] == [clips[0].clip_id]


def gone(clip: Clip, path: Path) -> Clip:
    return replace(clip, clip_id=f"test:{path.stem}:0-1000", video_id=path.stem, video_uri=str(path))


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
