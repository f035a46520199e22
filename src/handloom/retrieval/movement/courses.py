"""Clips that move like a clip: the nearest by the embedding `motion`, put in order by aligning their courses in time.

A cosine compares the clips step by step, each a share of its clip. Two people do not take their time alike, so the
courses of what moves (`flow_course`, read back from the embeddings) are aligned by dynamic time warping. The two clips
that come first count as further queries: they are of the table's own people and cameras.

Source: average query expansion, Chum et al., Total recall, ICCV 2007, on distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import NUM_DIRECTIONS
from handloom.models.embeddings.flow_course import courses_of
from handloom.models.embeddings.motion_mirror import mirrored_motion
from handloom.retrieval.movement.warping import alignments
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.store.search.copies import stored_rows
from handloom.store.search.fusion import Ranking
from handloom.store.search.ranking import SCORE_DIGITS, Scored, best_clips
from handloom.store.search.scope import Scope

ALIGNED = 400
"""Clips by cosine that are aligned, or as many as are asked for."""
EXPANDED = 2
LEAST_SHARE = 0.25
BAND, PENALTY = 5, 0.3
COSINE = 0.2
"""Weight of 1 - the cosine of the whole embeddings, in the distance of two clips: courses leave out the hands."""
SPEC = EMBEDDINGS["motion"]
SCORING = "motion"
Floats = NDArray[np.floating[Any]]


def can_align(scope: Scope, vectors: Sequence[Floats]) -> bool:
    """Whether the table's embedding and the vectors are of a version whose courses are known. A vector of an older
    version, in a table whose rows were left as they are, has signs where this one has shares."""
    field = scope.schema.field(SPEC.column) if SPEC.column in scope.schema.names else None
    version = ((field.metadata or {}) if field is not None else {}).get(b"version", b"").decode()
    if version != SPEC.version or any(len(one) != SPEC.dim for one in vectors):
        return False
    return bool((courses_of(np.stack(vectors))[..., :NUM_DIRECTIONS] >= 0).all())


class Courses:
    """A clip's courses, to rank others by. vectors: its embedding `motion`, then that of its mirror image if it counts.

    A score is 1 / (1 + the mean distance of a step, to the clip and to the two that are nearest): 1 is equal.
    """

    def __init__(self, scope: Scope, name: str, vectors: Sequence[Floats], weight: float = 1.0) -> None:
        self._scope, self._name, self._vectors, self._weight = scope, name, vectors, weight
        self._mirror = len(vectors) > 1
        self._asked = [np.stack(vectors).astype(np.float32)]

    def rank(self, depth: int) -> Ranking:
        """The best `depth`, of the nearest `ALIGNED` or `depth` by cosine."""
        nearest = self._scope.by_vectors(self._name, SPEC.name, self._vectors, max(depth, ALIGNED), self._weight)
        ids = [one.row_id for one in nearest.scored]
        rows, vectors = self._stored(ids)
        if not rows:
            return nearest
        asked = self._asked[:1]
        distance = self._distances(asked, vectors)
        rounded = [round(float(one), SCORE_DIGITS) for one in distance]
        order = sorted(range(len(rows)), key=lambda at: (rounded[at], rows[at][0]))[:EXPANDED]
        for at in order:
            one = vectors[[at]]
            asked.append(np.concatenate([one, mirrored_motion(one)]) if self._mirror else one)
        self._asked = asked
        best = best_clips(self._scored(rows, vectors), depth)
        complete = nearest.complete and len(rows) <= depth
        return Ranking(
            self._name, best, self._weight, nearest.exact, complete, 1.0, nearest.num_with, nearest.num_without
        )

    def scores(self, row_ids: Sequence[int]) -> dict[str, float]:
        """Scores of these rows by clip id, as in the last ranking; rows without the embedding are left out."""
        rows, vectors = self._stored(row_ids)
        return {one.clip_id: one.score for one in self._scored(rows, vectors)} if rows else {}

    def _scored(self, rows: Sequence[tuple[str, int]], vectors: NDArray[np.float32]) -> list[Scored]:
        distance = self._distances(self._asked, vectors)
        scores = np.round(1 / (1 + distance), SCORE_DIGITS).tolist()
        return [Scored(score, clip_id, row_id) for score, (clip_id, row_id) in zip(scores, rows, strict=True)]

    def _distances(self, asked: Sequence[NDArray[np.float32]], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,): the geometric mean of the distance to the clip and of that to the expanding ones, if there are any.

        An equal clip is at 0. Copies of an expanding one are not: theirs counts for a share of the other at least.
        """
        every = _apart(np.concatenate(asked), vectors)
        ends = np.cumsum([len(ways) for ways in asked])[:-1]
        each = [some.min(0) for some in np.split(every, ends)]
        if len(each) == 1:
            return each[0]
        return np.sqrt(each[0] * np.maximum(np.mean(each[1:], axis=0), LEAST_SHARE * each[0]))

    def _stored(self, row_ids: Sequence[int]) -> tuple[list[tuple[str, int]], NDArray[np.float32]]:
        """(clip id, row id) and embedding of those of the rows that have one, by row id."""
        if not len(row_ids):
            return [], np.empty((0, SPEC.dim), np.float32)
        rows = stored_rows(self._scope.table, row_ids, ["clip_id", SPEC.column]).sort_by("_rowid").combine_chunks()
        rows = rows.filter(rows.column(SPEC.column).is_valid())
        flat = rows.column(SPEC.column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        ids = zip(rows.column("clip_id").to_pylist(), rows.column("_rowid").to_pylist(), strict=True)
        return list(ids), flat.reshape(-1, SPEC.dim)


def _apart(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, m) distances of embeddings: of their courses, aligned, and a little of the whole."""
    whole, rest = (one.astype(np.float64) for one in (some, others))
    whole, rest = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (whole, rest))
    aligned = alignments(courses_of(some), courses_of(others), BAND, PENALTY)
    return aligned + COSINE * (1 - whole @ rest.T)
