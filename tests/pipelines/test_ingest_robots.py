"""Ingesting robot data as a user does: the command, killed in between, and from and into a bucket."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.lerobot_data import CAMERA, edit_info, make_v3, make_v21, number, numbers_in
from support.process import handloom
from support.s3_server import s3_server

from handloom.api import Database
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.remove import remove
from handloom.store.clips.clip_list import read_clips
from handloom.store.episodes import read_episodes

SLOWLY = """
import sys, time
from handloom.pipelines.ingest.robots import lerobot
from handloom.api import Database
wait = lambda done, total: time.sleep(0 if done < 8 else 60)  # until it is killed, however busy the machine is
lerobot(Database.open(sys.argv[1], create=True), sys.argv[2], commit_episodes=1, progress=wait)
"""


def contents(db: Database) -> dict[str, str]:
    return {row["episode_id"]: repr(row) for row in read_episodes(db).to_pylist()}


@pytest.mark.parametrize("images", [False, True])
def test_killed_in_between_leaves_whole_episodes_and_goes_on(tmp_path, images):
    """SIGKILL after the first commits: the episodes so far are whole, and a second call gives the undisturbed table."""
    root = make_v3(tmp_path / "arm", [5] * 16, images=images)
    videos = str(tmp_path / "videos")
    whole = Database.open(tmp_path / "whole", create=True)
    db = Database.open(tmp_path / "db", create=True)
    lerobot(whole, str(root), videos=videos)
    expected = contents(whole)
    code = SLOWLY.replace("commit_episodes=1", f"commit_episodes=1, videos={videos!r}")
    process = subprocess.Popen([sys.executable, "-c", code, db.uri, str(root)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 240
    while db.count("robot_episodes") < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = contents(db)
    assert 3 <= len(done) < 16
    assert done.items() <= expected.items()
    listed = {clip.clip_id for clip in read_clips(db)}
    assert {i for row in read_episodes(db, ["clip_ids"]).to_pylist() for i in row["clip_ids"]} <= listed
    summary = lerobot(db, str(root), videos=videos)
    assert summary.counts["already_there"] == len(done)
    assert summary.counts["added"] == 16 - len(done)
    assert contents(db) == expected
    # The videos were written twice, so their times differ; a clip that was listed before its episode moves to the end.
    timeless = [{clip.clip_id: replace(clip, video_version=None) for clip in read_clips(one)} for one in (whole, db)]
    assert timeless[0] == timeless[1]
    assert len(read_clips(db)) == len(timeless[1])


def test_the_command_counts_what_it_left_out(tmp_path, cli):
    root = make_v21(tmp_path / "my arm (1)", (6, 8))
    (root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    db = tmp_path / "db"
    code, out, err = cli("ingest", "lerobot", root, "--db", db)
    assert code == 3, err
    assert out.startswith("added 1, replaced 0, already there 0, left out 1 of 2 listed: 1 episode\n")
    assert "left out: video_missing 1" in out
    assert f"problem: episode 1: video_missing: {CAMERA}: there is no file" in err
    (row,) = read_episodes(Database.open(db), ["episode_id", "frame_jpeg"]).to_pylist()
    assert row["episode_id"] == "my-arm-1:0"
    assert list(numbers_in(row["frame_jpeg"][0])) == [number(0, i) for i in range(6)]

    edit_info(root, lambda info: info.update(codebase_version="v1.6"))
    code, out, err = cli("ingest", "lerobot", root, "--db", db, "--json")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    edit_info(root, lambda info: info.update(codebase_version="v2.1"))
    code, out, err = cli("ingest", "lerobot", root, "--db", db, "--no-pictures", "--json", "--action", "none")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["counts"] == {"listed": 2, "added": 1, "replaced": 1, "already_there": 0, "skipped": 0}
    assert summary["notes"] == {"video_missing": 1}


def test_what_was_removed_comes_back_when_it_is_ingested_again(tmp_path):
    """Episodes are removed with their clips, but not with missing videos: they hold their own images."""
    root = make_v21(tmp_path / "arm", (6, 8))
    db = Database.open_or_new(tmp_path / "db")
    lerobot(db, str(root))
    before, clips = contents(db), read_clips(db)
    assert remove(db, clips=[clips[0].clip_id]).episodes == 1
    again = lerobot(db, str(root))
    assert (again.counts["added"], again.counts["already_there"], again.clips["added"]) == (1, 1, 1)
    video = root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    video.rename(tmp_path / "away.mp4")
    done = remove(db, missing=True)
    assert (done.listed, done.episodes, db.count("clip_list")) == (1, 0, 1)
    (tmp_path / "away.mp4").rename(video)
    again = lerobot(db, str(root))
    assert (again.counts["already_there"], again.clips["added"]) == (2, 1)
    assert contents(db) == before
    assert sorted(read_clips(db), key=str) == sorted(clips, key=str)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket"


def upload(folder: Path, uri: str) -> str:
    import os

    import fsspec

    fs = fsspec.filesystem("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for path in folder.rglob("*"):
        if path.is_file():
            fs.put_file(str(path), f"{uri}/{path.relative_to(folder)}")
    return uri


def test_from_a_bucket_into_a_bucket(tmp_path, bucket, cli):
    """Videos are fetched, single images become videos in the bucket, and both are found again.

    One of the commands runs in a process of its own, as a user's do.
    """
    for name, images in (("filmed", False), ("imaged", True)):
        source = upload(make_v3(tmp_path / name, (6, 4), images=images), f"{bucket}/data/{name}")
        command = ("ingest", "lerobot", source, "--db", f"{bucket}/db", "--json")
        if images:
            done = handloom(*command)
            assert done.returncode == 0, done.stderr
        else:
            code, _, err = cli(*command)
            assert code == 0, err
        _, out, err = cli(*command)
        assert json.loads(out)["counts"]["already_there"] == 2, err
    import os

    from handloom.store.location import storage_options_from

    db = Database.open(f"{bucket}/db", storage_options_from(os.environ))
    for row in read_episodes(db, ["episode_index", "frame_jpeg"]).to_pylist():
        expected = [number(row["episode_index"], i) for i in range((6, 4)[row["episode_index"]])]
        assert list(numbers_in(row["frame_jpeg"][0])) == expected
    uris = {clip.video_uri for clip in read_clips(db)}
    assert uris == {
        f"{bucket}/data/filmed/videos/{CAMERA}/chunk-000/file-000.mp4",
        *(f"{bucket}/db/videos/imaged/{CAMERA}/episode_{i:06d}.mp4" for i in range(2)),
    }
    import fsspec

    fs = fsspec.filesystem("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    assert all(fs.exists(uri) for uri in uris)
