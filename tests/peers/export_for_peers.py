"""Writes the exports that other packages' own readers are tried on, and what they must find. Run by `make test-peers`.

python tests/peers/export_for_peers.py DIR
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.rows import later_grid, make_clip, make_row

from handloom.export.lerobot.clips import clip_episode, clip_layout
from handloom.export.lerobot.dataset import export_lerobot
from handloom.export.lerobot.robots import robot_episode, robot_layout, shape_of
from handloom.schemas.tables.robot import RobotEpisode, Signal, episode_arrays, episode_row
from handloom.schemas.tables.row import row_arrays

SIZE = (96, 64)
LENGTHS = (20, 33, 27)
HZ = 15.0


def image(number: int) -> np.ndarray:
    """(64, 96, 3): smooth, and different from its neighbours."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    grey = 0.5 + 0.5 * np.sin(2 * np.pi * (x + 0.5 * y + number / 7))
    return (255 * np.stack([grey, y, x], axis=-1)).astype(np.uint8)


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image(number)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def clip_rows(first: int) -> list[pa.RecordBatch]:
    found = []
    for number, length in enumerate(LENGTHS, start=first):
        clip = make_clip(number, narration=f"task {number % 2}")
        jpegs = [jpeg(100 * number + n) for n in range(length)]
        later = (later_grid(6, 2, 14), later_grid(15, 11, length - 1))
        found.append(make_row(clip, num_frames=length, frame_jpeg=jpegs, later=later))
    return found


def export_clips(out: Path, first: int, unknown: str = "nan", **limits: int) -> None:
    layout = clip_layout(HZ, SIZE, world=False, num_tracks=4, slots=2, num_grid=4)
    layout = replace(layout, unknown=unknown)
    rows = [row_arrays(row) for row in clip_rows(first)]
    episodes = (clip_episode(row, layout) for row in rows)
    export_lerobot(episodes, str(out), layout, card=lambda info: "# card\n", **limits)
    state = np.concatenate([row["hand_keypoints_cam_m"].reshape(-1, 126) for row in rows])
    images = np.stack([image(100 * n + k) for n, length in enumerate(LENGTHS, start=first) for k in range(length)])
    tasks = [row["narration"] for row in rows for _ in row["frame_s"]]
    visible = np.concatenate([row["track_visible"] for row in rows])
    grid = later_grid(6, 2, 14).visible
    truth = {"state": state, "pictures": images, "visible": visible, "later_visible": grid, "later_first": 2}
    np.savez(out.with_suffix(".npz"), **truth, tasks=tasks, lengths=LENGTHS, hz=HZ)


def export_robots(out: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number, length in enumerate(LENGTHS):
        state, action = (rng.normal(size=(length, 7)).astype(np.float32) for _ in range(2))
        names = tuple(f"joint_{n}.pos" for n in range(7))
        cameras = ("observation.images.front", "observation.images.wrist")
        episode = RobotEpisode(
            dataset="arm",
            episode_index=number,
            fps=30.0,
            frame_s=np.arange(length) / 30,
            state=Signal(state, names),
            action=Signal(action, names),
            cameras=cameras,
            clip_ids=(None, None),
            frame_jpeg=[[jpeg(100 * number + n + 50 * camera) for n in range(length)] for camera in range(2)],
            source_uri="arm",
            source_version="lerobot v3.0",
            source_key="k",
            robot_type="arm",
            task="pick the cube",
        )
        rows.append(episode_arrays(episode_row(episode)))
    shape = shape_of({**rows[0], "state_width": 7, "action_width": 7}, has_images=True)
    layout = robot_layout(30.0, shape, dict.fromkeys(shape.cameras, SIZE), {})
    export_lerobot((robot_episode(row, layout) for row in rows), str(out), layout, card=lambda info: "# card\n")
    values = {name: np.concatenate([row[name] for row in rows]) for name in ("state", "action")}
    np.savez(out.with_suffix(".npz"), **values, lengths=LENGTHS, hz=30.0)


def main(folder: str) -> None:
    out = Path(folder)
    out.mkdir(parents=True)
    export_clips(out / "clips", first=0)
    export_clips(out / "split", first=10, max_data_bytes=1, max_video_bytes=1)  # a file for every episode
    export_clips(out / "zero_a", first=20, unknown="zero")
    export_clips(out / "zero_b", first=30, unknown="zero")
    export_robots(out / "robots")


if __name__ == "__main__":
    main(sys.argv[1])
