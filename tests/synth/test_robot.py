"""Robot demonstrations: reproducible, with states that match the images, in a dataset that can be read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from handloom.errors import ConfigError
from handloom.ingest.robot.lerobot import LeRobotSource
from handloom.pipelines.synth import synth_robot
from handloom.schemas.values import RIGHT
from handloom.synth.robot.arm import (
    BASE_M,
    LINKS,
    MAX_OPENING_M,
    STATE_NAMES,
    WORLD_FROM_BASE,
    finger_tips,
    lowest_m,
    state_of,
    tool_of,
    within_reach,
)
from handloom.synth.robot.demonstration import (
    ARM_ID,
    CAMERAS,
    GRIPPER_ID,
    ROBOT_ACTIONS,
    RobotDemo,
    render_robot,
    robot_specs,
)
from handloom.synth.robot.stage import build_robot_stage
from handloom.synth.script.scene import SceneSpec

SMALL = {"width": 192, "height": 144, "fps": 10.0, "main_hand": RIGHT, "hands": "main"}


def demo(action: str, noun: str = "can", seed: int = 3, **options) -> RobotDemo:
    return render_robot(SceneSpec(action, noun, seed=seed, **SMALL | {"duration_s": 2.0} | options))


@pytest.mark.parametrize("action", ROBOT_ACTIONS)
def test_states_are_those_of_a_robot_that_can_do_it(action):
    for seed in range(4):
        spec = robot_specs(len(ROBOT_ACTIONS), seed)[ROBOT_ACTIONS.index(action)]
        stage = build_robot_stage(spec)
        assert stage.state.shape == (spec.num_frames, len(STATE_NAMES))
        assert np.isfinite(stage.state).all()
        assert stage.action[:-1] == pytest.approx(stage.state[1:])
        assert (stage.action[-1] == stage.state[-1]).all()
        assert within_reach(stage.world_from_tool).all()
        assert lowest_m(stage.world_from_tool, stage.opening_m).min() > -0.001  # never through the table
        gripper = stage.state[:, 6]
        assert (gripper >= 0).all() and (gripper <= 1).all()  # noqa: PT018
        assert gripper * MAX_OPENING_M == pytest.approx(stage.opening_m)
        steps = np.abs(np.diff(stage.state, axis=0)) * spec.fps
        assert steps[:, :3].max() < 2.0  # m/s
        assert steps[:, 3:6].max() < 15.0  # rad/s: no angle jumps by a turn
        rotations = stage.world_from_link[..., :3, :3]
        assert np.linalg.det(rotations) == pytest.approx(1.0)


def test_a_state_gives_the_tools_pose_and_back():
    stage = demo("pour").stage
    assert tool_of(stage.state) == pytest.approx(stage.world_from_tool, abs=1e-9)
    assert state_of(tool_of(stage.state), stage.opening_m) == pytest.approx(stage.state, abs=1e-9)
    down = np.eye(4)[None].copy()
    down[0, :3, :3], down[0, :3, 3] = WORLD_FROM_BASE, BASE_M
    assert state_of(down, np.array([MAX_OPENING_M])) == pytest.approx(np.array([[0, 0, 0, 0, 0, 0, 1.0]]))


def test_bones_keep_their_lengths():
    stage = demo("reach-lift-place").stage
    names = [link.name for link in LINKS]
    shoulder, elbow, wrist = (stage.world_from_link[:, names.index(n), :3, 3] for n in ("shoulder", "elbow", "wrist"))
    for a, b in ((shoulder, elbow), (elbow, wrist)):
        assert np.ptp(np.linalg.norm(a - b, axis=1)) < 1e-9


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_gripper_is_drawn_where_the_state_says(camera):
    shown = demo("pick-place", "block", duration_s=1.6, distractors=0)
    tips = finger_tips(tool_of(shown.stage.state), shown.stage.state[:, 6] * MAX_OPENING_M)
    pixels = np.rint(shown.project(camera, tips)).astype(int)
    found = 0
    for t, frame in enumerate(shown.frames(camera)):
        assert {ARM_ID, GRIPPER_ID} & set(np.unique(frame.ids).tolist())
        for x, y in pixels[t]:
            window = frame.ids[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
            found += (window == GRIPPER_ID).any()
        if camera == "wrist":
            continue
        arm = frame.image[frame.ids == ARM_ID].astype(float)
        assert np.ptp(arm.mean(0)) < 25  # grey metal
    assert found > 0.8 * pixels.shape[0] * pixels.shape[1]


@pytest.mark.parametrize(("action", "noun"), [("pick-place", "can"), ("lift", "block"), ("put", "apple")])
def test_the_gripper_closes_on_what_it_takes_and_carries_it(action, noun):
    stage = demo(action, noun, fps=30.0, distractors=0).stage
    held = np.flatnonzero(stage.held)
    width = 2 * stage.shapes[0].half_m[0]
    assert stage.opening_m[held] == pytest.approx(width)
    assert stage.opening_m[: held[0]].max() > width + 0.02  # open before it
    places = stage.world_from_object[:, 0, :3, 3]
    assert np.ptp(places[: held[0]], axis=0).max() == 0
    in_tool = np.einsum("tji,tj->ti", stage.world_from_tool[:, :3, :3], places - stage.world_from_tool[:, :3, 3])
    settled = held[: max(2, len(held) // 4)]  # later it is bent a little to where it stands in the end
    assert np.ptp(in_tool[settled], axis=0).max() < 2e-3
    assert np.ptp(places[held, 2]) > 0.03
    if action != "lift":
        assert stage.opening_m[-1] > width + 0.01
        assert np.ptp(places[held[-1] + 1 :], axis=0).max() < 1e-3


@pytest.mark.parametrize(("action", "noun"), [("pick-place", "cup"), ("lift", "apple"), ("lift", "bottle")])
def test_fingers_do_not_cut_through_what_they_take(action, noun):
    """The pads, from tip to root, stay outside the thing, up to rounding of the table's height."""
    for seed in range(6):
        stage = demo(action, noun, seed=seed, fps=30.0, distractors=0).stage
        radius, half_height = stage.shapes[0].half_m[0], stage.shapes[0].half_m[2]
        tips = finger_tips(stage.world_from_tool, stage.opening_m)
        inverse = np.linalg.inv(stage.world_from_object[:, 0])
        for back_m in (-0.011, 0.0, 0.02, 0.04):
            pads = tips + back_m * stage.world_from_tool[:, None, :3, 2]
            local = np.einsum("tij,tkj->tki", inverse[:, :3, :3], pads) + inverse[:, None, :3, 3]
            deep = np.where(np.abs(local[..., 2]) < half_height, radius - np.linalg.norm(local[..., :2], axis=-1), 0)
            assert deep.max() < 0.003, seed


def files_of(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_the_dataset_is_the_same_each_time_and_reads_back(tmp_path):
    options = {"width": 96, "height": 64, "fps": 10.0, "duration_s": 0.8, "wrist": True}
    for name, workers in (("a", 1), ("b", 2)):
        summary = synth_robot(tmp_path / name, 3, 5, workers=workers, **options)
    assert summary.num_frames == 2 * 3 * 8
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")

    source = LeRobotSource(str(tmp_path / "a"), dataset="arm")
    episodes = list(source.episodes())
    assert source.problems == []
    assert [episode.notes for episode in episodes] == [()] * 3
    specs = robot_specs(3, 5, width=96, height=64, fps=10.0, duration_s=0.8)
    for index, (episode, spec) in enumerate(zip(episodes, specs, strict=True)):
        stage = build_robot_stage(spec)
        assert episode.task == spec.narration
        assert episode.state.names == STATE_NAMES
        assert episode.state.values == pytest.approx(stage.state.astype(np.float32))
        assert episode.action.values == pytest.approx(stage.action.astype(np.float32))
        assert [camera.name for camera in episode.cameras] == [f"observation.images.{name}" for name in CAMERAS]
        with np.load(tmp_path / "a" / "truth" / f"episode_{index:06d}.npz") as truth:
            assert (truth["state"] == stage.state).all()
            assert truth["wrist_world_from_camera"].shape == (8, 4, 4)
    with pytest.raises(ConfigError, match="already holds"):
        synth_robot(tmp_path / "a", 3, 5, **options)


# Columns of a dataset that lerobot 0.4 recorded, but for cameras and the names of joints.
STATS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
COUNTED = ("frame_index", "episode_index", "index", "task_index")
EPISODE = {
    "episode_index": "int64",
    "tasks": "list<element: string>",
    "length": "int64",
    **dict.fromkeys(("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"), "int64"),
    **dict.fromkeys(("meta/episodes/chunk_index", "meta/episodes/file_index"), "int64"),
}
INFO = (
    *("codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks", "chunks_size", "fps"),
    *("data_files_size_in_mb", "video_files_size_in_mb", "splits", "data_path", "video_path", "features"),
)


def stats_type(feature: str, stat: str) -> str:
    if stat == "count" or (stat in ("min", "max") and feature in COUNTED):
        return "list<element: int64>"
    return "list<element: list<element: list<element: double>>>" if "images" in feature else "list<element: double>"


def test_its_tables_are_those_that_lerobot_records(tmp_path):
    synth_robot(tmp_path, 2, 5, width=64, height=48, fps=10.0, duration_s=0.5, workers=1, truth=False)
    data, tasks, episodes = (
        {field.name: str(field.type) for field in pq.read_schema(tmp_path / name)}
        for name in (
            "data/chunk-000/file-000.parquet",
            "meta/tasks.parquet",
            "meta/episodes/chunk-000/file-000.parquet",
        )
    )
    joints = f"fixed_size_list<element: float>[{len(STATE_NAMES)}]"
    state = {"action": joints, "observation.state": joints}
    assert data == state | {"observation.gripper_m": "float", "timestamp": "float"} | dict.fromkeys(COUNTED, "int64")
    assert tasks == {"task_index": "int64", "__index_level_0__": "string"}
    features = (*data, "observation.images.front")
    expected = EPISODE | {f"stats/{name}/{stat}": stats_type(name, stat) for name in features for stat in STATS}
    video = "videos/observation.images.front"
    expected |= {f"{video}/{name}_index": "int64" for name in ("chunk", "file")}
    expected |= {f"{video}/{name}_timestamp": "double" for name in ("from", "to")}
    assert episodes == expected
    info, stats = (json.loads((tmp_path / "meta" / name).read_text()) for name in ("info.json", "stats.json"))
    assert info.keys() == set(INFO)
    assert stats.keys() == info["features"].keys() == set(features)
    assert all(found.keys() == set(STATS) for found in stats.values())


def test_actions_that_one_gripper_cannot_do_are_refused():
    with pytest.raises(ConfigError, match="does not do 'wave'"):
        render_robot(SceneSpec("wave"))
