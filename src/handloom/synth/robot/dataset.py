"""Rendered demonstrations as a LeRobot v3.0 dataset: one table of states, one video per demonstration and camera.

Format: huggingface/lerobot, `datasets/utils.py` (0.4); one episode per video file is allowed there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from handloom.synth.robot.arm import STATE_NAMES
from handloom.synth.robot.demonstration import render_robot
from handloom.synth.script.scene import SceneSpec
from handloom.video.write import Encoding, write_video

Array = NDArray[Any]

STATE, ACTION, WIDTH = "observation.state", "action", "observation.gripper_m"
ROBOT_TYPE = "rendered_arm"
_ENCODING = Encoding(b_frames=0, gop=15)
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_COUNTED = ("frame_index", "episode_index", "index", "task_index")
_SAMPLED = 8  # images of a demonstration from which statistics are made


@dataclass(frozen=True)
class WrittenDemo:
    """What the tables need of a demonstration: state and action (T, 7), opening_m (T,), and for each camera some of its
    images (n, h, w, 3)."""

    task: str
    state: Array
    action: Array
    opening_m: Array
    samples: dict[str, NDArray[np.uint8]]


def camera_key(camera: str) -> str:
    return f"observation.images.{camera}"


def write_demo(spec: SceneSpec, out: Path, index: int, cameras: Sequence[str], truth: bool) -> WrittenDemo:
    """Render one demonstration's videos below `out`, and with `truth` its truth to truth/episode_NNNNNN.npz.

    The truth file holds `RobotStage`'s arrays, object_nouns, and for each camera `NAME_camera_matrix` (3, 3) and
    `NAME_world_from_camera` (T, 4, 4).
    """
    demo = render_robot(spec)
    stage, samples = demo.stage, {}
    for camera in cameras:
        path = out / _VIDEO.format(video_key=camera_key(camera), chunk_index=0, file_index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        images = list(demo.images(camera))
        write_video(path, images, stage.frame_s, _ENCODING)
        samples[camera] = np.stack(images[:: max(1, len(images) // _SAMPLED)])[:, ::4, ::4]
    if truth:
        arrays = {f"{c}_camera_matrix": demo.camera_matrix(c) for c in cameras}
        arrays |= {f"{c}_world_from_camera": demo.world_from_camera(c) for c in cameras}
        arrays |= {name: getattr(stage, name) for name in _TRUTH} | {"object_nouns": np.array(stage.nouns)}
        path = out / "truth" / f"episode_{index:06d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)
    return WrittenDemo(spec.narration, stage.state, stage.action, stage.opening_m, samples)


_TRUTH = ("frame_s", "state", "opening_m", "world_from_tool", "world_from_link", "world_from_object", "held")


def write_tables(out: Path, demos: Sequence[WrittenDemo], spec: SceneSpec) -> None:
    """Write all files of the dataset but its videos, which `write_demo` has written. spec: for size and rate."""
    cameras = tuple(demos[0].samples)
    tasks = list(dict.fromkeys(demo.task for demo in demos))
    columns = [_columns(demo, index, tasks, spec.fps) for index, demo in enumerate(demos)]
    starts = np.cumsum([0, *(len(demo.state) for demo in demos)])
    for start, column in zip(starts, columns, strict=False):
        column["index"] = column["frame_index"] + start
    every = {key: np.concatenate([column[key] for column in columns]) for key in columns[0]}
    _write(out / _DATA.format(chunk_index=0, file_index=0), pa.table({k: _arrow(v) for k, v in every.items()}))
    _write(out / "meta/tasks.parquet", _tasks_table(tasks))
    rows = [_episode(i, demo, columns[i], starts, spec.fps) for i, demo in enumerate(demos)]
    _write(out / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows))
    samples = {camera: np.concatenate([demo.samples[camera] for demo in demos]) for camera in cameras}
    (out / "meta/stats.json").write_text(json.dumps(_all_stats(every, samples), indent=1) + "\n")
    (out / "meta/info.json").write_text(json.dumps(_info(demos, tasks, cameras, spec), indent=1) + "\n")


def _columns(demo: WrittenDemo, index: int, tasks: list[str], fps: float) -> dict[str, Array]:
    frames = np.arange(len(demo.state), dtype=np.int64)
    return {
        ACTION: demo.action.astype(np.float32), STATE: demo.state.astype(np.float32),
        WIDTH: demo.opening_m.astype(np.float32), "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames, "episode_index": np.full_like(frames, index), "index": frames,
        "task_index": np.full_like(frames, tasks.index(demo.task)),
    }  # fmt: skip


def _episode(index: int, demo: WrittenDemo, columns: dict[str, Array], starts: Array, fps: float) -> dict[str, Any]:
    """One row of the list of episodes."""
    row: dict[str, Any] = {
        "episode_index": index, "tasks": [demo.task], "length": len(demo.state), "data/chunk_index": 0,
        "data/file_index": 0, "dataset_from_index": int(starts[index]), "dataset_to_index": int(starts[index + 1]),
    }  # fmt: skip
    for camera in demo.samples:
        stem = f"videos/{camera_key(camera)}"
        row |= {f"{stem}/chunk_index": 0, f"{stem}/file_index": index, f"{stem}/from_timestamp": 0.0}
        row[f"{stem}/to_timestamp"] = len(demo.state) / fps
    for key, stats in _all_stats(columns, demo.samples).items():
        row |= {f"stats/{key}/{name}": value for name, value in stats.items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _all_stats(columns: dict[str, Array], samples: dict[str, Array]) -> dict[str, dict[str, list]]:
    """Per feature min, max, mean, std, count and quantiles; of images per channel (3, 1, 1), 0 to 1."""
    found = {key: _stats(values.reshape(len(values), -1)) for key, values in columns.items()}
    for camera, images in samples.items():
        stats = _stats(images.reshape(-1, 3) / 255.0)
        shaped = {name: [[[value]] for value in values] for name, values in stats.items() if name != "count"}
        found[camera_key(camera)] = shaped | {"count": [len(images)]}
    return found


def _stats(values: Array) -> dict[str, list]:
    out = {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
    values = values.astype(float)
    out |= {"mean": values.mean(0).tolist(), "std": values.std(0).tolist()}
    quantiles = {f"q{round(100 * q):02d}": np.quantile(values, q, axis=0).tolist() for q in (0.01, 0.1, 0.5, 0.9, 0.99)}
    return out | {"count": [len(values)]} | quantiles


def _info(demos: Sequence[WrittenDemo], tasks: list[str], cameras: tuple[str, ...], spec: SceneSpec) -> dict[str, Any]:
    pose = {"dtype": "float32", "shape": [len(STATE_NAMES)], "names": list(STATE_NAMES)}
    single = {"shape": [1], "names": None}
    facts = {
        "video.height": spec.height, "video.width": spec.width, "video.codec": "h264", "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False, "video.fps": _whole(spec.fps), "video.channels": 3, "has_audio": False,
    }  # fmt: skip
    names = ["height", "width", "channels"]
    video = {"dtype": "video", "shape": [spec.height, spec.width, 3], "names": names, "info": facts}
    width = {"dtype": "float32", "shape": [1], "names": ["gripper_m"]}
    features: dict[str, dict[str, Any]] = {ACTION: pose, STATE: pose, WIDTH: width}
    features |= {camera_key(camera): video for camera in cameras}
    features |= {"timestamp": {"dtype": "float32"} | single} | {key: {"dtype": "int64"} | single for key in _COUNTED}
    return {
        "codebase_version": "v3.0", "robot_type": ROBOT_TYPE, "total_episodes": len(demos),
        "total_frames": sum(len(demo.state) for demo in demos), "total_tasks": len(tasks), "chunks_size": 1000,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": _whole(spec.fps),
        "splits": {"train": f"0:{len(demos)}"}, "data_path": _DATA, "video_path": _VIDEO, "features": features,
    }  # fmt: skip


def _whole(fps: float) -> int | float:
    return int(fps) if float(fps).is_integer() else fps


def _tasks_table(tasks: list[str]) -> pa.Table:
    """The text is the index of a pandas frame: without pandas' metadata, lerobot's reader finds no text."""
    text = "__index_level_0__"
    kinds = (("task_index", "task_index", "int64", "int64"), (None, text, "unicode", "object"))
    columns = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, field, kind, numpy in kinds
    ]
    index = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object",
             "metadata": {"encoding": "UTF-8"}}  # fmt: skip
    note = {"index_columns": [text], "column_indexes": [index], "columns": columns, "attributes": {},
            "creator": {"library": "pyarrow", "version": pa.__version__}, "pandas_version": "2.0.0"}  # fmt: skip
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), text: tasks})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})


def _arrow(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
