"""LeRobot exports: a reader of the format finds the values of the table."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.rows import later_grid, make_clip, make_row

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.export.images import Fit
from handloom.export.lerobot.clips import CAMERA, clip_episode, clip_layout
from handloom.export.lerobot.dataset import Layout, export_lerobot
from handloom.export.lerobot.grids import num_slots
from handloom.export.lerobot.stats import RunningStats
from handloom.export.steps import rate_of, steps_at
from handloom.pipelines.export.lerobot import lerobot
from handloom.pipelines.ingest.robots import lerobot as ingest_lerobot
from handloom.schemas.hand_topology import KEYPOINT_NAMES
from handloom.schemas.tables.later_grids import grid_columns
from handloom.schemas.tables.robot import RobotEpisode, Signal, episode_arrays, episode_row
from handloom.schemas.tables.row import row_arrays
from handloom.store.episodes import read_episodes, write_episodes

SIZE = (48, 36)


def image(number: int, size: tuple[int, int] = SIZE) -> bytes:
    """A smooth JPEG that differs from its neighbours."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    grey = 0.5 + 0.5 * np.sin(2 * np.pi * (x + 0.5 * y + number / 7))
    image = Image.fromarray((255 * np.stack([grey, y, x], axis=-1)).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def clip_row(number: int, num_frames: int = 6, size: tuple[int, int] = SIZE, **values) -> pa.RecordBatch:
    jpegs = [image(10 * number + n, size) for n in range(num_frames)]
    return make_row(make_clip(number, **values), num_frames=num_frames, frame_jpeg=jpegs)


def write(rows: list[pa.RecordBatch], out: Path, layout: Layout | None = None, **options) -> dict:
    layout = layout or clip_layout(15.0, SIZE, world=False, num_tracks=None)
    episodes = (clip_episode(row_arrays(row), layout) for row in rows)
    export_lerobot(episodes, str(out), layout, card=lambda info: "# card", **options)
    return json.loads((out / "meta/info.json").read_text())


def read_data(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("data/*/*.parquet")))


def listed_episodes(out: Path) -> list[dict]:
    paths = sorted(out.glob("meta/episodes/*/*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def frames_of(path: Path) -> dict[float, np.ndarray]:
    with av.open(str(path)) as container:
        return {
            float(frame.pts * frame.time_base): frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        }


@pytest.mark.parametrize("limit", [1, 10**9])
def test_every_step_reads_back_from_where_the_list_of_episodes_says(tmp_path: Path, limit: int) -> None:
    """With one file for all, and with a file for each episode."""
    rows = [clip_row(n, num_frames=4 + n, narration=("reach", "push")[n % 2]) for n in range(3)]
    info = write(rows, tmp_path / "out", max_data_bytes=limit, max_video_bytes=limit)
    out = tmp_path / "out"
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["fps"]) == (3, 15, 2, 15)
    episodes = listed_episodes(out)
    assert (
        len(list(out.glob("data/*/*.parquet"))) == len(list(out.glob("videos/*/*/*.mp4"))) == (3 if limit == 1 else 1)
    )
    names = pq.read_table(out / "meta/tasks.parquet").column("__index_level_0__").to_pylist()
    for number, (row, episode) in enumerate(zip(rows, episodes, strict=True)):
        values = row_arrays(row)
        where = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        table = pq.read_table(out / info["data_path"].format(**where))
        table = table.filter(pa.compute.equal(table["episode_index"], number))
        assert table["index"].to_pylist() == list(range(episode["dataset_from_index"], episode["dataset_to_index"]))
        state = np.array(table["observation.state"].to_pylist(), np.float32)
        truth = values["hand_keypoints_cam_m"].reshape(len(state), -1)
        np.testing.assert_array_equal(state, truth)
        np.testing.assert_array_equal(np.array(table["action"].to_pylist(), np.float32)[:-1], truth[1:])
        assert np.isnan(table["action"][-1].as_py()).all()
        assert table["next.hand_visible"][-1].as_py() == [False, False]
        assert [names[n] for n in table["task_index"].to_pylist()] == [values["narration"]] * len(state)
        assert episode["tasks"] == [values["narration"]]
        assert episode["clip_id"] == values["clip_id"]
        assert (episode["camera_model"], episode["camera_distortion"]) == ("opencv", None)
        place = {n: episode[f"videos/{CAMERA}/{n}"] for n in ("chunk_index", "file_index")}
        found = frames_of(out / info["video_path"].format(video_key=CAMERA, **place))
        times = episode[f"videos/{CAMERA}/from_timestamp"] + table["timestamp"].to_numpy().astype(np.float64)
        for time_s, jpeg in zip(times, values["frame_jpeg"], strict=True):
            nearest = min(found, key=lambda t: abs(t - time_s))
            assert abs(nearest - time_s) < 1e-4  # LeRobot's own tolerance
            assert psnr(found[nearest], np.asarray(Image.open(io.BytesIO(jpeg)))) > 30


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_statistics_are_those_of_known_values(tmp_path: Path) -> None:
    rows = [clip_row(n) for n in range(4)]  # the right hand is never seen
    write(rows, tmp_path / "out")
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())["observation.state"]
    values = np.concatenate([row_arrays(row)["hand_keypoints_cam_m"] for row in rows]).reshape(-1, 126)
    known = values[:, :63].astype(np.float64)
    expected = {"min": known.min(0), "max": known.max(0), "mean": known.mean(0), "std": known.std(0)}
    expected |= {f"q{share:02d}": np.quantile(known, share / 100, axis=0) for share in (1, 10, 50, 90, 99)}
    for name, value in expected.items():
        np.testing.assert_allclose(np.array(stats[name])[:63], value, rtol=1e-9, atol=1e-12)
        assert np.isnan(np.array(stats[name])[63:]).all()
    assert stats["count"] == [len(values)]
    image_stats = json.loads((tmp_path / "out/meta/stats.json").read_text())[CAMERA]
    pixels = np.concatenate([np.asarray(Image.open(io.BytesIO(j))) for r in rows for j in row_arrays(r)["frame_jpeg"]])
    np.testing.assert_allclose(np.ravel(image_stats["mean"]), pixels.reshape(-1, 3).mean(0) / 255, rtol=1e-9)
    np.testing.assert_allclose(np.ravel(image_stats["std"]), pixels.reshape(-1, 3).std(0) / 255, rtol=1e-9)
    assert np.shape(image_stats["q50"]) == (3, 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100) | st.just(math.nan), min_size=1, max_size=9), min_size=1, max_size=6))
def test_statistics_do_not_depend_on_where_episodes_are_cut(parts: list[list[float]]) -> None:
    cut, whole = RunningStats(), RunningStats()
    for part in parts:
        cut.add(np.array(part)[:, None])
    whole.add(np.concatenate([np.array(part) for part in parts])[:, None])
    a, b = cut.result(), whole.result()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=30), st.floats(1, 40))
def test_a_step_is_the_nearest_frame_within_half_a_step(gaps: list[float], hz: float) -> None:
    frame_s = 5 + np.cumsum(gaps)
    index = steps_at(frame_s, hz)
    grid = np.arange(len(index)) / hz
    distance = np.abs((frame_s - frame_s[0])[None] - grid[:, None])
    assert (index[[0]] == 0).all()
    assert ((index >= 0) == (distance.min(axis=1) <= 0.5 / hz + 1e-6)).all()
    found = index >= 0
    assert (distance[found, index[found]] <= distance[found].min(axis=1) + 1e-6).all()
    assert (np.diff(index[found]) >= 0).all()


def test_frames_on_the_grid_are_the_steps() -> None:
    assert steps_at(3 + np.arange(200) / 15, 15).tolist() == list(range(200))
    ntsc = np.round(np.arange(300) * 1001 / 30000, 6)[::2]
    assert (steps_at(ntsc, 15) == np.arange(150)).all()
    assert steps_at(np.array([0, 0.1, 0.4]), 10).tolist() == [0, 1, -1, -1, 2]


def test_a_gap_is_unknown_and_its_image_is_not_its_own(tmp_path: Path) -> None:
    row = row_arrays(clip_row(0))
    row["frame_s"] = np.array([0, 1, 2, 5, 6, 7]) / 15
    layout = clip_layout(15.0, SIZE, world=False, num_tracks=4)
    episode = clip_episode(row, layout)
    gap = np.array([False, False, False, True, True, False, False, False])
    assert (episode.values["picture_valid"] == ~gap).all()
    assert np.isnan(episode.values["observation.state"][gap]).all()
    assert np.isnan(episode.values["track_depth_m"]).all()
    assert not episode.values["track_visible"][gap].any()
    assert not episode.values["next.hand_visible"][[2, 3, 7]].any()
    images = list(episode.images[CAMERA]())
    assert all((images[n] == images[2]).all() for n in (3, 4))
    assert not (images[5] == images[2]).all()


def test_a_window_of_steps_finds_one_later_grid_in_a_slot(tmp_path: Path) -> None:
    """Read from the dataset's files alone; one grid ends as another begins, and a step has no frame."""
    row = row_arrays(clip_row(0, num_frames=12, size=(96, 72)))
    row["frame_s"] = row["frame_s"] + np.where(np.arange(12) >= 6, 1 / 15, 0)  # no frame for step 6
    row["track_sigma_px"] = np.ones((12, 4), np.float16)
    grids = [later_grid(*of, seed=n) for n, of in enumerate([(2, 2, 6), (6, 4, 8), (7, 7, 11), (11, 9, 11)])]
    frames = [np.arange(len(grid.visible)) + grid.first_frame for grid in grids]
    slots = num_slots([pa.record_batch({"regrid_frame": pa.array([np.concatenate(frames).tolist(), None, []])})])
    assert slots == 2
    layout = clip_layout(15.0, SIZE, world=False, num_tracks=4, sigma=True, slots=slots, num_grid=4)
    rows = [row | grid_columns(tuple(grids), None, 4), row | grid_columns((), None, 4)]
    export_lerobot((clip_episode(row, layout) for row in rows), str(tmp_path), layout, card=lambda info: "")
    table = read_data(tmp_path)
    step = {name: np.array(table[name].to_pylist()) for name in table.column_names if name.startswith(("regr", "tr"))}
    assert (step["regrid_query_frame"][13:] == -1).all()
    assert not step["regrid_visible"][13:].any()
    scale = SIZE[0] / 640  # 360 lines become 36: as tall as wide
    fit = Fit.into(SIZE, 96, 72).seen_from((96, 72), 640, 360)
    for grid, frame in zip(grids, frames, strict=True):
        steps = frame + (frame >= 6)
        begun = grid.query_frame + (grid.query_frame >= 6)
        window = step["regrid_query_frame"][steps[0] : steps[-1] + 1]
        (slot,) = np.flatnonzero((window == begun).all(axis=0))
        points = step["regrid_points_px"].reshape(-1, slots, 4, 2)[steps, slot]
        np.testing.assert_allclose(points, fit.points(grid.points_px), rtol=1e-5)
        np.testing.assert_array_equal(step["regrid_visible"].reshape(-1, slots, 4)[steps, slot], grid.visible)
        sigma = step["regrid_sigma_px"].reshape(-1, slots, 4)[steps, slot]
        assert (np.isfinite(sigma) == grid.visible).all()
        assert 0.5 * scale <= np.nanmax(sigma) < 0.7 * scale
    assert not step["regrid_visible"][6].any()  # the step without a frame
    np.testing.assert_array_equal(step["track_visible"][13:], step["track_visible"][:13])


def test_points_and_camera_follow_the_image_into_another_size() -> None:
    fit = Fit.into((100, 100), 64, 48).seen_from((64, 48), 640, 480)
    assert fit.inner == (100, 75)
    corners = np.array([[-0.5, -0.5], [639.5, 479.5]])  # the outer corners of the source's first and last pixel
    np.testing.assert_allclose(fit.points(corners), [[-0.5, 11.5], [99.5, 86.5]])
    matrix = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    ray = np.array([0.2, -0.1, 1.0])
    np.testing.assert_allclose((fit.camera_matrix(matrix) @ ray)[:2], fit.points((matrix @ ray)[:2]), rtol=0, atol=1e-9)


def test_rates_that_differ_are_named() -> None:
    assert rate_of([15, 15], None, "clips") == 15
    assert rate_of([15, 10], 5, "clips") == 5
    with pytest.raises(ConfigError, match=r"10 Hz \(1\), 15 Hz \(2\)"):
        rate_of([15, 10, 15], None, "clips")
    with pytest.raises(ConfigError, match="no rate"):
        rate_of([], math.inf, "clips")


def test_a_broken_export_leaves_nothing_and_an_earlier_one_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write([clip_row(0)], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    broken = row_arrays(clip_row(1))
    broken["frame_jpeg"][3] = b"no image"
    layout = clip_layout(15.0, SIZE, world=False, num_tracks=None)
    episodes = [clip_episode(row_arrays(clip_row(2)), layout), clip_episode(broken, layout)]
    with pytest.raises(StoreError, match="stored frame 3 of clip test:v0:1000-2000 is no JPEG"):
        export_lerobot(episodes, str(out), layout, card=lambda info: "", overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match="not empty"):
        write([clip_row(2)], out)
    with pytest.raises(ConfigError, match="no episode"):
        write([], out, overwrite=True)
    write([clip_row(2)], out, overwrite=True)
    assert listed_episodes(out)[0]["clip_id"] == "test:v0:2000-3000"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write([clip_row(n) for n in range(2)], tmp_path / name)
    for path in (path for path in (tmp_path / "a").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_keypoints_have_the_names_of_mediapipes_order() -> None:
    assert len(KEYPOINT_NAMES) == 21
    assert [KEYPOINT_NAMES[n] for n in (0, 4, 8, 20)] == ["wrist", "thumb_4", "index_4", "little_4"]


def robot_row(number: int, num_frames: int = 9, **values) -> pa.RecordBatch:
    rng = np.random.default_rng(number)
    state, action = (rng.normal(size=(num_frames, 3)).astype(np.float32) for _ in range(2))
    state[2, 1] = np.nan
    jpegs = [[image(20 * number + n + 5 * camera) for n in range(num_frames)] for camera in range(2)]
    jpegs[1][4] = None
    facts = {
        "dataset": "arm",
        "episode_index": number,
        "fps": 30.0,
        "frame_s": np.arange(num_frames) / 30,
        "state": Signal(state, ("x", "y", "grip"), ("m", "m", None)),
        "action": Signal(action, ("x", "y", "grip")),
        "cameras": ("observation.images.front", "wrist"),
        "clip_ids": (None, None),
        "frame_jpeg": jpegs,
        "source_uri": "arm",
        "source_version": "lerobot v3.0",
        "source_key": "k",
        "robot_type": "so101",
        "task": ("pick", "place")[number % 2],
    }
    return episode_row(RobotEpisode(**(facts | values)))


@pytest.fixture
def robots(tmp_path: Path) -> Database:
    db = Database.open(tmp_path / "db", create=True)
    write_episodes(db, [robot_row(n, 9 + n) for n in range(3)])
    return db


def test_robot_episodes_come_back_as_they_were(tmp_path: Path, robots: Database) -> None:
    """Table to LeRobot to table: the numbers, times, names and tasks; and each camera its own images."""
    lerobot(robots, str(tmp_path / "out"), table="robot_episodes")
    again = Database.open(tmp_path / "again", create=True)
    ingest_lerobot(again, str(tmp_path / "out"), dataset="arm")
    first, second = (read_episodes(db).sort_by("episode_index") for db in (robots, again))
    assert len(second) == 3
    for n in range(3):
        a, b = episode_arrays(first, n), episode_arrays(second, n)
        for name in ("frame_s", "state", "action"):
            np.testing.assert_array_equal(a[name], b[name])
        for name in ("task", "fps", "robot_type", "state_names", "action_names", "num_frames", "episode_id"):
            assert a[name] == b[name], name
        assert b["cameras"] == ["observation.images.front", "observation.images.wrist"]
        for one, other in zip(a["frame_jpeg"], b["frame_jpeg"], strict=True):
            for before, after in zip(one, other, strict=True):
                if before is not None:
                    assert psnr(*(np.asarray(Image.open(io.BytesIO(j))) for j in (before, after))) > 28
    valid = read_data(tmp_path / "out").column("picture_valid").to_pylist()
    assert [n for n, both in enumerate(valid) if both != [True, True]] == [4, 13, 23]
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["features"]["observation.state"]["units"] == ["m", "m", None]


def test_success_comes_back_where_it_is_known_of_all(tmp_path: Path) -> None:
    """LeRobot's features have no unknown values: of one unknown episode among others none is written."""
    for name, told in (("known", (True, False)), ("partly", (True, None))):
        db = Database.open(tmp_path / name, create=True)
        write_episodes(db, [robot_row(n, success=done, frame_jpeg=None) for n, done in enumerate(told)])
        lerobot(db, str(tmp_path / name / "out"), table="robot_episodes")
        again = Database.open(tmp_path / name / "again", create=True)
        ingest_lerobot(again, str(tmp_path / name / "out"), dataset="arm", images=False)
        back = read_episodes(again, ["episode_index", "success"]).sort_by("episode_index").column("success").to_pylist()
        assert back == (list(told) if None not in told else [None, None])
        assert ("next.success" in read_data(tmp_path / name / "out").column_names) == (None not in told)


def test_robots_that_do_not_fit_one_dataset_are_named(tmp_path: Path, robots: Database) -> None:
    narrow = {"state": Signal(np.zeros((9, 2), np.float32)), "robot_type": "toy", "dataset": "other"}
    write_episodes(robots, [robot_row(7, **narrow), robot_row(8, fps=10.0, dataset="slow")])
    with pytest.raises(ConfigError, match=r"10 Hz \(1\), 30 Hz \(4\)"):
        lerobot(robots, str(tmp_path / "out"), table="robot_episodes")
    with pytest.raises(ConfigError, match=r"3 episodes with robot so101.*1 episodes with robot toy, state of 2"):
        lerobot(robots, str(tmp_path / "out"), table="robot_episodes", where="dataset <> 'slow'")
    with pytest.raises(ConfigError, match="no tracks"):
        lerobot(robots, str(tmp_path / "out"), table="robot_episodes", tracks=True)
    assert lerobot(robots, str(tmp_path / "out"), table="robot_episodes", where="dataset = 'other'").num_episodes == 1


def test_unknown_values_are_zero_beside_masks_if_asked_for(tmp_path: Path) -> None:
    layout = replace(clip_layout(15.0, SIZE, world=False, num_tracks=None), unknown="zero")
    write([clip_row(0)], tmp_path / "zero", layout)
    write([clip_row(0)], tmp_path / "nan")
    zero, nan = read_data(tmp_path / "zero"), read_data(tmp_path / "nan")
    for name in ("observation.state", "action"):
        a, b = (np.array(table.column(name).to_pylist()) for table in (zero, nan))
        np.testing.assert_array_equal(a, np.nan_to_num(b))
    assert zero.column("observation.hand_visible").equals(nan.column("observation.hand_visible"))
    stats = [(tmp_path / name / "meta/stats.json").read_text() for name in ("zero", "nan")]
    assert stats[0] == stats[1]  # of known values alone


def test_a_killed_export_says_so(tmp_path: Path) -> None:
    """Killed while it writes: without info.json LeRobot does not open it, and --overwrite removes what is left."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_export_lerobot import *
layout = clip_layout(15.0, SIZE, world=False, num_tracks=None)
def episodes():
    yield clip_episode(row_arrays(clip_row(0)), layout)
    yield clip_episode(row_arrays(clip_row(1)), layout)
    os.kill(os.getpid(), 9)
export_lerobot(episodes(), {str(tmp_path / "out")!r}, layout, card=lambda info: "", max_data_bytes=1, max_video_bytes=1)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=240).returncode == -9
    left = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert "index.unfinished.json" in left
    assert any(name.endswith("file-000.mp4.unfinished") for name in left)
    assert not any(name in left for name in ("meta/info.json", "index.json"))
    write([clip_row(2)], tmp_path / "out", overwrite=True)
    left = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not [name for name in left if "unfinished" in name]
    assert len(left) == 8
