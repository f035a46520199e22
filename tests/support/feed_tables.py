"""A table with hands, tracks with depth, and images that tell one frame from the next, of odd width."""

from __future__ import annotations

import io
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from PIL import Image
from support.rows import make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import CLIP_LIST

SIZE, HZ, GRID = (65, 48), 15.0, 2


def feed_image(number: int, frame: int) -> bytes:
    """A slope of grey with a bright square that moves."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    image = np.stack([x + 20 * number % 60, y + 40, x + y], -1).astype(np.uint8)
    at = 2 * frame % 40
    image[10:30, at : at + 20] = 230
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def feed_db(path: Path, num_clips: int, num_frames: int, *, depth: bool = True) -> Database:
    """Clips of `num_frames` frames at `HZ`, each of a video of its own; without `depth` no track has one."""
    path.mkdir()
    rows = []
    for number in range(num_clips):
        images = [feed_image(number, t) for t in range(num_frames)]
        row = make_row(make_clip(10 * number), num_frames=num_frames, grid=GRID, frame_jpeg=images)
        rows.append(_with_depth(row, number, num_frames) if depth else row)
    lance.write_dataset(CLIP_LIST.empty_table(), str(path / "clip_list.lance"))
    lance.write_dataset(pa.Table.from_batches(rows), str(path / "clips.lance"), max_rows_per_file=2)
    return Database.open(path)


def _with_depth(row: pa.RecordBatch, number: int, num_frames: int) -> pa.RecordBatch:
    values = np.random.default_rng(number).uniform(0.4, 2.0, (num_frames, GRID**2)).astype(np.float32)
    field = row.schema.field("track_depth_m")
    columns = dict(zip(row.schema.names, row.columns, strict=True))
    columns["track_depth_m"] = pa.array([values.tolist()], field.type)
    columns["track_depth_source"] = pa.array(["geometry"])
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=row.schema)
