"""Do clips of the same action come first, of other scenes, cameras and people? Mean average precision at 10."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.retrieval.data import clip_id
from handloom.bench.retrieval.flow import flow_histogram
from handloom.bench.retrieval.scenes import QUERY, SEARCHED, Filmed
from handloom.bench.retrieval.scores import K, average_precision, interval
from handloom.bench.watch import Watch

AMONG = f"split = '{SEARCHED}'"
WAYS: dict[str, dict[str, Any]] = {
    "motion": {"by": "motion", "mirror": True},
    "motion, one hand": {"by": "motion"},
    "appearance": {"by": "appearance"},
    "look": {"by": "look"},
    "text": {"by": "text"},
    "motion and look": {"by": {"motion": 1.0, "look": 0.5}, "mirror": True},
}
"""Searches by a stored clip. `one hand`: without the mirror image, so that clips of the other hand come late."""
FLOW, CHANCE = "optical flow histogram", "chance"
MOTION, SEEN = "motion", "motion, where the acting hand is seen"
ENOUGH = 0.8
Ranked = Callable[[Filmed], list[str]]


def measure_actions(
    db: Database, clips: Sequence[Filmed], seen: Mapping[str, float], videos: Path, watch: Watch
) -> dict[str, Any]:
    """By way of searching: mean average precision over all queries, by kind, and what is found in place of a kind.

    seen: share of frames in which the acting hand is found, by clip id: `SEEN` has the clips that have enough of them.
    """
    searched = [one for one in clips if one.role == SEARCHED]
    queries = [one for one in clips if one.role == QUERY]
    kinds = {clip_id(one.name): one.kind for one in searched}
    ways: dict[str, Ranked] = {name: _searching(db, how, K) for name, how in WAYS.items()}
    ways[FLOW] = by_flow(searched, queries, videos)
    found: dict[str, Any] = {}
    for name, ranked in ways.items():
        watch.part(f"searching by {name}")
        found[name] = scores_of([(one.kind, [kinds[id_] for id_ in ranked(one)]) for one in queries], kinds)
        watch.did(name)
    known = {id_: kind for id_, kind in kinds.items() if seen[id_] >= ENOUGH}
    every, asked = (
        _searching(db, WAYS[MOTION], len(kinds)),
        [one for one in queries if seen[clip_id(one.name)] >= ENOUGH],
    )
    ranked_seen = [(one.kind, [known[id_] for id_ in every(one) if id_ in known]) for one in asked]
    found[SEEN] = scores_of(ranked_seen, known) | {"clips": len(known)}
    found[CHANCE] = {"mean": round(_chance(kinds), 4)}
    return found


def scores_of(ranked: Sequence[tuple[str, Sequence[str]]], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Of (kind of the query, kinds of what it found): `mean` with its interval, `first`, `by_kind`, `instead`.

    first: share of the queries whose first result is right. instead: for each kind, the others among the first ten, as
    shares of these.
    """
    num = Counter(kinds.values())
    precision: dict[str, list[float]] = {}
    others: dict[str, Counter[str]] = {}
    for kind, results in ranked:
        precision.setdefault(kind, []).append(average_precision([one == kind for one in results], num[kind]))
        others.setdefault(kind, Counter()).update(one for one in results[:K] if one != kind)
    every = [value for values in precision.values() for value in values]
    first = [float(bool(results) and results[0] == kind) for kind, results in ranked]
    shares = {
        kind: {name: round(count / (K * len(precision[kind])), 3) for name, count in some.most_common(3)}
        for kind, some in others.items()
    }
    by_kind = {kind: round(float(np.mean(values)), 4) for kind, values in precision.items()}
    return interval(every) | {"first": interval(first), "by_kind": by_kind, "instead": shares}


def by_flow(searched: Sequence[Filmed], queries: Sequence[Filmed], videos: Path) -> Ranked:
    """Ranks by the baseline, of a query and its mirror image the better, as `motion` does."""

    def histograms(some: Sequence[Filmed]) -> NDArray[np.float32]:
        return np.stack([flow_histogram(videos / f"{one.name}.mp4") for one in some])

    known, asked = histograms(searched), dict(zip([one.name for one in queries], histograms(queries), strict=True))
    ids = [clip_id(one.name) for one in searched]

    def ranked(query: Filmed) -> list[str]:
        own = asked[query.name]
        cosine = np.maximum(known @ own, known @ own[MIRRORED])
        return [ids[place] for place in np.argsort(-cosine, kind="stable")[:K]]

    return ranked


MIRRORED = np.array([4, 3, 2, 1, 0, 7, 6, 5, 8])
"""Directions of a histogram in a mirror: x reversed, the bin at rest last."""


def _searching(db: Database, how: Mapping[str, Any], k: int) -> Ranked:
    return lambda query: [hit.clip_id for hit in db.search(clip=clip_id(query.name), k=k, where=AMONG, **how)]


def _chance(kinds: Mapping[str, str]) -> float:
    """The mean average precision of a random order, by simulation."""
    rng, names = np.random.default_rng(0), np.array(list(kinds.values()))
    num = Counter(kinds.values())
    every = [average_precision(rng.permutation(names)[:K] == kind, num[kind]) for kind in num for _ in range(200)]
    return float(np.mean(every))
