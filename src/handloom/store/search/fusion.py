"""Rankings of one table by several parts of a query, combined into one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from handloom.store.search.ranking import SCORE_DIGITS, Scored, best_clips
from handloom.store.search.results import Part

RRF_K = 60
"""Cormack et al., Reciprocal rank fusion outperforms Condorcet and individual rank learning methods, SIGIR 2009."""
RRF_DIGITS = 9


@dataclass(frozen=True)
class Ranking:
    """One part's clips, best first, at most as many as were asked for.

    name: of the part. weight: in the fusion. exact: every clip that passes the filter was compared. complete: clips
    that are not listed have no score in this part. best: an upper bound of scores, by which weighted sums divide.
    times: where in a clip the match is.
    """

    name: str
    scored: Sequence[Scored]
    weight: float = 1.0
    exact: bool = True
    complete: bool = False
    best: float = 1.0
    num_with: int | None = None
    num_without: int | None = None
    times: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def ranks(self) -> dict[str, tuple[float, int]]:
        """(score, rank) by clip; equal scores share the first one's rank."""
        found: dict[str, tuple[float, int]] = {}
        rank, last = 0, None
        for place, one in enumerate(self.scored, start=1):
            rank = rank if one.score == last else place
            last = one.score
            found[one.clip_id] = (one.score, rank)
        return found


def by_rank(rankings: Sequence[Ranking]) -> list[Scored]:
    """Reciprocal rank fusion: the sum of weight / (60 + rank) over the rankings that list a clip, best first."""
    total: dict[str, float] = {}
    row_ids: dict[str, int] = {}
    for ranking in rankings:
        row_ids |= {one.clip_id: one.row_id for one in ranking.scored}
        for clip_id, (_, rank) in ranking.ranks().items():
            total[clip_id] = total.get(clip_id, 0.0) + ranking.weight / (RRF_K + rank)
    scored = [Scored(round(score, RRF_DIGITS), clip_id, row_ids[clip_id]) for clip_id, score in total.items()]
    return best_clips(scored, len(scored))


def by_weights(
    rankings: Sequence[Ranking], score_rest: Callable[[str, Mapping[str, int]], Mapping[str, float]]
) -> tuple[list[Scored], float]:
    """The weighted sum of scores over the union of the rankings, best first; and the highest that a clip outside of the
    union can have.

    score_rest: (part, {clip_id: row id} of clips that it does not list) -> their scores; a clip without one counts 0.

    The bound is that of the threshold algorithm: Fagin, Lotem, Naor, Optimal aggregation algorithms for middleware,
    JCSS 2003.
    """
    row_ids = {one.clip_id: one.row_id for ranking in rankings for one in ranking.scored}
    total = dict.fromkeys(row_ids, 0.0)
    bound = 0.0
    for ranking in rankings:
        known = {one.clip_id: one.score for one in ranking.scored}
        rest = {clip_id: row_id for clip_id, row_id in row_ids.items() if clip_id not in known}
        if rest and not ranking.complete:
            known |= score_rest(ranking.name, rest)
        for clip_id, score in known.items():
            total[clip_id] += ranking.weight * score / ranking.best
        if not ranking.complete and ranking.scored:
            bound += ranking.weight * ranking.scored[-1].score / ranking.best
    scored = [Scored(round(score, SCORE_DIGITS), clip_id, row_ids[clip_id]) for clip_id, score in total.items()]
    is_whole = all(ranking.complete for ranking in rankings)
    return best_clips(scored, len(scored)), -math.inf if is_whole else bound


def parts_of(rankings: Iterable[Ranking], clip_ids: Iterable[str]) -> dict[str, dict[str, Part]]:
    """By clip, then by part: scores and ranks of the clips that each ranking lists."""
    found: dict[str, dict[str, Part]] = {clip_id: {} for clip_id in clip_ids}
    for ranking in rankings:
        for clip_id, (score, rank) in ranking.ranks().items():
            if clip_id in found:
                found[clip_id][ranking.name] = Part(score, rank)
    return found
