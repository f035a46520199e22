"""Where a table has more clips than a movement is compared with: are the best among those that are?

Rows of the rendered clips are repeated with noise until there are 5,000: keypoints moved by a drift of some centimetres
and 3 mm of noise, played up to a third faster or slower, and vectors of `motion` with as much noise as two executions
of one action have. Every row is compared exactly beside the search.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.retrieval.data import clip_id
from handloom.bench.retrieval.moments import piece_of
from handloom.bench.retrieval.scenes import LONG, PIECE, SEARCHED, Filmed
from handloom.bench.retrieval.scores import K, interval
from handloom.bench.watch import Watch
from handloom.models.embeddings.hand_steps import HandSteps, hand_steps
from handloom.retrieval.moments import MAX_COMPARED, Movement
from handloom.retrieval.query import NoPart
from handloom.retrieval.ranges import frames_in, piece
from handloom.schemas.tables.row import cell_to_arrow, row_arrays
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment

NUM_ROWS, QUICK_ROWS, QUERIES, QUICK_QUERIES = 5000, 500, 8, 2
ROWS_AT_ONCE = 500
SHARES = (0.02, 0.08, 0.2)
DRIFT_M, NOISE_M, PACE, TURN = 0.03, 0.003, 0.3, 0.35
KEPT = ("hand_left", "hand_right", "hand_visible")


@dataclass(frozen=True)
class _Grown:
    """A database of many rows; what each is compared by, and its vector of `motion`, by clip id."""

    db: Database
    steps: dict[str, HandSteps] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def measure_candidates(
    folder: Path, db: Database, clips: Sequence[Filmed], run_key: str, watch: Watch
) -> dict[str, Any]:
    """`recall`: share of the ten best of all rows that the search finds. nearest: the same, of those nearest by
    `motion`, which a search of more rows compares. search_cpu_ms: of a search; warping_cpu_ms: without reading."""
    num_rows = QUICK_ROWS if watch.quick else NUM_ROWS
    watch.part(f"{num_rows} rows")
    grown = _grown(folder, db, [one for one in clips if one.role in (LONG, SEARCHED)], num_rows, run_key)
    pieces = [one for one in clips if one.role == PIECE][: QUICK_QUERIES if watch.quick else QUERIES]
    found: list[float] = []
    nearest: dict[str, list[float]] = {f"{share:g}": [] for share in SHARES}
    spent, warping = [], []
    for one in pieces:
        _, start_s, end_s = piece_of(one)
        row = row_arrays(db.row(clip_id(one.name)))
        inside = frames_in(row, start_s, end_s)
        try:
            movement = Movement(piece(row, inside), one.name, mirror=True)
        except NoPart:  # no hand is found in the piece
            continue
        began = time.process_time()
        best = _best(movement, grown.steps)
        warping.append(time.process_time() - began)
        began = time.process_time()
        asked = (row["hand_keypoints_cam_m"][inside], row["frame_s"][inside])
        hits = grown.db.search(trajectory=asked, mirror=True, k=K)
        spent.append(time.process_time() - began)
        found.append(len({hit.clip_id for hit in hits} & best) / len(best))
        for share in SHARES:
            near = _nearest(movement, grown.vectors, round(share * num_rows))
            nearest[f"{share:g}"].append(len(near & best) / len(best))
        watch.did(one.name)
    return {
        "rows": num_rows,
        "compared": MAX_COMPARED,
        "recall": interval(found),
        "nearest": {share: interval(values) for share, values in nearest.items()},
        "search_cpu_ms": round(1000 * float(np.median(spent)), 1) if spent else None,
        "warping_cpu_ms": round(1000 * float(np.median(warping)), 1) if warping else None,
    }


def _best(movement: Movement, steps: dict[str, HandSteps]) -> set[str]:
    """The ten clips with the nearest matches."""
    matches = dict(zip(steps, movement.matches(list(steps.values())), strict=True))
    there = {id_: found.distance for id_, found in matches.items() if found is not None}
    return set(sorted(there, key=lambda id_: (round(there[id_], 6), id_))[:K])


def _nearest(movement: Movement, vectors: dict[str, NDArray[np.float32]], num: int) -> set[str]:
    """The clips nearest by `motion`."""
    whole, ids = np.stack(list(vectors.values())), list(vectors)
    cosine = np.max([whole @ vector for vector in movement.vectors], axis=0)
    return {ids[place] for place in np.argsort(-cosine, kind="stable")[:num]}


def _grown(folder: Path, db: Database, clips: Sequence[Filmed], num: int, run_key: str) -> _Grown:
    known = [row_arrays(db.row(clip_id(one.name))) for one in clips]
    known = [row for row in known if row["embedding_motion"] is not None and row["hand_visible"].any()]
    schema, grown = db.existing_table("clips").schema, _Grown(Database.open(folder, create=True))
    kept = [*KEPT, *(kind.name for kind in schema if not kind.nullable)]
    committer = Committer(grown.db, run_key, schema)
    for start in range(0, num, ROWS_AT_ONCE):
        made = [_repeated(known[n % len(known)], n, kept) for n in range(start, min(start + ROWS_AT_ONCE, num))]
        for one in made:
            grown.steps[one["clip_id"]] = hand_steps(one["hand_keypoints_cam_m"], one["frame_s"])
            grown.vectors[one["clip_id"]] = one["embedding_motion"]
        columns = [pa.concat_arrays([cell_to_arrow(one.get(kind.name), kind) for one in made]) for kind in schema]
        committer.commit([write_fragment(grown.db.uri, [pa.RecordBatch.from_arrays(columns, schema=schema)], schema)])
    return grown


def _repeated(row: dict[str, Any], number: int, kept: Sequence[str]) -> dict[str, Any]:
    """A row like this one: another execution of the same movement. kept: columns that stay as they are."""
    rng = np.random.default_rng([5, number])
    times = row["frame_s"] * float(rng.uniform(1 - PACE, 1 + PACE))
    vector = row["embedding_motion"] + TURN * _unit(rng.normal(size=len(row["embedding_motion"])))
    name = f"grown:{number:05d}"
    return {name: row[name] for name in kept} | {
        "clip_id": name, "dataset": "grown", "video_id": name, "video_uri": f"/{name}.mp4",
        "start_s": 0.0, "end_s": float(times[-1]) + 0.1, "duration_s": float(times[-1]) + 0.1, "frame_s": times,
        "hand_keypoints_cam_m": _moved(row["hand_keypoints_cam_m"], rng),
        "embedding_motion": _unit(vector).astype(np.float32),
    }  # fmt: skip


def _moved(points: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """(T, 2, 21, 3) keypoints with a drift from one end of the clip to the other, and noise."""
    share = np.linspace(0, 1, len(points))[:, None, None, None]
    ends = rng.normal(0, DRIFT_M, (2, 1, 2, 1, 3))
    drift = (1 - share) * ends[0] + share * ends[1]
    return (points + drift + rng.normal(0, NOISE_M, points.shape)).astype(np.float32)


def _unit(vector: NDArray[Any]) -> NDArray[Any]:
    return vector / np.linalg.norm(vector)
