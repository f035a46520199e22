"""The whole-clip fit on kinematic hands with known truth."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from handloom.geometry.camera.intrinsics import project, rays
from handloom.geometry.hands import model
from handloom.geometry.hands.fit import fit_hands
from handloom.geometry.hands.initial_pose import likeliest_path
from handloom.geometry.hands.solve import P, Problem, State, misfit, normal_equations
from handloom.geometry.metric.posterior import Posterior
from handloom.schemas.hand_topology import FINGER_BONES, MIDDLE_JOINTS
from handloom.schemas.values import Camera, HandPoints, Hands, VideoInfo

INFO = VideoInfo(1280, 720, 15.0, "h264", "yuv420p", 0, 0.0, 10.0, 150)
CAMERA = Camera(np.array([[700.0, 0, 639.5], [0, 700.0, 359.5], [0, 0, 1]]), "given")


def _turns(vectors: np.ndarray) -> np.ndarray:
    out = []
    for vector in vectors:
        angle = np.linalg.norm(vector)
        x, y, z = vector / angle
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        out.append(np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew)
    return np.array(out)


def _wave(rng: np.random.Generator, num: int, size: int, swing: float) -> np.ndarray:
    """(num, size): smooth, about one cycle in two seconds at 15 Hz."""
    at = np.arange(num)[:, None] / 15
    return swing * np.sin(2 * np.pi * rng.uniform(0.2, 0.6, size) * at + rng.uniform(0, 2 * np.pi, size))


def clip(
    seed: int = 0,
    num: int = 40,
    noise_px: float = 2.0,
    scale: float = 1.0,
    tilt: float = 0.65,
    seen: float = 1.0,
    away: float = 1.0,
):
    """HandPoints of two moving hands of one person, as a 2D model marks them, and the truth (T, 2, 21, 3)."""
    rng = np.random.default_rng(seed)
    truth, marked, metric = np.zeros((3, num, 2, 21, 3))
    shape = np.concatenate([rng.normal(0, 0.0015, 15), rng.normal(0, 0.03, 15), np.zeros(6)])
    for hand in range(2):
        angles = np.clip(model.ANGLE_REST + _wave(rng, num, 20, 0.2), model.ANGLE_LOW + 0.05, model.ANGLE_HIGH - 0.05)
        posed = model.pose(angles, shape, derivatives=False)
        # Back of the hand to the camera, fingers up and away from it: a tilt of `tilt` radians.
        base = np.stack([[1.0, 0, 0], [0, -np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), -np.cos(tilt)]], axis=1)
        turn = _turns(_wave(rng, num, 3, 0.2) + 1e-6) @ base
        place = away * np.array([0.13, 0.08, 0.45]) + _wave(rng, num, 3, 0.04)
        mirror = np.array([-1.0 if hand == 0 else 1.0, 1, 1])
        at = [np.einsum("nij,nkj->nki", turn, p) * scale + place[:, None] for p in (posed.points_m, posed.seen_m)]
        middle = at[0][:, MIDDLE_JOINTS].mean(axis=1, keepdims=True)
        truth[:, hand] = at[0] * mirror
        marked[:, hand] = (middle + seen * (at[1] - middle)) * mirror
        metric[:, hand] = (at[0] - at[0].mean(axis=1, keepdims=True)) * mirror
    px = project(marked, CAMERA) + rng.normal(0, noise_px, (*marked.shape[:3], 2))
    visible = np.ones((num, 2), bool)
    confidence = np.full((num, 2), 0.95, np.float32)
    points = HandPoints(visible, ~visible, confidence, px.astype(np.float32), metric.astype(np.float32), "ego")
    return points, truth, np.arange(num) / 15


def fit(points: HandPoints, frame_s: np.ndarray, camera: Camera = CAMERA, **options: float) -> Hands:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fit_hands(points, camera, INFO, frame_s, **{"keypoint_scale": 1.0, **options})


def keep(points: HandPoints, where: np.ndarray) -> HandPoints:
    """The same points seen only `where` (T, 2)."""
    return HandPoints(
        where,
        points.infilled & where,
        np.where(where, points.confidence, np.nan).astype(np.float32),
        np.where(where[..., None, None], points.keypoints_px, np.nan),
        np.where(where[..., None, None], points.model_m, np.nan),
        points.view,
    )


def root_relative_mm(hands: Hands, truth: np.ndarray) -> float:
    lifted = hands.keypoints_cam_m
    error = (lifted - lifted[:, :, :1]) - (truth - truth[:, :, :1])
    return 1e3 * float(np.nanmean(np.linalg.norm(error, axis=-1)))


def bones(hands: Hands) -> np.ndarray:
    """(T, 2, 20)."""
    first, second = np.array(FINGER_BONES).T
    return np.linalg.norm(hands.keypoints_cam_m[:, :, first] - hands.keypoints_cam_m[:, :, second], axis=-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_recovers_the_pose_and_the_place(seed: int) -> None:
    points, truth, frame_s = clip(seed)
    hands = fit(points, frame_s)
    assert root_relative_mm(hands, truth) < 12
    assert np.linalg.norm(hands.keypoints_cam_m - truth, axis=-1).mean() < 0.035
    step = [np.linalg.norm(x[2:] - 2 * x[1:-1] + x[:-2], axis=-1).mean() for x in (hands.keypoints_cam_m, truth)]
    assert step[0] < 2 * step[1] + 0.001


def test_bones_are_constant_and_those_of_both_hands() -> None:
    points, _, frame_s = clip(2)
    lengths = bones(fit(points, frame_s))
    np.testing.assert_allclose(lengths / lengths[0, 0], 1, atol=1e-4)


def test_a_long_clip_is_fitted_in_windows_with_one_shape() -> None:
    points, truth, frame_s = clip(3, num=480)
    points = keep(points, np.stack([np.arange(480) % 2 == 0, np.arange(480) > 400], axis=1))
    hands = fit(points, frame_s)
    assert root_relative_mm(hands, truth) < 14
    lengths = bones(hands)[points.visible]
    np.testing.assert_allclose(lengths / lengths[0], 1, atol=1e-4)
    seam = np.linalg.norm(np.diff(hands.keypoints_cam_m[445:456, 1], axis=0), axis=-1).mean(axis=1)
    assert seam[4] < 3 * np.median(seam) + 0.001


def test_the_mirror_image_gives_the_mirrored_hands() -> None:
    points, _, frame_s = clip(4)
    flip_px = np.array([2 * CAMERA.camera_matrix[0, 2], 0], np.float32)
    mirrored = replace(
        points,
        keypoints_px=(points.keypoints_px * np.float32([-1, 1]) + flip_px)[:, ::-1],
        model_m=(points.model_m * np.float32([-1, 1, 1]))[:, ::-1],
    )
    expected = fit(points, frame_s).keypoints_cam_m * [-1, 1, 1]
    np.testing.assert_allclose(fit(mirrored, frame_s).keypoints_cam_m[:, ::-1], expected, atol=2e-4)


def test_time_backwards_gives_the_hands_backwards() -> None:
    points, _, frame_s = clip(5)
    arrays = ("visible", "infilled", "confidence", "keypoints_px", "model_m")
    backwards = replace(points, **{name: getattr(points, name)[::-1] for name in arrays})
    there, back = fit(points, frame_s), fit(backwards, frame_s)
    np.testing.assert_allclose(back.keypoints_cam_m[::-1], there.keypoints_cam_m, atol=1e-3)


def test_distorted_pixels_are_undistorted() -> None:
    points, _, frame_s = clip(6)
    bent = replace(CAMERA, distortion=np.array([-0.1, 0.02, 0.001, 0.0, 0.0]))
    distorted = project(rays(points.keypoints_px, CAMERA), bent)
    same = fit(replace(points, keypoints_px=distorted.astype(np.float32)), frame_s, bent)
    np.testing.assert_allclose(same.keypoints_cam_m, fit(points, frame_s).keypoints_cam_m, atol=1e-3)


def test_a_hand_at_the_rim_of_a_fisheye_is_as_far_away_as_a_pinhole_says() -> None:
    """The same directions, 45 to 65 degrees off the axis, seen through either lens."""
    points, _, frame_s = clip(seed=3, num=6)
    pinhole = replace(CAMERA, camera_matrix=np.array([[700.0, 0, -400], [0, 700, 359.5], [0, 0, 1]]))
    inner = np.array([[700.0, 0, -50], [0, 700, 359.5], [0, 0, 1]])
    fisheye = Camera(inner, "given", np.array([0.03, 0.01, -0.006, 0.001]), "fisheye")
    directions = rays(points.keypoints_px.astype(float), pinhole)
    off_axis = np.degrees(np.arccos(directions[points.visible][..., 2]))
    assert 45 < np.median(off_axis) < 65
    plain = fit(points, frame_s, pinhole)
    bent = fit(replace(points, keypoints_px=project(directions, fisheye).astype(np.float32)), frame_s, fisheye)
    np.testing.assert_allclose(bent.keypoints_cam_m, plain.keypoints_cam_m, atol=0.02)


def test_seen_from_outside_the_tilt_is_the_models() -> None:
    points, truth, frame_s = clip(7, tilt=-0.5)
    hands = fit(replace(points, view="exo"), frame_s)
    assert root_relative_mm(hands, truth) < 15


def test_frames_without_the_models_tilt_take_their_neighbours() -> None:
    points, truth, frame_s = clip(14, num=30, tilt=-0.6)
    points.model_m[8:22] = np.nan
    assert root_relative_mm(fit(replace(points, view="exo"), frame_s), truth) < 18


def test_the_likeliest_path_continues_over_a_frame_without_evidence() -> None:
    turns = np.stack([np.eye(3), _turns(np.array([[1.2, 0, 0]]))[0]])[None].repeat(6, axis=0)
    place, spread = np.full((6, 2, 3), 0.4), np.full(6, 0.2)
    cost = np.array([[5, 0], [1, 1.1], [1.1, 1], [1, 1.1], [np.inf, 3], [0, 9]])
    starts = np.arange(6) == 0
    assert likeliest_path(cost, turns, place, starts, spread).tolist() == [1, 1, 1, 1, 1, 0]
    starts[2] = True
    assert likeliest_path(cost[:4], turns[:4], place[:4], starts[:4], spread[:4])[2:].tolist() in ([1, 1], [0, 0])
    assert likeliest_path(cost[[0, 1, 3]], turns[:3], place[:3], np.ones(3, bool), spread[:3]).tolist() == [1, 0, 0]


def test_the_right_hand_does_not_follow_from_the_left() -> None:
    points, _, frame_s = clip(15, num=24)
    first = np.arange(24) < 12
    points.keypoints_px[:, 1] += np.float32([150, -100])
    both = fit(keep(points, np.stack([first, ~first], axis=1)), frame_s).keypoints_cam_m[12:, 1]
    alone = fit(keep(points, np.stack([first & ~first, ~first], axis=1)), frame_s).keypoints_cam_m[12:, 1]
    np.testing.assert_allclose(both, alone, atol=0.01)


def test_sigma_is_the_size_of_the_distances_error() -> None:
    rng, share = np.random.default_rng(0), []
    for seed in range(30):
        points, truth, frame_s = clip(seed, num=2, scale=rng.normal(1, 0.055), seen=rng.normal(0.9, 0.1))
        hands = fit(points, frame_s, keypoint_scale=0.9)
        distance, true = (np.linalg.norm(x.mean(axis=2), axis=-1) for x in (hands.keypoints_cam_m, truth))
        share.append(np.abs(distance - true) / hands.sigma_m)
    off = np.concatenate(share).ravel()
    assert 0.5 < (off < 1).mean() < 0.85
    assert (off < 2).mean() > 0.9


def test_unknown_lens_and_hand_make_distances_less_certain() -> None:
    points, _, frame_s = clip(8, num=3)
    cameras = [replace(CAMERA, focal_sigma=sigma) for sigma in (None, 0.08, 0.33)]
    given, preset, assumed = (fit(points, frame_s, camera).sigma_m for camera in cameras)
    assert (preset > given * 1.05).all()
    assert (assumed > preset * 1.5).all()
    known = Posterior.prior(None, length=0.02)
    assert (fit(points, frame_s, posterior=known).sigma_m < given).all()


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_frames(num: int) -> None:
    points, truth, frame_s = clip(9, num=num)
    hands = fit(points, frame_s)
    assert root_relative_mm(hands, truth) < 20
    assert np.isfinite(hands.sigma_m).all()


def test_gaps_and_damage_stay_where_they_are() -> None:
    points, truth, frame_s = clip(10, num=30)
    seen = np.ones((30, 2), bool)
    seen[5:8, 0] = seen[10:25, 1] = False
    points = keep(points, seen)
    points.keypoints_px[3, 0] = 640.0  # all keypoints in one place
    points.keypoints_px[4, 0, :12] = np.nan
    points.keypoints_px[12, 0, 3] = np.nan
    points.model_m[13, 0] = np.nan
    hands = fit(points, frame_s)
    np.testing.assert_array_equal(hands.visible, seen)
    lifted = np.isfinite(hands.keypoints_cam_m).all(axis=(2, 3))
    expected = seen.copy()
    expected[3:5, 0] = False
    np.testing.assert_array_equal(lifted, expected)
    np.testing.assert_array_equal(np.isfinite(hands.sigma_m), expected)
    assert root_relative_mm(hands, truth) < 15


def test_one_bad_frame_does_not_spoil_the_others() -> None:
    points, truth, frame_s = clip(11, num=30)
    rng = np.random.default_rng(0)
    points.keypoints_px[15, 0] = rng.uniform([300, 200], [700, 500], (21, 2))
    hands = fit(points, frame_s)
    assert root_relative_mm(hands, truth) < 15


def test_no_hands() -> None:
    points, _, frame_s = clip(12, num=5)
    hands = fit(keep(points, np.zeros((5, 2), bool)), frame_s)
    assert np.isnan(hands.keypoints_cam_m).all()
    assert np.isnan(hands.sigma_m).all()
    assert not hands.visible.any()
    assert hands.keypoints_cam_m.dtype == hands.sigma_m.dtype == np.float32


def test_derivatives_of_the_hand() -> None:
    rng = np.random.default_rng(0)
    angles, shape, step = model.ANGLE_REST + rng.normal(0, 0.2, (3, 20)), rng.normal(0, 0.02, 36), 1e-6
    posed = model.pose(angles, shape)
    for index in range(model.NUM_SHAPE):
        moved = model.pose(angles, shape + step * (np.arange(36) == index), derivatives=False).seen_m
        np.testing.assert_allclose(posed.by_shape[..., index], (moved - posed.seen_m) / step, atol=1e-6)
    for index in range(model.NUM_ANGLES):
        moved = model.pose(angles + step * (np.arange(20) == index), shape, derivatives=False).seen_m
        np.testing.assert_allclose(posed.by_angle[..., index], (moved - posed.seen_m) / step, atol=1e-6)


def test_angles_of_keypoints_are_those_they_were_posed_with() -> None:
    rng = np.random.default_rng(1)
    angles = rng.uniform(model.ANGLE_LOW + 0.05, model.ANGLE_HIGH - 0.05, (20, 20))
    angles[:, 0::4] = angles[:, 0::4].clip(-1.2, 1.2)
    points = model.pose(angles, np.zeros(36), derivatives=False).points_m
    np.testing.assert_allclose(model.angles_of(points), angles, atol=1e-9)


def test_the_gradient_is_that_of_the_cost() -> None:
    rng, num = np.random.default_rng(2), 5
    _, truth, _ = clip(13, num=num)
    rays = truth[:, 1, :, :2] / truth[:, 1, :, 2:] + rng.normal(0, 0.01, (num, 21, 2))
    dt_s = np.array([np.nan, 1, 2, 1, 1]) / 15
    offset = np.full(num, 0.04), np.full(num, 0.02)
    shape, spread = rng.normal(0, 0.002, 36), model.SHAPE_SPREAD
    rest = model.ANGLE_REST + rng.normal(0, 0.3, (num, 20))
    problem = Problem(rays, rng.uniform(20, 60, (num, 21)), rest, dt_s, *offset, shape, spread)
    turn = _turns(rng.normal(0, 0.01, (num, 3))) @ _turns(np.tile([[2.5, 0.1, 0.1]], (num, 1)))
    angles = model.ANGLE_REST + rng.normal(0, 0.5, (num, 20))
    state = State(np.array([0.1, 0.1, 0.4]) + rng.normal(0, 0.01, (num, 3)), turn, angles, shape + 0.003)
    normal = normal_equations(problem, state)

    def moved(frame: int, index: int, step: float) -> float:
        by = np.zeros((num, P))
        by[frame, index] = step
        turned = state.rotation.copy()
        if 3 <= index < 6:
            turned[frame] = _turns(by[frame : frame + 1, 3:6])[0] @ turned[frame]
        return misfit(problem, State(state.translation + by[:, :3], turned, state.angles + by[:, 6:], state.shape))

    for frame, index in [(f, i) for f in range(num) for i in (0, 1, 2, 3, 4, 5, 6, 7, 13, 17, 25)]:
        slope = (moved(frame, index, 1e-6) - moved(frame, index, -1e-6)) / 2e-6
        # Turns of one frame on the next are taken as small: their derivative is exact to the order of the turn.
        loose = 0.05 * np.abs(normal.pose_gradient[:, 3:6]).max() if 3 <= index < 6 else 1e-3
        assert 2 * normal.pose_gradient[frame, index] == pytest.approx(slope, rel=1e-3, abs=2 * loose)
    for index in (0, 8, 20, 33):
        step = 1e-6 * (np.arange(36) == index)
        slope = (misfit(problem, replace(state, shape=state.shape + step))
                 - misfit(problem, replace(state, shape=state.shape - step))) / 2e-6  # fmt: skip
        assert 2 * normal.shape_gradient[index] == pytest.approx(slope, rel=1e-3, abs=1e-2)
