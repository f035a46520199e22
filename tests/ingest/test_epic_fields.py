"""EPIC-Fields files become the clips' cameras: same rays, same places, at the right times."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.errors import ConfigError
from handloom.geometry.camera.given_path import given_path
from handloom.geometry.camera.intrinsics import parse_camera, project
from handloom.ingest.human.epic import ingest_epic
from handloom.ingest.human.epic_fields import frames_per_s, read_fields
from handloom.schemas.clip import Clip

HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,narration,verb,noun"
PARAMS = [250.0, 251.0, 229.0, 127.0, -0.05, 0.01, 0.001, -0.002]
CAMERA = {"id": 1, "model": "OPENCV", "width": 456, "height": 256, "params": PARAMS}


def pose(time):
    """Camera from world of a camera that turns and moves evenly: [qw qx qy qz tx ty tz], and its 4 x 4 inverse."""
    turn = Rotation.from_rotvec(np.array([0.3, 0.1, 0]) + np.multiply([0.2, -0.4, 0.1], time))
    centre = np.array([0.5 * time, -0.2, 1.0 * time])
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3], world_from_camera[:3, 3] = turn.as_matrix(), centre
    x, y, z, w = turn.inv().as_quat()
    return [w, x, y, z, *(-turn.inv().apply(centre))], world_from_camera


def write(folder, video_id="P01_11", frames=range(60, 301), **change):
    rate = frames_per_s(video_id)
    images = {f"frame_{n:010d}.jpg": pose(n / rate)[0] for n in frames}
    content = {"camera": CAMERA, "images": images, "points": [[0, 0, 1, 9, 9, 9]]} | change
    folder.mkdir(exist_ok=True)
    (folder / f"{video_id}.json").write_text(json.dumps(content))
    return str(folder / f"{video_id}.json")


def clip_of(text) -> Clip:
    return Clip("epic:P01_11:2000-3500", "epic", "P01_11", "v.mp4", 2.0, 3.5, camera=text)


@pytest.mark.parametrize("video_id", ["P01_11", "P01_111"])
def test_poses_come_back_at_any_time(tmp_path, video_id):
    text = read_fields(write(tmp_path / "f", video_id), video_id).text(2.0, 3.5)
    frame_s = np.arange(2.0, 3.5, 1 / 15)
    path = given_path(clip_of(text), frame_s)
    assert (path.scale, path.source) == ("arbitrary", "given")
    assert path.world_from_camera == pytest.approx(np.array([pose(s)[1] for s in frame_s]), abs=1e-5)
    assert len(text) < 30_000  # 1.5 s: the clip's own poses only, no more than 30 a second


def test_intrinsics_follow_the_video_size(tmp_path):
    """A point's share of the image is the same at 456 x 256 and in the video, distortion included."""
    camera = parse_camera(read_fields(write(tmp_path / "f"), "P01_11").text(2.0, 3.5), 1920, 1080)
    points = np.array([[0.3, -0.2, 1.0], [-0.6, 0.3, 1.2], [0.0, 0.0, 2.0]])
    small = np.array([[PARAMS[0], 0, PARAMS[2]], [0, PARAMS[1], PARAMS[3]], [0, 0, 1]])
    colmap_px = cv2.projectPoints(points, np.zeros(3), np.zeros(3), small, np.array(PARAMS[4:]))[0][:, 0]
    assert (project(points, camera) + 0.5) / [1920, 1080] == pytest.approx(colmap_px / [456, 256])
    assert camera.source == "given"


def test_gaps_between_registered_frames_stay(tmp_path):
    text = read_fields(write(tmp_path / "f", frames=[*range(120, 150), *range(200, 230)]), "P01_11").text(2.0, 3.9)
    frame_s = np.arange(2.0, 3.8, 0.05)
    known = np.isfinite(given_path(clip_of(text), frame_s).world_from_camera).all(axis=(1, 2))
    assert not known[(frame_s > 149 / 60 + 0.03) & (frame_s < 200 / 60 - 0.03)].any()
    assert known[frame_s <= 149 / 60].all()


def test_ingest_gives_clips_their_camera_and_counts_what_is_missing(tmp_path):
    write(tmp_path / "fields")
    (tmp_path / "videos").mkdir()
    rows = [
        f"{v}_{i},P01,{v},00:00:0{s}.00,00:00:0{s + 1}.00,take,take,cup"
        for i, (v, s) in enumerate([("P01_11", 2), ("P01_12", 1), ("P01_11", 3), ("P01_11", 8)])
    ]
    (tmp_path / "EPIC_100_train.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    result = ingest_epic(
        str(tmp_path / "EPIC_100_train.csv"), str(tmp_path / "videos"), fields=str(tmp_path / "fields")
    )
    assert (result.counts["cameras"], result.counts["cameras_missing"]) == (1, 1)
    with_camera = {clip.clip_id: clip.camera is not None for clip in result.clips}
    assert with_camera == {
        "epic:P01_11:2000-3000": True,
        "epic:P01_11:3000-4000": True,
        "epic:P01_11:8000-9000": True,
        "epic:P01_12:1000-2000": False,
    }
    late = next(clip for clip in result.clips if clip.start_s == 8.0)  # no frame is registered there
    assert given_path(late, np.arange(8, 9, 0.1)) is None
    assert parse_camera(late.camera, 1920, 1080).source == "given"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"camera": None}, "camera is null, expected an object with model, width, height and params"),
        ({"camera": {**CAMERA, "model": "FISHEYE"}}, 'camera.model is "FISHEYE", expected'),
        ({"camera": {**CAMERA, "params": PARAMS[:5]}}, "camera.params is .*expected 8"),
        ({"camera": {**CAMERA, "width": 0}}, "camera.width is 0"),
        ({"images": []}, "images is"),
        ({"images": {"frame_1.jpg": [1, 0, 0, 0]}}, r'images\["frame_1.jpg"\] is .*expected 7'),
        ({"images": {"one.jpg": [1, 0, 0, 0, 0, 0, 0]}}, "one.jpg"),
        ({"images": {"frame_1.jpg": [2, 0, 0, 0, 0, 0, 0]}}, "frame 1 is .*length 1"),
    ],
)
def test_malformed_files_are_named(tmp_path, change, says):
    path = write(tmp_path / "f", **change)
    with pytest.raises(ConfigError, match=says) as error:
        read_fields(path, "P01_11")
    assert path in error.value.problem


def test_a_folder_with_cameras_of_other_videos_is_an_error(tmp_path):
    (tmp_path / "fields").mkdir()
    (tmp_path / "fields" / "P09_99.json").write_text("{}")
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "narration_id,participant_id,video_id,start_timestamp,stop_timestamp\nP01_01_0,P01,P01_01,00:00:01.00,00:00:02.00"
    )
    with pytest.raises(ConfigError, match=r"has a camera of none of 1 videos\n.*P01_01.json"):
        ingest_epic(str(labels), str(tmp_path), fields=str(tmp_path / "fields"))


def test_a_folder_without_files_is_named(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "a.csv").write_text(HEADER + "\n")
    with pytest.raises(ConfigError, match="holds no JSON"):
        ingest_epic(str(tmp_path / "a.csv"), str(tmp_path / "videos"), fields=str(tmp_path / "videos"))
