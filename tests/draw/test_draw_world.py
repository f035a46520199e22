"""The image of a clip's world: none without poses, both views in one scale."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.draw.certainty import lens_text, scale_text, trust_text
from handloom.draw.certainty import short_words as draw_words
from handloom.draw.overlay import HAND_COLORS
from handloom.draw.show import write_show
from handloom.draw.world import POINT_COLORS, draw_world
from handloom.errors import ConfigError
from handloom.schemas.calibrated import Calibrated, with_calibration
from handloom.schemas.tables.later_grids import grid_columns
from handloom.schemas.values import LaterGrid, TrackKind


def make_row(scale: str = "metric") -> dict:
    poses = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 0.2, 5)
    poses[3] = np.nan
    hands = np.full((5, 2, 21, 3), np.nan, np.float32)
    hands[:, 1] = [0.1, 0.1, 0.4]
    hands[:, 1, :, 0] += np.linspace(0, 0.1, 5)[:, None]
    tracks = np.full((5, 3, 3), np.nan, np.float32)
    tracks[:, 0] = [0.0, 0.2, 0.6]
    kinds = np.array([0, 4, -1], np.int8)
    keys = ("world_from_camera", "hand_keypoints_world_m", "track_points_world_m", "track_kind", "world_scale")
    return dict(zip(keys, (poses, hands, tracks, kinds, scale), strict=True))


def test_without_poses_there_is_no_image():
    assert draw_world({"world_from_camera": None}, 200, 100) is None
    assert draw_world({"world_from_camera": np.full((3, 4, 4), np.nan)}, 200, 100) is None


def test_the_hand_that_is_known_is_drawn_and_lengths_keep_their_ratio():
    image = draw_world(make_row(), 800, 400)
    assert image.shape == (400, 800, 3)
    assert (image == HAND_COLORS[1]).all(-1).any()
    assert not (image == HAND_COLORS[0]).all(-1).any()
    above = image[30:381, :400]  # without title and bar
    camera = np.flatnonzero((above == 255).all(-1).any(0))
    wrist = np.flatnonzero((above == HAND_COLORS[1]).all(-1).any(0))
    assert 1.5 < np.ptp(camera) / np.ptp(wrist) < 2.6  # 20 cm and 10 cm, and the ring at the start


def test_a_straight_path_does_not_show_its_noise_from_the_side():
    row = make_row("arbitrary") | {"hand_keypoints_world_m": None, "track_points_world_m": None}
    row["world_from_camera"][:, 1:3, 3] = [[0, 0], [0.001, 0], [0, -0.001], [0, 0], [0.001, 0.001]]
    side = (draw_world(row, 800, 400)[30:360, 400:] == 255).all(-1)
    assert np.ptp(np.flatnonzero(side.any(0))) < 16  # the ring at the start, not the width of the view
    row["world_from_camera"][:, 0, 3] = [0, 0.02, 0.04, np.nan, 0.2]
    above = (draw_world(row, 800, 400)[30:360, :400] == 255).all(-1).any(0)
    assert not above[150:300].any()  # no line crosses a gap


def test_points_of_later_grids_are_in_the_world():
    row = make_row() | {"camera_matrix": np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), "world_unit_m": 1.0}
    places = np.array([[[10.0, 20], [50, 40]]] * 2, np.float32)
    depth = np.full((2, 2), 0.7, np.float32)
    grid = LaterGrid(2, places, np.ones((2, 2), bool), np.ones((2, 2), np.float32), 1)  # frame 3 has no pose
    places[1], depth[1] = np.nan, np.nan
    first, both = (draw_world(row | grid_columns(n * (grid,), n * (depth,), 2), 800, 400) for n in (0, 1))
    grey = [(image == POINT_COLORS[TrackKind.GRID]).all(-1).sum() for image in (first, both)]
    assert grey[1] > 2 * grey[0] > 0


def test_a_scale_bar_only_where_there_are_metres():
    assert (draw_world(make_row("metric"), 800, 400) != draw_world(make_row("arbitrary"), 800, 400)).any()


def test_words_say_what_is_known_of_the_scale():
    row = make_row("metric")
    assert draw_words(row) == ["metres"]
    row |= {"camera_source": "assumed", "camera_focal_sigma": 0.33, "quality": {"camera_scale_sigma": 0.36}}
    assert draw_words(row) == ["lens assumed ± 33%", "metres ± 36%"]
    assert scale_text(row) == "world in metres, to scale, known to 36%"
    part = {"camera_scale_sigma": 0.36, "camera_coverage": 0.3372}
    assert scale_text(row | {"quality": part}) == "world in metres, to scale, known to 36%, in 33.7% of the frames"
    assert lens_text(row | {"camera_preset": "epic"}) == "lens assumed (epic), focal length known to 33%"
    shared = with_calibration(None, {}, Calibrated("all", "all", 4, 0.4, 0.05))
    found = row | {"camera_source": "estimated", "camera": shared}
    assert lens_text(found) == "lens estimated from 4 clips together, focal length known to 33%"
    trusted = row | {"quality": {"metric_trust": 0.71, "hand_coverage": 0.4}}
    assert draw_words(trusted)[-1] == "trust 71%"
    assert trust_text(trusted) == "distances of hands within 20 % of the truth: probability 71%"
    assert "distances along the path" in trust_text({"quality": {"metric_trust": 0.71, "hand_coverage": 0.0}})
    hands = np.tile(np.array([0, 0, 0.5], np.float32), (5, 2, 21, 1))
    still = {"camera_path_reason": "static", "quality": {"camera_scale_sigma": None}}
    seen = row | still | {"hand_keypoints_cam_m": hands, "hand_sigma_m": np.full((5, 2), 0.1, np.float32)}
    assert draw_words(seen)[1] == "metres ± 20%"  # of the hands' distance
    assert draw_words(row | still)[1] == "camera did not move"
    assert scale_text(row | still) == "camera did not move: nothing to be measured"
    assert draw_words(make_row("arbitrary")) == ["path's scale unknown"]
    assert draw_words({}) == []


def test_a_camera_at_rest_with_nothing_around_has_no_bar():
    row = make_row("metric")
    row["world_from_camera"] = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    row |= {"hand_keypoints_world_m": None, "track_points_world_m": None}
    image = draw_world(row, 800, 400)
    assert not (image[380:, 200:400] == 255).all(-1).any()  # where the bar would be
    assert (draw_world(row | {"camera_path_reason": "static"}, 800, 400) != image).any()
    moved = draw_world(make_row("metric"), 800, 400)
    assert (moved[380:, 200:400] == 255).all(-1).any()


def test_a_recording_holds_what_the_row_knows(tmp_path):
    rerun = pytest.importorskip("rerun")
    row = make_row()
    hands_px = np.full((5, 2, 21, 2), 30.0, np.float32)
    row |= {"clip_id": "t:v:0-1000", "width": 64, "height": 48, "frame_s": 2 + np.arange(5) / 15, "world_unit_m": 1.0}
    row |= {"camera_matrix": np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), "hand_keypoints_px": hands_px}
    row |= {"track_points_px": np.full((5, 3, 2), 10.0, np.float32), "track_visible": np.ones((5, 3), bool)}
    path = np.tile(np.eye(4), (3, 1, 1))
    path[:, 0, 3] = [0.1, 0.2, np.nan]
    row["segments"] = [{
        "start_frame": 1, "end_frame": 4, "master": "scene", "slave": "object_1", "object_tracks": [0, 2],
        "object_box_m": [0.0, 0.0, 0.0, 0.2, 0.4, 0.6], "trajectory": path.reshape(3, 16).tolist(),
    }]  # fmt: skip
    frames = [(float(s), np.full((48, 64, 3), 90, np.uint8)) for s in row["frame_s"]]
    write_show(frames, row, tmp_path / "clip.rrd")
    found = rerun.dataframe.load_recording(tmp_path / "clip.rrd")
    table = found.view(index="frame_s", contents="/**").select().read_all()
    assert table.num_rows == 5
    keypoints = next(name for name in table.column_names if name.startswith("/world/hands/right/keypoints:Position3D"))
    stored = np.array(table[keypoints].to_pylist(), np.float32)
    assert np.array_equal(stored, row["hand_keypoints_world_m"][:, 1])
    assert not any(name.startswith("/world/hands/left/keypoints") for name in table.column_names)
    assert not any(name.startswith("/lens") for name in table.column_names)
    of_thing = {name.rpartition(":")[2]: table[name].to_pylist() for name in table.column_names if "object_1" in name}
    np.testing.assert_allclose(of_thing["Translation3D"][1:3], [[[0.1, 0, 0]], [[0.2, 0, 0]]], atol=1e-6)
    np.testing.assert_allclose(of_thing["HalfSize3D"][2], [[0.1, 0.2, 0.3]], atol=1e-6)
    assert not of_thing["HalfSize3D"][3], "its pose is unknown"
    marked = table["/world/camera/image/things:Position2D"].to_pylist()
    assert [len(points or ()) for points in marked] == [0, 2, 2, 2, 0]
    row |= {"camera_distortion": np.array([0.1, 0, 0, 0]), "camera_model": "fisheye"}
    write_show(frames, row, tmp_path / "bent.rrd")
    bent = rerun.dataframe.load_recording(tmp_path / "bent.rrd").schema().component_columns()
    assert any(column.entity_path == "/lens" for column in bent)
    with pytest.raises(ConfigError, match="4 of the 5"):
        write_show(frames[:4], row, tmp_path / "short.rrd")
    assert not (tmp_path / "short.rrd").exists()
