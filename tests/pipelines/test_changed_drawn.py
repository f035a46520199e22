"""What is drawn on: nothing old on a video that was replaced under its name, and no face of a row whose are blurred."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.extraction import LIGHT, rows_of
from support.people import scene

from handloom.api import Database
from handloom.cli import text
from handloom.errors import ConfigError
from handloom.models.faces import FaceFinder
from handloom.pipelines.ingest import human
from handloom.pipelines.show import blurred, show
from handloom.schemas.settings import FramesConfig, Settings
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.video.write import write_video


def finished(folder: Path, *settings: Settings, clip_seconds: float = 1.0) -> Database:
    """A database of the one video in `folder`, with a row of its first clip, its second, ... for each settings."""
    db = Database.open(folder / "db", create=True)
    human.folder(db, str(folder), dataset="test", clip_seconds=clip_seconds)
    schema = stage_graph(settings[0]).schema()
    made = (list(rows_of([clip], own)) for clip, own in zip(read_clips(db), settings, strict=False))
    committer = Committer(db, settings[0].run_key(model_versions(settings[0])), schema)
    committer.commit([write_fragment(db.uri, rows, schema) for rows in made])
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


def drawn(path: Path) -> list[np.ndarray]:
    video, images = cv2.VideoCapture(str(path)), []
    while (frame := video.read())[0]:
        images.append(frame[1][..., ::-1])
    return images


def test_no_face_is_drawn_of_a_row_whose_are_blurred(tmp_path, cli):
    num_frames = 19
    write_video(tmp_path / "v.mp4", [scene()] * num_frames, np.arange(num_frames) / 15)
    kinds = [{}, {"blur_faces": True}, {"blur_faces": True, "store": False}]
    few = {"tracks": {"grid": 2, "extra": 0}}  # a grid of points over a face would hide it, too
    db = finished(tmp_path, *(Settings(**few, frames=FramesConfig(**kind)) for kind in kinds), clip_seconds=0.4)
    find = FaceFinder()
    for clip, origin, num_faces in zip(read_clips(db), ("video", "frame_jpeg", "video"), (1, 0, 0), strict=True):
        assert show(db, clip.clip_id, tmp_path / "out.mp4") == origin
        images = drawn(tmp_path / "out.mp4")
        assert len(images) >= 6
        assert {len(find(image)) for image in images} == {num_faces}
    code, out, err = cli("show", clip.clip_id, "--db", db.uri)
    assert (code, out.startswith("actions: not known")) == (0, True), err
    code, out, err = cli("show", clip.clip_id, "--db", db.uri, "--out", tmp_path / "a.png", "--json")
    assert (json.loads(out)["segments"], json.loads(out)["out"]) == (None, str(tmp_path / "a.png")), err


def test_a_face_that_is_not_found_again_stops_the_drawing():
    frames = [(0.1 * t, scene()) for t in range(5)]
    assert len(list(blurred(iter(frames), {"clip_id": "c", "faces_blurred": [1] * 5}))) == 5
    with pytest.raises(ConfigError, match=r"clip c, 0\.30 s: 1 face found, 2 blurred") as caught:
        list(blurred(iter(frames), {"clip_id": "c", "faces_blurred": [1, 1, 1, 2, 1]}))
    assert "--recompute frames" in caught.value.hint
