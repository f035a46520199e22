"""Later grids as they are stored, chosen and read back."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.camera.intrinsics import project
from handloom.geometry.tracks.stored_grids import StoredGrids, window_tracks, world_points
from handloom.schemas.tables.later_grids import grid_columns
from handloom.schemas.values import Camera, LaterGrid

G, NUM = 4, 30
MATRIX = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])


def grid(begun: int, length: int, seen=None, before: int = 0) -> LaterGrid:
    """Points whose x is the frame in which their grid began, and y the frame."""
    visible = np.ones((length, G), bool) if seen is None else np.asarray(seen)
    points = np.stack(np.broadcast_arrays(np.float32(begun), (begun - before + np.arange(length))[:, None]), -1)
    points = np.repeat(points, G, axis=1).astype(np.float32)
    points[~visible] = np.nan
    return LaterGrid(begun, points, visible, np.where(visible, np.float32(0.25), np.nan), before)


def row_of(*grids: LaterGrid, seen=None, depth: bool = True) -> dict:
    visible = np.ones((NUM, G + 2), bool) if seen is None else seen
    depths = tuple(np.full(one.visible.shape, 2.0, np.float32) for one in grids)
    return {
        "track_visible": visible,
        "track_points_px": np.zeros((NUM, G + 2, 2), np.float32),
        "track_query_frame": np.array([0] * G + [3, -1], np.int32),
        "track_depth_m": np.ones((NUM, G + 2), np.float32),
        **grid_columns(grids, depths if depth else None, G),
    }


def best(row: dict, first: int, last: int) -> int | None:
    return StoredGrids.of(row).best(row["track_visible"], np.arange(first, last + 1))


def gone(frame: int) -> np.ndarray:
    """The first grid is seen before `frame` alone; the other two points always."""
    seen = np.ones((NUM, G + 2), bool)
    seen[frame:, :G] = False
    return seen


def test_every_entry_comes_back_under_its_grid_and_frame():
    rng = np.random.default_rng(0)
    hidden = rng.random((12, G)) < 0.5
    hidden[3] = False
    grids = (grid(5, 8), grid(10, 12, before=3, seen=hidden), grid(20, 10))
    row = row_of(*grids)
    assert len(row["regrid_points_px"]) == len(row["regrid_depth_m"]) == row["regrid_visible"].sum()
    stored = StoredGrids.of(row)
    assert stored.query_frame.tolist() == [5, 10, 20]
    assert stored.num_points == G
    for number, one in enumerate(grids):
        frames = stored.frames(number)
        assert frames.tolist() == list(range(one.first_frame, one.first_frame + len(one.visible)))
        np.testing.assert_array_equal(stored.take(number, "track_points_px", frames), one.points_px)
        np.testing.assert_array_equal(stored.take(number, "track_visible", frames), one.visible)
        some = stored.take(number, "track_sigma_px", frames[::-3])
        np.testing.assert_array_equal(some, one.sigma_px[::-3])
        outside = np.array([-1, frames[0] - 1, frames[-1] + 1])
        assert np.isnan(stored.take(number, "track_points_px", outside)).all()
        assert not stored.take(number, "track_visible", outside).any()


def test_a_window_takes_the_grid_with_most_visible_points():
    row = row_of(grid(5, 8), grid(10, 20), seen=gone(7))
    assert best(row, 2, 6) is None  # the first one shows all of it
    assert best(row, 4, 9) == 0
    assert best(row, 5, 9) == 0
    assert best(row, 9, 12) == 0
    assert best(row, 10, 12) == 1  # as much as the one before: the newer
    assert best(row, 9, 20) == 1  # none shows a point throughout: the one that shows most at all
    assert best(row, 12, 29) == 1
    row = row_of(grid(5, 8), grid(12, 18, before=5), seen=gone(7))
    assert best(row, 6, 12) == 0
    assert best(row, 8, 14) == 1  # it began in the window, and was followed back to its beginning


def test_a_grid_has_no_points_before_it_is_followed():
    row = row_of(grid(6, 10), seen=gone(0))
    assert best(row, 2, 8) == 0
    assert best(row, 2, 5) is None
    assert StoredGrids.of(row).best(row["track_visible"], np.array([-1, -1])) is None


@pytest.mark.parametrize("first", range(NUM - 5))
def test_steps_without_a_frame_and_steps_further_apart_change_nothing(first):
    row = row_of(grid(5, 9), grid(12, 18), seen=gone(8))
    frames = np.arange(first, first + 5)
    stored = StoredGrids.of(row)
    assert stored.best(row["track_visible"], frames) == stored.best(row["track_visible"], np.append([-1], frames))


def test_a_row_s_columns_for_a_window():
    row = row_of(grid(5, 25), seen=gone(7))
    early, late = window_tracks(row, np.arange(0, 4)), window_tracks(row, range(8, 12))
    assert early["track_query_frame"].tolist() == [0] * G + [3, -1]
    assert late["track_query_frame"].tolist() == [5] * G + [3, -1]
    assert late["track_points_px"][:, :G, 0].tolist() == [[5.0] * G] * 4
    assert late["track_points_px"][:, 0, 1].tolist() == [8, 9, 10, 11]
    assert (late["track_points_px"][:, G:] == 0).all()
    assert (late["track_depth_m"][:, :G] == 2).all()
    assert late["track_visible"].all()
    unmeasured = window_tracks(row_of(grid(5, 25), seen=gone(7), depth=False), np.arange(8, 12))
    assert np.isnan(unmeasured["track_depth_m"][:, :G]).all()


def test_rows_without_later_grids_keep_the_first():
    assert StoredGrids.of(row_of()) is None
    assert StoredGrids.of({"track_visible": np.ones((3, 2), bool)}) is None
    off = {"track_visible": np.ones((3, 2), bool), **grid_columns(None, None, G)}
    assert StoredGrids.of(off) is None
    row = row_of() | {"track_points_world_m": None}
    assert set(window_tracks(row, np.arange(2))) == {
        "track_points_px", "track_visible", "track_depth_m", "track_query_frame",
    }  # fmt: skip


@pytest.mark.parametrize("distortion", [None, np.array([-0.2, 0.05, 0, 0])])
def test_world_points_come_from_depth_lens_and_pose(distortion):
    rng = np.random.default_rng(0)
    camera = Camera(MATRIX, "given", distortion)
    pose = np.tile(np.eye(4), (3, 1, 1))
    pose[:, :3, 3] = rng.normal(size=(3, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pose[:, :3, :3] = turn * np.sign(np.linalg.det(turn))
    cam = np.concatenate([rng.uniform(-0.4, 0.4, (3, G, 2)), rng.uniform(1, 2, (3, G, 1))], axis=-1)
    world = np.einsum("tij,tnj->tni", pose[:, :3, :3], cam) + pose[:, None, :3, 3]
    found = world_points(project(cam, camera), cam[..., 2], camera, pose)
    np.testing.assert_allclose(found, world, atol=1e-4)
    stored = row_of(grid(5, 3)) | {
        "regrid_points_px": project(cam, camera).astype(np.float32).reshape(-1, 2),
        "regrid_depth_m": cam[..., 2].astype(np.float32).reshape(-1),
        "camera_matrix": MATRIX, "camera_distortion": distortion, "world_unit_m": 0.5,
        "world_from_camera": np.concatenate([np.full((5, 4, 4), np.nan), pose, np.full((22, 4, 4), np.nan)]),
    }  # fmt: skip
    half = np.einsum("tij,tnj->tni", pose[:, :3, :3], cam) + 0.5 * pose[:, None, :3, 3]
    read = StoredGrids.of(stored).take(0, "track_points_world_m", np.array([5, 6, 7, -1]))
    np.testing.assert_allclose(read[:3], half, atol=1e-4)
    assert np.isnan(read[3]).all()
    assert np.isnan(
        StoredGrids.of(stored | {"world_unit_m": None}).take(0, "track_points_world_m", np.array([5]))
    ).all()
