"""A video that is replaced under its name: its clips are done again, and nothing old is drawn on it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from support.extraction import rows_of

from handloom import text
from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.ingest import human
from handloom.pipelines.run.present import renew_changed_videos
from handloom.pipelines.run.run import run
from handloom.pipelines.show import show
from handloom.schemas.settings import FramesConfig, Resources, RunConfig, Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.clip_list import AddResult, pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.workers.extraction.versions import model_versions


def finished(folder: Path, settings: Settings, num_rows: int = 2) -> Database:
    """A database in which both clips of the one video in `folder`, or the first, have their rows."""
    db = Database.open(folder / "db", create=True)
    human.folder(db, str(folder), dataset="test", clip_seconds=1.0)
    clips = read_clips(db)
    assert len(clips) == 2
    schema = clips_schema(settings.num_tracks(), num_grid=settings.num_grid())
    committer = Committer(db, settings.run_key(model_versions(settings)), schema)
    committer.commit([write_fragment(db.uri, list(rows_of(clips[:num_rows], settings)), schema)])
    return db


def test_a_run_does_the_clips_of_a_replaced_video_again(tmp_path, rendered, ray_address):
    video = tmp_path / "v.mp4"
    shutil.copy(rendered / "video1.mp4", video)
    db = finished(tmp_path, Settings())
    before = db.clips(["clip_id", "video_digest", "thumbnail"]).to_pylist()
    os.utime(video, (1, 1))
    assert renew_changed_videos(db) == AddResult(0, 0, 0, 0)
    assert {clip.video_version for clip in read_clips(db)} == {"mtime:1.000000000"}
    assert not pending_clips(db)

    shutil.copy(rendered / "video2.mp4", video)
    assert renew_changed_videos(db, "start_s < 0.5") == AddResult(0, 0, 0, 0)  # another run may have the other clip
    summary = run(db, RunConfig(resources=Resources(num_actors=1)), quiet=True)
    assert (summary.changed_videos, summary.redone, summary.num_clips) == (1, 2, 2)
    assert text.run(summary, "DB").startswith("changed videos 1: 2 rows and rejects of their old files were removed")
    after = db.clips(["clip_id", "video_digest", "thumbnail"]).to_pylist()
    assert sorted(row["clip_id"] for row in after) == sorted(row["clip_id"] for row in before)
    for name in ("video_digest", "thumbnail"):
        assert not {row[name] for row in after} & {row[name] for row in before}


def test_nothing_is_drawn_on_another_file_and_ingest_says_what_it_does(tmp_path, rendered, caplog):
    video = tmp_path / "v.mp4"
    shutil.copy(rendered / "video1.mp4", video)
    db = finished(tmp_path, Settings())
    clip_id = read_clips(db)[0].clip_id
    assert show(db, clip_id, tmp_path / "before.png") == "video"
    shutil.copy(rendered / "video2.mp4", video)
    with caplog.at_level(logging.WARNING):
        assert show(db, clip_id, tmp_path / "after.png") == "frame_jpeg"
    assert "is another file than the one ingested" in caplog.text
    assert "ingest again, and run: its row is then made anew" in caplog.text
    done = human.folder(db, str(tmp_path), dataset="test", clip_seconds=2.0)
    assert (done.added, done.changed_videos, done.dropped, done.redone) == (1, 1, 2, 2)
    assert "changed videos 1: 2 rows" in text.ingest(done)
    assert "2 clips are no longer in the list" in text.ingest(done)
    assert [clip.end_s for clip in pending_clips(db)] == [2.0]


def test_without_stored_frames_nothing_is_drawn(tmp_path, rendered):
    video = tmp_path / "v.mp4"
    shutil.copy(rendered / "video1.mp4", video)
    db = finished(tmp_path, Settings(frames=FramesConfig(store=False)), 1)
    shutil.copy(rendered / "video2.mp4", video)
    with pytest.raises(ConfigError, match="another file than the one ingested") as caught:
        show(db, read_clips(db)[0].clip_id, tmp_path / "after.png")
    assert "ingest the video again" in caught.value.hint
