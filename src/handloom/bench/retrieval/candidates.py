"""Where a table has more clips than are compared whole with a movement: are the best among those that are?

Rows of the rendered clips are repeated with noise until there are 20,000: played up to a third faster or slower, what
moves in each step and its speed changed about as much as between two executions of one action. The pieces that are
searched for are in the same table. Every row is compared exactly beside the search.
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
from handloom.models.embeddings.descriptors import NUM_DIRECTIONS
from handloom.retrieval.movement.moments import MOST, Movement
from handloom.retrieval.movement.steps import FLOW, MOVING
from handloom.retrieval.ranges import frames_in, piece
from handloom.schemas.tables.row import cell_to_arrow, row_arrays
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment

NUM_ROWS, QUICK_ROWS, QUERIES, QUICK_QUERIES = 20_000, 500, 16, 2
ROWS_AT_ONCE = 2000
SHARES = (0.02, 0.08, 0.2)
NOISE, SPREAD, PACE, TURN = 0.03, 0.25, 0.3, 0.35
KEPT = ("hand_left", "hand_right", key_column(FLOW))
GROWN = "grown"


@dataclass(frozen=True)
class _Grown:
    """A database of many rows; what each is compared by, and its vector of `motion`, by clip id."""

    db: Database
    steps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def measure_candidates(
    folder: Path, db: Database, clips: Sequence[Filmed], run_key: str, watch: Watch
) -> dict[str, Any]:
    """`recall`: share of the ten best of all rows that the search finds. rough: the same, of the nearest in long steps,
    by share of the rows; nearest: of those nearest by `motion`. search_cpu_ms: of a search; warping_cpu_ms: of
    comparing every row whole, without reading."""
    num_rows = QUICK_ROWS if watch.quick else NUM_ROWS
    watch.part(f"{num_rows} rows")
    pieces = [one for one in clips if one.role == PIECE][: QUICK_QUERIES if watch.quick else QUERIES]
    known = [one for one in clips if one.role in (LONG, SEARCHED)]
    grown = _grown(folder, db, known, pieces, num_rows, run_key)
    found: list[float] = []
    nearest: dict[str, list[float]] = {f"{share:g}": [] for share in SHARES}
    rough: dict[str, list[float]] = {f"{share:g}": [] for share in SHARES}
    spent, warping = [], []
    for one in pieces:
        _, start_s, end_s = piece_of(one)
        row = row_arrays(db.row(clip_id(one.name)))
        movement = Movement(piece(row, frames_in(row, start_s, end_s)), one.name, mirror=True, moving=True)
        if movement.kind is not MOVING:  # hardly anything moves
            continue
        began = time.process_time()
        best = _best(movement, grown.steps)
        warping.append(time.process_time() - began)
        began = time.process_time()
        asked = {"clip": clip_id(one.name), "from_s": start_s, "to_s": end_s, "mirror": True}
        hits = grown.db.search(**asked, where=f"dataset = '{GROWN}'", k=K)
        spent.append(time.process_time() - began)
        found.append(len({hit.clip_id for hit in hits} & best) / len(best))
        order = np.argsort(movement.rough_distances(list(grown.steps.values())), kind="stable")
        for share in SHARES:
            near = _nearest(movement, grown.vectors, round(share * num_rows))
            nearest[f"{share:g}"].append(len(near & best) / len(best))
            ids = list(grown.steps)
            few = {ids[place] for place in order[: round(share * num_rows)]}
            rough[f"{share:g}"].append(len(few & best) / len(best))
        watch.did(one.name)
    return {
        "rows": num_rows,
        "compared": MOST[FLOW],
        "recall": interval(found),
        "rough": {share: interval(values) for share, values in rough.items()},
        "nearest": {share: interval(values) for share, values in nearest.items()},
        "search_cpu_ms": round(1000 * float(np.median(spent)), 1) if spent else None,
        "warping_cpu_ms": round(1000 * float(np.median(warping)), 1) if warping else None,
        "steps_bytes": round(float(np.mean([2 * one.size for one in grown.steps.values()])), 1),
    }


def _best(movement: Movement, steps: dict[str, NDArray[np.float32]]) -> set[str]:
    """The ten clips with the nearest matches."""
    matches = dict(zip(steps, movement.matches(list(steps.values())), strict=True))
    there = {id_: found.distance for id_, found in matches.items() if found is not None}
    return set(sorted(there, key=lambda id_: (round(there[id_], 6), id_))[:K])


def _nearest(movement: Movement, vectors: dict[str, NDArray[np.float32]], num: int) -> set[str]:
    """The clips nearest by `motion`."""
    whole, ids = np.stack(list(vectors.values())), list(vectors)
    cosine = np.max([whole @ vector for vector in movement.vectors], axis=0)
    return {ids[place] for place in np.argsort(-cosine, kind="stable")[:num]}


def _grown(
    folder: Path, db: Database, clips: Sequence[Filmed], pieces: Sequence[Filmed], num: int, run_key: str
) -> _Grown:
    schema, grown = db.existing_table("clips").schema, _Grown(Database.open(folder, create=True))
    kept = [*KEPT, *(kind.name for kind in schema if not kind.nullable)]
    columns = list(dict.fromkeys([*kept, "frame_s", FLOW, "embedding_motion"]))
    known = [row_arrays(db.row(clip_id(one.name), columns)) for one in clips]
    known = [row for row in known if row["embedding_motion"] is not None and row[FLOW] is not None]
    committer = Committer(grown.db, run_key, schema)
    asked = [db.row(clip_id(one.name)).combine_chunks().to_batches()[0] for one in pieces]
    committer.commit([write_fragment(grown.db.uri, asked, schema)])
    for start in range(0, num, ROWS_AT_ONCE):
        made = [_repeated(known[n % len(known)], n, kept) for n in range(start, min(start + ROWS_AT_ONCE, num))]
        for one in made:
            grown.steps[one["clip_id"]] = one[FLOW].astype(np.float32)
            grown.vectors[one["clip_id"]] = one["embedding_motion"]
        columns = [pa.concat_arrays([cell_to_arrow(one.get(kind.name), kind) for one in made]) for kind in schema]
        committer.commit([write_fragment(grown.db.uri, [pa.RecordBatch.from_arrays(columns, schema=schema)], schema)])
    return grown


def _repeated(row: dict[str, Any], number: int, kept: Sequence[str]) -> dict[str, Any]:
    """A row like this one: another execution of the same movement. kept: columns that stay as they are."""
    rng = np.random.default_rng([5, number])
    pace = float(rng.uniform(1 - PACE, 1 + PACE))
    times = (row["frame_s"] - row["frame_s"][0]) * pace
    vector = row["embedding_motion"] + TURN * _unit(rng.normal(size=len(row["embedding_motion"])))
    name = f"{GROWN}:{number:05d}"
    return {name: row[name] for name in kept} | {
        "clip_id": name, "dataset": GROWN, "video_id": name, "video_uri": f"/{name}.mp4",
        "start_s": 0.0, "end_s": float(times[-1]) + 0.1, "duration_s": float(times[-1]) + 0.1, "frame_s": times,
        FLOW: _moved(row[FLOW].astype(np.float64), pace, rng), "embedding_motion": _unit(vector).astype(np.float32),
    }  # fmt: skip


def _moved(steps: NDArray[np.float64], pace: float, rng: np.random.Generator) -> NDArray[np.float16]:
    """(S, 10) steps over `pace` times the time, slower by as much, with noise."""
    places = np.linspace(0, len(steps) - 1, max(round(len(steps) * pace), 1))
    moved = np.stack([np.interp(places, np.arange(len(steps)), column) for column in steps.T], axis=1)
    moved[:, NUM_DIRECTIONS:] /= pace
    moved = moved * rng.lognormal(0, SPREAD, moved.shape) + rng.normal(0, NOISE, moved.shape)
    moved[:, :NUM_DIRECTIONS] = np.maximum(moved[:, :NUM_DIRECTIONS], 0)
    return moved.astype(np.float16)


def _unit(vector: NDArray[Any]) -> NDArray[Any]:
    return vector / np.linalg.norm(vector)
