"""The lease: one run at a time has a clip, and a run whose process is gone loses it."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.holder import Holder, this_process
from handloom.store.runs.lease import leased, living_runs
from handloom.store.runs.runs import end_run, list_runs

TESTS = Path(__file__).parents[1]
STALE_S = 1.0


@pytest.fixture
def db(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(n) for n in range(6)])
    return db


@contextmanager
def begun(db, where=None, run_key=RUN_KEY, **seconds):
    """A run that ends in order where nothing goes wrong."""
    with leased(db, run_key, settings={}, resources={}, versions={}, where=where, **seconds) as lease:
        yield lease
    end_run(db, lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})


def change(db, lease, **values):
    """Write other values into a run's record; text as SQL has it."""
    db.table("runs").update(values, where=f"run_id = '{lease.run.run_id}'")


def move_elsewhere(db, lease):
    """Change the record as if its process were on another machine."""
    holder = replace(Holder.from_json(lease.run.holder), machine="another", host="far")
    change(db, lease, holder=f"'{holder.to_json()}'")


def exits(db):
    return [run.exit for run in list_runs(db)]


def test_a_second_run_is_refused_with_the_holder_and_leaves_no_record(db):
    with begun(db) as first, pytest.raises(StoreError) as caught, begun(db):
        pass
    here = this_process()
    for words in (first.run.run_id, db.uri, f"host {here.host}, process {os.getpid()}, user {here.user}"):
        assert words in caught.value.problem
    assert f"since {first.run.started_at:%Y-%m-%d %H:%M} UTC" in caught.value.problem
    assert "--where" in caught.value.hint
    assert exits(db) == ["done"]
    with begun(db):
        assert [run.run_id for run in living_runs(db)] == [list_runs(db)[1].run_id]
    assert exits(db) == ["done", "done"]
    assert not living_runs(db)


def test_runs_whose_filters_share_no_clip_work_side_by_side(db):
    with begun(db, "start_s < 2"), begun(db, "start_s >= 2 AND start_s < 4"):
        shared = r"clips that pass 'start_s < 2'; 1 clip of the list is in both"
        with pytest.raises(StoreError, match=shared), begun(db, "start_s = 1 OR start_s = 5"):
            pass
        with pytest.raises(StoreError, match="clips of the list are in both"), begun(db):
            pass
        with pytest.raises(StoreError, match="with other settings or versions"), begun(db, "start_s = 5", "another"):
            pass
        with begun(db, "start_s = 5"):
            pass
    with pytest.raises(ConfigError, match="no column 'speed'"), begun(db, "speed > 2"):
        pass
    assert exits(db) == ["done"] * 3


HOLD = """
import sys, time
from handloom.api import Database
from handloom.store.runs.lease import leased
with leased(Database.open(sys.argv[1]), "{key}", settings={{}}, resources={{}}, versions={{}}):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_the_lease_of_a_killed_process_is_free_at_once(db, caplog):
    command = [sys.executable, "-c", HOLD.format(key=RUN_KEY), db.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(StoreError, match=f"process {holder.pid}, "), begun(db):
            pass
        holder.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the list of processes
        with begun(db):
            assert exits(db) == ["killed", None]
    assert exits(db) == ["killed", "done"]
    assert f"process {holder.pid}, user {this_process().user}); its clips are taken over" in caplog.text
    assert "waiting" not in caplog.text


def test_another_process_with_the_same_pid_is_not_the_holder():
    here = this_process()
    assert here.has_gone() is False
    assert replace(here, process_start=1).has_gone() is True
    assert replace(here, pid=2**22 + 1).has_gone() is True
    assert replace(here, machine="another").has_gone() is None
    assert replace(here, machine=None).has_gone() is None
    assert Holder.from_json(here.to_json()) == here


@pytest.mark.parametrize("clock", [timedelta(0), timedelta(days=1), timedelta(days=-1)])
def test_a_holder_elsewhere_is_gone_when_its_heartbeat_does_not_change(db, clock):
    """Whatever the clock there says."""
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}, beat_s=60) as asleep:
        move_elsewhere(db, asleep)
        moment = datetime.now(UTC) + clock
        change(db, asleep, heartbeat_at=f"cast('{moment.isoformat()}' as timestamp)")
        committer = Committer(db, RUN_KEY, clips_schema(4), asleep.check)
        started = time.monotonic()
        with begun(db, stale_s=STALE_S):
            assert time.monotonic() - started >= STALE_S
            assert exits(db) == ["killed", None]
            with pytest.raises(StoreError, match=f"run {asleep.run.run_id} stops: another run"):
                committer.commit([write_fragment(db.uri, [make_row(0)], clips_schema(4))])
            assert db.count("clips") == 0
    assert exits(db) == ["killed", "done"]


@pytest.mark.parametrize("clock", [timedelta(days=1), timedelta(days=-1)])
def test_a_holder_elsewhere_is_active_while_its_heartbeat_changes(db, clock):
    with begun(db, beat_s=60) as far:
        move_elsewhere(db, far)
        done = threading.Event()

        def beat():
            while not done.wait(STALE_S / 3):
                moment = datetime.now(UTC) + clock
                change(db, far, heartbeat_at=f"cast('{moment.isoformat()}' as timestamp)")

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            with pytest.raises(StoreError, match="host far, process"), begun(db, stale_s=10 * STALE_S):
                pass
        finally:
            done.set()
            thread.join()
        far.check()
    assert exits(db) == ["done"]


def test_a_process_that_did_not_write_its_end_is_watched(db):
    """For example a notebook whose run failed to write its end: the process is alive, its run is not."""
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as lease:
        pass
    with pytest.raises(StoreError, match="works on"), begun(db):
        pass
    change(db, lease, heartbeat_at="cast('2020-01-01T00:00:00' as timestamp)")
    with begun(db, stale_s=STALE_S):
        assert exits(db) == ["killed", None]


def test_runs_of_older_versions_hold_nothing(db):
    """If they were killed their exit stays null, and they have no holder."""
    with begun(db) as lease:
        pass
    change(db, lease, holder="NULL", exit="NULL")
    with begun(db):
        pass


def test_heartbeats_and_ends_are_written(db):
    with begun(db, beat_s=0.05) as lease:
        first = list_runs(db)[0].heartbeat_at
        until = time.monotonic() + 240
        while list_runs(db)[0].heartbeat_at == first and time.monotonic() < until:
            time.sleep(0.05)
        assert list_runs(db)[0].heartbeat_at > first
    (run,) = list_runs(db)
    assert (run.exit, run.heartbeat_at, run.holder) == ("done", run.ended_at, lease.run.holder)
