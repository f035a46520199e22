"""The stage `segments` as part of a row, and its column in Arrow."""

import numpy as np
import pyarrow as pa
from support.interactions import exact_scene, sequence

from handloom.geometry.interactions.later import with_later_points
from handloom.geometry.interactions.segments import find_segments
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig, Settings
from handloom.schemas.tables.later_grids import grid_columns
from handloom.schemas.tables.own_columns import own_cell
from handloom.schemas.tables.row import row_camera
from handloom.schemas.tables.segments import SEGMENT
from handloom.schemas.values import LaterGrid, TrackKind
from handloom.stages.builtin.segments import later_points_of, scene_of, segment_cell
from handloom.stages.own import compute_own
from handloom.stages.registry import own_stages, stage_graph
from handloom.stages.stage import ClipInput

CLIP = Clip("d:v:0-1000", "d", "v", "/v.mp4", 0.0, 1.0)


def row_of(scene, truth):
    """The columns that the stage reads, with this scene's values."""
    num = len(scene.frame_s)
    kind = np.where(scene.on_hand, TrackKind.LEFT_HAND, TrackKind.GRID).astype(np.int8)
    seen = np.isfinite(scene.rays[..., 0])
    px = truth.lens.project(np.where(seen[..., None], scene.rays, [0.0, 0.0, 1.0]))
    own = {name: None for name in own_stages(Settings())[0].reads_columns}
    return own | {
        "frame_s": scene.frame_s, "frame_flags": np.zeros(num, np.int32), "camera_matrix": truth.camera_matrix,
        "camera_source": "given", "camera_model": "opencv", "world_from_camera": truth.world_from_camera,
        "world_scale": "metric", "world_unit_m": 1.0, "hand_infilled": np.zeros((num, 2), bool),
        "hand_keypoints_cam_m": truth.keypoints_cam_m, "track_kind": kind, "track_points_px": px,
        "track_visible": seen, "track_depth_m": scene.depth_m,
    }  # fmt: skip


def the_stage(settings=None):
    config = RunConfig(**({} if settings is None else {"stages": {"segments": {"settings": settings}}}))
    return next(stage for stage in own_stages(config.settings()) if stage.name == "segments")


def compute(stage, row):
    (found,) = compute_own(stage, [ClipInput(CLIP, row)])
    assert isinstance(found, dict), found
    return found["segments"][0].as_py()


def test_the_stage_writes_what_the_functions_find():
    scene, truth = exact_scene(sequence(5))
    row = row_of(scene, truth)
    found = find_segments(scene_of(row), 0.02, 0.10)
    cells = compute(the_stage(), row)
    assert len(cells) == len(found.segments) > 5
    for cell, segment in zip(cells, found.segments, strict=True):
        assert cell["phase"] == segment.phase
        assert cell["start_s"] == segment.start_s
        np.testing.assert_allclose(cell["trajectory"], segment.trajectory.reshape(-1, 16).astype(np.float32))
    assert len(compute(the_stage({"min_path_m": 1.5}), row)) < len(cells), "movements without a thing are shorter"


def test_a_clip_without_hands_has_null_and_one_without_actions_an_empty_list():
    scene, truth = exact_scene(sequence(5))
    row = row_of(scene, truth)
    assert compute(the_stage(), row | {"hand_keypoints_cam_m": np.full_like(truth.keypoints_cam_m, np.nan)}) is None
    assert compute(the_stage(), row | {"hand_keypoints_cam_m": None}) is None
    first = {name: np.repeat(value[:1], len(value), axis=0) for name, value in row.items()
             if isinstance(value, np.ndarray) and len(value) == len(scene.frame_s) and name != "frame_s"}  # fmt: skip
    assert compute(the_stage(), row | first) == []
    no_tracks = dict.fromkeys(("track_points_px", "track_visible", "track_depth_m", "track_kind"))
    assert {tuple(one["object_tracks"]) for one in compute(the_stage(), row | no_tracks)} == {()}


def test_a_thing_that_only_later_grids_show_is_found_at_the_same_times():
    scene, truth = exact_scene(sequence(5))
    row, num = row_of(scene, truth), len(scene.frame_s)
    contacts = find_segments(scene_of(row), 0.02, 0.10).contacts
    things = np.unique(np.concatenate([contact.points for contact in contacts]))
    without = {name: np.delete(row[name], things, axis=-1 if row[name].ndim < 3 else 1)
               for name in ("track_kind", "track_points_px", "track_visible", "track_depth_m")}  # fmt: skip
    middle = (contacts[0].end + contacts[1].start) // 2
    parts = [slice(0, middle), slice(middle - 8, num)]
    grid = np.flatnonzero(~scene.on_hand)
    grids = tuple(LaterGrid(at.start, row["track_points_px"][at, grid], row["track_visible"][at, grid]) for at in parts)
    depth = tuple(row["track_depth_m"][at, grid] for at in parts)
    row |= without
    none = find_segments(scene_of(row), 0.02, 0.10)
    assert not any(len(contact.points) for contact in none.contacts)
    row |= grid_columns(grids, depth, len(grid))
    both = scene_of(row)
    np.testing.assert_array_equal(both.later, np.arange(both.rays.shape[1]) >= len(row["track_kind"]))
    assert both.later.sum() <= 2 * len(things)
    found = find_segments(both, 0.02, 0.10)
    assert [c.hand for c in found.contacts] == [c.hand for c in contacts]
    for mine, one in zip(found.contacts, contacts, strict=True):
        assert abs(mine.start - one.start) <= 1
        assert abs(mine.end - one.end) <= 1
        assert both.later[mine.points].all()
        assert np.isfinite(found.things[mine.thing].poses[mine.start : mine.end]).all()
    assert {tuple(cell["object_tracks"]) for cell in compute(the_stage(), row)} == {()}, "they have no number"


def test_points_of_later_grids_that_rest_are_not_taken():
    scene, truth = exact_scene(sequence(5))
    row = row_of(scene, truth)
    rests = np.flatnonzero(np.isfinite(scene.depth_m).all(axis=0))
    assert len(rests) > 50
    grid = LaterGrid(10, row["track_points_px"][10:, rests], row["track_visible"][10:, rests])
    again = scene_of(row | grid_columns((grid,), (row["track_depth_m"][10:, rests],), len(rests)))
    assert not again.later.any()


def test_of_many_later_grids_a_bounded_number_of_points_is_taken():
    """Those that move near a hand for longest."""
    scene, truth = exact_scene(sequence(5))
    row, grid = row_of(scene, truth), np.flatnonzero(~scene.on_hand)
    cells = (LaterGrid(0, row["track_points_px"][:, grid], row["track_visible"][:, grid]),)
    columns = grid_columns(cells, (row["track_depth_m"][:, grid],), len(grid))
    points = later_points_of(row | columns)
    all_of_them, some = (
        with_later_points(scene, row_camera(row), points, most).rays[:, scene.rays.shape[1] :] for most in (1000, 10)
    )
    assert some.shape[1] == 10 < all_of_them.shape[1]
    kept = {one.tobytes() for one in some.transpose(1, 0, 2)}
    assert kept < {one.tobytes() for one in all_of_them.transpose(1, 0, 2)}


def test_every_field_goes_through_arrow():
    scene, _ = exact_scene(sequence(5))
    cells = [segment_cell(segment) for segment in find_segments(scene, 0.02, 0.10).segments]
    assert all(set(cell) == {field.name for field in SEGMENT} for cell in cells)
    (array,) = own_cell(cells, pa.field("segments", pa.list_(SEGMENT)))
    assert array.as_py()[0]["object_tracks"] == cells[0]["object_tracks"]


def test_it_reads_columns_alone():
    graph = stage_graph(Settings())
    assert not graph["segments"].reads_frames
    assert graph["segments"].request is None
    assert {"camera", "hands_3d", "tracks", "world", "lift", "quality"} <= set(graph.ancestors(["segments"]))
