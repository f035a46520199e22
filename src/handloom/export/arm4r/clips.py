"""ARM4R's own layout for pre-training: (u, v, z) tracks in Zarr, images as JPEG files, one folder per clip.

    epic_tasks_final/common_task/000000/points.zarr        (T, 1296, 3) float32
                                        instruction.zarr   (512,) float32, with a text encoder and a text only
                                        images.json        {"observation/ego_image": [T paths]}
                                        points_mask.zarr   (T, 1296) uint8, 1: all three numbers are known (ours)
                                        points_vis.zarr    (T, 1296) uint8, 1: seen in that frame (ours)
    epic_clips.json                                        [{"clip_id": "000000", "instruction": ...}, ...]
    frames/000000/frame_0000000000.jpg                     the stored frames as they are

Format: Dantong88/arm4r, `DATASET.md` and `arm4r/data/dataset_3dpoints_pretraining.py`. The authors' tracker guesses
hidden points, so their arrays have no missing values and their loss has no mask for them. See `UNKNOWN`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, ShapeError
from handloom.export.arm4r.points import clip_points, held, later_parts
from handloom.export.arm4r.zarr2 import zarr_files
from handloom.export.new_export import CARD, NewExport, new_export
from handloom.export.rows import task_of
from handloom.io.folder import Folder
from handloom.schemas.tables.row import row_arrays

TASKS, FRAMES, CLIPS = "epic_tasks_final", "frames", "epic_clips.json"
TASK = "common_task"
IMAGE_KEY = "observation/ego_image"
MIN_STEPS, MAX_STEPS = 30, 450
"""Lengths T - 1 that the authors' loader takes; it skips the others."""
TEXT_WIDTH = 512
UNKNOWN = ("nan", "hold", "drop-clip")
"""`nan`: an unknown value is NaN, and training on it fails at once. `hold`: the last known value, else the first known
one, and for a point whose depth is never known that of its nearest neighbour; all finite, with a mask that the authors'
loader does not read. `drop-clip`: clips with any unknown value are left out."""
LEFT_OUT = {
    "too_short": f"fewer than {MIN_STEPS + 1} frames",
    "too_long": f"more than {MAX_STEPS + 1} frames",
    "no_pictures": "its frames are not stored",
    "no_grid": "its tracks do not begin with a grid of 36 x 36 points",
    "no_depth": "no point has a depth",
    "unknown_points": "some value is not known (drop-clip), or a point is never seen (hold)",
}
COLUMNS = (
    "clip_id",
    "dataset",
    "video_id",
    "start_s",
    "end_s",
    "narration",
    "verb",
    "noun",
    "width",
    "height",
    "num_frames",
    "frame_s",
    "camera_matrix",
    "camera_source",
    "camera_distortion",
    "world_from_camera",
    "world_scale",
    "track_query_frame",
    "track_kind",
    "track_points_px",
    "track_depth_m",
    "track_visible",
    "track_points_world_m",
    "frame_jpeg",
)

TextEncoder = Callable[[str], NDArray[np.float32]]  # (512,)
Progress = Callable[[int, int], None]  # clips written so far, clips left out so far


@dataclass
class Arm4rSummary:
    """What `export_arm4r` wrote. num_later: of the clips, parts of another with a later grid. left_out: clip ids by
    reason, a key of `LEFT_OUT`. rates: clips by frames per second, rounded to 0.1. share_unknown: of all values.
    """

    num_clips: int = 0
    num_later: int = 0
    num_frames: int = 0
    num_values: int = 0
    num_unknown: int = 0
    num_without_text: int = 0
    unknown: str = "nan"
    has_instructions: bool = False
    left_out: dict[str, list[str]] = field(default_factory=dict)
    rates: Counter[float] = field(default_factory=Counter)

    @property
    def share_unknown(self) -> float:
        return self.num_unknown / max(1, self.num_values)

    @property
    def num_left_out(self) -> int:
        return sum(map(len, self.left_out.values()))


def export_arm4r(
    batches: Iterable[pa.RecordBatch],
    out: str,
    *,
    card: Callable[[Arm4rSummary], str],
    unknown: str = "nan",
    image_root: str = "",
    text_encoder: TextEncoder | None = None,
    metadata: dict[str, Any] | None = None,
    overwrite: bool = False,
    taken: Callable[[Mapping[str, Any]], None] | None = None,
    progress: Progress | None = None,
) -> Arm4rSummary:
    """Write rows of `clips` (`COLUMNS`) into `out`, a folder or URI. Memory holds one batch.

    Args:
        card: given the summary, the text of README.md.
        unknown: one of `UNKNOWN`.
        image_root: what the paths in images.json begin with; empty: `out` itself, which must then be a local folder.
        text_encoder: OpenCLIP ViT-B-32 (laion2b_s34b_b79k), not normalised; None: no instruction.zarr.
        metadata: kept in `index.json` under `source`. JSON values.
        taken: called with the row of every clip that is not left out.

    With `overwrite` an earlier export in `out` is removed at the start: there are too many files to write beside it.

    Raises:
        ConfigError: `unknown` is none of the three, no clip remains, or `out` holds files and `overwrite` is false.
        ShapeError: the text encoder does not give 512 numbers.
        StoreError: writing failed. What was written is removed as far as that is possible.
    """
    if unknown not in UNKNOWN:
        raise ConfigError(f"--unknown {unknown!r} is none of {', '.join(UNKNOWN)}")
    summary = Arm4rSummary(unknown=unknown, has_instructions=text_encoder is not None)
    with new_export(out, overwrite=overwrite) as export:
        image_root = (image_root or _local_root(export.folder)).rstrip("/")
        for folder in (TASKS, FRAMES):
            export.claim(folder)
        writer = _Writer(export, summary, image_root, text_encoder)
        for batch in batches:
            for index in range(batch.num_rows):
                row = row_arrays(batch, index)
                if writer.add(row) and taken is not None:
                    taken(row)
                if progress is not None:
                    progress(summary.num_clips, summary.num_left_out)
        writer.close()
        if not summary.num_clips:
            found = ", ".join(f"{name} {len(ids)}" for name, ids in sorted(summary.left_out.items()))
            raise ConfigError(f"no clip can be exported for ARM4R: {found or 'there is none'}", _hint(summary))
        export.write(CARD, card(summary).encode())
        counts = {"num_rows": summary.num_clips, "num_frames": summary.num_frames, "left_out": summary.left_out}
        counts |= {
            "rates_hz": dict(sorted(summary.rates.items())),
            "unknown": unknown,
            "share_unknown": summary.share_unknown,
            "image_root": image_root,
            "written": export.files(),
        }
        export.finish({"format": "arm4r", "source": metadata or {}, **counts}, last=[CLIPS])
    return summary


class _Writer:
    def __init__(
        self, export: NewExport, summary: Arm4rSummary, image_root: str, text_encoder: TextEncoder | None
    ) -> None:
        self._export, self._summary, self._image_root = export, summary, image_root
        self._encode = None if text_encoder is None else lru_cache(4096)(text_encoder)
        self._clips = export.open(CLIPS)

    def add(self, row: Mapping[str, Any]) -> bool:
        """Write a clip; false where it is left out."""
        points, reason = self._points(row)
        if points is None:
            self._summary.left_out.setdefault(reason, []).append(row["clip_id"])
            return False
        name = self._add(row, points)
        for frame, part in later_parts(row):
            points, _ = self._points(part)
            if points is not None:
                self._add(part, points, (name, frame))
        return True

    def _add(self, row: Mapping[str, Any], points: NDArray[np.float32], of: tuple[str, int] | None = None) -> str:
        """Write one grid's points; of: the clip whose images these are, and the first of them. Returns its name."""
        name = f"{self._summary.num_clips:06d}"
        known = np.isfinite(points).all(axis=-1)
        self._summary.num_values += points.size
        self._summary.num_unknown += int(np.isnan(points).sum())
        if self._summary.unknown == "hold":
            points = held(points)
        folder = f"{TASKS}/{TASK}/{name}"
        visible = row["track_visible"][:, : points.shape[1]]
        arrays = {"points": points, "points_mask": known.astype(np.uint8), "points_vis": visible.astype(np.uint8)}
        text = task_of(row)
        if self._encode is not None and text:
            arrays["instruction"] = _instruction(self._encode, text)
        for array, values in arrays.items():
            for file, content in zarr_files(values):
                self._write(f"{folder}/{array}.zarr/{file}", content)
        images, first = of or (name, 0)
        entry = {} if of is None else {"first_frame": first, "grid_frame": int(row["track_query_frame"][0])}
        paths = [f"{FRAMES}/{images}/frame_{number + first:010d}.jpg" for number in range(len(points))]
        for path, jpeg in zip(paths, row["frame_jpeg"], strict=True) if of is None else ():
            self._write(path, jpeg)
        listed = {IMAGE_KEY: [f"{self._image_root}/{path}" for path in paths]}
        self._write(f"{folder}/images.json", json.dumps(listed).encode())
        self._list(name, text, row, entry)
        self._summary.num_clips += 1
        self._summary.num_later += of is not None
        self._summary.num_frames += len(points)
        self._summary.num_without_text += not text
        self._summary.rates[round(1 / float(np.median(np.diff(row["frame_s"]))), 1)] += 1
        return name

    def close(self) -> None:
        """Finish the list of clips."""
        self._clips.write(b"\n]\n" if self._summary.num_clips else b"[]\n")
        self._clips.close()

    def _points(self, row: Mapping[str, Any]) -> tuple[NDArray[np.float32] | None, str]:
        """The clip's points, or None and why it is left out."""
        num_steps = row["num_frames"] - 1
        if not MIN_STEPS <= num_steps <= MAX_STEPS:
            return None, "too_short" if num_steps < MIN_STEPS else "too_long"
        if row["frame_jpeg"] is None:
            return None, "no_pictures"
        points = clip_points(row)
        if points is None:
            return None, "no_grid"
        if np.isnan(points[..., 2]).all():
            return None, "no_depth"
        unknown = np.isnan(points)
        wanted = self._summary.unknown
        if (wanted == "drop-clip" and unknown.any()) or (wanted == "hold" and unknown[..., 0].all(axis=0).any()):
            return None, "unknown_points"
        return points, ""

    def _list(self, name: str, text: str, row: Mapping[str, Any], of_part: dict[str, int]) -> None:
        entry = {"clip_id": name, "instruction": text, "handloom_clip_id": row["clip_id"]}
        entry |= {key: row[key] for key in ("dataset", "video_id", "start_s", "end_s")}
        entry |= of_part
        before = ",\n" if self._summary.num_clips else "[\n"
        self._clips.write((before + json.dumps(entry, ensure_ascii=False)).encode())

    def _write(self, name: str, content: bytes) -> None:
        with self._export.open_inside(name) as sink:
            sink.write(content)


def _local_root(folder: Folder) -> str:
    if not folder.is_local:
        raise ConfigError(f"{folder.uri!r} is no folder of this machine", "say where its readers find it: --image-root")
    return os.path.abspath(folder.uri)


def _hint(summary: Arm4rSummary) -> str:
    if "unknown_points" in summary.left_out:
        return "hardly any tracked clip knows every point in every frame: use --unknown nan or hold"
    return "ARM4R takes clips of 31 to 451 frames with a 36 x 36 grid of tracks and their depth"


def _instruction(encode: Callable[[str], NDArray[np.float32]], text: str) -> NDArray[np.float32]:
    found = np.asarray(encode(text), np.float32)
    if found.shape != (TEXT_WIDTH,):
        raise ShapeError(f"the text encoder gives {found.shape}, ARM4R expects ({TEXT_WIDTH},): OpenCLIP ViT-B-32")
    return found
