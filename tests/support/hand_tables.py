"""A table of clips whose hands swing along smooth curves, each video at its own rate, beside robots' episodes."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from support.rows import RUN_KEY, make_clip, random_unit
from support.track_tables import HEIGHT, HZ, MATRIX, WIDTH, robot_db
from support.window_tables import image

from handloom.api import Database
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.row import build_row
from handloom.schemas.values import Camera, CameraPath, ClipAnalysis, Hands, Tracks, VideoInfo

INTENT_DIM = 5
WORDS = ("open the jar", "pour", None, "stack the cubes")


def hand_row(
    number: int, num_frames: int = 48, *, hands: bool = True, jpeg: bool = True, hz: float = HZ
) -> pa.RecordBatch:
    """The row of video `number`: the right hand is always seen, the left from the tenth frame on, and not in a third of
    the videos. The left hand's lift failed on frame 12."""
    rng = np.random.default_rng([3, number])
    t = np.arange(num_frames)[:, None, None, None] / HZ
    shape = rng.uniform(-0.06, 0.06, (1, 2, 21, 3)) * [1, 1, 0.5]
    shape[:, :, 0] = 0
    places = np.array([-0.12, 0.12])[:, None, None] * [1, 0, 0] + [0, 0, 0.6]
    cam = (
        places + shape + 0.1 * np.sin(rng.uniform(2, 4, (1, 2, 1, 3)) * t + rng.uniform(0, 6, (1, 2, 1, 3))) * [1, 1, 0]
    )
    px = cam[..., :2] / cam[..., 2:] * 300 + MATRIX[:2, 2]
    seen = np.ones((num_frames, 2), bool)
    seen[:10, 0] = False
    seen[:, 0] &= number % 3 > 0
    seen &= hands
    cam, px = (np.where(seen[..., None, None], values, np.nan).astype(np.float32) for values in (cam, px))
    cam[12:13, 0] = np.nan
    tracks = np.full((num_frames, 4, 2), 5, np.float32)
    clip = make_clip(10 * number, narration=WORDS[number % 4], end_s=num_frames / hz)
    return build_row(
        clip,
        info=VideoInfo(WIDTH, HEIGHT, hz, "h264", "yuv420p", 0, 0.0, num_frames / hz, num_frames),
        decoder="decord",
        frame_s=clip.start_s + np.arange(num_frames) / hz,
        found=ClipAnalysis(
            camera=Camera(MATRIX, "given"),
            path=CameraPath(None, "none", "none", "static"),
            hands=Hands(seen, np.zeros_like(seen), np.where(seen, 0.9, np.nan).astype(np.float32), px, cam),
            tracks=Tracks.of_grid(tracks, np.ones((num_frames, 4), bool)),
        ),
        embeddings={name: random_unit(rng, spec.dim) for name, spec in EMBEDDINGS.items()},
        frame_jpeg=[image(number, f) for f in range(num_frames)] if jpeg else None,
        thumbnail=b"",
        run_key=RUN_KEY,
    )


def hand_db(path: Path, rows: list[pa.RecordBatch], names: list[str], num_episodes: int = 6) -> Database:
    """Both tables: the clips, and episodes whose states have these names."""
    db = robot_db(path, names, num_episodes)
    lance.write_dataset(pa.Table.from_batches(rows), str(path / "clips.lance"), max_rows_per_file=5)
    return db


def with_intents(path: Path, sources: list[str | None], num_frames: int = 24) -> Database:
    """Clips with an intent of five steps each, of the source given, or none; half of them of each of two people."""
    db = hand_db(path, [hand_row(n, num_frames) for n in range(len(sources))], [])
    rows = db.read("clips", ["clip_id", "start_s", "duration_s"]).to_pylist()
    rng = np.random.default_rng(0)
    new = []
    for row, source in zip(rows, sources, strict=True):
        times = row["start_s"] + (np.arange(5) + 0.5) / 5 * row["duration_s"]
        vectors = rng.normal(size=(5, INTENT_DIM)).astype(np.float16)
        none = source is None
        new.append((row["clip_id"], None if none else list(vectors), None if none else times.tolist(), source))
    ids, vectors, times, names = zip(*new, strict=True)
    table = pa.table(
        {
            "clip_id": pa.array(ids, pa.string()),
            "intent": pa.array(vectors, pa.list_(pa.list_(pa.float16(), INTENT_DIM))),
            "intent_s": pa.array(times, pa.list_(pa.float64())),
            "intent_source": pa.array(names, pa.string()),
        }
    )
    lance.dataset(db.location.table_uri("clips")).merge(table, "clip_id")
    return db
