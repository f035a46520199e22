"""Lifting on scenes whose 3D is known exactly: a head moves past things at rest, hands, and what they carry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handloom.errors import ConfigError, ShapeError
from handloom.geometry.camera.intrinsics import project
from handloom.geometry.tracks.arm4r import arm4r_points
from handloom.geometry.tracks.hand import flesh_depth
from handloom.geometry.tracks.lift import lift_in_pieces, lift_tracks
from handloom.schemas.values import Camera, CameraPath, DepthMaps, Hands, TrackKind, Tracks, VideoInfo

T, N = 20, 60
INFO = VideoInfo(640, 480, 15.0, "h264", "yuv420p", 0, 0.0, 1.3, T)
MATRIX = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
CAMERA = Camera(MATRIX, "given")


def head(move: float = 1.0) -> np.ndarray:
    """(T, 4, 4) world_from_camera: 20 cm sideways and a turn."""
    out = np.tile(np.eye(4), (T, 1, 1))
    share = np.linspace(0, 1, T)
    angle = -0.12 * share * move
    out[:, 0, 0] = out[:, 2, 2] = np.cos(angle)
    out[:, 0, 2], out[:, 2, 0] = np.sin(angle), -np.sin(angle)
    out[:, :3, 3] = np.stack([0.2 * share, 0.03 * np.sin(6 * share), 0 * share], -1) * move
    return out


def metric(move: float = 1.0) -> CameraPath:
    return CameraPath(head(move), "metric", "given")


def cloud() -> np.ndarray:
    """(N, 3) resting points, 0.5 to 2 m away."""
    rng = np.random.default_rng(0)
    z = rng.uniform(0.5, 2.0, N)
    return np.stack([rng.uniform(-0.3, 0.4, N) * z, rng.uniform(-0.3, 0.3, N) * z, z], -1)


def in_camera(world: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(T, N, 3) of world points (N, 3) or (T, N, 3)."""
    world = np.broadcast_to(world, (T, *world.shape[-2:]))
    return np.einsum("tji,tnj->tni", poses[:, :3, :3], world - poses[:, None, :3, 3])


def tracked(cam: np.ndarray, noise_px: float = 0.0, camera: Camera = CAMERA) -> Tracks:
    """Tracks of camera-frame points, visible inside the image."""
    pixels = project(cam, camera) + np.random.default_rng(1).normal(0, 1, (*cam.shape[:2], 2)) * noise_px
    visible = np.all((pixels > 0) & (pixels < [INFO.width - 1, INFO.height - 1]), axis=-1)
    return Tracks.of_grid(np.where(visible[..., None], pixels, np.nan).astype(np.float32), visible)


def no_hands() -> Hands:
    none = np.zeros((T, 2), bool)
    nan = np.full((T, 2, 21, 3), np.nan, np.float32)
    return Hands(none, none, nan[..., 0, 0], nan[..., :2], nan)


def one_hand(cam: np.ndarray) -> Hands:
    """The right hand at (T, 21, 3) in the camera frame."""
    hands = no_hands()
    keypoints, pixels, seen = hands.keypoints_cam_m.copy(), hands.keypoints_px.copy(), hands.visible.copy()
    keypoints[:, 1], pixels[:, 1], seen[:, 1] = cam, project(cam, CAMERA), True
    return replace(hands, visible=seen, keypoints_px=pixels, keypoints_cam_m=keypoints)


def flat_hand() -> np.ndarray:
    """(21, 3): an open hand held flat before the camera, wrist at the origin, fingers up in the image."""
    out = np.zeros((21, 3))
    for finger, x in enumerate((-0.04, -0.025, 0.0, 0.02, 0.04)):
        for joint in range(4):
            out[1 + 4 * finger + joint] = [x, -0.08 - 0.03 * joint if finger else -0.03 * (joint + 1), 0]
    return out


def test_points_at_rest_are_placed_exactly():
    cam = in_camera(cloud(), head())
    tracks = tracked(cam)
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, None, INFO)
    assert np.isfinite(lifted.depth_m[tracks.visible]).mean() > 0.95
    known = np.isfinite(lifted.depth_m)
    np.testing.assert_allclose(lifted.depth_m[known], cam[..., 2][known], rtol=5e-3)
    assert np.median(np.abs(lifted.depth_m / cam[..., 2] - 1)[known]) < 1e-5
    world = np.broadcast_to(cloud(), cam.shape)
    np.testing.assert_allclose(lifted.points_world_m[known], world[known], atol=5e-3)
    assert not known[~tracks.visible].any()


def test_distortion_is_removed():
    camera = Camera(MATRIX, "given", np.array([-0.2, 0.05, 0, 0]))
    cam = in_camera(cloud(), head())
    tracks = tracked(cam, camera=camera)
    lifted = lift_tracks(tracks, no_hands(), metric(), camera, None, INFO)
    known = np.isfinite(lifted.depth_m)
    assert known.sum() > 0.9 * tracks.visible.sum()
    np.testing.assert_allclose(lifted.depth_m[known], cam[..., 2][known], rtol=5e-3)


FISHEYE = Camera(
    np.array([[230.0, 0, 319.5], [0, 230, 239.5], [0, 0, 1]]), "given", np.array([0.03, 0.01, -0.006, 0.001]), "fisheye"
)


def wide_cloud() -> np.ndarray:
    """(N, 3) resting points up to 70 degrees off the axis, 0.5 to 2 m away."""
    rng = np.random.default_rng(0)
    angle, towards, far = rng.uniform(0, 1.2, N), rng.uniform(0, 2 * np.pi, N), rng.uniform(0.5, 2.0, N)
    direction = [np.sin(angle) * np.cos(towards), np.sin(angle) * np.sin(towards), np.cos(angle)]
    return (np.array(direction) * far).T


def test_a_fisheyes_points_are_placed_out_to_its_corners():
    """A pixel's error is up to six times as much in slopes there: it must neither cost the point nor move it."""
    cam = in_camera(wide_cloud(), head())
    tracks = tracked(cam, noise_px=0.4, camera=FISHEYE)
    lifted = lift_tracks(tracks, no_hands(), metric(), FISHEYE, None, INFO)
    world = np.broadcast_to(wide_cloud(), cam.shape)
    outer = tracks.visible & (np.arctan2(np.linalg.norm(cam[..., :2], axis=-1), cam[..., 2]) > np.radians(55))
    found = np.isfinite(lifted.depth_m)
    off = np.linalg.norm(lifted.points_world_m - world, axis=-1) / np.linalg.norm(world, axis=-1)
    assert outer.sum() > 100
    assert found[outer].mean() > 0.6
    assert np.median(off[found & outer]) < 0.06
    assert np.median(off[found & ~outer]) < 0.03
    plain = Camera(FISHEYE.camera_matrix, "given")
    wrong = lift_tracks(tracks, no_hands(), metric(), plain, None, INFO)
    assert not np.nanmedian(np.linalg.norm(wrong.points_world_m - world, axis=-1)[outer]) < 0.1


def test_flesh_at_the_images_edge_is_as_thick_as_in_its_middle():
    """The same hand before a turned camera: rays through the little finger meet it, one beside it does not."""
    for degrees in (0, 60):
        turn = np.radians(degrees)
        to_side = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        beside = np.array([[0, 0, 0], [0.006, 0, 0], [0.02, 0, 0], [-0.006, 0, 0]]) + flat_hand()[18]
        away = np.array([0, 0, 0.4])
        hand, rays = ((points + away) @ to_side.T for points in (flat_hand(), beside))
        depth = flesh_depth(rays / rays[:, 2:], hand)
        assert np.isfinite(depth).tolist() == [True, True, False, True], degrees
        distance = depth * np.linalg.norm(rays / rays[:, 2:], axis=1)
        assert distance[0] == pytest.approx(np.linalg.norm(rays[0]) - 0.0085, abs=1e-3)


def test_a_pixel_of_noise_stays_a_few_percent_and_outliers_do_not_count():
    cam = in_camera(cloud(), head())
    tracks = tracked(cam, noise_px=0.7)
    rng = np.random.default_rng(3)
    wild = rng.uniform(size=tracks.visible.shape) < 0.1
    tracks.points_px[wild] += rng.uniform(20, 60, (int(wild.sum()), 2)).astype(np.float32)
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, None, INFO)
    off = np.abs(lifted.depth_m / cam[..., 2] - 1)
    assert np.nanmedian(off) < 0.01
    assert np.nanpercentile(off, 98) < 0.08
    assert np.isnan(lifted.depth_m[wild]).mean() > 0.95


@pytest.mark.parametrize("path", [CameraPath(None, "none", "none", "no_texture"), metric(0.0), metric(0.02)])
def test_without_poses_or_parallax_there_is_no_depth(path):
    poses = head() if path.world_from_camera is None else path.world_from_camera
    tracks = tracked(in_camera(cloud(), poses), noise_px=0.5)
    lifted = lift_tracks(tracks, no_hands(), path, CAMERA, None, INFO)
    assert np.isfinite(lifted.depth_m).mean() < 0.02
    assert (lifted.points_world_m is None) == (path.world_from_camera is None)


def test_frames_without_a_pose_are_left_out():
    poses = head()
    poses[5:9] = np.nan
    cam = in_camera(cloud(), head())
    lifted = lift_tracks(tracked(cam), no_hands(), CameraPath(poses, "metric", "given"), CAMERA, None, INFO)
    assert not np.isfinite(lifted.depth_m[5:9]).any()
    assert np.isfinite(lifted.depth_m[9:]).mean() > 0.5


def test_points_that_move_are_not_placed():
    drift = np.linspace(0, 0.3, T)[:, None, None] * np.array([0.5, 1.0, 0.2])
    cam = in_camera(cloud()[None] + drift, head())
    lifted = lift_tracks(tracked(cam), no_hands(), metric(), CAMERA, None, INFO)
    assert np.isfinite(lifted.depth_m).mean() < 0.05


def test_an_arbitrary_scale_gives_no_metres_unless_metric_maps_fix_it():
    poses, cam = head(), in_camera(cloud(), head())
    tracks = tracked(cam)
    shrunk = poses.copy()
    shrunk[:, :3, 3] *= 0.2
    path = CameraPath(shrunk, "arbitrary", "given")
    lifted = lift_tracks(tracks, no_hands(), path, CAMERA, None, INFO)
    assert not np.isfinite(lifted.depth_m).any()
    assert lifted.points_world_m is None
    lifted = lift_tracks(tracks, no_hands(), path, CAMERA, maps_of(cam, tracks, every=2), INFO)
    known = np.isfinite(lifted.depth_m)
    assert known[1::2].any()
    np.testing.assert_allclose(lifted.depth_m[known], cam[..., 2][known], rtol=2e-2)
    assert lifted.points_world_m is None


def maps_of(cam: np.ndarray, tracks: Tracks, factor: float = 1.0, scale: str = "metric", every: int = 1) -> DepthMaps:
    """Maps of half the image's size with the points' depth in blocks around them, unknown elsewhere."""
    depth = np.full((T, 240, 320), np.nan, np.float32)
    for t, n in np.argwhere(tracks.visible):
        x, y = np.rint((tracks.points_px[t, n] + 0.5) / 2 - 0.5).astype(int)
        if t % every == 0:
            depth[t, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = cam[t, n, 2] * factor
    return DepthMaps(depth, scale, "test")


@pytest.mark.parametrize("factor", [1.0, 3.7])
def test_maps_are_read_at_the_points_and_brought_to_scale(factor):
    cam = in_camera(cloud(), head())
    tracks = tracked(cam)
    scale = "metric" if factor == 1 else "arbitrary"
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, maps_of(cam, tracks, factor, scale), INFO)
    off = np.abs(lifted.depth_m / cam[..., 2] - 1)[tracks.visible]
    assert np.isfinite(off).all()
    assert np.median(off) < 2e-3
    nothing = lift_tracks(tracks, no_hands(), CameraPath(None, "none", "none"), CAMERA,
                          maps_of(cam, tracks, factor, scale), INFO)  # fmt: skip
    assert np.isfinite(nothing.depth_m).any() == (scale == "metric")


def test_maps_of_another_length_are_refused():
    tracks = tracked(in_camera(cloud(), head()))
    maps = DepthMaps(np.ones((T - 1, 4, 4), np.float32), "metric", "test")
    with pytest.raises(ShapeError, match="19 depth maps for 20 frames"):
        lift_tracks(tracks, no_hands(), metric(), CAMERA, maps, INFO)


def test_a_ray_meets_the_flesh_before_the_bone_and_misses_beside_the_hand():
    hand = flat_hand() + np.array([0, 0, 0.5])
    tip = hand[10] / hand[10, 2]
    depth = flesh_depth(np.array([tip, [0.3, 0.3, 1.0]]), hand)
    assert depth[0] == pytest.approx(0.5 - 0.0085, abs=1e-4)
    assert np.isnan(depth[1])


def test_points_on_a_moving_hand_take_its_depth_without_any_pose():
    z = np.linspace(0.4, 0.6, T)[:, None, None] * np.array([0, 0, 1.0])
    hand = flat_hand() + z + [0, 0.05, 0]
    on = (hand[:, [6, 10]] + hand[:, [7, 11]]) / 2
    lifted = lift_tracks(tracked(on), one_hand(hand), CameraPath(None, "none", "none"), CAMERA, None, INFO)
    np.testing.assert_allclose(lifted.depth_m, on[..., 2] - 0.0085, atol=1e-3)


def test_a_thing_that_is_picked_up_keeps_its_distance_to_the_hand():
    """It rests for half of the clip, with the hand beside it, and then goes towards the camera with the hand."""
    poses = head()
    thing = np.array([[0.0, 0.02, 0.60], [0.02, 0.03, 0.61], [-0.01, 0.02, 0.59]])
    lift = np.maximum(0, np.arange(T) - T // 2)[:, None, None] * np.array([0.004, -0.012, -0.012])
    cam = in_camera(thing[None] + lift, poses)
    hand = in_camera(flat_hand()[None] + [0.09, 0.15, 0.58] + lift, poses)
    tracks = tracked(cam)
    lifted = lift_tracks(tracks, one_hand(hand), metric(), CAMERA, None, INFO)
    moving = tracks.visible & (np.arange(T)[:, None] > T // 2 + 2)
    assert np.isfinite(lifted.depth_m[moving]).mean() > 0.9
    assert np.nanmax(np.abs(lifted.depth_m - cam[..., 2])[moving]) < 0.03


def grid_tracks(side: int = 36) -> tuple[Tracks, np.ndarray]:
    axis = np.linspace(-0.63, 0.63, side)
    world = np.stack([*np.meshgrid(axis, 0.7 * axis), np.full((side, side), 1.0)], -1).reshape(-1, 3)
    cam = in_camera(world, head())
    return tracked(cam), cam


def test_arm4r_gets_pixels_of_its_own_image_size_and_depths_forward_from_the_first_frame():
    tracks, cam = grid_tracks()
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, None, INFO)
    out = arm4r_points(tracks, lifted, INFO)
    assert out.shape == (T, 1296, 3)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(out[..., 0]), ~tracks.visible)
    seen = tracks.visible
    expected = (tracks.points_px + 0.5) * [912 / 640, 512 / 480] - 0.5
    np.testing.assert_allclose(out[seen][:, :2], expected[seen], atol=1e-3)
    assert np.nanmax(np.abs(out[..., 2] - cam[..., 2])) < 5e-3


def test_arm4r_fills_resting_points_where_they_are_hidden_or_outside():
    tracks, cam = grid_tracks()
    tracks.visible[4:8, :700] = False
    tracks.points_px[4:8, :700] = np.nan
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, None, INFO)
    out = arm4r_points(tracks, lifted, INFO, CAMERA, metric())
    placed = np.isfinite(lifted.depth_m).any(0)
    assert np.isfinite(out[:, placed]).all()
    assert ((out[..., 0] < 0) | (out[..., 0] > 911)).any()
    expected = (project(cam, CAMERA) + 0.5) * [912 / 640, 512 / 480] - 0.5
    np.testing.assert_allclose(out[:, placed, :2], expected[:, placed], atol=1.0)


def test_arm4r_refuses_another_grid():
    tracks = tracked(in_camera(cloud(), head()))
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, None, INFO)
    with pytest.raises(ConfigError, match=r"36 x 36 points, this clip has 60"):
        arm4r_points(tracks, lifted, INFO)


def test_unused_slots_stay_unknown():
    cam = in_camera(cloud(), head())
    tracks = tracked(cam)
    tracks.points_px[:, -3:], tracks.visible[:, -3:] = np.nan, False
    tracks.kind[-3:], tracks.query_frame[-3:] = TrackKind.NONE, -1
    lifted = lift_tracks(tracks, no_hands(), metric(), CAMERA, None, INFO)
    assert not np.isfinite(lifted.depth_m[:, -3:]).any()
    assert not np.isfinite(lifted.points_world_m[:, -3:]).any()


def test_a_long_clip_in_pieces_is_lifted_as_a_whole_one_is():
    world, path = cloud(), metric()
    tracks = tracked(in_camera(world, path.world_from_camera), 0.3)
    lost = path.world_from_camera.copy()
    lost[10:] = np.nan
    whole = lift_tracks(tracks, no_hands(), path, CAMERA, None, INFO)
    same = lift_in_pieces(tracks, no_hands(), path, CAMERA, None, INFO)
    assert np.array_equal(whole.depth_m, same.depth_m, equal_nan=True)
    halves = lift_in_pieces(tracks, no_hands(), path, CAMERA, None, INFO, piece=10)
    both = np.isfinite(halves.depth_m) & np.isfinite(whole.depth_m)
    assert both.mean() > 0.5
    assert np.median(np.abs(halves.depth_m - whole.depth_m)[both] / whole.depth_m[both]) < 0.03
    part = lift_in_pieces(tracks, no_hands(), replace(path, world_from_camera=lost), CAMERA, None, INFO, piece=10)
    assert np.isnan(part.points_world_m[10:]).all()
    assert np.array_equal(part.points_world_m[:10], halves.points_world_m[:10], equal_nan=True)
