"""A node on which models never load: the others do its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.extraction import new_database, row_digests
from support.raylets import NodeSpec, cluster

RUN = """
import json, sys
from support.faults import slow_to_load
from handloom.pipelines.run.run import run
from handloom.api import Database
config = slow_to_load("HANDLOOM_TEST_HANGS", load_s=20.0, shard_clips=1)
print(json.dumps(run(Database.open(sys.argv[1]), config, ray_address=sys.argv[2], quiet=True).left_nodes))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_that_hangs_is_left(tmp_path, clips, expected, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    db = new_database(tmp_path / "db", clips)
    with cluster(NodeSpec("healthy"), NodeSpec("hanging", env={"HANDLOOM_TEST_HANGS": "1"})) as running:
        command = [sys.executable, "-c", RUN, db.uri, running.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert left.keys() == {"hanging"}
    assert row_digests(db) == expected
    if "has not answered" in left["hanging"]:
        pytest.skip("this machine is so busy that the node was left before it got work")
    assert "has been at stage load" in left["hanging"]
