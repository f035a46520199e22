"""A table that grows: stages that rows lack or have with another key are computed, and nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.extraction import LIGHT, extracted, row_digests, rows_of
from support.in_process import HERE
from support.process import descendants, handloom, start
from support.rows import digests

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.run.run import run
from handloom.schemas.settings import Resources, RunConfig, Settings
from handloom.schemas.tables.stage_columns import COLUMNS_OF
from handloom.store.clips.clip_list import add_clips
from handloom.store.stages.rejects import count_rejects

pytestmark = pytest.mark.usefixtures("ray_address")

SURER = LIGHT | {"hands": {"min_detection_confidence": 0.6}}
OF_HANDS = {*COLUMNS_OF, "segments", "motion_steps"} - {"probe", "frames", "images"}
ONE = Resources(num_actors=1, shard_clips=2, commit_clips=1)


def config(values: Mapping[str, object], **stages: object) -> RunConfig:
    return RunConfig(**values, stages=stages, resources=ONE)


def own(name: str, **settings: object) -> dict[str, object]:
    return {"class": f"support.own_stages:{name}", "settings": settings}


@pytest.fixture(scope="module")
def before(tmp_path_factory, clips) -> Path:
    path = tmp_path_factory.mktemp("before") / "db"
    extracted(path, clips[:4:3], Settings(**LIGHT))
    return path


@pytest.fixture(scope="module")
def surer(clips) -> dict[str, str]:
    """The rows of a fresh extraction with other settings of hands."""
    return {clip_id: d for row in rows_of(clips[:4:3], Settings(**SURER)) for clip_id, d in digests(row).items()}


@pytest.fixture
def db(before, tmp_path) -> Database:
    return Database.open(shutil.copytree(before, tmp_path / "db"))


def test_a_changed_setting_asks_and_then_gives_the_rows_of_a_fresh_extraction(db, surer):
    with pytest.raises(ConfigError) as refused:
        run(db, config(SURER), quiet=True)
    told = str(refused.value)
    assert "hands.min_detection_confidence is 0.5 in the database, 0.6 now" in told
    assert "2 rows of stages hands_2d, lens, depth, camera" in told
    assert "--recompute" in told
    assert db.runs().num_rows == 1
    version, old = db.version, row_digests(db)

    with pytest.raises(ConfigError, match="hands_2d"):
        run(db, config(SURER), quiet=True, recompute=["tracks"])
    summary = run(db, config(SURER), quiet=True, recompute=["hands_2d"])
    assert (summary.exit, summary.num_clips, summary.num_updates) == ("done", 0, 2)
    assert summary.stages == dict.fromkeys(
        [name for name in (*COLUMNS_OF, "segments", "motion_steps") if name in OF_HANDS], 2
    )
    assert summary.stages_again == summary.stages
    assert row_digests(db) == surer
    assert digests(db.clips(version=version)) == old, "who has pinned a version keeps it"
    again = run(db, None, quiet=True)
    assert (again.exit, again.num_updates, again.stages) == ("done", 0, {})
    assert not list(Path(db.uri).glob("clips.lance/_staged/*/*"))


def test_a_stage_of_ones_own_is_added_without_decoding_and_new_clips_get_it_at_once(db, clips):
    """The video of one row is gone: nothing is decoded for the stage. A third clip is new."""
    old = row_digests(db)
    (gone,) = [clip for clip in clips[:4:3] if clip.clip_id in old][:1]
    add_clips(db, [replace(gone, video_uri="/nowhere/video.mp4"), clips[1]])
    summary = run(db, config(LIGHT, brightness=own("Brightness")), quiet=True, parts=HERE)
    assert (summary.exit, summary.num_clips, summary.num_updates) == ("done", 1, 2)
    assert (summary.stages, summary.stages_again) == ({"brightness": 2}, {})
    rows = db.clips()
    assert rows.num_rows == 3
    assert rows.column("num_hands").null_count == rows.column("embedding_brightness").null_count == 0
    assert rows.column("stage_key_brightness").unique().null_count == 0
    names = [name for name in rows.schema.names if "brightness" not in name and name != "num_hands"]
    found = digests(rows.select(names))
    assert {clip_id: found[clip_id] for clip_id in old} == old
    hits = db.search(clip=clips[1].clip_id, by="brightness", k=2)
    assert len(hits) == 2


def test_a_stage_that_fails_costs_its_columns_alone_and_is_tried_again_when_asked(db, clips):
    add_clips(db, [clips[1]])
    failing = config(LIGHT, mine=own("Fails"), brightness=own("Brightness"))
    summary = run(db, failing, quiet=True, parts=HERE)
    late = {clip.clip_id for clip in (clips[0], clips[1], clips[3]) if clip.start_s > 0}
    assert (summary.exit, summary.num_clips, summary.num_stage_rejects) == ("rejects", 1, len(late))
    rows = db.clips(["clip_id", "mine", "stage_key_mine", "num_hands"]).to_pylist()
    assert {row["clip_id"] for row in rows if row["mine"] is None} == late
    assert {row["clip_id"] for row in rows if row["stage_key_mine"] is None} == late
    assert all(row["num_hands"] is not None for row in rows)
    assert count_rejects(db) == {("mine", "bug"): len(late)}
    hosts = db.read("stage_rejects", ["host"]).column("host").to_pylist()
    assert set(hosts) == {socket.gethostname()}, "of the new clip and of a row"
    assert db.count("rejects") == 0
    assert run(db, None, quiet=True).stages == {}, "it is not tried again by itself"
    again = run(db, None, quiet=True, retry_rejects=["all"], parts=HERE)
    assert (again.exit, again.stages) == ("rejects", {"mine": len(late)})


def test_a_stage_that_is_interrupted_ends_the_run_as_ctrl_c_does(db, caplog):
    old = row_digests(db)
    summary = run(db, config(LIGHT, mine=own("Interrupted")), quiet=True, parts=HERE)
    assert (summary.exit, summary.num_updates, summary.num_pending) == ("interrupted", 0, 2)
    assert "a worker was interrupted at stage mine: the run ends as after Ctrl-C" in caplog.text
    assert (db.count("rejects"), db.count("stage_rejects")) == (0, 0)
    rows = db.clips()
    assert digests(rows.select([name for name in rows.schema.names if "mine" not in name])) == old


def test_a_row_whose_video_is_gone_keeps_its_columns(db, clips, surer):
    gone = next(clip for clip in clips[:4:3])
    old = row_digests(db)
    add_clips(db, [replace(gone, video_uri="/nowhere/video.mp4")])
    summary = run(db, config(SURER), quiet=True, recompute=["all"], parts=HERE)
    assert (summary.exit, summary.num_updates, summary.reasons) == ("rejects", 1, {"video_missing": 1})
    found = row_digests(db)
    (kept,) = [clip_id for clip_id in found if found[clip_id] == old[clip_id]]
    assert kept == gone.clip_id
    assert {clip_id: d for clip_id, d in found.items() if clip_id != kept}.items() <= surer.items()
    assert {stage for stage, _ in count_rejects(db)} == OF_HANDS
    assert run(db, None, quiet=True).stages == {}
    add_clips(db, [gone])
    assert run(db, None, quiet=True, retry_rejects=["all"], parts=HERE).num_updates == 1
    assert row_digests(db) == surer
    assert not count_rejects(db)


def test_only_the_stages_that_are_named_are_computed(db, clips):
    add_clips(db, [clips[1]])
    both = config(LIGHT, brightness=own("Brightness"), mine=own("Reads"))
    summary = run(db, both, quiet=True, stages=["mine"], limit=1, parts=HERE)
    assert (summary.num_updates, summary.num_pending) == (1, 1)
    summary = run(db, both, quiet=True, stages=["mine"], parts=HERE)
    assert (summary.num_clips, summary.stages, summary.num_pending) == (0, {"mine": 1}, 0)
    assert db.clips(["num_hands"]).column("num_hands").null_count == 2
    with pytest.raises(ConfigError, match="no stage 'brightnes'; near: brightness"):
        run(db, both, quiet=True, stages=["brightnes"])


ONE_BY_ONE = [f"--set=resources.{name}=1" for name in ("shard_clips", "num_actors", "commit_clips")]
OTHER_HANDS = ("--set=hands.min_detection_confidence=0.6", "--recompute")


def killed_at_random(db: Database, rng: random.Random, *asked: str) -> None:
    """SIGKILL of a run and all its processes, soon after a commit or at another moment."""
    driver = start("run", "--db", db.uri, "--quiet", *ONE_BY_ONE, *asked)
    version = db.version
    for _ in range(int(rng.uniform(5, 30) / 0.05)):
        if driver.poll() is not None or (db.version > version and rng.random() < 0.2):
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(0.05)
    for pid in [driver.pid, *descendants(driver.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    driver.communicate()


def check_each_row_is_old_or_new(db: Database, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    found = row_digests(db)
    assert found.keys() == old.keys()
    assert all(found[clip_id] in (old[clip_id], new[clip_id]) for clip_id in found)


def test_killed_in_a_recompute_the_table_is_whole_and_the_next_run_goes_on(db, surer):
    """The short form of the next one: killed once."""
    old = row_digests(db)
    killed_at_random(db, random.Random(1), *OTHER_HANDS, "--set=tracks.grid=6", "--set=tracks.extra=0")
    check_each_row_is_old_or_new(db, old, surer)
    assert run(db, config(SURER), quiet=True, recompute=["all"], parts=HERE).exit == "done"
    assert row_digests(db) == surer


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_ten_times_in_a_recompute(tmp_path, clips):
    """The command is given again without --recompute."""
    rng, db = random.Random(10), extracted(tmp_path / "db", clips, Settings(**LIGHT))
    old = row_digests(db)
    new = {i: d for row in rows_of(clips, Settings(**SURER)) for i, d in digests(row).items()}
    for number in range(10):
        killed_at_random(db, rng, *(OTHER_HANDS if number == 0 else ()))
        check_each_row_is_old_or_new(db, old, new)
    last = handloom("run", "--db", db.uri, "--json", *ONE_BY_ONE)
    assert last.returncode == 0, last.stderr
    assert row_digests(db) == new
