"""Pools of stages on a cluster of different nodes: each where it fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.extraction import new_database
from support.process import handloom
from support.raylets import NodeSpec, cluster
from support.rows import digests

CONFIG = """
[stages.device]
class = "support.pool_stages:Device"
cpus = 0.5
gpus = 1
"""


@pytest.mark.timeout(300)
def test_a_stage_with_a_gpu_runs_on_the_node_that_has_one(tmp_path, clips, expected, monkeypatch):
    """The first group, which decodes, is on the node without; rows are written by the last one."""
    clips = clips[::3]
    tests = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    }
    monkeypatch.setenv("PYTHONPATH", tests["PYTHONPATH"])
    (tmp_path / "run.toml").write_text(CONFIG)
    db = new_database(tmp_path / "db", clips)
    asked = ["--config", tmp_path / "run.toml", "--set", "resources.cpus_per_actor=1"]
    with cluster(NodeSpec("cpus", env=tests), NodeSpec("gpus", num_gpus=2, env=tests)) as running:
        done = handloom("run", "--db", db.uri, "--ray-address", running.address, "--json", *asked, timeout_s=240)
    assert done.returncode == 0, done.stderr
    rows = db.clips(["host", "device"]).to_pylist()
    assert {row["host"] for row in rows} == {"gpus"}
    assert {row["device"] for row in rows} <= {"0", "1"}
    assert digests(db.clips(), ("device", "stage_key_device")) == {
        clip.clip_id: expected[clip.clip_id] for clip in clips
    }
