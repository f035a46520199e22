"""Grids that begin after the first frame, as columns of a row: flat, one entry for each frame of each grid.

Which points an entry shows is stored for all of them, where they are for those alone: half of the grids' points of 41
real clips are not visible, and Lance keeps wide values as they are, NaN and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.schemas.values import LaterGrid

# Shape of one value of each column: of an entry, -1 is G, the points of a grid; else of a visible point of an entry.
GRID_SHAPES: dict[str, tuple[int, ...]] = {
    "regrid_visible": (-1,),
    "regrid_points_px": (2,),
    "regrid_depth_m": (),
    "regrid_sigma_px": (),
}
GRID_INDEX = ("regrid_query_frame", "regrid_frame")


def grid_fields(num_grid: int) -> list[pa.Field]:
    """The columns, in order. num_grid: G."""

    return [
        *(pa.field(name, pa.list_(pa.int32())) for name in GRID_INDEX),
        pa.field("regrid_visible", pa.list_(pa.list_(pa.bool_(), num_grid))),
        pa.field("regrid_points_px", pa.list_(pa.list_(pa.float32(), 2))),
        pa.field("regrid_depth_m", pa.list_(pa.float16())),
        pa.field("regrid_sigma_px", pa.list_(pa.float16())),
    ]


def grid_columns(
    grids: tuple[LaterGrid, ...] | None, depth_m: tuple[NDArray[np.float32], ...] | None, num_grid: int
) -> dict[str, NDArray[Any] | None]:
    """The columns' values, (R, ...), of visible points (V, ...); None for null.

    Args:
        grids: None: none were asked for, and all columns are null.
        depth_m: of each of them; None: nothing was measured, as where all of it is NaN.
    """
    if grids is None:
        return dict.fromkeys([*GRID_INDEX, *GRID_SHAPES])
    if depth_m is not None and grids and not any(np.isfinite(depth).any() for depth in depth_m):
        depth_m = None
    lengths = [len(grid.visible) for grid in grids]
    begun = np.array([grid.query_frame for grid in grids], np.int32)
    sigma = None if any(grid.sigma_px is None for grid in grids) else [grid.sigma_px for grid in grids]
    frames = [np.arange(len(grid.visible), dtype=np.int32) + grid.first_frame for grid in grids]
    seen = [grid.visible for grid in grids]
    return {
        "regrid_query_frame": np.repeat(begun, lengths),
        "regrid_frame": _joined(frames, (), np.int32),
        "regrid_visible": _joined(seen, (num_grid,), np.bool_),
        "regrid_points_px": _of_seen([grid.points_px for grid in grids], seen, (2,), np.float32),
        "regrid_depth_m": None if depth_m is None else _of_seen(depth_m, seen, (), np.float16),
        "regrid_sigma_px": None if sigma is None else _of_seen(sigma, seen, (), np.float16),
    }


def _of_seen(
    parts: Sequence[NDArray[Any]], seen: Sequence[NDArray[np.bool_]], shape: tuple[int, ...], kind: type
) -> NDArray[Any]:
    return _joined([part[visible] for part, visible in zip(parts, seen, strict=True)], shape, kind)


def _joined(parts: list[NDArray[Any]], shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what float16 does not hold is infinite
        return np.concatenate([np.zeros((0, *shape), kind), *(part.astype(kind) for part in parts)])
