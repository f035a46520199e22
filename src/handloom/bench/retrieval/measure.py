"""`handloom bench retrieval`: how good the searches are, on rendered clips whose actions are known.

300 clips of twelve kinds of action, rendered, and extracted by the real stages; clips of queries share no scene, person
or camera with those that are searched. Beside them copies of some, for near-duplicates. All that is random has a seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.bench.report import describe, goal
from handloom.bench.retrieval.actions import measure_actions
from handloom.bench.retrieval.candidates import measure_candidates
from handloom.bench.retrieval.data import clip_id, copies_of, make_rows, new_database
from handloom.bench.retrieval.duplicates import measure_duplicates
from handloom.bench.retrieval.exact import measure_exact
from handloom.bench.retrieval.moments import measure_moments
from handloom.bench.retrieval.scenes import QUERY, SEARCHED, SEED, Filmed, Size, quick, scenes_of
from handloom.bench.retrieval.words import measure_words
from handloom.bench.watch import Watch
from handloom.schemas.settings import Settings
from handloom.schemas.values import LEFT
from handloom.stages.versions import model_versions

NUM_COPIED, QUICK_COPIED = 8, 1


def bench_retrieval(data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure. data: a folder that keeps videos and rows for the next time; None: they are deleted at the end."""
    results: dict[str, Any] = {"seed": SEED}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as scratch:
        folder = Path(scratch) / "data" if data is None else data
        _measure(folder, Path(scratch), watch, results)
    return describe("retrieval", results, goals_of(results), watch)


def _measure(folder: Path, scratch: Path, watch: Watch, results: dict[str, Any]) -> None:
    size = quick(Size()) if watch.quick else Size()
    clips = scenes_of(size)
    copies = copies_of(clips, QUICK_COPIED if watch.quick else NUM_COPIED)
    made = make_rows(clips, copies, folder, watch)
    results |= {"clips": len(clips), "copies": len(copies), "kinds": list(size.kinds), "new_clips": made.num_new}
    results |= {"render_cpu_s": round(made.render_cpu_s, 1), "extract_cpu_s": round(made.extract_cpu_s, 1)}
    db = new_database(scratch / "db", clips, copies, made, folder / "videos")
    searched = [one for one in clips if one.role == SEARCHED]
    kind_of = {clip_id(one.name): one.kind for one in searched}
    seen = hands_seen(db, clips)
    results["hands_seen"] = seen_by_kind(clips, seen)
    results["actions"] = measure_actions(db, clips, seen, folder / "videos", watch)
    results["moments"] = measure_moments(db, clips, watch)
    results["words"] = measure_words(db, searched, kind_of)
    results["duplicates"] = measure_duplicates(db, clips, copies, watch)
    results["exact"] = measure_exact(db, clips)
    run_key = Settings().run_key(model_versions(Settings()))
    results["candidates"] = measure_candidates(scratch / "grown", db, clips, run_key, watch)


def hands_seen(db: Database, clips: Sequence[Filmed]) -> dict[str, float]:
    """Share of frames in which the acting hand is found, by clip id: what is not seen cannot be searched for."""
    seen = {}
    for one in clips:
        if one.role in (SEARCHED, QUERY):
            told = db.row(clip_id(one.name), ["hand_visible"]).column(0)[0].as_py()
            seen[clip_id(one.name)] = float(np.mean([frame[0 if one.spec.main_hand == LEFT else 1] for frame in told]))
    return seen


def seen_by_kind(clips: Sequence[Filmed], seen: Mapping[str, float]) -> dict[str, float]:
    """The mean of each kind of action."""
    kinds: dict[str, list[float]] = {}
    for one in clips:
        if clip_id(one.name) in seen:
            kinds.setdefault(one.kind, []).append(seen[clip_id(one.name)])
    return {kind: round(float(np.mean(values)), 3) for kind, values in kinds.items()}


def goals_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The goals; null where nothing was measured."""

    def value(*path: str) -> Any:
        found: Any = results
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    found = value("duplicates", "copies", "cropped to 60 %, mirrored", "look_finds_it", "mean")
    false = value("duplicates", "different_clips_grouped")
    pieces = value("moments", "speed_1", "recall_at_10", "mean")
    opposites = value("words", "opposites_among_first_ten", "mean")
    return [
        goal("mean average precision at 10 by motion", value("actions", "motion", "mean"), "share", 0.9),
        goal("pieces that find their action, first ten", pieces, "share", 0.9),
        goal("the best moments that are among the candidates", value("candidates", "recall", "mean"), "share", 0.95),
        goal("first hits of 'shove' that are pushes", value("words", "shove_finds_pushes"), "share", 1.0),
        goal("opposites among the first ten", opposites, "share", 0.05, False),
        goal("cropped and mirrored copies that look finds", found, "share", 0.97),
        goal("different executions in one group", None if false is None else len(false), "pairs", 0, False),
        goal("windows outside of the times found", value("exact", "windows", "outside"), "windows", 0, False),
        goal("AR-VRM's sum, difference", value("exact", "arvrm", "largest_difference"), "of 11", 0.01, False),
    ]
