"""Clips with one fault: its flag and no other; and unknown numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handloom.geometry.camera.intrinsics import assumed_camera, project
from handloom.geometry.camera.world import to_camera
from handloom.geometry.cross_quality import FIELDS, cross_quality
from handloom.geometry.image_stats import ImageNumbers
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.tables.frame_flags import FrameFlag, flag_names
from handloom.schemas.values import (
    LEFT,
    RIGHT,
    CameraPath,
    HandDoubts,
    Hands,
    LiftedTracks,
    TrackKind,
    Tracks,
    VideoInfo,
)

NUM, FPS = 20, 15.0
INFO = VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, NUM / FPS, 40)
CAMERA = assumed_camera(640, 360, 70.0)
FRAME_S = np.arange(NUM) / FPS
AT = 9  # where something is wrong


class Scene:
    """A camera that walks past still points, two hands of constant shape that move, points on both of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        poses = np.tile(np.eye(4), (NUM, 1, 1))
        poses[:, 0, 3] = 5.0 + 0.3 * FRAME_S  # the world begins elsewhere
        shape = np.concatenate([np.zeros((1, 3)), rng.uniform(-0.07, 0.07, (20, 3)) * [1, 1, 0.2]])
        hands_world = np.zeros((NUM, 2, 21, 3))
        for hand, side in ((LEFT, -1), (RIGHT, 1)):
            middle = np.stack(
                [5.0 + 0.3 * FRAME_S + side * 0.15, 0.05 * np.sin(4 * FRAME_S), np.full(NUM, 0.6)], axis=-1
            )
            hands_world[:, hand] = middle[:, None] + shape
        still = np.concatenate([rng.uniform(-1, 1, (60, 2)) * [0.9, 0.35], rng.uniform(1.0, 1.6, (60, 1))], axis=1)
        still[:, 0] += 5.0
        on_hands = hands_world[:, :, 1:13].reshape(NUM, 24, 3)
        world = np.concatenate([np.broadcast_to(still, (NUM, 60, 3)), on_hands], axis=1)
        cam = to_camera(world, poses)
        kind = [TrackKind.GRID] * 60 + [TrackKind.LEFT_HAND] * 12 + [TrackKind.RIGHT_HAND] * 12
        query, shown = np.zeros(84, np.int32), np.ones((NUM, 84), bool)
        self.path = CameraPath(poses, "metric", "given", unit_m=1.0)
        self.tracks = Tracks(project(cam, CAMERA).astype(np.float32), shown, query, np.array(kind, np.int8))
        self.lifted = LiftedTracks(cam[..., 2].astype(np.float32), world.astype(np.float32))
        hands_cam = to_camera(hands_world, poses)
        self.hands = Hands(
            np.ones((NUM, 2), bool),
            np.zeros((NUM, 2), bool),
            np.full((NUM, 2), 0.9, np.float32),
            project(hands_cam, CAMERA).astype(np.float32),
            hands_cam.astype(np.float32),
            np.full((NUM, 2), 0.05, np.float32),
        )
        self.doubts = HandDoubts(np.zeros((NUM, 2), bool), np.zeros((NUM, 2), bool))
        flat = np.full(NUM, 0.0)
        self.images = ImageNumbers(flat + 300.0, flat + 0.5, flat + 0.01, np.zeros(NUM, bool))

    def judge(self):
        return cross_quality(
            self.hands, self.tracks, self.lifted, self.path, CAMERA, INFO, FRAME_S[: len(self.hands.visible)],
            self.images, doubts=self.doubts,
        )  # fmt: skip

    def cut(self, num: int) -> Scene:
        def short(value, *names):
            return replace(value, **{name: getattr(value, name)[:num] for name in names})

        self.hands = short(
            self.hands, "visible", "infilled", "confidence", "keypoints_px", "keypoints_cam_m", "sigma_m"
        )
        self.tracks = short(self.tracks, "points_px", "visible")
        self.lifted = short(self.lifted, "depth_m", "points_world_m")
        self.path = short(self.path, "world_from_camera")
        self.doubts = short(self.doubts, "side_unsure", "unsupported")
        self.images = short(self.images, "sharpness", "brightness", "white_share", "repeat")
        return self


def names_by_frame(flags: np.ndarray) -> dict[int, set[str]]:
    return {int(t): set(flag_names(int(flags[t]))) for t in np.flatnonzero(flags)}


def test_a_perfect_clip_has_no_flag():
    numbers, flags = Scene().judge()
    assert flags.dtype == np.int32
    assert flags.shape == (NUM,)
    assert not flags.any()
    assert list(numbers) == list(FIELDS)
    assert set(FIELDS) <= set(QUALITY_FIELDS)
    assert numbers["hand_bone_cv"] < 1e-4
    assert numbers["hand_sigma_mm"] == pytest.approx(50)
    assert numbers["camera_residual_px"] < 0.01
    assert numbers["hand_track_residual_px"] < 1.0
    nod_m = np.abs(np.diff(0.05 * np.sin(4 * FRAME_S), 2))
    assert numbers["hand_jitter_mm"] == pytest.approx(1000 * np.median(nod_m), rel=1e-2)
    assert 0.3 <= numbers["hand_max_speed_m_s"] < 0.4
    assert numbers["share_flagged"] == 0


def blurred(s):
    s.images.sharpness[AT] *= 0.2


def dark(s):
    s.images.brightness[AT] = 0.02


def saturated(s):
    s.images.white_share[AT] = 0.6


def duplicate(s):
    s.images.repeat[AT] = True


def no_hands(s):
    hide(s.hands, AT, [LEFT, RIGHT])


def infilled(s):
    s.hands.infilled[AT, LEFT] = True


def low_confidence(s):
    s.hands.confidence[AT, RIGHT] = 0.1


def distance_unknown(s):
    s.hands.sigma_m[AT, LEFT] = 0.4


def jump(s):
    s.hands.keypoints_cam_m[AT, RIGHT, :, 2] += 0.6  # along the line of sight: only in 3D


def off_tracks(s):
    s.hands.keypoints_px[AT, RIGHT] += 40.0  # the image's keypoints leave the hand


def side_unsure(s):
    s.doubts.side_unsure[AT, LEFT] = True


def unsupported(s):
    s.doubts.unsupported[AT, RIGHT] = True


def overlap(s):
    s.hands.keypoints_px[:, RIGHT] = s.hands.keypoints_px[:, LEFT] + 2.0


def few_tracks(s):
    """A third of the grid or less in every step; the points on hands at once."""
    for t, kept in zip(range(AT - 4, AT + 1), (41, 28, 19, 13, 9), strict=True):
        unseen(s, t, slice(kept, 60 if t < AT else None))


def tracks_lost(s):
    unseen(s, AT, slice(10, 60))


def unseen(s, t, points):
    s.tracks.visible[t, points] = False
    s.lifted.depth_m[t, points] = np.nan
    s.lifted.points_world_m[t, points] = np.nan


def no_pose(s):
    s.path.world_from_camera[AT] = np.nan


def bad_pose(s):
    angle = np.radians(3.0)
    s.path.world_from_camera[AT, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    s.path.world_from_camera[AT, 0, 3] += 0.05
    s.lifted.points_world_m[AT, :60] += 0.05


def hide(hands: Hands, t: int, which: list[int]) -> None:
    hands.visible[t, which] = False
    for array in (hands.confidence, hands.keypoints_px, hands.keypoints_cam_m, hands.sigma_m):
        array[t, which] = np.nan


ONE = {AT}
BESIDE = {AT - 1, AT, AT + 1}


@pytest.mark.parametrize(
    ("wrong", "name", "frames"),
    [
        (blurred, "BLURRED", ONE),
        (dark, "DARK", ONE),
        (saturated, "SATURATED", ONE),
        (duplicate, "DUPLICATE", ONE),
        (no_hands, "NO_HANDS", ONE),
        (infilled, "HAND_INFILLED_LEFT", ONE),
        (low_confidence, "HAND_UNSURE_RIGHT", ONE),
        (distance_unknown, "HAND_UNSURE_LEFT", ONE),
        (jump, "HAND_JUMP_RIGHT", BESIDE),
        (off_tracks, "HAND_OFF_TRACKS_RIGHT", BESIDE),
        (side_unsure, "HAND_SIDE_UNSURE_LEFT", ONE),
        (unsupported, "HAND_UNSUPPORTED_RIGHT", ONE),
        (overlap, "HANDS_OVERLAP", set(range(NUM))),
        (few_tracks, "FEW_TRACKS", ONE),
        (tracks_lost, "TRACKS_LOST", ONE),
        (no_pose, "NO_POSE", ONE),
        (bad_pose, "CAMERA_RESIDUAL", ONE),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_thing_wrong_sets_its_flag_and_no_other(wrong, name, frames):
    scene = Scene()
    wrong(scene)
    numbers, flags = scene.judge()
    assert names_by_frame(flags) == {t: {name} for t in frames}
    assert numbers["share_flagged"] == (0 if name in ("NO_HANDS", "NO_POSE") else len(frames) / NUM)


def test_without_hands_path_and_lift_most_is_unknown():
    scene = Scene()
    for t in range(NUM):
        hide(scene.hands, t, [LEFT, RIGHT])
    scene.hands = replace(scene.hands, sigma_m=None)
    scene.path, scene.lifted = CameraPath(None, "none", "none", "not_given"), None
    numbers, flags = scene.judge()
    assert {name for name, value in numbers.items() if value is not None} == {"share_flagged"}
    assert set(flags.tolist()) == {int(FrameFlag.NO_HANDS | FrameFlag.NO_POSE)}


def test_a_hand_that_was_not_lifted_and_tracks_that_were_lost_break_nothing():
    scene = Scene()
    scene.hands.keypoints_cam_m[5:, LEFT] = np.nan
    scene.tracks.visible[:] = False
    scene.tracks.points_px[:] = np.nan
    scene.lifted.depth_m[:] = scene.lifted.points_world_m[:] = np.nan
    numbers, flags = scene.judge()
    assert numbers["hand_track_residual_px"] is None
    assert numbers["camera_residual_px"] is None
    assert names_by_frame(flags) == {t: {"FEW_TRACKS"} for t in range(NUM)}


@pytest.mark.parametrize("num", [0, 1, 2])
def test_very_short_clips(num):
    numbers, flags = Scene().cut(num).judge()
    assert flags.shape == (num,)
    assert not flags.any()
    assert numbers["hand_jitter_mm"] is None
    assert numbers["hand_bone_cv"] is None
    assert (numbers["hand_max_speed_m_s"] is None) == (num < 2)
    assert (numbers["share_flagged"] is None) == (num == 0)


def test_bones_that_change_are_measured():
    scene = Scene()
    rng = np.random.default_rng(0)
    wrist = scene.hands.keypoints_cam_m[:, LEFT, :1]
    stretch = rng.normal(1, 0.1, (NUM, 1, 1)).astype(np.float32)
    scene.hands.keypoints_cam_m[:, LEFT] = wrist + (scene.hands.keypoints_cam_m[:, LEFT] - wrist) * stretch
    assert scene.judge()[0]["hand_bone_cv"] == pytest.approx(stretch.std() / stretch.mean(), rel=1e-3)


def test_frames_without_a_pose_do_not_hide_the_others():
    scene = Scene()
    scene.path.world_from_camera[8:] = np.nan
    scene.lifted.points_world_m[8:] = np.nan
    numbers, flags = scene.judge()
    assert numbers["camera_residual_px"] < 0.01
    assert names_by_frame(flags) == {t: {"NO_POSE"} for t in range(8, NUM)}


def test_an_interpolated_hand_is_not_compared_with_the_tracks():
    scene = Scene()
    scene.hands.infilled[AT, RIGHT] = True
    scene.hands.keypoints_px[AT, RIGHT] += 40.0
    assert names_by_frame(scene.judge()[1]) == {AT: {"HAND_INFILLED_RIGHT"}}
