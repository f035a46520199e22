"""A video that is replaced under its name: its clips are done again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from support.extraction import LIGHT, rows_of
from support.in_process import HERE

from handloom.api import Database
from handloom.cli import text
from handloom.pipelines.ingest import human
from handloom.pipelines.run.changed_videos import renew_changed_videos
from handloom.pipelines.run.run import run
from handloom.schemas.settings import Resources, RunConfig, Settings
from handloom.schemas.tables.reject import Reject
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_labels import words_behind
from handloom.store.clips.clip_list import AddResult, add_clips, pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment


def finished(folder: Path) -> Database:
    """A database in which the first of two clips of the one video in `folder` has a row, the other a reject."""
    db, settings = Database.open(folder / "db", create=True), Settings(**LIGHT)
    human.folder(db, str(folder), dataset="test", clip_seconds=1.0)
    first, second = read_clips(db)
    schema = stage_graph(settings).schema()
    committer = Committer(db, settings.run_key(model_versions(settings)), schema)
    record = write_fragment(db.uri, list(rows_of([first], settings)), schema)
    committer.commit([record], [Reject(second.clip_id, "hands", "hung", "it stood still")])
    return db


def say(db: Database, narration: str) -> None:
    """Changes the list alone."""
    add_clips(db, [replace(clip, narration=narration) for clip in read_clips(db)])


def test_a_run_does_the_clips_of_a_replaced_video_again(tmp_path, rendered, ray_address):
    video = tmp_path / "v.mp4"
    shutil.copy(rendered / "video1.mp4", video)
    db = finished(tmp_path)
    before = db.clips(["clip_id", "video_digest", "thumbnail"]).to_pylist()
    os.utime(video, (1, 1))
    assert renew_changed_videos(db) == AddResult(0, 0, 0, 0)
    assert {clip.video_version for clip in read_clips(db)} == {"mtime:1.000000000"}
    assert not pending_clips(db)

    shutil.copy(rendered / "video2.mp4", video)
    assert renew_changed_videos(db, "start_s < 0.5") == AddResult(0, 0, 0, 0)  # another run may have the other clip
    config = RunConfig(**LIGHT, resources=Resources(num_actors=1))
    summary = run(db, config, quiet=True, watch=lambda _: say(db, "said while the run worked"), parts=HERE)
    assert (summary.changed_videos, summary.redone, summary.num_clips) == (1, 2, 2)
    assert text.run(summary, "DB").startswith("changed videos 1: 2 rows and rejects of their old files were removed")
    after = db.clips(["clip_id", "video_digest", "thumbnail"]).to_pylist()
    assert sorted(row["clip_id"] for row in after) == sorted(clip.clip_id for clip in read_clips(db))
    for name in ("video_digest", "thumbnail"):
        assert not {row[name] for row in after} & {row[name] for row in before}
    assert set(db.clips(["narration"]).column("narration").to_pylist()) == {"said while the run worked"}
    say(db, "said by an ingest that was killed before the rows had it")
    assert run(db, config, quiet=True, parts=HERE).num_clips == 0
    assert not words_behind(db).clip_ids
