"""A table of clips whose points rest in a room, seen by a swaying camera, one of them moving; and robots' episodes."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from support.rows import RUN_KEY, make_clip, random_unit
from support.window_tables import image

from handloom.api import Database
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.robot import ROBOT_EPISODES
from handloom.schemas.tables.row import build_row
from handloom.schemas.values import Camera, CameraPath, ClipAnalysis, Hands, LaterGrid, LiftedTracks, Tracks, VideoInfo

WIDTH, HEIGHT, HZ, GRID = 384, 288, 15.0, 4
MATRIX = np.array([[300.0, 0, 191.5], [0, 300.0, 143.5], [0, 0, 1]])


def room_row(
    number: int, num_frames: int = 30, *, depth: bool = True, world: bool = True, noise_px: float = 0.1,
    later: tuple[int, ...] | None = None,
):  # fmt: skip
    """The row of video `number`: a grid of 4 x 4 points and 8 more, the first of them on a hand that moves.

    later: frames in which the same points, as another grid, begin again, until 8 frames after the next; the first one
    is seen until 4 frames after the first of them. None: the row holds no such columns' values.
    """
    rng = np.random.default_rng([7, number])
    pose = _swaying(rng, num_frames)
    pixels = np.stack(np.meshgrid(np.linspace(60, 320, GRID), np.linspace(50, 240, GRID)), -1).reshape(-1, 2)
    pixels = np.concatenate([pixels, rng.uniform(60, 230, (8, 2))])
    z = rng.uniform(0.5, 1.5, (len(pixels), 1))
    cam = np.concatenate([(pixels - MATRIX[:2, 2]) / 300.0 * z, z], axis=1)
    place = np.tile(cam @ pose[0, :3, :3].T + pose[0, :3, 3], (num_frames, 1, 1))
    place[:, GRID**2] += 0.2 * np.sin(np.arange(num_frames) / 5)[:, None] * [1, 0, 0]
    seen = np.einsum("tji,tnj->tni", pose[:, :3, :3], place - pose[:, None, :3, 3])
    points = seen[..., :2] / seen[..., 2:] * 300.0 + MATRIX[:2, 2] + rng.normal(0, noise_px, (*seen.shape[:2], 2))
    visible = rng.uniform(size=points.shape[:2]) < 0.95
    kind = np.array([0] * GRID**2 + [1, 1, 2, 2, 3, 4, 4, -1], np.int8)
    query = np.where(kind == 0, 0, 4).astype(np.int32)
    grids, end = [], num_frames
    for begun in sorted(later or (), reverse=True):
        points_of = points[begun:end, : GRID**2].astype(np.float32)
        grids.insert(0, LaterGrid(begun, points_of, np.ones(points_of.shape[:2], bool)))
        end = min(num_frames, begun + 8)
    if later:
        visible[later[0] + 4 :, : GRID**2] = False
    clip = make_clip(10 * number, narration=("open the jar", "pour")[number % 2], end_s=num_frames / HZ)
    no_hands = np.zeros((num_frames, 2), bool)
    nothing = np.full((num_frames, 2, 21, 3), np.nan, np.float32)
    path = CameraPath(pose, "metric", "given", unit_m=1.0) if world else CameraPath(None, "none", "none", "static")
    z_of = tuple(seen[g.query_frame :, : GRID**2, 2][: len(g.visible)].astype(np.float32) for g in grids)
    lifted = LiftedTracks(seen[..., 2].astype(np.float32), place.astype(np.float32) if world else None, z_of)
    return build_row(
        clip,
        info=VideoInfo(WIDTH, HEIGHT, HZ, "h264", "yuv420p", 0, 0.0, num_frames / HZ, num_frames),
        decoder="decord",
        frame_s=clip.start_s + np.arange(num_frames) / HZ,
        found=ClipAnalysis(
            camera=Camera(MATRIX, "given"),
            path=path,
            hands=Hands(no_hands, no_hands, nothing[..., 0, 0], nothing[..., :2], nothing),
            tracks=Tracks(
                points.astype(np.float32), visible, query, kind, grids=None if later is None else tuple(grids)
            ),
            lifted=lifted if depth else None,
            depth_source="geometry" if depth else None,
        ),
        embeddings={name: random_unit(rng, spec.dim) for name, spec in EMBEDDINGS.items()},
        frame_jpeg=[image(number, t) for t in range(num_frames)],
        thumbnail=b"",
        run_key=RUN_KEY,
        num_grid=GRID**2,
    )


def _swaying(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """(T, 4, 4) world_from_camera: a slow sway, sideways and up, at each video's own rate."""
    t = np.arange(num_frames) / HZ
    pose = np.tile(np.eye(4), (num_frames, 1, 1))
    for axis in range(3):
        pose[:, axis, 3] = 0.1 * np.sin(rng.uniform(2, 4) * t + rng.uniform(0, 6))
    return pose


def room_db(path: Path, rows: list[pa.RecordBatch]) -> Database:
    lance.write_dataset(CLIP_LIST.empty_table(), str(path / "clip_list.lance"))
    lance.write_dataset(pa.Table.from_batches(rows), str(path / "clips.lance"), max_rows_per_file=5)
    return Database.open(path)


def robot_db(path: Path, names: list[str], num: int = 8, num_frames: int = 40, actions: list[str] | None = None):
    """Episodes whose states run along smooth curves; actions are the states that follow."""
    rows = []
    for number in range(num):
        rng = np.random.default_rng([9, number])
        t = np.arange(num_frames + 1)[:, None] / HZ
        state = 0.3 * np.sin(rng.uniform(1, 3, len(names)) * t + rng.uniform(0, 6, len(names)))
        rows.append(
            {
                **dict.fromkeys(ROBOT_EPISODES.names),
                "episode_id": f"r:{number}", "dataset": "r", "episode_index": number, "task": "stack the cubes",
                "state_names": names, "action_names": names if actions is None else actions,
                "fps": HZ, "num_frames": num_frames, "frame_s": t[:-1, 0].tolist(),
                "state": state[:-1].tolist(), "action": state[1:].tolist(), "cameras": ["front", "wrist"],
                "clip_ids": [f"r:{number}f", f"r:{number}w"], "source_uri": "x", "source_version": "lerobot v3.0",
                "source_key": "k",
                "frame_jpeg": [[image(number + c, f) for f in range(num_frames)] for c in (0, 5)],
            }
        )  # fmt: skip
    lance.write_dataset(CLIP_LIST.empty_table(), str(path / "clip_list.lance"))
    lance.write_dataset(pa.Table.from_pylist(rows, ROBOT_EPISODES), str(path / "robot_episodes.lance"))
    return Database.open(path)
