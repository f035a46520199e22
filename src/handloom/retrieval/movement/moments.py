"""Clips in which hands move as in a short piece, and when: subsequence dynamic time warping over all clips.

A piece of a clip or of a video is compared by what moves in it (`steps.MOVING`), which is known where the detector lost
the hand; a trajectory, and a piece in a table without that column, by the hands. In a large table every clip is first
compared at a third of the steps, or by `motion` where hands are, and the nearest are compared whole.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.plural import plural
from handloom.retrieval.movement.steps import FLOW, HANDS, KEYPOINTS, MOVING, Kind, Steps
from handloom.retrieval.movement.warping import Match, best_matches
from handloom.retrieval.query import NoPart
from handloom.retrieval.ranges import motion_of
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.filters import both, clause
from handloom.store.search.fusion import Ranking
from handloom.store.search.ranking import SCORE_DIGITS, Scored, best_clips
from handloom.store.search.scope import Scope

log = logging.getLogger(__name__)

MOST = {KEYPOINTS: 5000, FLOW: 10_000}
"""Clips that are compared whole: each costs 0.5 ms by its hands, most of it to read them, and 0.1 by what moves."""
COARSE = 3  # steps that are averaged to choose candidates
STEPS_AT_ONCE = 50_000  # of clips that are compared together: 14 MB of their numbers
ROWS_AT_ONCE = {KEYPOINTS: 16, FLOW: 1024}  # of ten minutes each: 73 MB, 120 MB
LONGEST_S = 60.0  # of a movement: 400 clips are compared in 14 s of CPU
Found = tuple[str, int, Steps]  # clip id, row id


class Movement:
    """A piece of movement to look for. row: its columns, as those of a clip. mirror: its mirror image counts as well.
    moving: the table tells what moves in its clips.

    Raises:
        NoPart: no hand is seen in two steps of 0.1 s, and nothing moves, or that is not compared.
        ConfigError: the movement is too long.
    """

    def __init__(
        self, row: dict[str, Any], what: str, mirror: bool = False, moving: bool = False, by_hands: bool = False
    ) -> None:
        long_s = float(row["frame_s"][-1] - row["frame_s"][0])
        if long_s > LONGEST_S:
            problem = f"{what} lasts {long_s:.1f} s, a movement that is looked for at most {LONGEST_S:g} s"
            raise ConfigError(problem, "choose a part of it (from_s, to_s)")
        self._row, self._ways = row, (False, True) if mirror else (False,)
        self._moving = _ways(MOVING, row, self._ways) if moving and row.get(FLOW) is not None else None
        self.kind = MOVING if self._moving is not None and not by_hands else HANDS
        if self.kind is MOVING:
            self._steps = self._moving or []
            return
        if row.get(KEYPOINTS) is None:
            raise NoPart(f"{what} has no hand keypoints in 3D", "compute the stages hands_2d and hands_3d for it")
        seen = _ways(HANDS, row, self._ways)
        if seen is None:
            still = moving and not by_hands and row.get(FLOW) is not None
            problem = f"{'nothing moves, and ' if still else ''}no hand is seen in {what} for two steps of 0.1 s"
            raise NoPart(problem, "choose another part, or compare by look")
        self._steps = seen

    @property
    def has_moving(self) -> bool:
        """Whether clips can be compared in long steps, by what moves in them."""
        return self._moving is not None

    @cached_property
    def vectors(self) -> list[NDArray[np.float32]]:
        """The embedding `motion` of the piece, and of its mirror image: to choose candidates by. Needs OpenCV."""
        vectors = [motion_of(self._row, mirrored=way) for way in self._ways]
        return [vector for vector in vectors if vector is not None]

    def matches(self, clips: Sequence[NDArray[np.float32]]) -> list[Match | None]:
        """The best match in each clip's steps of `kind`; None where a clip is shorter than half the movement."""
        return _matches(self._steps, clips)

    def rough_distances(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """How far the best match in each clip's steps of `MOVING` is, in steps `COARSE` times as long; -inf where a
        clip is too short to say."""
        found = _matches(_coarser(self._moving or []), _coarser(clips))
        return np.array([-np.inf if one is None else one.distance for one in found])


def _ways(kind: Kind, row: dict[str, Any], ways: Sequence[bool]) -> list[NDArray[np.float32]] | None:
    """The steps of a row, and of its mirror image; None where less than two of them have something.

    Those of hands from the first to the last in which one is seen: what nobody saw is not asked for.
    """
    found = [kind.of(row, way) for way in ways]
    acts = np.flatnonzero(found[0].acts)
    if len(acts) < 2:
        return None
    return [steps.values[acts[0] : acts[-1] + 1] if kind is HANDS else steps.values for steps in found]


def _matches(ways: Sequence[NDArray[np.float32]], clips: Sequence[NDArray[np.float32]]) -> list[Match | None]:
    """The better of the matches of all ways, in each clip."""
    each = [best_matches(one, clips) for one in ways]
    there = [[one for one in found if one is not None] for found in zip(*each, strict=True)]
    return [min(found, key=lambda one: one.distance, default=None) for found in there]


def knows_what_moves(scope: Scope) -> bool:
    """Whether the stage `motion_steps` has seen every row with hands that passes; where it has seen some, a warning."""
    key = key_column(FLOW)
    if not {FLOW, key} <= set(scope.schema.names):
        return False
    num = scope.table.count_rows(clause(both(scope.where, both(HANDS.where, f"`{key}` IS NULL"))))
    if num:
        log.warning("%s without %s: compared by the hands; `handloom run` computes it", plural(num, "clip"), FLOW)
    return num == 0


def rank_moments(scope: Scope, name: str, movement: Movement, depth: int, weight: float = 1.0) -> Ranking:
    """The clips with the best matches, and their times. All are compared whole where there are at most
    `MOST`, else so many candidates."""
    kind = movement.kind
    where = both(scope.where, kind.where)
    most = MOST[kind.column]
    row_ids: Sequence[int] | None = None
    if scope.table.count_rows(clause(where)) > most:
        if movement.has_moving:
            row_ids = _nearest(scope, movement, where, most)
        elif movement.vectors:
            nearest = scope.by_vectors("motion", "motion", movement.vectors, most)
            row_ids = [one.row_id for one in nearest.scored]
    every = row_ids is None
    best: list[Scored] = []
    found: dict[str, tuple[Steps, Match]] = {}
    for group in _groups(_steps(scope, kind, where, row_ids)):
        for (clip_id, row_id, steps), one in zip(group, movement.matches(_values(group)), strict=True):
            if one is not None and steps.acts[one.first : one.last + 1].any():
                best.append(Scored(round(1 / (1 + one.distance), SCORE_DIGITS), clip_id, row_id))
                found[clip_id] = (steps, one)
        best = best_clips(best, depth)
        found = {one.clip_id: found[one.clip_id] for one in best}
    times = {clip_id: steps.span_of(one.first, one.last) for clip_id, (steps, one) in found.items()}
    return Ranking(name, best, weight, every, every and len(best) < depth, 1.0, times=times)


def _nearest(scope: Scope, movement: Movement, where: str | None, most: int) -> list[int]:
    """The row ids of the nearest, every clip compared in long steps."""
    nearest: list[tuple[float, int]] = []
    for group in _groups(_steps(scope, MOVING, both(where, MOVING.where), None), COARSE * STEPS_AT_ONCE):
        distances = movement.rough_distances(_values(group)).tolist()
        some = zip(distances, (row_id for _, row_id, _ in group), strict=True)
        nearest = heapq.nsmallest(most, [*nearest, *some])
    return [row_id for _, row_id in nearest]


def _values(group: Sequence[Found]) -> list[NDArray[np.float32]]:
    return [steps.values for _, _, steps in group]


def _coarser(each: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Of each (S, D) a (ceil(S / 3), D): means of `COARSE` steps; of fewer at the end."""
    lengths = np.array([len(one) for one in each], np.int64)
    nums = -(-lengths // COARSE)
    at = np.arange(nums.sum()) - np.repeat(np.cumsum(nums) - nums, nums)  # long steps, counted in each
    starts = np.repeat(np.cumsum(lengths) - lengths, nums) + COARSE * at
    if not len(starts):
        return list(each)
    sums = np.add.reduceat(np.concatenate(each), starts, axis=0)
    means = sums / np.diff(starts, append=lengths.sum())[:, None].astype(np.float32)
    return np.split(means, np.cumsum(nums)[:-1])


def _steps(scope: Scope, kind: Kind, where: str | None, row_ids: Sequence[int] | None) -> Iterator[Found]:
    """The clips to compare: these rows, or all that pass, a few rows in memory."""
    at_once = ROWS_AT_ONCE[kind.column]
    filters = [clause(where)]
    if row_ids is not None:
        groups = [row_ids[start : start + at_once] for start in range(0, len(row_ids), at_once)]
        filters = [f"_rowid IN ({', '.join(map(str, group))})" for group in groups]
    columns = ["clip_id", "frame_s", kind.column]
    for one in filters:
        for batch in scope.table.to_batches(columns=columns, filter=one, batch_size=at_once, with_row_id=True):
            ids, rows = batch.column("clip_id").to_pylist(), batch.column("_rowid").to_pylist()
            for index, steps in kind.each(batch):
                if ids[index] not in scope.left_out:
                    yield ids[index], rows[index], steps


def _groups(clips: Iterator[Found], num_steps: int = STEPS_AT_ONCE) -> Iterator[list[Found]]:
    """The clips in lists of some `num_steps` steps together."""
    group, num = [], 0
    for one in clips:
        group.append(one)
        num += len(one[2])
        if num >= num_steps:
            yield group
            group, num = [], 0
    if group:
        yield group
