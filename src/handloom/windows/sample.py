"""A window as a dict of arrays, cut from its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.geometry.tracks.stored_grids import StoredGrids
from handloom.windows.rows.images import ImageCache, decode_jpeg
from handloom.windows.rows.reader import TableRow
from handloom.windows.spec import GRIDS_FOR, IMAGES, WindowSpec

Sample = dict[str, Any]


def cut_window(row: TableRow, now: int, spec: WindowSpec, images: ImageCache, copy: bool = True) -> Sample:
    """The sample at step `now` of a row: see `Database.windows` for its keys.

    copy: False gives views of the row, which cannot be written, if the window's frames are evenly spaced.
    """
    first, last = now - spec.past + 1, now + spec.future
    frames = np.arange(first, last + 1)
    if spec.rate_hz is not None or first < 0 or last >= len(row.frame_s):
        frames = frames_of_steps(row.frame_s, frames, spec.rate_hz)
    return make_sample(row, frames, spec, images, copy) | {"now_s": step_time(row.frame_s, now, spec.rate_hz)}


def spread_window(row: TableRow, spec: WindowSpec, images: ImageCache) -> Sample:
    """The sample of a neighbour: S frames spread evenly over the row from its first to its last."""
    frames = np.round(np.linspace(0, len(row.frame_s) - 1, spec.num_steps)).astype(np.int64)
    return make_sample(row, frames, spec, images) | {"now_s": float(row.frame_s[frames[spec.past - 1]])}


def frames_of_steps(frame_s: NDArray[np.float64], steps: NDArray[np.int64], rate_hz: float | None) -> NDArray[np.int64]:
    """(S,) index of the frame of each step, -1 if there is none.

    With a rate, step k is at k / rate seconds after the first frame, and its frame is the nearest one within half a
    step.
    """
    num = len(frame_s)
    if rate_hz is None:
        return np.where((steps >= 0) & (steps < num), steps, -1)
    wanted = frame_s[0] + steps / rate_hz
    after = np.clip(np.searchsorted(frame_s, wanted), 1, max(num - 1, 1))
    before = after - 1
    after = np.minimum(after, num - 1)
    nearest = np.where(wanted - frame_s[before] <= frame_s[after] - wanted, before, after)
    reach = 0.5 / rate_hz + 1e-6
    return np.where((np.abs(frame_s[nearest] - wanted) <= reach) & (steps >= 0), nearest, -1)


def step_time(frame_s: NDArray[np.float64], step: int, rate_hz: float | None) -> float:
    """The time of a step in seconds, on the row's clock."""
    return float(frame_s[step] if rate_hz is None else frame_s[0] + step / rate_hz)


def make_sample(
    row: TableRow, frames: NDArray[np.int64], spec: WindowSpec, images: ImageCache, copy: bool = True
) -> Sample:
    """The sample of these frames; -1 for a step without a frame."""
    valid = frames >= 0
    run = _run(frames)
    sample: Sample = {
        spec.id_column: row.id,
        "valid": valid,
        "frame_s": _take(row.frame_s, frames, valid, run, copy),
        "frame_index": frames,
    }
    for name, values in row.framed.items():
        sample[name] = None if values is None else _take(values, frames, valid, run, copy)
    for name, value in row.single.items():
        sample[name] = value.copy() if copy and isinstance(value, np.ndarray) else value
    if row.grids is not None and row.track_visible is not None:
        _take_grid(sample, row.grids, row.track_visible, frames)
    for camera, jpegs in row.jpegs.items():
        name = IMAGES if camera is None else f"{IMAGES}:{camera}"
        sample[name], sample[f"{name}_valid"] = _images(row, camera, jpegs, frames, run, spec, images, copy)
    return sample


def _take_grid(sample: Sample, grids: StoredGrids, track_visible: NDArray[np.bool_], frames: NDArray[np.int64]) -> None:
    """Replace the first frame's grid by the one that shows most in these frames, in new arrays."""
    number = grids.best(track_visible, frames)
    if number is None:
        return
    num = grids.num_points
    for name in GRIDS_FOR:
        if sample.get(name) is not None:
            rest = sample[name][:, num:]
            sample[name] = np.concatenate([grids.take(number, name, frames).astype(rest.dtype), rest], axis=1)
    if sample.get("track_query_frame") is not None:
        rest = sample["track_query_frame"][num:]
        sample["track_query_frame"] = np.concatenate([np.full(num, grids.query_frame[number], rest.dtype), rest])


def _run(frames: NDArray[np.int64]) -> slice | None:
    """The frames as a slice if all exist and are evenly spaced; else None."""
    first, num = int(frames[0]), len(frames)
    apart = int(frames[1]) - first if num > 1 else 1
    if first < 0 or apart < 1 or int(frames[-1]) - first != (num - 1) * apart:
        return None
    if num > 2 and (frames[1:] - frames[:-1] != apart).any():
        return None
    return slice(first, int(frames[-1]) + 1, apart)


def _take(
    values: NDArray[Any], frames: NDArray[np.int64], valid: NDArray[np.bool_], run: slice | None, copy: bool
) -> NDArray[Any]:
    """(S, ...): NaN (floats), False or 0 for steps without a frame."""
    if run is not None:
        return values[run].copy() if copy else values[run]
    if valid.all():
        return values[frames]
    taken = np.zeros((len(frames), *values.shape[1:]), values.dtype)
    if np.issubdtype(values.dtype, np.floating):
        taken[~valid] = np.nan
    taken[valid] = values[frames[valid]]
    return taken


def _images(
    row: TableRow,
    camera: str | None,
    jpegs: pa.Array | None,
    frames: NDArray[np.int64],
    run: slice | None,
    spec: WindowSpec,
    cache: ImageCache,
    copy: bool,
) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
    """((S, h, w, 3) uint8, (S,) bool); zeros where there is no image. Without any image: zeros of `image_size`, or None
    if no size is given."""
    there = np.zeros(len(frames), bool)
    if jpegs is not None:
        inside = (frames >= 0) & (frames < len(jpegs))
        there[inside] = True if not jpegs.null_count else [jpegs[int(frame)].is_valid for frame in frames[inside]]
    if jpegs is None or not there.any():
        nothing = None if spec.image_size is None else np.zeros((len(frames), *spec.image_size, 3), np.uint8)
        return nothing, there
    reel = cache.reel((row.place, camera), len(jpegs))
    shown = frames[there]
    for frame in shown[~reel.done[shown]].tolist():
        where = f"{row.id}, frame {frame}" + (f" of camera {camera}" if camera else "")
        cache.keep(reel, frame, decode_jpeg(jpegs[frame].as_buffer(), spec.image_size, where), where)
    images = reel.decoded
    if not there.all():
        stack = np.zeros((len(frames), *images.shape[1:]), np.uint8)
        stack[there] = images[shown]
        return stack, there
    if run is None:
        return images[frames], there
    return images[run].copy() if copy else images[run], there
