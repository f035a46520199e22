"""Scores of the virtual camera's shots, on made tracks and poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handloom.bench.accuracy.virtual import (
    WITH,
    WITHOUT,
    ShotScores,
    _camera,
    _camera_text,
    _clip,
    goals_of,
    markdown,
    results_of,
    track_scores,
)
from handloom.bench.truth.virtual.camera import VirtualClip
from handloom.bench.truth.virtual.shots import SHOTS, make_clips, still
from handloom.geometry.camera.intrinsics import camera_for
from handloom.schemas.settings import Settings
from handloom.schemas.values import CameraPath, Tracks, VideoInfo

SIZE = (128, 96)


@pytest.fixture(scope="module")
def clip() -> VirtualClip:
    """A camera that moves before a wall."""
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    shot = next(shot for shot in SHOTS if shot.name == "wall")
    return make_clips([still("grain", image)], [shot], SIZE, seconds=1.0, hz=8.0)[0]


def exact(clip: VirtualClip) -> Tracks:
    x, y = np.meshgrid(np.linspace(6, 121, 10), np.linspace(6, 89, 8))
    query = np.stack([x, y], axis=-1).reshape(-1, 2)
    truth = clip.follow(query, np.zeros(80, int))
    return Tracks.of_grid(truth.px.astype(np.float32), truth.visible)


def test_exact_tracks_are_perfect_and_noisy_ones_lie_within_their_sigma(clip: VirtualClip):
    tracks = exact(clip)
    scores, sigma = track_scores(tracks, clip)
    assert scores["aj"] == pytest.approx(1.0)
    assert scores["survival"] == 1.0
    assert sigma == {}
    rng = np.random.default_rng(1)
    noisy = (tracks.points_px + rng.normal(0, 0.5, tracks.points_px.shape)).astype(np.float32)
    noisy[0] = tracks.points_px[0]
    size = np.where(tracks.visible, 0.5, np.nan).astype(np.float32)
    size[0] = 0
    _, sigma = track_scores(replace(tracks, points_px=noisy, sigma_px=size), clip)
    assert sigma["within_1_sigma"][0] / sigma["within_1_sigma"][1] == pytest.approx(0.683, abs=0.06)
    assert sigma["within_2_sigma"][0] / sigma["within_2_sigma"][1] == pytest.approx(0.954, abs=0.04)


def test_points_given_up_do_not_survive(clip: VirtualClip):
    tracks = exact(clip)
    visible = tracks.visible.copy()
    visible[-1, ::2] = False
    scores, _ = track_scores(replace(tracks, visible=visible), clip)
    assert scores["survival"] == pytest.approx(0.5, abs=0.1)


def test_camera_errors_are_shares_of_the_way_and_of_the_focal_length(clip: VirtualClip):
    info = VideoInfo(*SIZE, 8.0, "raw", "rgb24", 0, 0.0, 1.0, 8)
    camera = camera_for(_clip(clip, _camera_text(clip)), info, Settings().camera)
    np.testing.assert_allclose(camera.camera_matrix, clip.cameras[0].camera_matrix)
    poses = clip.world_from_camera.copy()
    poses[:, :3, 3] *= 3.0

    class Found:
        path = CameraPath(poses, "arbitrary", "estimated")

    Found.camera = replace(camera, camera_matrix=camera.camera_matrix * [[1.1], [1.1], [1.0]])
    numbers = _camera(Found, clip)
    assert numbers["rotation_deg"] == pytest.approx(0.0, abs=1e-5)
    assert numbers["path_share"] == pytest.approx(0.0, abs=1e-9)
    assert numbers["focal_error"] == pytest.approx(0.1)
    Found.path = CameraPath(None, "none", "none", "high_error")
    lost = _camera(Found, clip)
    assert lost["has_path"] == 0
    assert np.isnan(lost["rotation_deg"])


def test_shots_are_pooled_and_told():
    camera = {"has_path": 1.0, "rotation_deg": 0.2, "path_share": np.nan, "focal_error": 0.1}
    moved = camera | {"path_share": 0.01, "rotation_deg": 0.6}
    shots = [
        ShotScores(
            "pan:a", {"aj": 0.9, "survival": 1.0}, {"within_1_sigma": (6.0, 10.0)}, {WITH: camera, WITHOUT: camera}
        ),
        ShotScores("zoom:b", {"aj": 0.7, "survival": 0.5}, {}, {WITHOUT: moved}),
    ]
    results = results_of(shots)
    assert results["tracks"]["aj"] == pytest.approx(0.8)
    assert results[WITHOUT]["rotation_deg"] == pytest.approx(0.4)
    assert results["sigma"] == {"within_1_sigma": 0.6}
    goals = {goal["name"].removeprefix("virtual camera over real images: "): goal for goal in goals_of(results)}
    assert goals["tracks, AJ in the image"]["value"] == 0.8
    assert goals["rotation, intrinsics given"]["met"]
    assert not goals["rotation, no intrinsics"]["met"]
    text = markdown(results)
    assert "| zoom:b | 0.700 | 0.50 | - | - | - | 0.60 | - | 0.010 | 0.100 |" in text
    assert "nan" not in text
