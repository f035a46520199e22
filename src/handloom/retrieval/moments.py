"""Clips in which hands move as in a short piece, and when: candidates by embedding, then dynamic time warping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.embeddings.hand_steps import HandSteps, hand_steps
from handloom.retrieval.query import NoPart
from handloom.retrieval.ranges import motion_of
from handloom.retrieval.warping import Match, best_matches
from handloom.schemas.tables.row import FRAME_SHAPES, frames_from_arrow
from handloom.store.filters import both, clause
from handloom.store.search.fusion import Ranking
from handloom.store.search.ranking import SCORE_DIGITS, Scored, best_clips
from handloom.store.search.scope import Scope

MAX_COMPARED = 5000  # clips
STEPS_AT_ONCE = 50_000  # of clips that are compared together: 14 MB of their numbers
ROWS_AT_ONCE = 16  # of ten minutes each: 73 MB
LONGEST_S = 60.0  # of a movement: 400 clips are compared in 14 s of CPU
KEYPOINTS = "hand_keypoints_cam_m"
WITH_HANDS = "(hand_left OR hand_right)"


class Movement:
    """A piece of movement to look for. row: its columns, as those of a clip. mirror: its mirror image counts as well.

    Raises:
        NoPart: no hand is seen in two steps of 0.1 s.
        ConfigError: the movement is too long.
    """

    def __init__(self, row: dict[str, Any], what: str, mirror: bool = False) -> None:
        if row.get(KEYPOINTS) is None:
            raise NoPart(f"{what} has no hand keypoints in 3D", "compute the stages hands_2d and hands_3d for it")
        long_s = float(row["frame_s"][-1] - row["frame_s"][0])
        if long_s > LONGEST_S:
            problem = f"{what} lasts {long_s:.1f} s, a movement that is looked for at most {LONGEST_S:g} s"
            raise ConfigError(problem, "choose a part of it (--from-s, --to-s)")
        ways = (False, True) if mirror else (False,)
        found = [hand_steps(row[KEYPOINTS], row["frame_s"], mirrored=way) for way in ways]
        if found[0].seen.any(1).sum() < 2:
            raise NoPart(f"no hand is seen in {what} for two steps of 0.1 s", "choose another part, or compare by look")
        self._steps = [_trimmed(steps) for steps in found]
        self._row, self._ways = row, ways

    @cached_property
    def vectors(self) -> list[NDArray[np.float32]]:
        """The embedding `motion` of the piece, and of its mirror image: to choose candidates by. Needs OpenCV."""
        vectors = [motion_of(self._row, mirrored=way) for way in self._ways]
        return [vector for vector in vectors if vector is not None]

    def matches(self, clips: Sequence[HandSteps]) -> list[Match | None]:
        """The best match in each clip's steps; None where a clip is shorter than half the movement."""
        ways = [best_matches(one, [clip.values for clip in clips]) for one in self._steps]
        there = [[one for one in found if one is not None] for found in zip(*ways, strict=True)]
        return [min(found, key=lambda one: one.distance, default=None) for found in there]


def rank_moments(scope: Scope, name: str, movement: Movement, depth: int, weight: float = 1.0) -> Ranking:
    """The clips with the best matches, and their times.

    All clips with hands are compared where there are at most `MAX_COMPARED`, else those nearest by `motion`.
    """
    where = both(scope.where, WITH_HANDS)
    num_rows = scope.table.count_rows(clause(where))
    every = num_rows <= MAX_COMPARED or not movement.vectors
    row_ids: Sequence[int] | None = None
    if not every:
        nearest = scope.by_vectors("motion", "motion", movement.vectors, MAX_COMPARED)
        row_ids = [one.row_id for one in nearest.scored]
    scored, times = [], {}
    for group in _groups(_steps(scope, where, row_ids)):
        for (clip_id, row_id, steps), found in zip(group, movement.matches([one[2] for one in group]), strict=True):
            if found is not None and steps.seen[found.first : found.last + 1].any():
                scored.append(Scored(round(1 / (1 + found.distance), SCORE_DIGITS), clip_id, row_id))
                times[clip_id] = (float(steps.times_s[found.first]), float(steps.times_s[found.last]))
    best = best_clips(scored, depth)
    kept = {one.clip_id: times[one.clip_id] for one in best}
    return Ranking(name, best, weight, every, every and len(best) < depth, 1.0, times=kept)


def _steps(scope: Scope, where: str | None, row_ids: Sequence[int] | None) -> Iterator[tuple[str, int, HandSteps]]:
    """(id, row id, steps) of the clips to compare."""
    for clip_id, row_id, frame_s, points in _read(scope, where, row_ids):
        if clip_id not in scope.left_out and len(frame_s) >= 2:
            yield clip_id, row_id, hand_steps(points, frame_s)


def _groups(clips: Iterator[tuple[str, int, HandSteps]]) -> Iterator[list[tuple[str, int, HandSteps]]]:
    """The clips in lists of some `STEPS_AT_ONCE` steps together."""
    group, num = [], 0
    for one in clips:
        group.append(one)
        num += len(one[2].times_s)
        if num >= STEPS_AT_ONCE:
            yield group
            group, num = [], 0
    if group:
        yield group


def _read(
    scope: Scope, where: str | None, row_ids: Sequence[int] | None
) -> Iterator[tuple[str, int, NDArray[np.float64], NDArray[np.float32]]]:
    """(id, row id, times, keypoints) of these rows, or of all that pass, a few rows in memory."""
    columns = ["clip_id", "frame_s", KEYPOINTS]
    filters = [clause(where)]
    if row_ids is not None:
        groups = [row_ids[start : start + ROWS_AT_ONCE] for start in range(0, len(row_ids), ROWS_AT_ONCE)]
        filters = [f"_rowid IN ({', '.join(map(str, group))})" for group in groups]
    for one in filters:
        for batch in scope.table.to_batches(columns=columns, filter=one, batch_size=ROWS_AT_ONCE, with_row_id=True):
            yield from _rows(batch)


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[str, int, NDArray[np.float64], NDArray[np.float32]]]:
    for index in range(batch.num_rows):
        points = frames_from_arrow(batch.column(KEYPOINTS)[index], FRAME_SHAPES[KEYPOINTS])
        if points is not None:
            times = frames_from_arrow(batch.column("frame_s")[index], ())
            yield batch.column("clip_id")[index].as_py(), batch.column("_rowid")[index].as_py(), times, points


def _trimmed(steps: HandSteps) -> NDArray[np.float32]:
    """The steps from the first to the last in which a hand is seen: what nobody saw is not asked for."""
    seen = np.flatnonzero(steps.seen.any(1))
    return steps.values[seen[0] : seen[-1] + 1]
