"""Does a piece of two seconds find when other clips do the same? In sequences of actions, also at other speeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.bench.retrieval.data import clip_id
from handloom.bench.retrieval.scenes import LONG, PIECE, QUERY, Filmed
from handloom.bench.retrieval.scores import K, interval, overlap
from handloom.bench.watch import Watch
from handloom.retrieval.query import NoPart
from handloom.schemas.tables.row import row_arrays
from handloom.store.search.results import Hit

PIECE_S = 2.0
SPEEDS = (1.0, 0.5, 2.0)
AMONG = f"split = '{LONG}'"
INSIDE = 0.5
"""A match is right if this share of it lies within the same action."""
Span = tuple[float, float]
Spans = dict[str, list[tuple[str, float, float]]]


def measure_moments(db: Database, clips: Sequence[Filmed], watch: Watch) -> dict[str, Any]:
    """By speed: recall at 1 and 10, and how well the times of the first right match fit."""
    spans: Spans = {clip_id(one.name): one.actions for one in clips if one.role == LONG}
    known = {action for some in spans.values() for action, _, _ in some}
    asked = [(one, *pieces) for one in clips if one.role in (PIECE, QUERY) if (pieces := piece_of(one))[0] in known]
    found: dict[str, Any] = {"sequences": len(spans), "pieces": len(asked), "piece_s": PIECE_S}
    for speed in SPEEDS:
        watch.part(f"pieces at {speed:g} of their speed")
        results: list[tuple[str, list[Hit] | None]] = []
        for one, action, start_s, end_s in asked:
            results.append((action, searched(db, one, (start_s, end_s), speed)))
            watch.did(one.name)
        found[f"speed_{speed:g}"] = moment_scores(results, spans)
    found["chance"] = chance([action for _, action, _, _ in asked], spans)
    return found


def piece_of(one: Filmed) -> tuple[str, float, float]:
    """(action, start, end) of the two seconds in the middle of a clip's action, or of all of a shorter one."""
    action, start_s, end_s = one.actions[0]
    middle = (start_s + end_s) / 2
    return action, max(start_s, middle - PIECE_S / 2), min(end_s, middle + PIECE_S / 2)


def searched(db: Database, one: Filmed, span: Span, speed: float) -> list[Hit] | None:
    """What a piece finds, played at this speed; None where no hand is seen in it."""
    query = {"k": K, "where": AMONG, "mirror": True}
    try:
        if speed == 1:
            return list(db.search(clip=clip_id(one.name), from_s=span[0], to_s=span[1], **query))
        row = row_arrays(db.row(clip_id(one.name), ["frame_s", "hand_keypoints_cam_m"]))
        times = row["frame_s"]
        inside = np.flatnonzero((times >= span[0]) & (times <= span[1]))
        points = row["hand_keypoints_cam_m"][inside]
        if not np.isfinite(points).all((2, 3)).any():
            return None
        return list(db.search(trajectory=(points, times[inside] / speed), **query))
    except NoPart:
        return None


def moment_scores(results: Sequence[tuple[str, Sequence[Hit] | None]], spans: Spans) -> dict[str, Any]:
    """`recall_at_1`, `recall_at_10`, `iou` of the first right match with its action's times, `by_action` at 1."""
    first, among, fits = [], [], []
    by_action: dict[str, list[float]] = {}
    for action, hits in results:
        right = [is_right(action, hit, spans) for hit in hits or ()]
        first.append(float(bool(right) and right[0]))
        among.append(float(any(right)))
        by_action.setdefault(action, []).append(first[-1])
        if any(right):
            hit = (hits or ())[right.index(True)]
            fits.append(max(overlap(times_of(hit), (a, b)) for name, a, b in spans[hit.clip_id] if name == action))
    return {
        "recall_at_1": interval(first),
        "recall_at_10": interval(among),
        "iou_median": round(float(np.median(fits)), 4) if fits else None,
        "without_hands": sum(hits is None for _, hits in results),
        "by_action": {name: round(float(np.mean(values)), 3) for name, values in by_action.items()},
    }


def times_of(hit: Hit) -> Span:
    """Of a match, seconds of the video."""
    return (hit.match_start_s or 0.0, hit.match_end_s or 0.0)


def is_right(action: str, hit: Hit, spans: Spans) -> bool:
    """Whether most of a match lies within one execution of the action."""
    start_s, end_s = times_of(hit)
    inside = [min(end_s, b) - max(start_s, a) for name, a, b in spans[hit.clip_id] if name == action]
    return max(inside, default=0.0) >= INSIDE * (end_s - start_s)


def chance(actions: Sequence[str], spans: Spans) -> float:
    """Share of random pieces of two seconds of random sequences that are right."""
    rng, ids, right = np.random.default_rng(0), list(spans), []
    for action in actions:
        for _ in range(50):
            some = spans[ids[int(rng.integers(len(ids)))]]
            start_s = float(rng.uniform(0, max(some[-1][2] - PIECE_S, 0)))
            inside = [min(start_s + PIECE_S, b) - max(start_s, a) for name, a, b in some if name == action]
            right.append(max(inside, default=0.0) >= INSIDE * PIECE_S)
    return round(float(np.mean(right)), 4)
