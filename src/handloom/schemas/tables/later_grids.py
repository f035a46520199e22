"""Columns of the grids that begin after the first frame. Each has one entry for each frame of each grid.

Visibility is stored for all points of an entry, positions for the visible points alone: in 41 real clips half of the
points are not visible, and Lance does not compress NaN in wide values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.schemas.values import LaterGrid

# Shape of one value of each column. `regrid_visible` has one per entry (-1 is G, the points of a grid), the others have
# one per visible point.
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
    """Values of the columns: (R, ...) per entry or (V, ...) per visible point; None for null.

    Args:
        grids: None if none were asked for: all columns are null.
        depth_m: of each grid. Null if it is None or all NaN: nothing was measured.
    """
    if grids is None:
        return dict.fromkeys([*GRID_INDEX, *GRID_SHAPES])
    if depth_m is not None and grids and not any(np.isfinite(depth).any() for depth in depth_m):
        depth_m = None
    lengths = [len(grid.visible) for grid in grids]
    begun = np.array([grid.query_frame for grid in grids], np.int32)
    sigmas = [grid.sigma_px for grid in grids if grid.sigma_px is not None]
    sigma = sigmas if len(sigmas) == len(grids) else None
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
