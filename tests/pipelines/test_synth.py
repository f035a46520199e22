"""`handloom synth`: the same seed gives the same files, which the other commands can read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from handloom.errors import ConfigError
from handloom.ingest.camera.file import read_camera_file
from handloom.ingest.human.folder import ingest_folder
from handloom.pipelines.synth import synth
from handloom.schemas.values import VideoInfo
from handloom.synth.truth import Truth

SMALL = {"width": 96, "height": 72, "fps": 5.0, "duration_s": 0.6, "distorted_share": 0.5}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_files_whatever_the_number_of_processes(tmp_path):
    said: list[str] = []
    summary = synth(tmp_path / "a", 3, seed=3, workers=2, say=said.append, **SMALL)
    synth(tmp_path / "b", 3, seed=3, workers=1, **SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(said) == len(summary.names) == 3
    assert summary.num_frames == 9
    assert summary.frames_per_s > 0
    with (tmp_path / "a" / "clips.csv").open() as file:
        lines = list(csv.DictReader(file))
    scenes = json.loads((tmp_path / "a" / "clips.json").read_text())
    for name, line, scene in zip(summary.names, lines, scenes, strict=True):
        assert (tmp_path / "a" / line["video"]).stem == name == scene["video_id"]
        truth = Truth.load(tmp_path / "a" / f"{name}.truth.npz")
        assert truth.depth_m.shape == (3, 72, 96)
        assert [span.verb for span in truth.actions] == [span["verb"] for span in scene["actions"]]
        assert truth.actions[-1].end_s == pytest.approx(scene["end_s"])
        given = read_camera_file(str(tmp_path / "a" / f"{name}.camera.json"))
        assert ("distortion" in given.content) == bool(len(truth.distortion))
        assert given.frame_s == truth.frame_s.tolist()


def test_the_camera_can_be_withheld_and_bad_settings_are_refused(tmp_path):
    one = SMALL | {"workers": 1, "truth": False}
    (name,) = synth(tmp_path, 1, camera="intrinsics", **one).names
    assert read_camera_file(str(tmp_path / f"{name}.camera.json")).frame_s == []
    assert not (tmp_path / f"{name}.truth.npz").exists()
    result = ingest_folder(str(tmp_path), probe=lambda uri: VideoInfo(96, 72, 5.0, "h264", "yuv420p", 0, 0.0, 0.6, 3))
    assert [(clip.verb, clip.narration[:9], clip.video_id) for clip in result.clips] == [("reach", "reach for", name)]
    assert not result.problems
    for wrong in ({"camera": "half"}, {"width": 97}, {"num_clips": 0}, {"distorted_share": 2.0}, {"workers": 0}):
        with pytest.raises(ConfigError):
            synth(tmp_path, **({"num_clips": 1} | one | wrong))
