"""A video that is replaced under its name: nothing old is drawn on it, and ingest says what a run will do."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from support.extraction import LIGHT, rows_of

from handloom.api import Database
from handloom.cli import text
from handloom.errors import ConfigError
from handloom.pipelines.ingest import human
from handloom.pipelines.show import show
from handloom.schemas.settings import FramesConfig, Settings
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment


def finished(folder: Path, settings: Settings) -> Database:
    """A database with a row of the first of two clips of the one video in `folder`."""
    db = Database.open(folder / "db", create=True)
    human.folder(db, str(folder), dataset="test", clip_seconds=1.0)
    schema = stage_graph(settings).schema()
    committer = Committer(db, settings.run_key(model_versions(settings)), schema)
    committer.commit([write_fragment(db.uri, list(rows_of(read_clips(db)[:1], settings)), schema)])
    return db


def test_nothing_is_drawn_on_another_file_and_ingest_says_what_it_does(tmp_path, rendered, caplog):
    video = tmp_path / "v.mp4"
    shutil.copy(rendered / "video1.mp4", video)
    db = finished(tmp_path, Settings(**LIGHT))
    clip_id = read_clips(db)[0].clip_id
    assert show(db, clip_id, tmp_path / "before.png") == "video"
    shutil.copy(rendered / "video2.mp4", video)
    with caplog.at_level(logging.WARNING):
        assert show(db, clip_id, tmp_path / "after.png") == "frame_jpeg"
    assert "is another file than the one ingested" in caplog.text
    assert "ingest again, and run: its row is then made anew" in caplog.text
    done = human.folder(db, str(tmp_path), dataset="test", clip_seconds=2.0)
    assert (done.added, done.changed_videos, done.dropped, done.redone) == (1, 1, 2, 1)
    assert "changed videos 1: 1 row" in text.ingest(done)
    assert "2 clips are no longer in the list" in text.ingest(done)
    assert [clip.end_s for clip in pending_clips(db)] == [2.0]


def test_without_stored_frames_nothing_is_drawn(tmp_path, rendered):
    video = tmp_path / "v.mp4"
    shutil.copy(rendered / "video1.mp4", video)
    db = finished(tmp_path, Settings(**LIGHT, frames=FramesConfig(store=False)))
    shutil.copy(rendered / "video2.mp4", video)
    with pytest.raises(ConfigError, match="another file than the one ingested") as caught:
        show(db, read_clips(db)[0].clip_id, tmp_path / "after.png")
    assert "ingest the video again" in caught.value.hint
