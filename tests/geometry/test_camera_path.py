"""Camera paths from corners: exact on exact input, and none where they are not determined."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.geometry.camera.accept import EstimatedPath
from handloom.geometry.camera.intrinsics import assumed_camera, project, rays, slopes
from handloom.geometry.camera.lens_search import camera_of
from handloom.geometry.camera.path import REASONS, estimate_path, with_scale
from handloom.geometry.camera.turn_lens import find_turn_lens
from handloom.geometry.sfm.long_clips import reconstruct_long
from handloom.geometry.sfm.plane import twin_pose
from handloom.geometry.sfm.solver import Observations
from handloom.schemas.values import Camera, CameraPath, FeatureTracks, Hands, VideoInfo

INFO = VideoInfo(1280, 720, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
MATRIX = np.array([[800.0, 0, 640], [0, 810.0, 350], [0, 0, 1]])
CAMERA = Camera(MATRIX, "given")
BENT = Camera(MATRIX, "given", np.array([-0.1, 0.02, 0.001, -0.001]))


def path_of(num=40, sway_m=0.10, turn_rad=0.2):
    """A head that sways and turns: (T, 4, 4) world from camera."""
    t = np.linspace(0, 1, num)
    poses = np.tile(np.eye(4), (num, 1, 1))
    vectors = turn_rad * np.stack([0.4 * np.sin(3 * t), np.sin(2.2 * t), 0.3 * t], axis=1)
    poses[:, :3, :3] = Rotation.from_rotvec(vectors).as_matrix()
    poses[:, :3, 3] = sway_m * np.stack([np.sin(2.5 * t), 0.5 * t, 0.6 * (1 - np.cos(2 * t))], axis=1)
    return poses


def room(count, rng):
    """Points on a table and a wall, 0.4 to 2 m away."""
    x, y, z = rng.uniform([-0.8, -0.45, 0.4], [0.8, 0.45, 2.0], (count, 3)).T
    return np.stack([x * z, y * z, z], axis=1)


def corners(poses, camera=CAMERA, count=160, noise_px=0.3, seed=0, points=None):
    """Every point followed while it is in the image, with noise; long-lived ones get a new identity now and then."""
    rng = np.random.default_rng(seed)
    points = room(count, rng) if points is None else points
    frames, tracks, pixels = [], [], []
    for t, pose in enumerate(poses):
        moved = points(t) if callable(points) else points
        xy = project((moved - pose[:3, 3]) @ pose[:3, :3], camera)
        seen = np.isfinite(xy).all(axis=1) & (xy > 0).all(axis=1) & (xy < [INFO.width, INFO.height]).all(axis=1)
        tracks.append(np.flatnonzero(seen) * 100 + (t + np.flatnonzero(seen)) // 25)
        frames.append(np.full(seen.sum(), t))
        pixels.append(xy[seen] + rng.normal(0, noise_px, (seen.sum(), 2)))
    _, track = np.unique(np.concatenate(tracks), return_inverse=True)
    frame = np.concatenate(frames)
    order = np.lexsort([track, frame])
    xy = np.concatenate(pixels)[order].astype(np.float32)
    return FeatureTracks(frame[order].astype(np.int32), track[order].astype(np.int32), xy)


def estimated(features, num, camera=CAMERA, hands=None):
    return estimate_path(features, hands, camera, np.arange(num) / 15, INFO)


def errors(found, poses):
    """Largest turn (degrees) and place (m) error, after alignment of frame and scale."""
    truth = np.linalg.inv(poses[0]) @ poses
    turn = Rotation.from_matrix(found[:, :3, :3]).inv() * Rotation.from_matrix(truth[:, :3, :3])
    a, b = found[:, :3, 3], truth[:, :3, 3]
    scale = (a * b).sum() / (a * a).sum()
    return np.degrees(turn.magnitude()).max(), np.linalg.norm(scale * a - b, axis=1).max()


@pytest.mark.parametrize("camera", [CAMERA, BENT], ids=["pinhole", "distorted"])
def test_a_path_comes_back_up_to_scale(camera):
    poses = path_of()
    result = estimated(corners(poses, camera, noise_px=0.0), len(poses), camera)
    assert (result.path.source, result.path.scale, result.path.reason) == ("estimated", "arbitrary", "")
    turn_deg, place_m = errors(result.path.world_from_camera, poses)
    assert turn_deg < 0.02
    assert place_m < 0.0005
    assert result.camera is camera


def test_noise_costs_little_and_the_result_is_the_same_each_time():
    poses = path_of()
    features = corners(poses, noise_px=0.5)
    first, second = (estimated(features, len(poses)) for _ in range(2))
    turn_deg, place_m = errors(first.path.world_from_camera, poses)
    assert turn_deg < 0.3
    assert place_m < 0.005
    assert first.path.world_from_camera.tobytes() == second.path.world_from_camera.tobytes()
    assert first.points_world.tobytes() == second.points_world.tobytes()


def test_the_world_is_the_first_camera_and_its_unit_the_median_distance():
    poses = path_of()
    result = estimated(corners(poses), len(poses))
    assert result.path.world_from_camera[0] == pytest.approx(np.eye(4))
    assert np.median(np.linalg.norm(result.points_world, axis=1)) == pytest.approx(1)
    # Points and poses belong together: what a frame sees is where it is seen.
    frame, point = result.frame[::7], result.point[::7]
    pose = result.path.world_from_camera[frame]
    local = np.einsum("mij,mi->mj", pose[:, :3, :3], result.points_world[point] - pose[:, :3, 3])
    assert (local[:, 2] > 0).all()
    assert np.isfinite(project(local, CAMERA)).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_table_has_two_solutions_and_the_right_one_is_found(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform([-0.9, -1.2], [0.9, 0.4], (200, 2)).T
    table = np.stack([x, 0.35 + 0.5 * y, 0.9 - 0.6 * y], axis=1)
    poses = path_of()
    result = estimated(corners(poses, points=table, seed=seed), len(poses))
    turn_deg, place_m = errors(result.path.world_from_camera, poses)
    assert turn_deg < 0.5
    assert place_m < 0.01


@pytest.mark.parametrize(("sway_m", "seed"), [(0.3, 0), (0.1, 3)])
def test_a_wall_through_a_lens_that_is_a_little_off(sway_m, seed):
    """The given focal length is 10 percent too long: all views agree with either solution, more closely with one. The
    wrong one would be 20 and 7 degrees off."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform([-1.2, -0.9], [1.2, 0.9], (140, 2)).T
    wall = np.stack([x, y, 1 + 0.3 * x], axis=1)
    poses = path_of(sway_m=sway_m)
    camera = Camera(MATRIX * np.array([[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]]), "given")
    result = estimated(corners(poses, points=wall, seed=seed), len(poses), camera)
    turn_deg, place_m = errors(result.path.world_from_camera, poses)
    assert turn_deg < 1.2
    assert place_m < 0.05


def test_the_other_pose_that_a_flat_scene_allows():
    rng = np.random.default_rng(0)
    x, y = rng.uniform([-1.2, -0.9], [1.2, 0.9], (60, 2)).T
    wall = np.stack([x, y, 1 + 0.3 * x], axis=1)
    turn, way = Rotation.from_rotvec([0.05, -0.1, 0.02]).as_matrix(), np.array([0.15, 0.02, -0.05])
    pose = np.column_stack([turn, way / np.linalg.norm(way)])

    def seen(points):
        return [500 * local[:, :2] / local[:, 2:] for local in (points, points @ turn.T + way)]

    twin = twin_pose(*seen(wall), 500.0, 1.0, pose)
    apart = Rotation.from_matrix(twin[:, :3] @ turn.T).magnitude()
    assert apart > 0.05
    assert twin_pose(*seen(wall), 500.0, 1.0, twin) == pytest.approx(pose, abs=1e-6)  # its twin is the first
    assert twin_pose(*seen(room(60, rng)), 500.0, 1.0, pose) is None


@pytest.mark.parametrize(("apart_deg", "scale"), [(0.5, "metric"), (2.5, "arbitrary")])
def test_without_a_scale_turns_alone_replace_a_path_with_the_same_turns(apart_deg, scale):
    """Invisible hands give no metric scale."""
    poses = path_of(sway_m=0.01)
    turned = poses.copy()
    turned[:, :3, 3] = 0
    turned[:, :3, :3] = (
        Rotation.from_rotvec(np.radians(apart_deg) * np.eye(3)[1] * np.linspace(-1, 1, 40)[:, None]).as_matrix()
        @ turned[:, :3, :3]
    )
    nothing = np.zeros(0, np.int64)
    turning = CameraPath(turned, "metric", "estimated", "pure_rotation")
    moving = EstimatedPath(
        CameraPath(poses, "arbitrary", "estimated"), CAMERA, np.zeros((0, 3)), nothing, nothing, {}, turning
    )
    unseen = np.zeros((40, 2), bool)
    number = np.full((40, 2), np.nan, np.float32)
    keypoints = np.full((40, 2, 21, 3), np.nan, np.float32)
    hands = Hands(unseen, unseen, number, keypoints[..., :2], keypoints, number, "ego")
    assert with_scale(moving, hands, np.arange(40) / 15, INFO).path.scale == scale


def test_things_that_move_do_not_move_the_camera():
    rng = np.random.default_rng(3)
    still, loose = room(110, rng), np.array([0.0, 0.1, 0.6]) + rng.uniform(-0.12, 0.12, (35, 3))
    step = np.array([0.004, -0.003, 0.0])
    poses = path_of()
    result = estimated(corners(poses, points=lambda t: np.concatenate([still, loose + t * step])), len(poses))
    turn_deg, place_m = errors(result.path.world_from_camera, poses)
    assert turn_deg < 0.4
    assert place_m < 0.006


def test_a_camera_on_a_tripod_is_measured_as_static():
    poses = path_of(sway_m=0, turn_rad=0)
    result = estimated(corners(poses, noise_px=0.2), len(poses))
    assert (result.path.scale, result.path.source, result.path.reason) == ("metric", "estimated", "static")
    assert result.path.world_from_camera == pytest.approx(poses)
    assert result.points_world.shape == (0, 3)  # nothing is known of depth


def test_a_tripod_before_busy_hands():
    """Half of the corners move; the camera does not."""
    rng = np.random.default_rng(3)
    still, busy = room(80, rng), np.array([0.0, 0.0, 0.6]) + rng.uniform(-0.25, 0.25, (80, 3)) * [1, 1, 0.1]
    poses = path_of(sway_m=0, turn_rad=0)
    way = np.stack([0.1 * np.sin(0.2 * np.arange(40)), 0.003 * np.arange(40), np.zeros(40)], axis=1)
    moved = corners(poses, noise_px=0.2, points=lambda t: np.concatenate([still, busy + way[t]]))
    assert estimated(moved, len(poses)).path.reason == "static"


def test_a_back_before_the_lens_does_not_move_the_tripod():
    """In three frames of forty all corners move."""
    poses = path_of(sway_m=0, turn_rad=0)
    features = corners(poses, noise_px=0.2)
    shown = features.points_px + 9.0 * (np.isin(features.frame, (20, 21, 22)))[:, None]
    covered = FeatureTracks(features.frame, features.track, shown.astype(np.float32))
    assert estimated(covered, len(poses)).path.reason == "static"


def test_blurred_images_of_a_fast_turn_are_less_exact():
    """Corners off by 1.5 px of a 640 px wide image: the second try tolerates them."""
    rng = np.random.default_rng(0)
    away, around, height = rng.uniform(0.6, 2, 900), rng.uniform(-1.2, 2.2, 900), rng.uniform(-1, 1, 900)
    points = np.stack([np.sin(around) * away, height * away, np.cos(around) * away], axis=1)
    poses = path_of(turn_rad=1.2, sway_m=0.3)
    result = estimated(corners(poses, noise_px=3, points=points), len(poses))
    turn_deg, place_m = errors(result.path.world_from_camera, poses)
    assert turn_deg < 0.8
    assert place_m < 0.02


def test_a_tripod_that_is_taken_away_in_the_end():
    """It turns by nine degrees in the last three frames: these have no pose, the others are static."""
    poses = path_of(sway_m=0, turn_rad=0)
    poses[37:, :3, :3] = Rotation.from_euler("y", [[3], [6], [9]], degrees=True).as_matrix()
    path = estimated(corners(poses, noise_px=0.2), len(poses)).path
    assert path.reason == "static"
    assert np.isfinite(path.world_from_camera).all(axis=(1, 2)).tolist() == 37 * [True] + 3 * [False]


@pytest.mark.parametrize("turn_rad", [0.0, 0.5])
def test_poses_end_at_a_cut(turn_rad):
    """Two shots from two tripods have no common world."""
    poses = path_of(sway_m=0, turn_rad=turn_rad)
    one, two = corners(poses[:25], noise_px=0.2), corners(poses[:15], noise_px=0.2, seed=5)
    parts = [np.concatenate(pair) for pair in ((one.frame, two.frame + 25), (one.track, two.track + 10_000))]
    cut = FeatureTracks(parts[0], parts[1], np.concatenate([one.points_px, two.points_px]))
    path = estimated(cut, 40).path
    assert path.reason == ("static" if turn_rad == 0 else "pure_rotation")
    assert np.isfinite(path.world_from_camera).all(axis=(1, 2)).tolist() == 25 * [True] + 15 * [False]


def test_a_slow_drift_is_no_tripod():
    poses = path_of(sway_m=0.05, turn_rad=0.01)
    assert estimated(corners(poses, noise_px=0.2), len(poses)).path.reason == ""


def test_a_camera_that_only_turns_has_a_path_without_places():
    poses = path_of(sway_m=0, turn_rad=0.5)
    result = estimated(corners(poses), len(poses))
    assert (result.path.scale, result.path.source, result.path.reason) == ("metric", "estimated", "pure_rotation")
    truth = np.linalg.inv(poses[0]) @ poses
    turn = Rotation.from_matrix(result.path.world_from_camera[:, :3, :3]).inv() * Rotation.from_matrix(truth[:, :3, :3])
    assert np.degrees(turn.magnitude()).max() < 0.2
    assert (result.path.world_from_camera[:, :3, 3] == 0).all()


def _none(result, reason):
    assert result.path.world_from_camera is None
    assert (result.path.scale, result.path.source, result.path.reason) == ("none", "none", reason)
    assert reason in REASONS
    assert len(result.frame) == len(result.point) == len(result.points_world) == 0


def test_without_texture_there_is_no_path():
    nothing = FeatureTracks(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    _none(estimated(nothing, 40), "few_tracks")
    _none(estimated(corners(path_of(), count=8), 40), "few_tracks")


def test_corners_in_one_place_are_a_logo():
    """A watermark stands still in every video: it does not show a resting camera."""
    rng = np.random.default_rng(0)
    logo = np.stack([rng.uniform(-0.7, -0.55, 40), rng.uniform(-0.4, -0.3, 40), np.ones(40)], axis=1)
    _none(estimated(corners(path_of(sway_m=0, turn_rad=0), points=logo), 40), "few_tracks")


def test_two_frames_and_one():
    poses = path_of(num=2, turn_rad=0.3)
    _none(estimated(corners(poses), 2), "too_short")
    _none(estimated(corners(poses[:1]), 1), "too_short")
    still = path_of(num=2, sway_m=0, turn_rad=0)
    assert estimated(corners(still, noise_px=0.1), 2).path.reason == "static"


@pytest.mark.slow
def test_a_very_long_clip_is_refused():
    times = np.tile(np.r_[0:40, 39:-1:-1], 76)  # 6080 frames
    _none(estimated(corners(path_of()[times], count=50), len(times)), "too_long")


def test_a_tripod_may_stand_for_long():
    still = corners(np.tile(np.eye(4), (1600, 1, 1)), count=60, noise_px=0.2)
    assert estimated(still, 1600).path.reason == "static"


def as_sightings(features, num):
    """In the pixels of `CAMERA` without its principal point."""
    xy = MATRIX[0, 0] * slopes(features.points_px.astype(np.float64), CAMERA)
    frame, track = features.frame.astype(np.int64), features.track.astype(np.int64)
    return Observations.of(frame, track, xy, num, int(track.max()) + 1)


def test_a_long_clip_in_pieces_that_are_joined():
    """The pieces have worlds and units of their own; joined, they are as exact as one."""
    poses = path_of(num=120, sway_m=0.3, turn_rad=0.6)
    seen = as_sightings(corners(poses), len(poses))
    found = reconstruct_long(seen, MATRIX[0, 0], piece=50, overlap=20)
    world_from_camera = np.tile(np.eye(4), (len(poses), 1, 1))
    world_from_camera[:, :3] = found.scene.poses
    world_from_camera = np.linalg.inv(world_from_camera)
    turn_deg, place_m = errors(np.linalg.inv(world_from_camera[0]) @ world_from_camera, poses)
    assert turn_deg < 0.4
    assert place_m < 0.01
    assert len(found.observations.frame) > 0.95 * len(seen.frame)


def test_pieces_that_do_not_agree_are_not_joined():
    """No corner continues at frame 70: only the frames before have poses."""
    poses = path_of(num=120, sway_m=0.3, turn_rad=0.6)
    features = corners(poses)
    track = np.where(features.frame < 70, features.track, features.track + features.track.max() + 1)
    seen = as_sightings(FeatureTracks(features.frame, track, features.points_px), len(poses))
    found = reconstruct_long(seen, MATRIX[0, 0], piece=50, overlap=20)
    known = np.isfinite(found.scene.poses).all(axis=(1, 2))
    assert known[:60].all()
    assert not known[75:].any()


def test_a_scene_that_falls_apart_has_no_camera():
    rng = np.random.default_rng(1)
    start, speed = room(160, rng), rng.normal(0, 0.01, (160, 3))
    poses = path_of()
    result = estimated(corners(poses, points=lambda t: start + speed * t), len(poses))
    assert result.path.source == "none"
    assert result.path.reason in ("high_error", "no_parallax")


def test_frames_that_see_nothing_have_no_pose():
    poses = path_of(num=60, sway_m=0.15)
    features = corners(poses)
    keep = (features.frame < 40) | (features.frame >= 44)
    blind = FeatureTracks(features.frame[keep], features.track[keep], features.points_px[keep])
    known = np.isfinite(estimated(blind, 60).path.world_from_camera).all(axis=(1, 2))
    assert not known[40:44].any()
    assert known[:40].all()


@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_views_correct_an_assumed_focal_length(factor):
    poses = path_of(sway_m=0.15)
    guess = MATRIX.copy()
    guess[[0, 1], [0, 1]] *= factor
    features = corners(poses)
    result = estimated(features, len(poses), Camera(guess, "assumed"))
    assert result.camera.source == "estimated"
    assert result.camera.camera_matrix == pytest.approx(MATRIX, rel=0.02)
    assert errors(result.path.world_from_camera, poses)[0] < 0.4
    given = Camera(guess, "given")
    assert estimated(features, len(poses), given).camera is given  # what is given is not touched


LENSES = {
    "wide": (440.0, None, "opencv"),
    "barrel": (560.0, [-0.09, 0, 0, 0], "opencv"),
    "fisheye": (500.0, [0.06, 0, 0, 0], "fisheye"),
    "long": (1500.0, None, "opencv"),
}


@pytest.mark.parametrize("name", LENSES)
def test_an_unknown_lens_is_found_with_its_uncertainty(name):
    """Assumed: 70 degrees of view; true: 111, 98, 150 (along the longer side) and 46."""
    focal, numbers, model = LENSES[name]
    matrix = np.array([[focal, 0, 639.5], [0, focal, 359.5], [0, 0, 1]])
    lens = Camera(matrix, "given", None if numbers is None else np.array(numbers), model)
    poses = path_of(sway_m=0.2, turn_rad=0.5)
    features = corners(poses, lens, count=400)
    guess = assumed_camera(INFO.width, INFO.height, 70.0)
    result = estimated(features, len(poses), guess)
    assert result.camera.source == "estimated"
    off = abs(np.log(result.camera.camera_matrix[0, 0] / focal))
    assert off < max(2 * result.camera.focal_sigma, 0.05) < 0.25
    corner = np.array([[1100.0, 620.0], [639.5, 30.0]])  # where a lens shows what
    apart = np.degrees(np.arccos((rays(corner, result.camera) * rays(corner, lens)).sum(axis=1)))
    assert apart.max() < 4
    turn_deg, place_m = errors(result.path.world_from_camera, poses)
    assert turn_deg < 1.0
    assert place_m < 0.02


@pytest.mark.parametrize("name", ["wide", "fisheye"])
def test_the_lens_of_a_camera_that_only_turns_is_found(name):
    """It turns by ten degrees each way; there is no parallax."""
    focal, numbers, model = LENSES[name]
    matrix = np.array([[focal, 0, 639.5], [0, focal, 359.5], [0, 0, 1]])
    lens = Camera(matrix, "given", None if numbers is None else np.array(numbers), model)
    poses = path_of(sway_m=0, turn_rad=0.5)
    result = estimated(corners(poses, lens, count=200), len(poses), assumed_camera(INFO.width, INFO.height, 70.0))
    assert (result.path.reason, result.camera.source) == ("pure_rotation", "estimated")
    off = abs(np.log(result.camera.camera_matrix[0, 0] / focal))
    assert off < max(2 * result.camera.focal_sigma, 0.05) < 0.25
    assert errors(result.path.world_from_camera + _shifted(len(poses)), poses + _shifted(len(poses)))[0] < 0.5


@pytest.mark.parametrize(
    ("focal", "numbers", "model", "assumed"),
    [
        (586.0, [-0.26, 0.07, 0, 0], "opencv", 600.0),
        (586.0, [-0.26, 0.07, 0, 0], "opencv", 914.0),
        (840.0, [0.1, 0, 0, 0], "opencv", 914.0),
        (666.0, [0.04, -0.01, 0.002, 0], "fisheye", 914.0),
        (490.0, None, "opencv", 840.0),
    ],
)
def test_the_lens_of_a_pan_through_a_distorting_lens_is_found(focal, numbers, model, assumed):
    """By 26 degrees. With the assumed pinhole, turns leave residuals of 2 to 3 px."""
    matrix = np.array([[focal, 0, 640], [0, focal, 360], [0, 0, 1]])
    lens = Camera(matrix, "given", None if numbers is None else np.array(numbers), model)
    poses = np.tile(np.eye(4), (20, 1, 1))
    share = np.linspace(-0.5, 0.5, 20)[:, None]
    poses[:, :3, :3] = Rotation.from_rotvec(np.radians(share * [-6, 26, 5])).as_matrix()
    far = np.random.default_rng(0).normal(size=(400, 3))
    seen = corners(poses, lens, points=far)
    frame, track = seen.frame.astype(np.int64), seen.track.astype(np.int64)
    from_middle = seen.points_px.astype(np.float64) - [640, 360]
    found = find_turn_lens(Observations.of(frame, track, from_middle / 2, 20, int(track.max()) + 1), assumed / 2, None)
    assert abs(np.log(2 * found.focal / focal)) < 2 * np.sqrt(found.covariance[0, 0]) < 0.2
    corner = np.array([[250.0, 140.0]])  # from the middle, of an image 640 wide
    true = Camera(matrix * [[0.5, 1, 0], [1, 0.5, 0], [1, 1, 1]], "given", lens.distortion, model)
    assert np.degrees(np.arccos((rays(corner, camera_of(found)) * rays(corner, true)).sum())) < 1.0


def _shifted(num):
    """Places for `errors`, which scales by them."""
    shift = np.zeros((num, 4, 4))
    shift[:, 0, 3] = np.linspace(0, 1, num)
    return shift


def test_an_assumed_focal_length_stays_without_evidence():
    camera = Camera(1.1 * MATRIX + np.diag([0, 0, -0.1]), "assumed")
    nearly_still = path_of(sway_m=0.006, turn_rad=0.01)
    assert estimated(corners(nearly_still, noise_px=0.2), 40, camera).camera is camera
    assert estimated(corners(path_of(sway_m=0, turn_rad=0)), 40, camera).camera is camera


def test_turns_of_a_part_do_not_replace_a_path_of_all_frames():
    """A head that rests for half of a clip and then moves on: the path of all frames is kept, with its coverage."""
    poses = np.concatenate([np.tile(np.eye(4), (20, 1, 1)), path_of(20)])
    result = estimated(corners(poses, noise_px=0.05), len(poses))
    assert result.turning is None or np.isfinite(result.turning.world_from_camera).all(axis=(1, 2)).mean() > 0.9
    assert np.isfinite(result.path.world_from_camera).all(axis=(1, 2)).mean() == result.numbers["camera_coverage"]
