"""Grids that begin after the first frame, as columns of a row: flat, one entry for each frame of each grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.schemas.values import LaterGrid

# Shape of one entry of each column; -1 is G, the points of a grid.
GRID_SHAPES: dict[str, tuple[int, ...]] = {
    "regrid_points_px": (-1, 2),
    "regrid_visible": (-1,),
    "regrid_depth_m": (-1,),
    "regrid_sigma_px": (-1,),
}
GRID_INDEX = ("regrid_query_frame", "regrid_frame")


def grid_fields(num_grid: int) -> list[pa.Field]:
    """The columns, in order. num_grid: G."""

    def entries(kind: pa.DataType, width: int) -> pa.DataType:
        return pa.list_(pa.list_(kind, width))

    return [
        *(pa.field(name, pa.list_(pa.int32())) for name in GRID_INDEX),
        pa.field("regrid_points_px", entries(pa.float32(), 2 * num_grid)),
        pa.field("regrid_visible", entries(pa.bool_(), num_grid)),
        pa.field("regrid_depth_m", entries(pa.float16(), num_grid)),
        pa.field("regrid_sigma_px", entries(pa.float16(), num_grid)),
    ]


def grid_columns(
    grids: tuple[LaterGrid, ...] | None, depth_m: tuple[NDArray[np.float32], ...] | None, num_grid: int
) -> dict[str, NDArray[Any] | None]:
    """The columns' values, (R, ...); None for null.

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
    return {
        "regrid_query_frame": np.repeat(begun, lengths),
        "regrid_frame": _joined(frames, (), np.int32),
        "regrid_points_px": _joined([grid.points_px for grid in grids], (num_grid, 2), np.float32),
        "regrid_visible": _joined([grid.visible for grid in grids], (num_grid,), np.bool_),
        "regrid_depth_m": None if depth_m is None else _joined(list(depth_m), (num_grid,), np.float16),
        "regrid_sigma_px": None if sigma is None else _joined(sigma, (num_grid,), np.float16),
    }


def _joined(parts: list[NDArray[Any]], shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what float16 does not hold is infinite
        return np.concatenate([np.zeros((0, *shape), kind), *(part.astype(kind) for part in parts)])
