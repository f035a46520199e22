"""Windows of tracks and of episodes as ARM4R's samples."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.errors import ConfigError, StoreError
from handloom.geometry.camera.intrinsics import project
from handloom.geometry.tracks.arm4r_scale import at_912x512, from_912x512, subgrid
from handloom.schemas.tables.row import row_camera
from handloom.schemas.values import TrackKind
from handloom.train.arm4r.data.control_sample import ControlSample
from handloom.train.arm4r.data.shown import ShownSample, frame_pixels
from handloom.train.arm4r.data.track_sample import TrackSample
from handloom.train.parts.robot_state import StateForm, form_of, from_euler, from_quaternion, plain_name

STEPS = 17


def window(seed: int = 0, grid: int = 4, extra: int = 8) -> dict:
    """A window of 17 steps: a grid, and extra points of three kinds; some hidden, some without depth."""
    rng = np.random.default_rng(seed)
    num = grid**2 + extra
    kind = np.array([TrackKind.GRID] * grid**2 + [1, 2, 3, 4, 1, 2, -1, 3][:extra], np.int8)
    visible = rng.uniform(size=(STEPS, num)) < 0.8
    points = rng.uniform(0, 300, (STEPS, num, 2)).astype(np.float32)
    depth = rng.uniform(0.3, 2, (STEPS, num)).astype(np.float32)
    depth[rng.uniform(size=depth.shape) < 0.2] = np.nan
    return {
        "clip_id": "d:v:0-1000",
        "now_s": 0.2,
        "valid": np.ones(STEPS, bool),
        "frame_s": 0.2 + np.arange(STEPS) / 15,
        "frame_index": np.arange(3, 3 + STEPS),
        "width": 384,
        "height": 288,
        "narration": "open the jar",
        "track_points_px": points,
        "track_depth_m": depth,
        "track_visible": visible,
        "track_kind": kind,
        "track_query_frame": np.where(kind == TrackKind.GRID, 0, 8).astype(np.int32),
    }


def grid_sample(**values) -> TrackSample:
    fields = {"context": 16, "points": "grid", "grid_points": 4, "num_selected": 6, "frame": "camera", "images": False}
    return TrackSample(**(fields | values))


def test_places_are_the_papers_and_hidden_ones_are_unknown():
    row = window()
    points = grid_sample()(row)["points"]
    assert points.shape == (17, 16, 3)
    visible = row["track_visible"][:, :16]
    assert np.isnan(points[~visible]).all()
    u = 0.002 * ((row["track_points_px"][:, :16, 0] + 0.5) * 912 / 384 - 0.5)
    v = 0.002 * ((row["track_points_px"][:, :16, 1] + 0.5) * 512 / 288 - 0.5)
    expected = np.stack([u, v, row["track_depth_m"][:, :16]], axis=-1)
    np.testing.assert_allclose(points[visible], expected[visible], rtol=1e-6)
    assert np.isnan(points[..., 2]).sum() > np.isnan(points[..., 0]).sum()  # without depth u and v are still known


def test_the_windows_view_is_the_clips_view():
    """The exporter's numbers for a whole clip equal those of a training window."""
    from handloom.geometry.tracks.arm4r import arm4r_points
    from handloom.schemas.values import LiftedTracks, Tracks, VideoInfo

    row = window(grid=36, extra=0)
    tracks = Tracks.of_grid(row["track_points_px"], row["track_visible"])
    info = VideoInfo(384, 288, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
    whole = arm4r_points(tracks, LiftedTracks(row["track_depth_m"], None), info)
    np.testing.assert_array_equal(grid_sample(grid_points=36)(row)["points"][..., 2], whole[..., 2])
    np.testing.assert_allclose(grid_sample(grid_points=36)(row)["points"][..., :2], 0.002 * whole[..., :2], rtol=1e-6)


def test_scales_are_inverse_and_subgrids_are_regular_and_centred():
    points = np.random.default_rng(0).uniform(-50, 500, (9, 2))
    np.testing.assert_allclose(from_912x512(at_912x512(points, 384, 288), 384, 288), points)
    rows, columns = np.divmod(subgrid(12), 36)
    assert sorted(set(rows)) == sorted(set(columns)) == list(range(1, 36, 3))
    assert (subgrid(36) == np.arange(1296)).all()
    with pytest.raises(ValueError, match="no regular sub-grid"):
        subgrid(7)


def test_a_grid_that_does_not_fit_is_named_with_the_clip():
    with pytest.raises(ConfigError, match=r"16 grid points.*d:v:0-1000") as caught:
        grid_sample(grid_points=36)(window())
    assert "tracks.grid = 36" in caught.value.hint


def test_selected_points_come_by_kind_and_only_from_their_query_on():
    row = window()
    out = grid_sample(points="selected", num_selected=9)(row)
    assert out["slots"].tolist() == [16, 20, -1, 17, 21, -1, 18, 23, -1]
    assert np.isnan(out["points"][:, [2, 5, 8]]).all()
    before = row["frame_index"] < 8  # the point's query frame: before it, it would be known from later frames
    assert before.sum() == 5
    assert np.isnan(out["points"][before]).all()
    seen = row["track_visible"][:, 16] & ~before
    assert np.isfinite(out["points"][seen, 0, 0]).all()


def test_steps_outside_the_clip_are_unknown():
    row = window()
    row["valid"][12:] = False
    points = grid_sample()(row)["points"]
    assert np.isnan(points[12:]).all()
    assert np.isfinite(points[:12]).any()


def test_in_the_world_a_point_at_rest_has_one_place_whatever_the_camera_does():
    rng = np.random.default_rng(1)
    row = window()
    place = rng.uniform(-1, 1, (24, 3))
    row["track_points_world_m"] = np.broadcast_to(place, (STEPS, 24, 3)).astype(np.float32).copy()
    row["track_points_world_m"][:, 5, 0] += np.linspace(0, 0.5, STEPS)  # one moves, 0.47 m/s
    pose = np.tile(np.eye(4), (STEPS, 1, 1))
    pose[:, :3, :3] = from_euler(rng.uniform(-1, 1, (STEPS, 3)))
    pose[:, :3, 3] = rng.uniform(-1, 1, (STEPS, 3))
    row |= {"world_from_camera": pose.astype(np.float32), "world_unit_m": 0.5}
    out = grid_sample(frame="world")(row)
    delta = np.diff(out["points"], axis=0)
    assert np.nanmax(np.abs(np.delete(delta, 5, axis=1))) < 1e-6
    length = np.linalg.norm(delta[:, 5], axis=-1)
    np.testing.assert_allclose(length[np.isfinite(length)], 0.5 / 16, rtol=1e-3)
    expected = (place - 0.5 * pose[0, :3, 3]) @ pose[0, :3, :3]
    known = row["track_visible"][0, :16]
    np.testing.assert_allclose(out["points"][0][known], expected[:16][known], atol=1e-5)
    moving = out["moves"].any(axis=0)
    assert moving[5]
    assert moving.sum() == 1
    row["world_from_camera"][0] = np.nan
    assert np.isnan(grid_sample(frame="world")(row)["points"]).all()


def test_places_in_the_world_are_drawn_where_the_lens_shows_them():
    camera = {"camera_matrix": np.array([[230.0, 0, 320], [0, 230, 180], [0, 0, 1]], np.float32)}
    bent = {"camera_distortion": np.array([0.03, 0.01, -0.006, 0.001]), "camera_model": "fisheye"}
    row = window() | {"width": 640, "height": 360}
    place = np.array([[0.5, 0.1, 0.4]])
    for lens in ({}, bent):
        shown = ShownSample(grid_sample(), 3)(row | camera | lens)
        assert frame_pixels(place, shown, "world") == pytest.approx(project(place, row_camera(camera | lens)), abs=1e-3)
    assert np.isnan(frame_pixels(place, ShownSample(grid_sample(), 3)(row), "world")).all()


def test_a_missing_image_is_an_error_that_names_the_clip():
    row = window()
    row["images"] = np.random.default_rng(0).integers(0, 255, (STEPS, 8, 8, 3)).astype(np.uint8)
    row["images_valid"] = np.ones(STEPS, bool)
    assert grid_sample(images=True)(row)["images"].shape == (16, 1, 8, 8, 3)
    row["images_valid"][16] = False  # the last step is a target alone
    grid_sample(images=True)(row)
    row["images_valid"][3] = False
    with pytest.raises(StoreError, match=r"1 of 16 images are missing.*d:v:0-1000"):
        grid_sample(images=True)(row)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y", "z", "roll", "pitch", "yaw", "gripper"], ((0, 1, 2), (3, 4, 5), 6)),
        (["tcp_x", "tcp_y", "tcp_z", "euler_x", "euler_y", "euler_z", "gripper_width"], ((0, 1, 2), (3, 4, 5), 6)),
        (["gripper", "ee.qx", "ee.qy", "ee.qz", "ee.qw", "ee.x", "ee.y", "ee.z"], ((5, 6, 7), (1, 2, 3, 4), 0)),
        ([*"xyz", *(f"rot6d_{i}" for i in range(6))], ((0, 1, 2), (3, 4, 5, 6, 7, 8), None)),
        (["shoulder_pan.pos", "elbow_flex.pos", "gripper.pos"], None),
        (["x", "y", "z"], None),
        (None, None),
    ],
)
def test_states_are_read_by_their_names(names, expected):
    form = form_of(names)
    assert (form and (form.xyz, form.rotation, form.gripper)) == expected


def test_things_are_told_from_the_hand():
    names = ["x", "y", "z", *(f"rot6d_{i}" for i in range(6)), "gripper"]
    things = [f"observation.environment_state.{name}" for name in ("goal.x", "goal.y", "goal.z", "object0.q0")]
    rng = np.random.default_rng(5)
    state, shift = rng.normal(size=(4, 14)), np.array([0.3, -0.2, 0.1])
    form = form_of([*names, *things], things=True)
    assert form.width == 14
    found = form.convert(state)
    np.testing.assert_allclose(found[:, 10:13], state[:, 10:13] - state[:, :3])
    np.testing.assert_allclose(found[:, 13], state[:, 13])
    np.testing.assert_array_equal(found[:, :10], form_of([*names, *things]).convert(state))
    moved = state.copy()
    moved[:, :3] += shift
    moved[:, 10:13] += shift
    np.testing.assert_allclose(form.convert(moved)[:, 3:], found[:, 3:], atol=1e-12)


def test_names_lose_what_says_whose_number_it_is():
    assert {plain_name(n) for n in ("observation.state.x", "EE_x", "tcp_x", "end_effector.pos.x", "x")} == {"x"}
    assert plain_name("gripper.pos") == "gripper"


def test_every_way_to_write_a_rotation_gives_the_same_six_numbers():
    rng = np.random.default_rng(2)
    q = rng.normal(size=(20, 4))
    turn = from_quaternion(q)
    np.testing.assert_allclose(turn @ np.swapaxes(turn, -1, -2), np.broadcast_to(np.eye(3), turn.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turn), 1.0)
    six = np.concatenate([turn[..., 0], turn[..., 1]], axis=-1)
    xyz, grip = rng.normal(size=(20, 3)), rng.uniform(size=(20, 1))
    by_quaternion = StateForm((0, 1, 2), (3, 4, 5, 6), 7, "XYZ").convert(np.concatenate([xyz, 3 * q, grip], axis=-1))
    as_it_is = StateForm((0, 1, 2), tuple(range(3, 9)), 9, "XYZ").convert(np.concatenate([xyz, six, grip], axis=-1))
    np.testing.assert_allclose(by_quaternion, as_it_is, atol=1e-12)
    angles = rng.uniform(-1, 1, (20, 3))
    np.testing.assert_allclose(from_euler(angles, "xyz"), np.swapaxes(from_euler(-angles, "XYZ"), -1, -2), atol=1e-12)
    assert np.isnan(from_quaternion(np.zeros(4))).all()


def test_euler_angles_turn_about_moving_axes_or_fixed_ones():
    """Quarter turns about x and y, about moving axes and about fixed ones."""
    quarter = np.array([np.pi / 2, np.pi / 2, 0])
    moving, fixed = from_euler(quarter, "XYZ"), from_euler(quarter, "xyz")
    np.testing.assert_allclose(moving @ [0, 0, 1], [1, 0, 0], atol=1e-12)  # about y: z to x; about x: x stays
    np.testing.assert_allclose(fixed @ [0, 0, 1], [0, -1, 0], atol=1e-12)  # about x: z to -y; about y: stays


def episode(num: int = 40, valid: int = 40) -> dict:
    rng = np.random.default_rng(3)
    ok = np.arange(num) < valid
    state = np.where(ok[:, None], rng.normal(size=(num, 6)), np.nan).astype(np.float32)
    action = np.where(ok[:, None], rng.normal(size=(num, 6)), np.nan).astype(np.float32)
    return {"episode_id": "so:3", "now_s": 0.0, "valid": ok, "state": state, "action": action, "task": "stack"}


def test_a_chunk_is_what_comes_next_minus_the_state_of_its_own_step():
    row = episode()
    by_state = ControlSample(16, 8, None, "next_state", ())(row)
    assert by_state["state"].shape == (16, 6)
    assert by_state["target"].shape == (16, 8, 6)
    np.testing.assert_allclose(by_state["target"][5, 3], row["state"][9] - row["state"][5], rtol=1e-6)
    by_action = ControlSample(16, 8, None, "action", ())(row)
    np.testing.assert_allclose(by_action["target"][5, 3], row["action"][8] - row["state"][5], rtol=1e-6)


def test_after_the_episodes_end_nothing_is_known():
    out = ControlSample(16, 8, None, "next_state", ())(episode(valid=12))
    assert np.isnan(out["state"][12:]).all()
    step, ahead = np.indices((16, 8))
    np.testing.assert_array_equal(np.isfinite(out["target"]).all(-1), step + ahead + 1 < 12)
