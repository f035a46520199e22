"""Small LeRobot datasets, written here after the format; every image carries its own number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.numbered_video import numbered_image

from handloom.video.write import write_video

FPS = 10
CAMERA = "observation.images.front"
STATE_NAMES = ["x", "y", "gripper"]
TASKS = ("put it in", "take it out")


def number(episode: int, step: int) -> int:
    """What the image of a step shows."""
    return episode * 64 + step


def state_of(episode: int, length: int) -> np.ndarray:
    return np.arange(length * 3, dtype=np.float32).reshape(length, 3) + 100 * episode


def make_v3(
    root: Path, lengths: Sequence[int] = (6, 8, 5), images: bool = False, cameras: Sequence[str] = (CAMERA,)
) -> Path:
    """Data: two episodes a file. Videos: all episodes in one file per camera. Tasks alternate."""
    _info(root, "v3.0", lengths, images, cameras)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = []
    for e, length in enumerate(lengths):
        row: dict[str, Any] = {"episode_index": e, "tasks": [TASKS[e % 2]], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": e // 2}
        row |= {"dataset_from_index": int(starts[e]), "dataset_to_index": int(starts[e + 1])}
        for camera in () if images else cameras:
            row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0}
            row[f"videos/{camera}/from_timestamp"] = starts[e] / FPS
            row[f"videos/{camera}/to_timestamp"] = starts[e + 1] / FPS
        rows.append({**row, "stats/action/mean": [0.0]})
    _write(root / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows))
    text = pa.table({"task_index": [0, 1], "__index_level_0__": list(TASKS)})
    _write(root / "meta/tasks.parquet", text)
    for file in range((len(lengths) + 1) // 2):
        inside = [e for e in (2 * file, 2 * file + 1) if e < len(lengths)]
        parts = [frames(e, lengths[e], int(starts[e]), images, cameras) for e in inside]
        _write(root / f"data/chunk-000/file-{file:03d}.parquet", pa.concat_tables(parts))
    for c, camera in enumerate(() if images else cameras):
        numbers = [number(e, i) + 2048 * c for e, length in enumerate(lengths) for i in range(length)]
        _video(root / f"videos/{camera}/chunk-000/file-000.mp4", numbers)
    return root


def make_v21(root: Path, lengths: Sequence[int] = (6, 8, 5), version: str = "v2.1") -> Path:
    """One Parquet file and one video per episode."""
    _info(root, version, lengths, False, (CAMERA,))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = [{"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(lengths)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    for e, length in enumerate(lengths):
        _write(root / f"data/chunk-000/episode_{e:06d}.parquet", frames(e, length, int(starts[e])))
        _video(root / f"videos/chunk-000/{CAMERA}/episode_{e:06d}.mp4", [number(e, i) for i in range(length)])
    return root


def frames(
    episode: int, length: int, start: int = 0, images: bool = False, cameras: Sequence[str] = (CAMERA,)
) -> pa.Table:
    """The rows of one episode, as LeRobot stores them."""
    steps = np.arange(length)
    floats = pa.list_(pa.float32(), 3)
    columns: dict[str, pa.Array] = {
        "action": pa.array((state_of(episode, length)[:, :2] + 0.5).tolist(), pa.list_(pa.float32())),
        "observation.state": pa.array(state_of(episode, length).tolist(), floats),
        "timestamp": pa.array((steps / FPS).astype(np.float32)),
        "frame_index": pa.array(steps),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(steps + start),
        "task_index": pa.array(np.full(length, episode % 2)),
    }
    for camera in cameras if images else ():
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns[camera] = pa.array([{"bytes": png(number(episode, i)), "path": f"{i}.png"} for i in steps], kind)
    return pa.table(columns)


def png(shown: int) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(numbered_image(shown), cv2.COLOR_RGB2BGR))[1].tobytes()


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """`change` alters meta/info.json's content in place."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_table(path: Path, change: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema | None = None) -> None:
    """`change` alters a Parquet file's rows in place, or returns new ones."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows = change(rows) or rows
    _write(path, pa.Table.from_pylist(rows, schema or table.schema))


def reencode(path: Path, codec: str, options: dict[str, str]) -> None:
    """The same images at the same times in another codec."""
    draft = path.with_suffix(".new.mp4")
    with av.open(str(path)) as source, av.open(str(draft), "w", format="mp4") as target:
        old = source.streams.video[0]
        stream = target.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = old.width, old.height, "yuv420p"
        for frame in source.decode(old):
            frame.pict_type = av.video.frame.PictureType.NONE
            for packet in stream.encode(frame):
                target.mux(packet)
        for packet in stream.encode():
            target.mux(packet)
    draft.replace(path)


def _info(root: Path, version: str, lengths: Sequence[int], images: bool, cameras: Sequence[str]) -> None:
    v3 = version == "v3.0"
    features: dict[str, Any] = {
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["pan", "grip"]}},
        "observation.state": {"dtype": "float32", "shape": [3], "names": STATE_NAMES},
    }
    for camera in cameras:
        names = ["height", "width", "channels"]
        features[camera] = {"dtype": "image" if images else "video", "shape": [96, 128, 3], "names": names}
    info = {
        "codebase_version": version,
        "robot_type": "toy_arm",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths) - 1}", "test": f"{len(lengths) - 1}:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None
        if images
        else "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _video(path: Path, numbers: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (numbered_image(n) for n in numbers), np.arange(len(numbers)) / FPS)


def numbers_in(jpegs: Sequence[bytes | None]) -> Iterator[int | None]:
    """What the JPEGs of a row show; None for a missing one."""
    from support.numbered_video import number_of

    for jpeg in jpegs:
        if jpeg is None:
            yield None
        else:
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            yield number_of(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
