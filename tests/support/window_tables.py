"""Small tables of clips and robot episodes whose every number tells where it belongs."""

from __future__ import annotations

import io

import lance
import numpy as np
import pyarrow as pa
from PIL import Image

from handloom.api import Database
from handloom.schemas.tables.arrow import CLIP_LIST, clips_schema
from handloom.schemas.tables.robot import ROBOT_EPISODES
from handloom.schemas.tables.row import binaries_to_arrow, frames_to_arrow

NUM_TRACKS = 4
HZ = 10.0


def image(clip: int, frame: int, size=(24, 16)) -> bytes:
    """A JPEG of one colour that tells the clip (red) and the frame (green)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (clip * 20 % 256, frame * 10 % 256, 128)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def keypoints(clip: int, num_frames: int) -> np.ndarray:
    """(T, 2, 21, 2): 1000 * clip + frame everywhere; the left hand of every third frame is missing."""
    values = np.broadcast_to(1000.0 * clip + np.arange(num_frames)[:, None, None, None], (num_frames, 2, 21, 2)).copy()
    values[::3, 0] = np.nan
    return values.astype(np.float32)


def clip_row(clip: int, num_frames: int, *, world: bool = False, jpeg: bool = True, video: str = "") -> pa.RecordBatch:
    schema = clips_schema(NUM_TRACKS)
    frame_s = np.arange(num_frames) / HZ
    per_frame = {
        "hand_keypoints_px": keypoints(clip, num_frames),
        "hand_visible": np.isfinite(keypoints(clip, num_frames)[:, :, 0, 0]),
        "track_points_px": np.full((num_frames, NUM_TRACKS, 2), clip, np.float32),
        "track_visible": np.ones((num_frames, NUM_TRACKS), bool),
    }
    if world:
        per_frame["track_points_world_m"] = np.full((num_frames, NUM_TRACKS, 3), clip, np.float32)
    rng = np.random.default_rng(clip)
    single = {
        "clip_id": f"d:v{clip}:0-{num_frames * 100}", "dataset": "d", "video_id": video or f"v{clip}",
        "video_uri": "v.mp4", "start_s": 0.0, "end_s": num_frames / HZ, "duration_s": num_frames / HZ,
        "narration": None if clip % 2 else f"clip {clip}", "num_frames": num_frames, "width": 24, "height": 16,
        "fps": HZ, "codec": "h264", "decoder": "x", "frame_s": frame_s.tolist(), "hand_left": True, "hand_right": True,
        "world_scale": "metric" if world else "none", "run_key": "k", "track_kind": [0] * NUM_TRACKS,
    }  # fmt: skip
    columns = []
    for field in schema:
        if field.name in per_frame:
            columns.append(frames_to_arrow(per_frame[field.name], field.type))
        elif field.name == "frame_jpeg":
            images = [image(clip, t) for t in range(num_frames)] if jpeg else None
            columns.append(binaries_to_arrow(images, field.type))
        elif field.name == "embedding_motion":
            vector = rng.normal(size=608).astype(np.float32)
            columns.append(pa.array([(vector / np.linalg.norm(vector)).tolist()], field.type))
        else:
            columns.append(pa.array([single.get(field.name)], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def write_clips(path, rows: list[pa.RecordBatch], mode: str = "create") -> Database:
    uri = str(path / "clips.lance")
    if mode == "create":
        lance.write_dataset(CLIP_LIST.empty_table(), str(path / "clip_list.lance"))
    lance.write_dataset(pa.Table.from_batches(rows), uri, mode=mode, max_rows_per_file=3)
    return Database.open(path)


def write_episodes(path, widths: list[int], num_frames: int = 12) -> Database:
    rows = []
    for number, width in enumerate(widths):
        state = np.broadcast_to(100.0 * number + np.arange(num_frames)[:, None], (num_frames, width))
        rows.append(
            {
                **dict.fromkeys(ROBOT_EPISODES.names),
                "episode_id": f"r:{number}", "dataset": "r", "episode_index": number, "task": f"task {number}",
                "state_names": [f"s{i}" for i in range(width)], "action_names": [f"a{i}" for i in range(width)],
                "fps": HZ, "num_frames": num_frames, "frame_s": (np.arange(num_frames) / HZ).tolist(),
                "state": state.tolist(), "action": (state + 1).tolist(), "cameras": ["front", "wrist"],
                "clip_ids": [f"r:{number}f", f"r:{number}w"], "source_uri": "x", "source_version": "test",
                "source_key": "k",
                "frame_jpeg": [
                    [image(number, t) for t in range(num_frames)],
                    [image(number + 5, t) for t in range(num_frames)],
                ],
            }
        )  # fmt: skip
    lance.write_dataset(CLIP_LIST.empty_table(), str(path / "clip_list.lance"))
    lance.write_dataset(pa.Table.from_pylist(rows, ROBOT_EPISODES), str(path / "robot_episodes.lance"))
    return Database.open(path)
