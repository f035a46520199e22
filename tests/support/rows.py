"""Rows of `clips` with small random arrays, made by the same function that makes real ones."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa

from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.row import build_row, row_arrays
from handloom.schemas.values import Camera, CameraPath, ClipAnalysis, Hands, LaterGrid, Tracks, VideoInfo

RUN_KEY = "0123456789abcdef"


def make_clip(number: int, **values: object) -> Clip:
    """Clip `number` of video `v{number // 10}`, one second long; `values` override its fields."""
    video_id, start_s = f"v{number // 10}", float(number % 10)
    fields = {
        "clip_id": make_clip_id("test", video_id, start_s, start_s + 1),
        "dataset": "test",
        "video_id": video_id,
        "video_uri": f"/videos/{video_id}.mp4",
        "start_s": start_s,
        "end_s": start_s + 1,
    }
    return Clip(**(fields | values))


CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 180], [0, 0, 1]]), "assumed")
FISHEYE = replace(CAMERA, source="given", distortion=np.array([0.05, -0.01, 0.002, -0.001]), model="fisheye")


def make_row(
    clip: Clip | int,
    *,
    num_frames: int = 3,
    grid: int = 2,
    seed: int | None = None,
    run_key: str = RUN_KEY,
    embeddings: dict[str, np.ndarray | None] | None = None,
    hands_seen: tuple[bool, bool] = (True, False),
    frame_jpeg: list[bytes] | None = None,
    camera: Camera = CAMERA,
    quality: dict[str, float] | None = None,
    later: tuple[LaterGrid, ...] | None = None,
) -> pa.RecordBatch:
    """A row whose arrays follow from `seed` (by default from the clip), with `grid` x `grid` tracks, and `later` grids
    (`later_grid`)."""
    clip = make_clip(clip) if isinstance(clip, int) else clip
    rng = np.random.default_rng(list(clip.clip_id.encode()) if seed is None else seed)
    visible = np.tile(np.array(hands_seen, bool), (num_frames, 1))
    unseen = ~visible
    px = rng.uniform(0, 640, (num_frames, 2, 21, 2)).astype(np.float32)
    cam = rng.normal(0, 0.3, (num_frames, 2, 21, 3)).astype(np.float32)
    confidence = rng.uniform(0.5, 1, (num_frames, 2)).astype(np.float32)
    for array in (px, cam, confidence):
        array[unseen] = np.nan
    track_visible = rng.uniform(size=(num_frames, grid**2)) < 0.8
    points = rng.uniform(0, 640, (num_frames, grid**2, 2)).astype(np.float32)
    points[~track_visible] = np.nan
    vectors = {name: random_unit(rng, spec.dim) for name, spec in EMBEDDINGS.items()} | (embeddings or {})
    return build_row(
        clip,
        info=VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, 10.0, 300),
        decoder="decord",
        frame_s=clip.start_s + np.arange(num_frames) / 15,
        found=ClipAnalysis(
            camera=camera,
            path=CameraPath(None, "none", "none", "static"),
            hands=Hands(visible, np.zeros_like(visible), confidence, px, cam),
            tracks=replace(Tracks.of_grid(points, track_visible), grids=later),
            quality={"hand_coverage": float(visible.any(1).mean()) if num_frames else None, "blur": 12.5}
            | (quality or {}),
        ),
        embeddings=vectors,
        frame_jpeg=frame_jpeg,
        thumbnail=b"\xff\xd8strip",
        run_key=run_key,
    )


def later_grid(begun: int, first: int, last: int, *, grid: int = 2, seed: int = 0) -> LaterGrid:
    """A grid that began in frame `begun` and is followed from `first` to `last`, most of its points visible."""
    rng = np.random.default_rng(seed)
    visible = rng.random((last - first + 1, grid**2)) < 0.7
    visible[begun - first] = True
    points = np.where(visible[..., None], rng.uniform(0, 340, (*visible.shape, 2)), np.nan).astype(np.float32)
    sigma = np.where(visible, np.float32(0.5), np.float32(np.nan))
    return LaterGrid(begun, points, visible, sigma, begun - first)


def digests(rows: pa.Table | pa.RecordBatch, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """Each clip's content as a hash: equal if and only if every column is bit-equal (Arrow's `equals` fails on NaN).

    Without `host`: the same row may be made anywhere.
    """
    found: dict[str, str] = {}
    for index in range(rows.num_rows):
        digest = hashlib.sha256()
        values = row_arrays(rows, index)
        for name in sorted(values.keys() - {"host", *skip}):
            value = values[name]
            is_array = isinstance(value, np.ndarray)
            digest.update(f"{name} {value.dtype} {value.shape}".encode() if is_array else f"{name} {value!r}".encode())
            digest.update(value.tobytes() if is_array else b"")
        if values["clip_id"] in found:
            raise AssertionError(f"{values['clip_id']} is there twice")
        found[values["clip_id"]] = digest.hexdigest()
    return found


def random_unit(rng: np.random.Generator, dim: int) -> np.ndarray:
    vector = rng.normal(size=dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
