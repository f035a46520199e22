"""Videos and database on S3 (a server on this machine), workers on a cluster that is joined by its address."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.extraction import outcome, row_digests
from support.process import handloom
from support.s3_server import s3_server, send

from handloom.api import Database
from handloom.store.location import storage_options_from


@pytest.fixture(scope="module")
def s3_env():
    """The variables a user sets for S3, with a bucket behind them."""
    with s3_server() as env:
        yield env


@pytest.mark.timeout(240)
def test_ingest_and_run_with_everything_remote(s3_env, ray_address, rendered: Path, cli, monkeypatch):
    for name, value in s3_env.items():
        monkeypatch.setenv(name, value)
    for file in ("video1.mp4", "video1.camera.json"):
        send(f"{s3_env['AWS_ENDPOINT_URL']}/bucket/videos/kitchen/{file}", body=(rendered / file).read_bytes())
    send(f"{s3_env['AWS_ENDPOINT_URL']}/bucket/videos/letter.mp4", body=b"Dear reader" * 500)
    options = ("--dataset", "test", "--clip-seconds", 1, "--json")
    code, out, err = cli("ingest", "folder", "s3://bucket/videos", "--db", "s3://bucket/db", *options)
    assert code == 0, err
    assert json.loads(out)["added"] == 3

    # The cluster of the test run, like every Ray started locally, wants the token that Ray made for it.
    cluster = {**s3_env, "RAY_ADDRESS": ray_address, "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled")}
    done = handloom("run", "--db", "s3://bucket/db", "--json", "--set=resources.num_actors=1", env=cluster)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["num_clips"], summary["reasons"]) == (2, {"video_unreadable": 1})
    assert all(" clips done" in line for line in done.stderr.splitlines()), done.stderr

    db = Database.open("s3://bucket/db", storage_options_from(s3_env))
    assert sorted(outcome(db).values()) == ["row", "row", "video_unreadable"]
    rows = db.clips()
    assert set(rows.column("video_uri").to_pylist()) == {"s3://bucket/videos/kitchen/video1.mp4"}
    assert len(row_digests(db)) == 2

    done = handloom("run", "--db", "s3://bucket/db", "--retry-rejects", "--ray-address", "127.0.0.1:1", env=s3_env)
    assert done.returncode == 2
    assert "\nerror: cannot join a Ray cluster at '127.0.0.1:1'" in done.stderr
    assert len(done.stderr.splitlines()) == 3
