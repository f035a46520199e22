"""Folders: every file is counted, every video is a clip or more, and ids stay when the folder moves."""

import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.ingest.human.folder import ingest_folder
from handloom.schemas.values import VideoInfo
from handloom.video.decode.probe import Prober
from handloom.video.fetch.video_source import VideoSource

RATE_HZ = 10


def write_video(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=RATE_HZ)
        stream.width = stream.height = 32
        for i in range(round(seconds * RATE_HZ)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i % 255, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    with Prober(VideoSource(str(tmp_path_factory.mktemp("cache")))) as prober:
        yield prober


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recorded")
    write_video(root / "kitchen" / "day 1.MP4", 5.0)
    write_video(root / "short.mp4", 0.6)
    (root / "broken.mov").write_bytes(b"not a video" * 100)
    (root / "notes.txt").write_text("x")
    (root / "._short.mp4").write_bytes(b"resource fork")
    (root / "link.mp4").symlink_to("nowhere.mp4")
    (root / "kitchen" / "again").symlink_to("..")
    return root


def given_length(seconds: float, start_s: float = 0.0):
    return lambda uri: VideoInfo(32, 32, 10.0, "mpeg4", "yuv420p", 0, start_s, start_s + seconds, 1)


def test_every_file_is_a_clip_or_a_count(recorded, probe):
    result = ingest_folder(str(recorded), probe=probe, clip_seconds=2.0, view="ego", licence="CC0")
    assert [clip.clip_id for clip in result.clips] == [
        "folder:broken:0-end",
        "folder:kitchen~day%201:0-2000",
        "folder:kitchen~day%201:2000-4000",
        "folder:kitchen~day%201:4000-5000",
        "folder:link:0-end",
        "folder:short:0-600",
    ]
    counts = result.counts
    assert counts["entries"] == 5 == counts["videos"] + counts["skipped_not_video"] + counts["camera_files"]
    assert (counts["unreadable"], counts["hidden"]) == (2, 1)
    assert [p.split(":")[:2] for p in result.problems] == [
        ["broken.mov", " video_unreadable"],
        ["link.mp4", " video_missing"],
    ]
    assert {(clip.view, clip.licence) for clip in result.clips} == {("ego", "CC0")}


def test_ids_stay_when_the_folder_moves(recorded, probe, tmp_path):
    moved = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(recorded, moved, symlinks=True)
    here, there = (ingest_folder(str(d), probe=probe, clip_seconds=2.0) for d in (recorded, moved))
    assert [c.clip_id for c in here.clips] == [c.clip_id for c in there.clips]
    assert all(clip.video_uri.startswith(str(moved)) for clip in there.clips)


def test_pieces_lie_on_the_clock_of_the_container(tmp_path):
    (tmp_path / "a.mp4").touch()
    result = ingest_folder(str(tmp_path), probe=given_length(12.0, start_s=5.0), clip_seconds=10.0)
    assert [(clip.start_s, clip.end_s) for clip in result.clips] == [(5.0, 15.0), (15.0, 17.0)]


@pytest.mark.parametrize("length_s", [float("nan"), -1.0, 0.0, 1e12])
def test_an_impossible_length_gives_one_clip(tmp_path, length_s):
    (tmp_path / "a.mp4").touch()
    result = ingest_folder(str(tmp_path), probe=given_length(length_s), clip_seconds=1.0)
    assert [clip.clip_id for clip in result.clips] == ["folder:a:0-end"]
    assert len(result.problems) == 1


def test_progress_reaches_the_total(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    seen = []
    ingest_folder(str(tmp_path), probe=given_length(1.0), progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (1, 3)
    assert seen[-1] == (3, 3)


def test_a_folder_without_videos_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no video: 0 files"):
        ingest_folder(str(tmp_path), probe=given_length(1.0))
    with pytest.raises(ConfigError, match="does not exist, expected a folder"):
        ingest_folder(str(tmp_path / "none"), probe=given_length(1.0))
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        ingest_folder(str(tmp_path / "a.mp4"), probe=given_length(1.0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "locked").mkdir(mode=0)
    assert "locked" in ingest_folder(str(tmp_path), probe=given_length(1.0)).problems[0]
    with pytest.raises(ConfigError, match="cannot be listed: Permission denied"):
        ingest_folder(str(tmp_path / "locked"), probe=given_length(1.0))


def test_odd_files_are_named_not_opened(tmp_path):
    (tmp_path / "a.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    with open(os.fsencode(tmp_path) + b"/\xff.mp4", "wb"):
        pass
    result = ingest_folder(str(tmp_path), probe=given_length(1.0))
    assert [clip.video_id for clip in result.clips] == ["a"]
    assert ["not UTF-8" in p or "no regular file" in p for p in result.problems] == [True, True]
    assert (result.counts["entries"], result.counts["bad"], result.counts["videos"]) == (3, 2, 1)


CAMERA = {"camera_matrix": [20, 0, 15.5, 0, 20, 15.5, 0, 0, 1]}
IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def poses(times):
    return [{"frame_s": t, "matrix": IDENTITY} for t in times]


def test_a_clip_carries_the_poses_of_its_own_time(tmp_path):
    (tmp_path / "a.mp4").touch()
    content = CAMERA | {"world_from_camera": poses(range(12)), "world_scale": "metric"}
    (tmp_path / "a.camera.json").write_text(json.dumps(content))
    result = ingest_folder(str(tmp_path), probe=given_length(10.0), clip_seconds=5.0)
    cameras = [json.loads(clip.camera) for clip in result.clips]
    assert [[p["frame_s"] for p in c["world_from_camera"]] for c in cameras] == [
        [0, 1, 2, 3, 4, 5],
        [5, 6, 7, 8, 9, 10],
    ]
    assert all(c["camera_matrix"] == CAMERA["camera_matrix"] and c["world_scale"] == "metric" for c in cameras)
    assert result.counts["cameras"] == 1


def test_a_camera_file_without_its_video_is_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.camera.json").write_text(json.dumps(CAMERA))
    result = ingest_folder(str(tmp_path), probe=given_length(1.0))
    assert result.problems == ["b.camera.json: there is no video b.* beside it; not used"]


def test_one_bad_camera_file_costs_its_own_video(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
        (tmp_path / f"{name}.camera.json").write_text(json.dumps(CAMERA if name != "b" else [1]))
    result = ingest_folder(str(tmp_path), probe=given_length(1.0))
    assert [clip.video_id for clip in result.clips] == ["a", "c"]
    (problem,) = result.problems
    assert "b.camera.json: the top level is [1], expected" in problem
    assert problem.endswith("; the video beside it is left out; clips that the list has of it stay")
    counts = result.counts
    assert (counts["cameras"], counts["bad_cameras"], result.num_left_out) == (2, 1, 1)
    assert counts["entries"] == 6 == counts["videos"] + counts["camera_files"]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ([], "the top level"),
        ({}, "camera_matrix"),
        ({"camera_matrix": [1, 2, 3]}, "camera_matrix"),
        ({"camera_matrix": [500, 0, 320, 0, float("nan"), 240, 0, 0, 1]}, "camera_matrix"),
        ({"camera_matrix": [500, 0, 0, 0, 500, 0, 320, 240, 1]}, "camera_matrix"),  # column by column
        ({"camera_matrix": [0, 0, 320, 0, 500, 240, 0, 0, 1]}, "camera_matrix"),
        (CAMERA | {"intrinsics": 1}, "intrinsics"),
        (CAMERA | {"distortion": [0.1]}, "distortion"),
        (CAMERA | {"distortion": {"model": "", "params": []}}, "distortion.model"),
        (CAMERA | {"distortion": {"model": "opencv", "params": ["x"]}}, "distortion.params"),
        (CAMERA | {"world_scale": "mm"}, "world_scale"),
        ({"fov_deg": "wide"}, "fov_deg"),
        (CAMERA | {"fov_deg": 90}, "fov_deg"),
        (CAMERA | {"focal_sigma": 0}, "focal_sigma"),
        (CAMERA | {"preset": ["gopro"]}, "preset"),
        (CAMERA | {"world_from_camera": []}, "world_from_camera"),
        (CAMERA | {"world_from_camera": poses([1, 1])}, r"world_from_camera\[1\].frame_s"),
        (
            CAMERA | {"world_from_camera": [{"frame_s": 0, "matrix": [2.0, *IDENTITY[1:]]}]},
            r"world_from_camera\[0\].matrix",
        ),
    ],
)
def test_a_malformed_camera_file_names_its_key(tmp_path, content, key):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.camera.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"a\.camera\.json: {key} is .*, expected"):
        ingest_folder(str(tmp_path), probe=given_length(1.0))


def test_a_camera_file_that_is_no_json_names_the_line(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.camera.json").write_text('{"camera_matrix": [1,\n')
    with pytest.raises(ConfigError, match=r"no valid JSON: .* at line 2"):
        ingest_folder(str(tmp_path), probe=given_length(1.0))
