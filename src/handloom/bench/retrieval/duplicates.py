"""Are copies of a clip grouped with it, and only these? And do altered copies find their clip by `look`?

The thresholds of near-duplicates were chosen on other videos. Every kind of copy is in the table at once, so a copy may
also be grouped with its clip through another copy: `found` counts that, `alike` compares it with its clip alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.retrieval.actions import AMONG
from handloom.bench.retrieval.data import Copy, clip_id
from handloom.bench.retrieval.scenes import Filmed
from handloom.bench.retrieval.scores import interval
from handloom.bench.watch import Watch
from handloom.pipelines.index import find_duplicates
from handloom.store.duplicates.compare import Thresholds
from handloom.video.fingerprint.compare import agreement
from handloom.video.fingerprint.pictures import Fingerprint

COLUMNS = ["clip_id", "duplicate_group", "embedding_look", "fingerprint"]
Shown = tuple[NDArray[np.float32], Fingerprint]


def measure_duplicates(db: Database, clips: Sequence[Filmed], copies: Sequence[Copy], watch: Watch) -> dict[str, Any]:
    """Recall by kind of copy, precision of the pairs that are grouped, and which executions are taken for copies."""
    watch.part("grouping near-duplicates")
    thresholds = find_duplicates(db).thresholds
    rows = db.clips(COLUMNS).to_pylist()
    groups = {row["clip_id"]: row["duplicate_group"] for row in rows}
    shown = {row["clip_id"]: (np.asarray(row[COLUMNS[2]], np.float32), Fingerprint(row[COLUMNS[3]])) for row in rows}
    origin = {clip_id(one.name): clip_id(one.of.name) for one in copies}
    kinds = {clip_id(one.name): one.kind for one in clips}
    found: dict[str, Any] = {"clips": len({*origin.values()}), "thresholds": asdict(thresholds), "copies": {}}
    for how in dict.fromkeys(one.how for one in copies):
        some = [one for one in copies if one.how == how]
        pairs = [(clip_id(one.name), clip_id(one.of.name)) for one in some]
        numbers = [numbers_of(shown, *pair) for pair in pairs]
        found["copies"][how] = {
            "found": interval([float(groups[a] == groups[b]) for a, b in pairs]),
            "alike": round(float(np.mean([is_alike(one, thresholds) for one in numbers])), 4),
            "look": quartiles([one[0] for one in numbers]),
            "agreement": quartiles([one[1] for one in numbers]),
            "look_finds_it": interval([looked_up(db, a, b) for a, b in pairs]),
        }
        watch.did(how)
    return found | pairs_of(groups, origin, kinds) | {"same_action": nearest_of_an_action(shown, kinds, thresholds)}


def looked_up(db: Database, copy: str, of: str) -> float:
    """Whether a copy finds its clip first by `look`."""
    hits = db.search(clip=copy, by="look", k=1, where=AMONG)
    return float(bool(hits) and hits[0].clip_id == of)


def numbers_of(shown: Mapping[str, Shown], one: str, other: str) -> tuple[float, float]:
    """The cosine of look, and the agreement of the pictures, of two clips by id; this one NaN if it cannot be told."""
    (look, pictures), (other_look, other_pictures) = (shown[id_] for id_ in sorted((one, other)))
    return float(look @ other_look), agreement(pictures, other_pictures)


def is_alike(numbers: tuple[float, float], thresholds: Thresholds) -> bool:
    return numbers[0] >= thresholds.look and numbers[1] >= thresholds.agreement


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
    shown: Mapping[str, Shown], kinds: Mapping[str, str], thresholds: Thresholds
) -> dict[str, Any]:
    """Pairs of different executions of one action: how many, the nearest numbers, and those beyond each threshold."""
    pairs = [
        numbers_of(shown, a, b)
        for kind in dict.fromkeys(kinds.values())
        for a, b in combinations([id_ for id_ in kinds if kinds[id_] == kind], 2)
    ]
    look, agreed = (np.array(values) for values in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))
    return {
        "pairs": len(pairs),
        "look_max": _round(float(np.nanmax(look))) if len(pairs) else None,
        "agreement_max": _round(float(np.nanmax(agreed))) if len(pairs) else None,
        "look_reached": int((look >= thresholds.look).sum()),
        "agreement_reached": int((agreed >= thresholds.agreement).sum()),
        "both_reached": sum(is_alike(one, thresholds) for one in pairs),
    }


def quartiles(values: Sequence[float]) -> dict[str, float | None]:
    """`min` and `median` of the known values."""
    known = [value for value in values if np.isfinite(value)]
    told = {"min": min(known), "median": float(np.median(known))} if known else {"min": None, "median": None}
    return {name: None if value is None else _round(value) for name, value in told.items()}


def _round(value: float) -> float:
    return round(float(value), 4)
