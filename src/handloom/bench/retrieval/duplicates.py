"""Are copies of a clip grouped with it, and only these? And do altered copies find their clip by `look`?

The thresholds of near-duplicates were chosen on other videos. Every kind of copy is in the table at once, so a copy may
also be grouped with its clip through another copy: `found` counts that, `alike` compares it with its clip alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.bench.retrieval.actions import AMONG
from handloom.bench.retrieval.data import Copy, clip_id
from handloom.bench.retrieval.scenes import Filmed
from handloom.bench.retrieval.scores import interval
from handloom.bench.watch import Watch
from handloom.models.embeddings.motion_mirror import mirrored_motion
from handloom.pipelines.index import find_duplicates
from handloom.store.duplicates.compare import Thresholds

COLUMNS = ["clip_id", "duplicate_group", "embedding_look", "embedding_motion"]


def measure_duplicates(db: Database, clips: Sequence[Filmed], copies: Sequence[Copy], watch: Watch) -> dict[str, Any]:
    """Recall by kind of copy, precision of the pairs that are grouped, and which executions are taken for copies."""
    watch.part("grouping near-duplicates")
    thresholds = find_duplicates(db).thresholds
    rows = db.clips(COLUMNS).to_pylist()
    groups = {row["clip_id"]: row["duplicate_group"] for row in rows}
    vectors = {
        row["clip_id"]: [None if row[name] is None else np.asarray(row[name]) for name in COLUMNS[2:]] for row in rows
    }
    origin = {clip_id(one.name): clip_id(one.of.name) for one in copies}
    kinds = {clip_id(one.name): one.kind for one in clips}
    found: dict[str, Any] = {"clips": len({*origin.values()}), "thresholds": {"look": thresholds.look,
                             "motion": thresholds.motion}, "copies": {}}  # fmt: skip
    for how in dict.fromkeys(one.how for one in copies):
        some = [one for one in copies if one.how == how]
        pairs = [(clip_id(one.name), clip_id(one.of.name)) for one in some]
        cosines = [cosines_of(vectors[a], vectors[b]) for a, b in pairs]
        found["copies"][how] = {
            "found": interval([float(groups[a] == groups[b]) for a, b in pairs]),
            "alike": round(float(np.mean([is_alike(one, thresholds) for one in cosines])), 4),
            "look": quartiles([one[0] for one in cosines]),
            "motion": quartiles([one[1] for one in cosines]),
            "look_finds_it": interval([looked_up(db, a, b) for a, b in pairs]),
        }
        watch.did(how)
    return found | pairs_of(groups, origin, kinds) | {"same_action": nearest_of_an_action(vectors, kinds, thresholds)}


def looked_up(db: Database, copy: str, of: str) -> float:
    """Whether a copy finds its clip first by `look`."""
    hits = db.search(clip=copy, by="look", k=1, where=AMONG)
    return float(bool(hits) and hits[0].clip_id == of)


def cosines_of(one: Sequence[Any], other: Sequence[Any]) -> tuple[float, float]:
    """Of look, and of motion, of one or its mirror image; NaN where one has none."""
    look = float(one[0] @ other[0]) if one[0] is not None and other[0] is not None else float("nan")
    if one[1] is None or other[1] is None:
        return look, float("nan")
    return look, float(max(one[1] @ other[1], mirrored_motion(one[1].astype(np.float32)) @ other[1]))


def is_alike(cosines: tuple[float, float], thresholds: Thresholds) -> bool:
    return cosines[0] >= thresholds.look and cosines[1] >= thresholds.motion


def pairs_of(groups: Mapping[str, str | None], origin: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """`precision` and `recall` of pairs of clips in one group; `false_pairs` and how many of them are of one action."""
    members: dict[str, list[str]] = {}
    for id_, group in groups.items():
        members.setdefault(group or id_, []).append(id_)
    root = {id_: origin.get(id_, id_) for id_ in groups}
    grouped = [pair for some in members.values() for pair in combinations(sorted(some), 2)]
    true = sum(root[a] == root[b] for a, b in grouped)
    sizes: dict[str, int] = {}
    for id_ in root.values():
        sizes[id_] = sizes.get(id_, 0) + 1
    possible = sum(size * (size - 1) // 2 for size in sizes.values())
    false = sorted({tuple(sorted((root[a], root[b]))) for a, b in grouped if root[a] != root[b]})
    return {
        "precision": round(true / len(grouped), 4) if grouped else None,
        "recall": round(true / possible, 4) if possible else None,
        "different_clips_grouped": [list(pair) for pair in false],
        "of_one_action": sum(kinds.get(a) == kinds.get(b) for a, b in false),
    }


def nearest_of_an_action(
    vectors: Mapping[str, Sequence[Any]], kinds: Mapping[str, str], thresholds: Thresholds
) -> dict[str, Any]:
    """Pairs of different executions of one action: how many, the nearest cosines, and those beyond each threshold."""
    pairs = [
        cosines_of(vectors[a], vectors[b])
        for kind in dict.fromkeys(kinds.values())
        for a, b in combinations([id_ for id_ in kinds if kinds[id_] == kind], 2)
    ]
    look, motion = (np.array(values) for values in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))
    return {
        "pairs": len(pairs),
        "look_max": _round(np.nanmax(look)) if len(pairs) else None,
        "motion_max": _round(np.nanmax(motion)) if len(pairs) else None,
        "look_reached": int((look >= thresholds.look).sum()),
        "motion_reached": int((motion >= thresholds.motion).sum()),
        "both_reached": sum(is_alike(one, thresholds) for one in pairs),
    }


def quartiles(values: Sequence[float]) -> dict[str, float | None]:
    """`min` and `median` of the known values."""
    known = [value for value in values if np.isfinite(value)]
    told = {"min": min(known), "median": float(np.median(known))} if known else {"min": None, "median": None}
    return {name: None if value is None else _round(value) for name, value in told.items()}


def _round(value: float) -> float:
    return round(float(value), 4)
