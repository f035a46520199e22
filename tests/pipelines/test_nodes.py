"""Real raylets with what goes wrong on nodes: no clip is lost, and the end says which node was left."""

from __future__ import annotations

import json
import time

import pytest
from support.extraction import new_database, row_digests
from support.process import handloom, start
from support.raylets import NodeSpec, cluster, mounts_allowed

from handloom.pipelines.status import status, status_text

pytestmark = pytest.mark.skipif(not mounts_allowed(), reason="this user may not give a process mounts of its own")

HEALTHY = NodeSpec("healthy")
ONE_EACH = ["--set", "resources.shard_clips=1", "--set", "resources.commit_clips=1"]


def hosts_of(db) -> set[str]:
    return set(db.clips(["host"]).column("host").to_pylist())


def test_nodes_without_the_videos_or_the_database_get_no_work(tmp_path, rendered, clips, expected):
    db = new_database(tmp_path / "db", clips)
    blind, mute = NodeSpec("blind", hidden=[rendered]), NodeSpec(None, read_only=[tmp_path], hostname="mute")
    with cluster(HEALTHY, blind, mute) as running:
        done = handloom("run", "--db", db.uri, "--ray-address", running.address, "--json", *ONE_EACH)
    assert done.returncode == 0, done.stderr
    assert row_digests(db) == expected
    assert hosts_of(db) == {"healthy"}
    left = json.loads(done.stdout)["left_nodes"]
    assert left.keys() == {"blind", "mute"}
    assert left["blind"].startswith("reads 0 of 3 videos, healthy 3 (")
    assert status(db)["last_run"]["left_nodes"] == left
    assert f"left node mute: {left['mute']}" in status_text(status(db))
    assert left["mute"] == f"{db.uri}/clips.lance cannot be written: Read-only file system"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("folder", ["videos", "database"])
@pytest.mark.parametrize("mode", ["fused", "split"])
def test_a_file_system_that_goes_during_the_run(tmp_path, rendered, clips, expected, folder, mode):
    """After the first row of the node: what it does not see is done by the other one."""
    gone = [clips[0], *clips[2:]]
    db = new_database(tmp_path / "db", gone)
    cpus = {"fused": 1, "split": 2}[mode]
    with cluster(NodeSpec("healthy", cpus), NodeSpec("losing", cpus, own_mounts=True)) as running:
        options = ["--ray-address", running.address, "--set", f"resources.mode={mode}", *ONE_EACH]
        run = start("run", "--db", db.uri, *options)
        until = time.monotonic() + 100
        while not db.count("clips") and run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        running.hide(1, rendered if folder == "videos" else tmp_path)
        out, err = run.communicate(timeout=100)
    assert run.returncode == 0, err
    assert row_digests(db) == {clip.clip_id: expected[clip.clip_id] for clip in gone}, out
