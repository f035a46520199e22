"""Later grids of points as features of a fixed shape: a number of slots, each with one grid at a time.

All steps of a LeRobot dataset have the same number of values. Each later grid keeps one slot from its first step to its
last, and every step holds, for each slot, the step in which its grid began: the points are followed from there,
forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.export.images import Fit
from handloom.export.lerobot.meta import Feature
from handloom.geometry.tracks.stored_grids import StoredGrids
from handloom.schemas.tables.later_grids import GRID_INDEX, GRID_SHAPES

BEGUN = "regrid_query_frame"
EMPTY = -1
"""In `regrid_query_frame`: the slot holds no grid."""
GRID_COLUMNS = (*GRID_INDEX, *GRID_SHAPES)


def num_slots(batches: Iterable[pa.RecordBatch]) -> int:
    """The most later grids that a clip has in one frame, over all clips; 0 without any.

    batches: `regrid_frame` of rows of `clips`.
    """
    most = 0
    for batch in batches:
        for cell in batch.column("regrid_frame"):
            if cell.is_valid and len(cell):
                most = max(most, int(np.bincount(cell.values.to_numpy(zero_copy_only=False)).max()))
    return most


def grid_features(slots: int, num_points: int, sigma: bool) -> dict[str, Feature]:
    """The features of `slots` grids of `num_points` points each, slot after slot. sigma: with `regrid_sigma_px`."""
    width = slots * num_points
    features = {
        BEGUN: Feature("int64", (slots,)),
        "regrid_points_px": Feature("float32", (2 * width,)),
        "regrid_depth_m": Feature("float32", (width,)),
        "regrid_visible": Feature("bool", (width,)),
    }
    return features | ({"regrid_sigma_px": Feature("float32", (width,))} if sigma else {})


def grid_values(
    row: Mapping[str, Any], index: NDArray[np.intp], features: Mapping[str, Feature], fit: Fit
) -> dict[str, NDArray[Any]]:
    """The values of `grid_features` for a row of `clips`: NaN, False and `EMPTY` where no grid is in a slot.

    Args:
        index: (S,) the frame of each step, -1 for none.
        fit: from pixels of the source to those of the dataset.
    """
    slots = features[BEGUN].shape[0]
    num_points = features["regrid_visible"].shape[0] // slots
    num = len(index)
    begun = np.full((num, slots), EMPTY, np.int64)
    points = np.full((num, slots, num_points, 2), np.nan, np.float32)
    depth, sigma = (np.full((num, slots, num_points), np.nan, np.float32) for _ in range(2))
    visible = np.zeros((num, slots, num_points), bool)
    grids = StoredGrids.of(row)
    if grids is not None:
        for grid, slot in _slots_of(grids):
            followed = grids.frames(grid)
            steps = np.flatnonzero((index >= followed[0]) & (index <= followed[-1]))
            if not len(steps):
                continue
            frames = index[steps]
            # Steps without a frame of their own, between the grid's steps, belong to it too.
            begun[steps[0] : steps[-1] + 1, slot] = steps[np.argmin(np.abs(frames - grids.query_frame[grid]))]
            points[steps, slot] = fit.points(grids.take(grid, "track_points_px", frames))
            depth[steps, slot] = grids.take(grid, "track_depth_m", frames)
            visible[steps, slot] = grids.take(grid, "track_visible", frames)
            sigma[steps, slot] = grids.take(grid, "track_sigma_px", frames) * np.float32(np.mean(fit.scale))
    found: dict[str, NDArray[Any]] = {
        BEGUN: begun,
        "regrid_points_px": points.reshape(num, -1),
        "regrid_depth_m": depth.reshape(num, -1),
        "regrid_visible": visible.reshape(num, -1),
        "regrid_sigma_px": sigma.reshape(num, -1),
    }
    return {name: value for name, value in found.items() if name in features}


def _slots_of(grids: StoredGrids) -> Iterator[tuple[int, int]]:
    """(grid, slot), ordered by the grids' first frames. A grid takes the first slot that is free in that frame."""
    ends: list[int] = []
    for grid in np.argsort(grids.first_frame, kind="stable").tolist():
        first, last = grids.frames(grid)[[0, -1]].tolist()
        slot = next((number for number, end in enumerate(ends) if end < first), len(ends))
        ends[slot : slot + 1] = [last]
        yield grid, slot
