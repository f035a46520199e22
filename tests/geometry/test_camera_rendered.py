"""From images to a camera path: rendered clips, whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.geometry.camera.path import estimate_path
from handloom.models.corner_tracks import CornerTracks
from handloom.schemas.values import Camera, HandPoints, Hands, VideoInfo
from handloom.synth.render.render import render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.video.decode.frame_store import FrameStore


def with_hands(visible, keypoints_px, keypoints_cam_m) -> tuple[HandPoints, Hands]:
    px = np.where(visible[..., None, None], keypoints_px, np.nan).astype(np.float32)
    metres = np.where(visible[..., None, None], keypoints_cam_m, np.nan).astype(np.float32)
    sure = np.where(visible, np.float32(1), np.float32(np.nan))
    shown = (visible, np.zeros_like(visible), sure, px)
    return HandPoints(*shown, metres, "ego"), Hands(*shown, metres, 0.01 * sure, "ego")


def errors(found, poses):
    """Largest turn error in degrees, place error in metres (RMS) in the unit found, and the scale's error."""
    known = np.isfinite(found).all(axis=(1, 2))
    first = np.flatnonzero(known)[0]
    truth = np.linalg.inv(poses[first]) @ poses[known]
    found = found[known]
    turn = Rotation.from_matrix(found[:, :3, :3]).inv() * Rotation.from_matrix(truth[:, :3, :3])
    a, b = found[:, :3, 3], truth[:, :3, 3]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = (a * b).sum() / max((a * a).sum(), 1e-12)
    place_m = np.sqrt((np.linalg.norm(scale * a - b, axis=1) ** 2).mean())
    return np.degrees(turn.magnitude()).max(), place_m, scale


def rendered(**change):
    spec = SceneSpec("lift", seed=27, duration_s=1.6, fps=15.0, table="cloth", width=400, height=300, **change)
    clip = render_clip(spec)
    frames = FrameStore(clip.truth.frame_s)
    for image in clip.images():
        frames.append(image[None])
    info = VideoInfo(spec.width, spec.height, spec.fps, "h264", "yuv420p", 0, 0.0, spec.duration_s, spec.num_frames)
    truth = clip.truth
    points, hands = with_hands(truth.hand_visible, truth.keypoints_px, truth.keypoints_cam_m)
    corners = CornerTracks().track(info, frames, points)
    camera = Camera(truth.camera_matrix, "given")
    return estimate_path(corners, hands, camera, truth.frame_s, info), truth.world_from_camera


def test_a_moving_head_over_a_table_in_metres():
    result, poses = rendered(camera_motion=1.5)
    assert (result.path.source, result.path.scale, result.path.reason) == ("estimated", "metric", "")
    turn_deg, place_m, scale = errors(result.path.world_from_camera, poses)
    assert turn_deg < 0.3
    assert place_m < 0.003
    assert scale == pytest.approx(1, abs=0.1)


def test_a_head_that_only_turns():
    result, poses = rendered(camera_path="turn")
    assert result.path.reason == "pure_rotation"
    assert errors(result.path.world_from_camera, poses)[0] < 0.3
