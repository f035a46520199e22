"""Faults of single nodes, on real raylets: no clip is lost, and the summary names the nodes that were left."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.extraction import new_database, outcome, row_digests
from support.process import handloom, start
from support.raylets import NodeSpec, cluster, mounts_allowed
from support.rows import digests

import handloom as handloom_package
from handloom.ingest.human.folder import ingest_folder
from handloom.pipelines.status.status import status, status_text
from handloom.video.decode.probe import Prober
from handloom.video.fetch.video_source import VideoSource

pytestmark = pytest.mark.skipif(not mounts_allowed(), reason="this user may not give a process mounts of its own")

TESTS = Path(__file__).parents[1]
HEALTHY = NodeSpec("healthy")
HANGING = """
import builtins, time
_open = builtins.open
def _hang(file, *arguments, **named):
    while str(file).startswith({videos!r}):
        time.sleep(60)
    return _open(file, *arguments, **named)
builtins.open = _hang
"""
ONE_EACH = ["--set", "resources.shard_clips=1", "--set", "resources.commit_clips=1"]


def hosts_of(db) -> set[str]:
    return set(db.clips(["host"]).column("host").to_pylist())


DEVICE = """
[stages.device]
class = "support.pool_stages:Device"
cpus = 0.5
gpus = 1
"""


def run_on(folder: Path, clips, *nodes: NodeSpec, env: dict[str, str]):
    """One run on a cluster of these nodes: (database, what it printed)."""
    (folder / "run.toml").write_text(DEVICE if any(node.num_gpus for node in nodes) else "")
    db = new_database(folder / "db", clips[::2])  # one of each video
    asked = ["--config", folder / "run.toml", "--set", "resources.cpus_per_actor=1", *ONE_EACH]
    with cluster(*(replace(node, env=env) for node in nodes)) as running:
        where = ["--db", db.uri, "--ray-address", running.address]
        done = handloom("run", *where, "--json", *asked, env=env, timeout_s=280)
    assert done.returncode == 0, done.stderr
    return db, done.stdout


@pytest.fixture
def env() -> dict[str, str]:
    """With which nodes, and the run, import the stages of the tests."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))}


@pytest.mark.timeout(400)
def test_nodes_without_the_videos_or_the_database_get_no_work(tmp_path, rendered, clips, expected, env):
    blind = NodeSpec("blind", hidden=[rendered])
    mute = NodeSpec(None, read_only=[tmp_path], hostname="mute")
    db, printed = run_on(tmp_path, clips, HEALTHY, blind, mute, env=env)
    assert row_digests(db) == {clip.clip_id: expected[clip.clip_id] for clip in clips[::2]}
    left = json.loads(printed)["left_nodes"]
    assert left.keys() == {"blind", "mute"}
    assert left["blind"].startswith("reads 0 of 3 videos, healthy 3 (")
    assert status(db)["last_run"]["left_nodes"] == left
    assert f"left node mute: {left['mute']}" in status_text(status(db))
    assert left["mute"] == f"{db.uri}/clips.lance cannot be written: Read-only file system"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_stage_with_a_gpu_runs_on_the_node_that_has_one(tmp_path, clips, expected, env):
    """The first group, which decodes, is on the node without; rows are written by the last one."""
    db, _ = run_on(tmp_path, clips, HEALTHY, NodeSpec("gpus", num_gpus=2), env=env)
    rows = db.clips(["host", "device"]).to_pylist()
    assert {row["host"] for row in rows} == {"gpus"}
    assert {row["device"] for row in rows} <= {"0", "1"}
    found = digests(db.clips(), ("device", "stage_key_device"))
    assert found == {clip.clip_id: expected[clip.clip_id] for clip in clips[::2]}


def changed_build(folder: Path) -> Path:
    """A folder for PYTHONPATH with a handloom that differs in one comment."""
    package = Path(handloom_package.__file__).parent
    shutil.copytree(package, folder / "handloom", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "handloom" / "geometry" / "pnp.py").open("a") as source:
        source.write("# changed\n")
    return folder


def hanging_mount(folder: Path, videos: Path) -> Path:
    """A folder for PYTHONPATH with which opening a video never returns, as on a mount whose server is down."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HANGING.format(videos=str(videos)))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_four_kinds_of_bad_nodes_at_once(tmp_path, rendered):
    """Without the mount, read-only, another build, one that hangs: every clip ends, and all four are named."""
    with Prober(VideoSource(str(tmp_path / "cache"))) as probe:
        cut = {"clip_seconds": 0.1, "probe": probe}
        listed = [clip for name in "ab" for clip in ingest_folder(str(rendered), dataset=name, **cut).clips][:80]
    listed += [replace(listed[0], clip_id=f"test:gone:{i}-1", video_uri=f"{tmp_path}/gone{i}.mp4") for i in range(3)]
    db = new_database(tmp_path / "db", listed)
    nodes = (
        NodeSpec("blind", hidden=[rendered]),
        NodeSpec("mute", read_only=[tmp_path / "db"]),
        NodeSpec("stale", env={"PYTHONPATH": str(changed_build(tmp_path / "build"))}),
        NodeSpec("stuck", env={"PYTHONPATH": str(hanging_mount(tmp_path / "hook", rendered))}),
    )
    with cluster(HEALTHY, *nodes) as running:
        done = handloom("run", "--db", db.uri, "--ray-address", running.address, "--json", timeout_s=300)
    assert done.returncode == 3, done.stderr
    assert len(listed) == 83
    assert Counter(outcome(db).values()) == {"row": len(listed) - 3, "video_missing": 3}
    assert hosts_of(db) | set(db.rejects().column("host").to_pylist()) == {"healthy"}
    left = json.loads(done.stdout)["left_nodes"]
    assert left.keys() == {"blind", "mute", "stale", "stuck"}
    assert "Read-only" in left["mute"]
    assert "handloom is" in left["stale"]
    assert left["stuck"].startswith("it has not answered within")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("what", ["videos", "database", "node"])
@pytest.mark.parametrize("mode", ["fused", "split"])
def test_what_goes_during_the_run(tmp_path, rendered, clips, expected, mode, what):
    """A file system of one node, or the whole node, goes after the first row: the other node does the rest."""
    gone = [clips[0], *clips[2:]]
    db = new_database(tmp_path / "db", gone)
    cpus = {"fused": 1, "split": 2}[mode]
    with cluster(NodeSpec("healthy", cpus), NodeSpec("losing", cpus, own_mounts=True)) as running:
        options = ["--ray-address", running.address, "--set", f"resources.mode={mode}", *ONE_EACH]
        run = start("run", "--db", db.uri, *options)
        until = time.monotonic() + 100
        while not db.count("clips") and run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if what == "node":
            running.kill(1)
        else:
            running.hide(1, rendered if what == "videos" else tmp_path)
        out, err = run.communicate(timeout=250)
    assert run.returncode == 0, err
    assert row_digests(db) == {clip.clip_id: expected[clip.clip_id] for clip in gone}, out
    if what == "node":
        assert "left node losing: it has gone from the cluster" in out
