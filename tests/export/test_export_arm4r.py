"""ARM4R exports: a loader written from the format's description alone reads the table's tracks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.rows import make_clip, make_row

from handloom.errors import ConfigError, ShapeError
from handloom.export.arm4r.clips import export_arm4r
from handloom.export.arm4r.points import clip_points, held
from handloom.export.arm4r.zarr2 import zarr_files
from handloom.export.new_export import INDEX, MARK
from handloom.geometry.camera.intrinsics import rays
from handloom.geometry.tracks.arm4r import arm4r_points
from handloom.geometry.tracks.arm4r_scale import at_912x512
from handloom.models.tracks.lucas_kanade import query_grid
from handloom.schemas.tables.row import build_row, row_arrays, row_camera
from handloom.schemas.values import Camera, CameraPath, ClipAnalysis, Hands, LaterGrid, LiftedTracks, Tracks, VideoInfo

NUM = 1296


def clip_row(number: int, num_frames: int = 32, share_hidden: float = 0.3, depth: bool = True, later=None, **values):
    """A clip with a 36 x 36 grid that drifts; hidden points and some depths unknown. later: grids, and their depths."""
    rng = np.random.default_rng(number)
    grid = query_grid(640, 360, 36)
    points = (grid[None] + rng.normal(0, 2, (num_frames, 1, 2)).cumsum(0)).astype(np.float32)
    visible = rng.uniform(size=points.shape[:2]) >= share_hidden
    visible[0] = True
    points[~visible] = np.nan
    depth_m = np.where(visible, rng.uniform(0.3, 2, visible.shape), np.nan).astype(np.float32)
    unseen = np.zeros((num_frames, 2), bool)
    blank = lambda *shape: np.full((num_frames, 2, *shape), np.nan, np.float32)
    clip = make_clip(number, **values)
    return build_row(
        clip,
        info=VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, 10.0, 300),
        decoder="decord",
        frame_s=clip.start_s + np.arange(num_frames) / 15,
        found=ClipAnalysis(
            camera=Camera(np.diag([500.0, 500.0, 1.0]), "assumed"),
            path=CameraPath(None, "none", "none", "static"),
            hands=Hands(unseen, unseen, blank(), blank(21, 2), blank(21, 3)),
            tracks=replace(Tracks.of_grid(points, visible), grids=later and later[0]),
            lifted=LiftedTracks(depth_m, None, later and later[1]) if depth else None,
            depth_source="geometry",
        ),
        embeddings={"motion": None, "appearance": None},
        frame_jpeg=[f"{number} {n}".encode() for n in range(num_frames)],
        thumbnail=b"",
        run_key="k",
    )


def write(rows: list, out: Path, **options):
    return export_arm4r(rows, str(out), card=lambda summary: "# card", **options)


def arm4r_window(root: Path, clip: str, start: int, length: int = 16) -> dict[str, np.ndarray]:
    """One window as ARM4R's loader makes it, written from the format's description alone."""
    zarr = pytest.importorskip("zarr")
    folder = root / "epic_tasks_final" / "common_task" / clip
    points = zarr.open(str(folder / "points.zarr"), mode="r")[start : start + length + 1]
    scaled = points * np.array([0.002, 0.002, 1.0])
    paths = json.loads((folder / "images.json").read_text())["observation/ego_image"][start : start + length]
    return {
        "proprio": scaled[:-1].reshape(length, 1, -1),
        "action": np.diff(scaled, axis=0).reshape(length, 1, -1),
        "images": np.array([Path(path).read_bytes() for path in paths]),
    }


def test_a_window_of_the_loader_holds_the_tables_points(tmp_path: Path) -> None:
    rows = [clip_row(0, 32), clip_row(1, 60, narration="open the drawer")]
    found = write(rows, tmp_path / "out", unknown="hold")
    assert (found.num_clips, found.num_frames, found.num_without_text) == (2, 92, 1)
    clips = json.loads((tmp_path / "out/epic_clips.json").read_text())
    assert [(c["clip_id"], c["instruction"]) for c in clips] == [("000000", ""), ("000001", "open the drawer")]
    window = arm4r_window(tmp_path / "out", "000001", start=20)
    row = row_arrays(rows[1])
    assert window["proprio"].shape == window["action"].shape == (16, 1, 3888)
    seen = row["track_visible"][20:36]
    pixels = row["track_points_px"][20:36]
    points = window["proprio"].reshape(16, NUM, 3)
    np.testing.assert_allclose(
        points[..., 0][seen], 0.002 * ((pixels[..., 0] + 0.5) * 912 / 640 - 0.5)[seen], rtol=1e-5
    )
    np.testing.assert_allclose(
        points[..., 1][seen], 0.002 * ((pixels[..., 1] + 0.5) * 512 / 360 - 0.5)[seen], rtol=1e-5
    )
    np.testing.assert_allclose(points[..., 2][seen], row["track_depth_m"][20:36][seen], rtol=1e-6)
    assert np.isfinite(window["action"]).all()
    assert window["images"].tolist() == row["frame_jpeg"][20:36]


def test_hidden_points_lie_where_a_fisheye_shows_them() -> None:
    """Points and camera at rest: every point is known in every frame, hidden or not, at one pixel."""
    row = row_arrays(clip_row(0, 3, share_hidden=0.4))
    row |= {"camera_matrix": np.array([[230, 0, 319.5], [0, 230, 179.5], [0, 0, 1]], np.float32)}
    row |= {"camera_distortion": np.array([0.03, 0.01, -0.006, 0.001]), "camera_model": "fisheye"}
    directions = rays(query_grid(640, 360, 36), row_camera(row))
    place = (directions / directions[:, 2:]).astype(np.float32)
    row["track_points_px"] = np.where(row["track_visible"][..., None], query_grid(640, 360, 36), np.nan)
    row["track_depth_m"] = np.where(row["track_visible"], np.float32(1), np.float32(np.nan))
    row["track_points_world_m"] = np.where(row["track_visible"][..., None], place, np.float32(np.nan))
    row |= {"world_scale": "metric", "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))}
    found = clip_points(row)
    assert np.ptp(found, axis=0).max() < 1e-2
    assert (~row["track_visible"]).sum() > 500


def test_a_later_grid_that_lasts_is_a_clip_of_its_own_with_the_same_images(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    seen = lambda num: np.ones((num, NUM), bool)
    grids = (
        LaterGrid(14, np.full((36, NUM, 2), 100, np.float32), seen(36), num_before=4),
        LaterGrid(40, np.full((10, NUM, 2), 200, np.float32), seen(10)),
    )
    depths = tuple(np.full((len(one.visible), NUM), 0.5, np.float32) for one in grids)
    found = write([clip_row(1, 50, later=(grids, depths)), clip_row(2, 33)], tmp_path / "out")
    assert (found.num_clips, found.num_later, found.num_frames) == (3, 1, 50 + 36 + 33)
    root = tmp_path / "out"
    folder = root / "epic_tasks_final/common_task/000001"
    points = zarr.open(str(folder / "points.zarr"), mode="r")[:]
    assert points.shape == (36, NUM, 3)
    np.testing.assert_allclose(points[0, 0], [*at_912x512(np.float64([100, 100]), 640, 360), 0.5], rtol=1e-3)
    images = [
        json.loads((root / f"epic_tasks_final/common_task/00000{n}/images.json").read_text())["observation/ego_image"]
        for n in range(2)
    ]
    assert images[1] == images[0][10:46]
    assert len(list((root / "frames").iterdir())) == 2
    listed = json.loads((root / "epic_clips.json").read_text())
    assert [(e.get("first_frame"), e.get("grid_frame")) for e in listed] == [(None, None), (10, 4), (None, None)]
    assert listed[0]["handloom_clip_id"] == listed[1]["handloom_clip_id"]


def test_masks_show_what_is_known_and_what_was_seen(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    row = clip_row(0)
    for unknown in ("nan", "hold"):
        found = write([row], tmp_path / unknown, unknown=unknown)
        folder = tmp_path / unknown / "epic_tasks_final/common_task/000000"
        points, mask, vis = (zarr.open(str(folder / f"{n}.zarr"))[:] for n in ("points", "points_mask", "points_vis"))
        assert points.shape == (32, NUM, 3)
        assert points.dtype == np.float32
        visible = row_arrays(row)["track_visible"]
        np.testing.assert_array_equal(vis, visible)
        np.testing.assert_array_equal(mask, visible)
        assert np.isnan(points[mask == 0]).all() == (unknown == "nan")
        assert np.isfinite(points[mask == 1]).all()
        assert found.share_unknown == pytest.approx(1 - visible.mean())
        assert not (folder / "instruction.zarr").exists()


def test_clips_that_the_loader_would_skip_are_left_out_and_listed(tmp_path: Path) -> None:
    no_pictures = make_row(make_clip(5), num_frames=31)
    rows = [clip_row(0, 30), clip_row(1, 31), clip_row(2, 451), clip_row(3, 452), clip_row(4, 31, depth=False)]
    rows += [no_pictures, make_row(make_clip(6), num_frames=31, frame_jpeg=[b""] * 31)]
    found = write(rows, tmp_path / "out")
    ids = {row.column("clip_id")[0].as_py(): n for n, row in enumerate(rows)}
    left_out = {reason: [ids[i] for i in clips] for reason, clips in found.left_out.items()}
    assert left_out == {"too_short": [0], "too_long": [3], "no_depth": [4], "no_pictures": [5], "no_grid": [6]}
    assert json.loads((tmp_path / "out/index.json").read_text())["left_out"] == found.left_out
    assert found.num_clips == 2
    assert write([clip_row(1, 31, 0.0), clip_row(2, 31)], tmp_path / "b", unknown="drop-clip").num_clips == 1
    with pytest.raises(ConfigError, match="too_short 1"):
        write(rows[:1], tmp_path / "c")
    with pytest.raises(ConfigError, match="none of nan"):
        write(rows, tmp_path / "c", unknown="zero")


def test_instructions_come_from_the_encoder_or_are_absent(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    asked: list[str] = []

    def encode(text: str) -> np.ndarray:
        asked.append(text)
        return np.full(512, len(text), np.float32)

    rows = [clip_row(n, narration=text) for n, text in enumerate(["push", "push", None])]
    write(rows, tmp_path / "out", text_encoder=encode)
    task = tmp_path / "out/epic_tasks_final/common_task"
    assert (zarr.open(str(task / "000001/instruction.zarr"))[:] == 4).all()
    assert asked == ["push"]
    assert not (task / "000002/instruction.zarr").exists()
    with pytest.raises(ShapeError, match=r"768.*512"):
        write(rows, tmp_path / "b", text_encoder=lambda text: np.zeros(768, np.float32))
    assert list((tmp_path / "b").iterdir()) == []


def test_an_export_that_fails_over_an_earlier_one_stays_marked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write([clip_row(0)], out)
    with pytest.raises(ConfigError, match="not empty"):
        write([clip_row(1)], out)
    with pytest.raises(ConfigError, match="no clip"):
        write([clip_row(1, 5)], out, overwrite=True)
    assert not (out / INDEX).exists()
    assert (out / MARK).exists()
    write([clip_row(1)], out, overwrite=True)
    assert (out / INDEX).exists()
    assert not (out / MARK).exists()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.float32, np.uint8, np.float64]), st.tuples(st.integers(1, 9), st.integers(1, 4))),
    st.integers(1, 100),
)
def test_zarr_reads_back_what_was_written(tmp_path_factory, values: np.ndarray, chunk_bytes: int) -> None:
    zarr = pytest.importorskip("zarr")
    folder = tmp_path_factory.mktemp("array")
    names = []
    for name, content in zarr_files(values, chunk_bytes):
        (folder / name).write_bytes(content)
        names.append(name)
    found = zarr.open(str(folder), mode="r")
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found[:], values)
    if values.dtype.kind == "f":
        (folder / names[-1]).unlink()
        assert np.isnan(zarr.open(str(folder), mode="r")[-1]).all()  # lost, not zero


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5), st.just(3)), elements=st.floats(0, 9, width=32)
    ),
    st.data(),
)
def test_holding_keeps_what_is_known(points: np.ndarray, data) -> None:
    hidden = data.draw(hnp.arrays(bool, points.shape))
    hidden[0, :, :2] = False
    hidden[0, 0] = False
    points = np.where(hidden, np.float32(np.nan), points)
    found = held(points)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[~hidden], points[~hidden])
    again = held(found)
    np.testing.assert_array_equal(again, found)


def test_a_hidden_point_stays_where_it_was_seen_last() -> None:
    nan = np.nan
    points = np.array(
        [[[1, 1, 2], [5, 5, nan]], [[nan, nan, nan], [6, 6, nan]], [[3, 3, 4], [nan, 7, nan]]], np.float32
    )
    found = held(points)
    assert found[:, 0].tolist() == [[1, 1, 2], [1, 1, 2], [3, 3, 4]]
    assert found[:, 1].tolist() == [[5, 5, 2], [6, 6, 2], [6, 7, 4]]  # its neighbour's depth


AUTHORS_FIRST_PX = {
    0: (22.5, 22.5),
    1: (62.35714, 22.5),
    35: (1417.5, 22.5),
    36: (22.5, 52.07143),
    1295: (1417.5, 1057.5),
}
"""Where points of the authors' sample `arm4r_spatracker_mechanic` are in its first frame of 1440 x 1080."""


def test_our_points_have_the_order_and_units_of_the_authors() -> None:
    """theirs: (81, 1296, 3), pixels and metres; without NaN, a median depth of 1.85."""
    info = VideoInfo(1440, 1080, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 81)
    grid = query_grid(info.width, info.height, 36).astype(np.float32)
    still = np.repeat(grid[None], 32, axis=0)
    seen = np.ones(still.shape[:2], bool)
    depth_m = np.full(seen.shape, 1.85, np.float32)
    points = arm4r_points(Tracks.of_grid(still, seen), LiftedTracks(depth_m, None), info)
    assert points.shape == (32, NUM, 3)
    np.testing.assert_array_equal(points[..., 2], depth_m)
    numbers = list(AUTHORS_FIRST_PX)
    theirs = at_912x512(np.array(list(AUTHORS_FIRST_PX.values())), info.width, info.height)
    np.testing.assert_allclose(points[0, numbers, :2], theirs, atol=0.01)
    assert points[0, 36, 1] - points[0, 0, 1] == pytest.approx(14.02, abs=0.01)
