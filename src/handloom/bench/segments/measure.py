"""`handloom bench segments`: rendered sequences of actions with exact truth, and annotated actions of a database.

All methods see the same hands. `handloom` is the stage `segments`; `speed_minima` is the rule of minima of the wrist's
speed alone; `uniform` cuts every second. The seed of the rendered clips was not used for tuning, but scenes of their
kind were.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.bench.report import describe, goal
from handloom.bench.segments.annotated import annotated_results
from handloom.bench.segments.clip import METHODS, OURS, SequenceScorer, SequenceScores
from handloom.bench.segments.scores import DURATIONS, IOU, Counts
from handloom.bench.watch import Watch
from handloom.kernels import one_thread_each
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.settings import Settings
from handloom.synth.script.demo import sequence_specs
from handloom.synth.script.scene import SceneSpec

NUM_CLIPS, QUICK_CLIPS, SEED = 24, 2, 4000


def bench_segments(num_clips: int | None, db: str | None, watch: Watch) -> dict[str, Any]:
    """Measure on `num_clips` rendered sequences, and on the annotated actions of a database, if one is given."""
    usual = QUICK_CLIPS if watch.quick else NUM_CLIPS
    specs = sequence_specs(usual if num_clips is None else num_clips, SEED, turns=2 if watch.quick else 3)
    scores: list[SequenceScores] = []
    results: dict[str, Any] = {"rendered_seed": SEED}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        if specs:
            score_all(specs, Path(folder), watch, scores)
        if db is not None:
            results["annotated"] = annotated_results(Database.open(db))
    scores.sort(key=lambda one: one.name)
    results["rendered"] = pooled(scores)
    results["clips"] = [{"clip": one.name, **pooled([one])} for one in scores]
    results = _plain(results)
    return describe("segments", results, goals_of(results), watch)


def score_all(specs: Sequence[SceneSpec], folder: Path, watch: Watch, into: list[SequenceScores]) -> None:
    """Render and score every clip, in one process per core."""
    workers = max(min(os.cpu_count() or 1, len(specs)), 1)
    watch.expect(len(specs))
    watch.part("rendering and scoring")
    with one_thread_each(), process_pool(workers, _start) as pool:
        jobs = {pool.submit(_score, f"sequence_{i:03d}", spec, folder): i for i, spec in enumerate(specs)}
        for number, job in enumerate(as_completed(jobs), 1):
            into.append(job.result())
            watch.did(f"{into[-1].name}, {number} of {len(jobs)}")


_scorer: SequenceScorer | None = None


def _start() -> None:
    global _scorer
    _scorer = SequenceScorer(Settings())


def _score(name: str, spec: SceneSpec, folder: Path) -> SequenceScores:
    scorer = _scorer or SequenceScorer(Settings())
    return scorer.score(name, spec, folder)


def pooled(scores: Sequence[SequenceScores]) -> dict[str, Any]:
    """Counts of all clips together; poses by frame."""
    out: dict[str, Any] = {"clips": len(scores), "frames": sum(one.num_frames for one in scores)}
    for method in METHODS:
        out[method] = {
            "boundary": _sum(one.boundary[method] for one in scores).scores(),
            **{f"segment_iou_{least}": _sum(one.segment[method][least] for one in scores).scores() for least in IOU},
            "recall_by_duration": {
                name: _recall(_sum(one.duration[method][name] for one in scores)) for name in DURATIONS
            },
        }
    away = np.concatenate([np.empty(0), *(one.away_m for one in scores)])
    turned = np.concatenate([np.empty(0), *(one.turned_deg for one in scores)])
    matched, right = (sum(one.phase[i] for one in scores) for i in (0, 1))
    out[OURS] |= {
        "contact_frames": _sum(one.contact for one in scores).scores(),
        "contact_spans": _sum(one.contact_spans for one in scores).scores(),
        "phase_accuracy": right / matched if matched else float("nan"),
        "object_translation_m": _spread(away),
        "object_rotation_deg": _spread(turned),
    }
    return out


def _sum(counts) -> Counts:
    total = Counts()
    for one in counts:
        total.add(one)
    return total


def _recall(counts: Counts) -> dict[str, float]:
    return {"recall": counts.scores()["recall"], "true": counts.true}


def _spread(errors: np.ndarray) -> dict[str, float]:
    """Median and 90th percentile of what is known, and the share of frames with a pose."""
    known = errors[np.isfinite(errors)]
    nan = float("nan")
    return {
        "median": float(np.median(known)) if len(known) else nan,
        "p90": float(np.quantile(known, 0.9)) if len(known) else nan,
        "known": len(known) / len(errors) if len(errors) else nan,
    }


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals of the rendered clips."""
    ours = results["rendered"].get(OURS, {}) if results["rendered"]["clips"] else {}

    def value(*path: str) -> float | None:
        found: Any = ours
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    return [
        goal("boundary_f1", value("boundary", "f1"), "share", 0.85),
        goal("recall_under_1_s", value("recall_by_duration", "under_1_s", "recall"), "share", 0.70),
        goal("contact_f1", value("contact_frames", "f1"), "share", 0.85),
        goal("object_translation", value("object_translation_m", "median"), "m", 0.02, at_least=False),
        goal("object_rotation", value("object_rotation_deg", "median"), "deg", 10.0, at_least=False),
    ]


def _plain(value: Any) -> Any:
    """NaN as None, numbers rounded to four significant digits."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
