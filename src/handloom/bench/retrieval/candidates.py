"""Where a table has more clips than a movement is compared with: are the best among those that are?

Rows of the rendered clips are repeated with noise until there are 5,000: keypoints moved by a drift of some centimetres
and 3 mm of noise, played up to a third faster or slower, and vectors of `motion` with as much noise as two executions
of one action have. Every row is compared exactly beside the search.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from handloom.retrieval.ranges import frames_in, piece
from handloom.schemas.tables.row import cell_to_arrow, row_arrays
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment

NUM_ROWS, QUICK_ROWS, QUERIES, QUICK_QUERIES = 5000, 500, 12, 2
ROWS_AT_ONCE = 500
DRIFT_M, NOISE_M, PACE, TURN = 0.03, 0.003, 0.3, 0.35
KEPT = ("hand_left", "hand_right", "hand_visible", "run_key", "width", "height", "fps", "codec", "num_frames")


def measure_candidates(
    folder: Path, db: Database, clips: Sequence[Filmed], run_key: str, watch: Watch
) -> dict[str, Any]:
    """`recall`: share of the ten best of all rows that the search finds. cpu_ms: of a search, and comparing all."""
    num_rows = QUICK_ROWS if watch.quick else NUM_ROWS
    watch.part(f"{num_rows} rows")
    big, steps = _grown(folder, db, [one for one in clips if one.role in (LONG, SEARCHED)], num_rows, run_key)
    pieces = [one for one in clips if one.role == PIECE][: QUICK_QUERIES if watch.quick else QUERIES]
    found, spent, exact = [], [], 0.0
    for one in pieces:
        _, start_s, end_s = piece_of(one)
        row = row_arrays(db.row(clip_id(one.name)))
        movement = Movement(piece(row, frames_in(row, start_s, end_s)), one.name, mirror=True)
        began = time.process_time()
        best = _best(movement, steps)
        exact += time.process_time() - began
        began = time.process_time()
        inside = np.flatnonzero((row["frame_s"] >= start_s) & (row["frame_s"] <= end_s))
        asked = (row["hand_keypoints_cam_m"][inside], row["frame_s"][inside])
        hits = big.search(trajectory=asked, mirror=True, k=K)
        spent.append(time.process_time() - began)
        found.append(len({hit.clip_id for hit in hits} & best) / len(best))
        watch.did(one.name)
    return {
        "rows": num_rows,
        "compared": MAX_COMPARED,
        "recall": interval(found),
        "search_cpu_ms": round(1000 * float(np.median(spent)), 1) if spent else None,
        "all_cpu_ms": round(1000 * exact / len(pieces), 1) if pieces else None,
    }


def _best(movement: Movement, steps: dict[str, HandSteps]) -> set[str]:
    """The ten clips with the nearest matches."""
    matches = {id_: movement.match(one) for id_, one in steps.items()}
    there = {id_: found.distance for id_, found in matches.items() if found is not None}
    return set(sorted(there, key=lambda id_: (round(there[id_], 6), id_))[:K])


def _grown(
    folder: Path, db: Database, clips: Sequence[Filmed], num: int, run_key: str
) -> tuple[Database, dict[str, HandSteps]]:
    """A database of `num` rows, and what each is compared by."""
    known = [row_arrays(db.row(clip_id(one.name))) for one in clips]
    known = [
        row for row in known if row["embedding_motion"] is not None and np.isfinite(row["hand_keypoints_cam_m"]).any()
    ]
    schema, big = db.existing_table("clips").schema, Database.open(folder, create=True)
    committer, steps = Committer(big, run_key, schema), {}
    for start in range(0, num, ROWS_AT_ONCE):
        made = [_repeated(known[n % len(known)], n) for n in range(start, min(start + ROWS_AT_ONCE, num))]
        steps |= {one["clip_id"]: hand_steps(one["hand_keypoints_cam_m"], one["frame_s"]) for one in made}
        columns = [pa.concat_arrays([cell_to_arrow(one.get(f.name), f) for one in made]) for f in schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        committer.commit([write_fragment(big.uri, [batch], schema)])
    return big, steps


def _repeated(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row like this one: another execution of the same movement."""
    rng = np.random.default_rng([5, number])
    times = row["frame_s"] * float(rng.uniform(1 - PACE, 1 + PACE))
    vector = row["embedding_motion"] + TURN * _unit(rng.normal(size=len(row["embedding_motion"])))
    name = f"grown:{number:05d}"
    return {name: row[name] for name in KEPT} | {
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
