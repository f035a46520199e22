"""A run that is killed or interrupted, and run again, gives the table of an undisturbed one."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.extraction import new_database, outcome, row_digests
from support.in_process import HERE
from support.process import alive, command, descendants, handloom, is_agent, start

from handloom.api import Database
from handloom.pipelines.run.run import run

ONE_CLIP = ("--set", "resources.shard_clips=1", "--set", "resources.num_actors=1")
ONE_CLIP_UNMERGED = (*ONE_CLIP, "--set", "resources.max_small_fragments=512")
ONE_CLIP += ("--set", "resources.max_small_fragments=1")  # two fragments are merged while the run goes on
BOTH = (signal.SIGINT, signal.SIGTERM)


def wait_for(number: Callable[[], int], at_least: int, process, limit_s: float = 240) -> None:
    """Until `number()` is reached, or the process has ended."""
    until = time.monotonic() + limit_s
    while number() < at_least and process.poll() is None:
        assert time.monotonic() < until, f"{number()} of {at_least} after {limit_s} s"
        time.sleep(0.02)


def assert_all_end(pids: set[int], limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while left := {pid for pid in pids if alive(pid) and not is_agent(pid)}:
        assert time.monotonic() < until, f"still there after {limit_s} s: {sorted(map(command, left))}"
        time.sleep(0.1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stops", [(signal.SIGINT,), pytest.param(BOTH, marks=pytest.mark.slow)], ids=["one", "both"])
def test_stopped_runs_lose_nothing_and_leave_nothing_behind(tmp_path, clips, expected, stops, ray_address):
    """SIGKILL right after a commit, on a Ray that stays; then Ctrl-C or SIGTERM to the group, while finished clips wait
    for a commit. The slow test below kills drivers with Rays of their own."""
    db = new_database(tmp_path / "db", clips)
    options = ("--quiet", *ONE_CLIP, "--set", "resources.commit_clips=1")
    driver = start("run", "--db", db.uri, *options, "--ray-address", ray_address, env=ray_env())
    wait_for(lambda: db.count("clips"), 1, driver)
    kill_and_collect(driver, signal.SIGKILL)
    done = row_digests(db)
    assert done
    assert done.items() <= expected.items()

    for number in stops:
        before = files(db)
        driver = start("run", "--db", db.uri, *ONE_CLIP_UNMERGED, "--set", "resources.commit_s=600")
        wait_for(lambda before=before: len(files(db) - before), 2, driver)
        out, err = kill_and_collect(driver, number)
        assert driver.returncode == 1, err
        assert "stopping: " in err
        ours = (" clips done", " WARNING handloom.", "stopping: ")  # Ray keeps quiet
        assert all(any(part in line for part in ours) for line in err.splitlines() if line), err
        now = row_digests(db)
        assert len(now) > len(done)
        assert done.items() <= now.items() <= expected.items()
        assert re.match(rf"{len(now) - len(done)} clips?,", out), err
        assert f"handloom run --db {db.uri}" in out
        done = now
        if len(done) == len(expected):
            break

    last = run(db, None, quiet=True, parts=HERE)
    assert (last.exit, last.num_clips) == ("done", len(expected) - len(done))  # nothing is done twice
    assert row_digests(db) == expected
    assert set(outcome(db).values()) == {"row"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_after_every_commit_and_in_between(tmp_path, clips, expected):
    db = new_database(tmp_path / "db", clips)
    rng = random.Random(0)
    done: dict[str, str] = {}
    while len(done) < len(expected):
        driver = start("run", "--db", db.uri, "--quiet", *ONE_CLIP, "--set", "resources.commit_clips=1")
        wait_for(lambda: db.count("clips"), len(done) + 1, driver)
        time.sleep(rng.choice((0.0, 0.0, rng.uniform(0, 0.5))))
        kill_and_collect(driver, signal.SIGKILL)
        now = row_digests(db)
        assert done.items() < now.items() <= expected.items()
        done = now
        starting = start("run", "--db", db.uri, "--quiet")
        time.sleep(rng.uniform(0.5, 8))
        kill_and_collect(starting, signal.SIGKILL)
    last = handloom("run", "--db", db.uri, "--json")
    assert last.returncode == 0, last.stderr
    assert row_digests(db) == expected


def ray_env() -> dict[str, str]:
    """What a driver needs to join the Ray of the tests, which wants a token."""
    return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled")}


def kill_and_collect(driver, number: int) -> tuple[str, str]:
    """Send the signal (to the group, unless it is SIGKILL) and wait until nothing of the run is left."""
    family = descendants(driver.pid)
    if number == signal.SIGKILL:
        os.kill(driver.pid, number)
    else:
        os.killpg(driver.pid, number)
    out, err = driver.communicate(timeout=150)
    assert_all_end(family)
    return out, err


def files(db: Database) -> set[Path]:
    """Data files of `clips`, committed or not; a run first removes those that are not."""
    return set((Path(db.uri) / "clips.lance" / "data").glob("*.lance"))
