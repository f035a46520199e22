"""What is compared of a clip to find parts of it, step by step of 0.1 s: what moves in it, or its hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import NUM_DIRECTIONS, NUM_FLOW
from handloom.models.embeddings.flow_course import mirrored_steps, step_ends
from handloom.models.embeddings.hand_steps import hand_steps
from handloom.schemas.tables.row import FRAME_SHAPES, frames_from_arrow

KEYPOINTS, FLOW = "hand_keypoints_cam_m", "motion_steps"
LEAST = 0.02
"""Length of a step's directions from which on something moves. With 0.1 the matches of slow pushes were left out."""
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """S steps of a clip. values: (S, D) float32. acts: (S,), whether a hand is seen in it, or something moves. span_of:
    seconds of the video's clock from the start of a step to the end of another, of their numbers."""

    values: NDArray[np.float32]
    acts: NDArray[np.bool_]
    span_of: Callable[[int, int], tuple[float, float]]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Kind:
    """A way to describe steps. column: what it is made of, with `frame_s`. where: SQL, rows that have it. of: the steps
    of a row (`row_arrays`), or of a piece of one, or of its mirror image. each: (place in the batch, steps) of stored
    rows of two frames or more that have the column."""

    column: str
    where: str
    of: Callable[[Mapping[str, Any], bool], Steps]
    each: Callable[[pa.RecordBatch], Iterator[tuple[int, Steps]]]


def _of_hands(row: Mapping[str, Any], mirrored: bool = False) -> Steps:
    found = hand_steps(row[KEYPOINTS], np.asarray(row["frame_s"], np.float64), mirrored=mirrored)
    times = found.times_s
    return Steps(found.values, found.seen.any(1), lambda first, last: (float(times[first]), float(times[last])))


def _each_of_hands(batch: pa.RecordBatch) -> Iterator[tuple[int, Steps]]:
    for index in range(batch.num_rows):
        points = frames_from_arrow(batch.column(KEYPOINTS)[index], FRAME_SHAPES[KEYPOINTS])
        if points is not None and len(points) >= 2:
            times = frames_from_arrow(batch.column("frame_s")[index], ())
            yield index, _of_hands({KEYPOINTS: points, "frame_s": times})


def _of_flow(row: Mapping[str, Any], mirrored: bool = False) -> Steps:
    values = np.asarray(row[FLOW], np.float32)
    times = np.asarray(row["frame_s"], np.float64)
    return _flow(mirrored_steps(values) if mirrored else values, _acts(values), times)


def _each_of_flow(batch: pa.RecordBatch) -> Iterator[tuple[int, Steps]]:
    """All rows of a batch at once: 20 microseconds each."""
    flow, times = batch.column(FLOW), batch.column("frame_s")
    values = flow.values.flatten().to_numpy(zero_copy_only=False).reshape(-1, NUM_FLOW).astype(np.float32)
    acts, seconds = _acts(values), times.values.to_numpy(zero_copy_only=False)
    ends, frames = flow.offsets.to_numpy(), times.offsets.to_numpy()
    for index in np.flatnonzero(flow.is_valid().to_numpy(zero_copy_only=False)).tolist():
        steps = slice(ends[index], ends[index + 1])
        yield index, _flow(values[steps], acts[steps], seconds[frames[index] : frames[index + 1]])


def _flow(values: NDArray[np.float32], acts: NDArray[np.bool_], times: Times) -> Steps:
    def span_of(first: int, last: int) -> tuple[float, float]:
        ends = step_ends(len(values), times)
        return float(ends[first]), float(ends[last + 1])

    return Steps(values, acts, span_of)


def _acts(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.sqrt((values[:, :NUM_DIRECTIONS] ** 2).sum(1)) > LEAST


HANDS = Kind(KEYPOINTS, "(hand_left OR hand_right)", _of_hands, _each_of_hands)
MOVING = Kind(FLOW, f"{FLOW} IS NOT NULL", _of_flow, _each_of_flow)
