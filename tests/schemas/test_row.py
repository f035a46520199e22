"""Rows round-trip: every array comes back bit by bit, with NaN and null, for any T and N."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.rows import make_clip, make_row

from handloom.errors import ClipError, ShapeError
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.tables.arrow import CLIP_LIST, QUALITY_FIELDS, clips_schema
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.later_grids import grid_columns
from handloom.schemas.tables.reject import Reject
from handloom.schemas.tables.row import (
    FRAME_SHAPES,
    build_row,
    frames_from_arrow,
    frames_to_arrow,
    row_arrays,
    row_camera,
)
from handloom.schemas.values import Camera, CameraPath, ClipAnalysis, Hands, LaterGrid, LiftedTracks, Tracks, VideoInfo

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
INFO = VideoInfo(1920, 1080, 29.97, "h264", "yuv420p", 0, 0.0, 60.0, 1800)


@st.composite
def paths(draw, num):
    if draw(st.booleans()):
        return CameraPath(None, "none", "none", "few_tracks")
    poses = draw(hnp.arrays(np.float64, (num, 4, 4), elements=FLOATS, fill=FLOATS))
    return CameraPath(poses, draw(st.sampled_from(["metric", "arbitrary"])), "estimated")


@st.composite
def outputs(draw):
    """Stage outputs of one clip: T frames from none up, N tracks from one up, any bits in the floats."""
    num, grid = draw(st.integers(0, 5)), draw(st.integers(1, 3))
    floats = lambda *shape: draw(hnp.arrays(np.float32, shape, elements=FLOATS, fill=FLOATS))
    bools = lambda *shape: draw(hnp.arrays(np.bool_, shape))
    lengths = draw(st.lists(st.integers(0, 3), max_size=3))
    grids = tuple(LaterGrid(begun, floats(n, grid**2, 2), bools(n, grid**2)) for begun, n in enumerate(lengths, 1))
    depths = tuple(floats(n, grid**2) for n in lengths)
    return {
        "frame_s": np.sort(draw(hnp.arrays(np.float64, num, elements=st.floats(0, 1e5)))),
        "hands": Hands(
            *(bools(num, 2), bools(num, 2), floats(num, 2), floats(num, 2, 21, 2), floats(num, 2, 21, 3)),
            sigma_m=floats(num, 2) if draw(st.booleans()) else None,
            view=draw(st.sampled_from([None, "ego", "exo"])),
        ),
        "hands_world_m": floats(num, 2, 21, 3) if draw(st.booleans()) else None,
        "path": draw(paths(num)),
        "tracks": Tracks(
            *(floats(num, grid**2, 2), bools(num, grid**2)),
            query_frame=draw(hnp.arrays(np.int32, grid**2)),
            kind=draw(hnp.arrays(np.int8, grid**2, elements=st.integers(-1, 4))),
            sigma_px=draw(st.none() | hnp.arrays(np.float16, (num, grid**2))),
            grids=draw(st.none() | st.just(grids)),
        ),
        "lifted": draw(
            st.none() | st.builds(LiftedTracks, st.just(floats(num, grid**2)), st.none(), st.none() | st.just(depths))
        ),
        "depth_source": draw(st.none() | st.just("geometry")),
        "flags": draw(st.none() | hnp.arrays(np.int32, num)),
        "embeddings": {
            name: None if draw(st.booleans()) else np.linspace(-1, 1, spec.dim, dtype=np.float32)
            for name, spec in EMBEDDINGS.items()
        },
        "quality": {name: draw(st.none() | st.floats(-1e6, 1e6, width=32)) for name in list(QUALITY_FIELDS)[:4]},
        "frame_jpeg": draw(st.none() | st.just([b"\xff\xd8"] * num)),
        "camera": Camera(np.array([[1000.5, 0, 960], [0, 1000.25, 540], [0, 0, 1]]), "given"),
    }


def row_of(values: dict, clip: Clip | None = None) -> pa.RecordBatch:
    clip = clip or make_clip(3, narration="öffne die Schublade")
    analysis = {field.name: values[field.name] for field in dataclasses.fields(ClipAnalysis)}
    rest = {name: values[name] for name in values.keys() - analysis.keys()}
    found = ClipAnalysis(**analysis)
    return build_row(clip, info=INFO, decoder="pyav", found=found, thumbnail=b"strip", run_key="0" * 16, **rest)


@settings(deadline=None, max_examples=50)
@given(outputs())
def test_a_row_round_trips(values):
    row = row_of(values)
    assert row.schema.equals(clips_schema(values["tracks"].points_px.shape[1]), check_metadata=True)
    back = row_arrays(pa.Table.from_batches([row]))
    expected = {f"hand_{field.name}": getattr(values["hands"], field.name) for field in dataclasses.fields(Hands)}
    del expected["hand_view"]
    expected |= {f"track_{field.name}": getattr(values["tracks"], field.name) for field in dataclasses.fields(Tracks)}
    poses, lifted, grids = values["path"].world_from_camera, values["lifted"], expected.pop("track_grids")
    depth_m = None if lifted is None else lifted.grids_depth_m
    expected |= grid_columns(grids, depth_m, values["tracks"].visible.shape[1])
    expected |= {"world_from_camera": None if poses is None else poses.astype(np.float32)}
    expected |= {"hand_keypoints_world_m": values["hands_world_m"], "frame_flags": values["flags"]}
    expected |= {"track_depth_m": None if lifted is None else lifted.depth_m, "track_points_world_m": None}
    expected |= {f"embedding_{name}": vector for name, vector in values["embeddings"].items()}
    expected |= {"frame_s": values["frame_s"], "camera_matrix": values["camera"].camera_matrix.astype(np.float32)}
    for name, array in expected.items():
        if array is None:
            assert back[name] is None, name
            continue
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        assert back[name].tobytes() == array.tobytes(), name
    assert back["num_frames"] == len(values["frame_s"])
    assert back["frame_jpeg"] == values["frame_jpeg"]
    assert back["quality"] == {name: values["quality"].get(name) for name in QUALITY_FIELDS}
    assert back["hand_left"] == bool(values["hands"].visible[:, 0].any())
    assert back["hand_view"] == values["hands"].view
    assert back["world_scale"] == ("none" if poses is None else values["path"].scale)


@pytest.mark.parametrize(
    "camera",
    [
        Camera(np.diag([500.0, 500.0, 1.0]), "given"),
        Camera(np.diag([500.0, 500.0, 1.0]), "given", np.array([0.1, 0.0, 0.0, 0.0])),
        Camera(np.diag([500.0, 500.0, 1.0]), "assumed", np.array([0.1, 0.0, 0.0, 0.0]), "fisheye", 0.25, "gopro-wide"),
    ],
)
def test_a_rows_camera_is_the_one_that_it_was_made_with(camera):
    back = row_camera(row_arrays(row_of(_plain() | {"camera": camera})))
    for field in dataclasses.fields(Camera):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(camera, field.name), err_msg=field.name)


def test_an_open_end_becomes_the_end_of_the_video():
    back = row_arrays(row_of(_plain(), make_clip(3, start_s=58.5, end_s=None)))
    assert (back["end_s"], back["duration_s"]) == (60.0, 1.5)


@pytest.mark.parametrize("name", ["hands", "tracks"])
def test_outputs_that_disagree_are_refused(name):
    values = _plain() | {name: _plain(num=4)[name]}
    with pytest.raises(ShapeError, match=f"{name} has 4 frames, the clip 3"):
        row_of(values)


def test_unknown_quality_is_refused():
    with pytest.raises(ShapeError, match="sharpness"):
        row_of(_plain() | {"quality": {"sharpness": 1.0}})


def test_a_value_that_does_not_fill_its_column_is_refused():
    column = clips_schema(4).field("hand_keypoints_px").type
    with pytest.raises(ShapeError, match="84 numbers"):
        frames_to_arrow(np.zeros((3, 2, 20, 2), np.float32), column)


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4), st.just(4)), elements=FLOATS))
def test_poses_round_trip(poses):
    """A column that a later stage will fill."""
    column = clips_schema(1).field("world_from_camera").type
    cell = frames_to_arrow(poses, column)
    assert cell.type == column
    assert frames_from_arrow(cell[0], FRAME_SHAPES["world_from_camera"]).tobytes() == poses.tobytes()
    assert frames_from_arrow(pa.scalar(None, column), (4, 4)) is None


def test_rows_of_many_clips_keep_apart():
    table = pa.Table.from_batches([make_row(number, num_frames=number % 3 + 1) for number in range(4)])
    for index in range(4):
        single, together = row_arrays(make_row(index, num_frames=index % 3 + 1)), row_arrays(table, index)
        assert single.keys() == together.keys()
        for name, value in single.items():
            np.testing.assert_array_equal(value, together[name], err_msg=name)


TIMES = st.floats(-100, 1e6) | st.sampled_from([math.nan, math.inf, 0.0, 0.0004, 1.0005])


@given(TIMES, st.none() | TIMES)
def test_clip_ids_name_dataset_video_and_milliseconds(start_s, end_s):
    dataset, video, span = make_clip_id("epic", "P01_01", start_s, end_s).split(":")
    assert (dataset, video) == ("epic", "P01_01")
    for text, value in zip(span.rsplit("-", 1), (start_s, end_s), strict=True) if not _negative(end_s) else ():
        if value is None:
            assert text == "end"
        elif not math.isfinite(value):
            assert text == "nan"
        else:
            assert abs(int(text) - value * 1000) <= 0.5


def test_clip_ids_are_stable():
    assert make_clip_id("epic", "P01_01", 1.2345, 3.0) == "epic:P01_01:1234-3000"
    assert make_clip_id("d", "v", 0.0, None) == "d:v:0-end"


@given(st.builds(make_clip, st.integers(0, 99), narration=st.none() | st.text(), end_s=st.none() | st.floats(0, 9)))
def test_clips_fit_the_clip_list(clip):
    assert Clip(**json.loads(clip.to_json())) == clip
    assert list(clip.to_dict()) == CLIP_LIST.names
    assert CLIP_LIST.names == [name for name in clips_schema(1).names if name in CLIP_LIST.names]


def test_a_reject_keeps_the_hint():
    reject = Reject.from_error(ClipError("c", "decode", "damaged", "41 of 96", "fetch it again"), attempts=2)
    assert reject == Reject("c", "decode", "damaged", "41 of 96\nhint: fetch it again", 2, None)


def test_a_reject_can_be_stored_whatever_an_error_says():
    """Names of files that are not UTF-8 reach Python as lone surrogates, which Arrow refuses."""
    reject = Reject.from_error(ClipError("c", "fetch", "bug", "no caf\udce9.npy", "look at caf\udce9.npy"))
    assert pa.array([reject.detail]).to_pylist() == ["no caf\\udce9.npy\nhint: look at caf\\udce9.npy"]


def _negative(value: float | None) -> bool:
    return value is not None and value < 0


def _plain(num: int = 3) -> dict:
    nan = np.full((num, 2, 21, 3), np.nan, np.float32)
    no = np.zeros((num, 2), bool)
    return {
        "frame_s": np.arange(num) / 15,
        "hands": Hands(no, no, np.full((num, 2), np.nan, np.float32), nan[..., :2], nan),
        "tracks": Tracks.of_grid(np.zeros((num, 4, 2), np.float32), np.ones((num, 4), bool)),
        "embeddings": dict.fromkeys(EMBEDDINGS),
        "quality": {},
        "frame_jpeg": None,
        "camera": Camera(np.eye(3), "assumed"),
        "path": CameraPath(None, "none", "none", "static"),
        "hands_world_m": None,
        "lifted": None,
        "depth_source": None,
        "flags": None,
    }
