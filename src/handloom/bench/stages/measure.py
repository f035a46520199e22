"""`handloom bench stages`: what a new column costs beside rewriting the rows and beside extracting again; and what a
changed setting of the hands costs.

Rows of a few clips are extracted, and copied under new ids until there are 1,000, with every column at its real size.
An embedding of 768 numbers is added to them as a run adds it: staged by shards, committed fragment by fragment. Beside
it all rows are read and written with the new column, as it would be without added columns. Extracting again is not done
for 1,000 clips: it is the measured rate of the few. Then `hands.min_detection_confidence` changes: stages, seconds and
bytes of the update beside a fresh extraction, whose rows it must equal. One process, a local disk, models loaded.
Extraction is CPU time without decoding, which another process does; columns and rows are written in wall time.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from handloom.api import Database
from handloom.bench.cpu import idle_share
from handloom.bench.extract.clips import readable, rendered
from handloom.bench.report import describe, goal
from handloom.bench.stages.rows import FRAGMENT_ROWS, Made, Maker, write_copies
from handloom.bench.watch import Watch
from handloom.pipelines.verify import same_cells
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig
from handloom.schemas.tables.stage_columns import STATE_PREFIX, key_column
from handloom.stages.stage import embedding_field, owned
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.stages.columns import add_columns_for
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

NUM_ROWS, QUICK_ROWS = 1_000, 100
NUM_CLIPS, QUICK_CLIPS = 6, 2
CLIP_S, DIM, SHARD_CLIPS = 4.0, 768, 16
ROUNDS = 3
STAGE = "bench"
FIELDS = [
    owned(embedding_field(STAGE, DIM, model="random", version="1"), STAGE, ()),
    pa.field(key_column(STAGE), pa.string()),
]
CHANGED = {"hands": {"min_detection_confidence": 0.6}}


@dataclass(frozen=True)
class Cost:
    """seconds: wall time. num_bytes: written to disk, and what was deleted again is not subtracted."""

    seconds: float
    num_bytes: int


def bench_stages(videos: Path | None, watch: Watch, num_rows: int = 0) -> dict[str, Any]:
    """Measure on clips of a folder of videos, or on rendered ones."""
    num_rows = num_rows or (QUICK_ROWS if watch.quick else NUM_ROWS)
    num_clips = QUICK_CLIPS if watch.quick else NUM_CLIPS
    results: dict[str, Any] = {"rows": num_rows, "clips": num_clips, "dim": DIM, "fragment_rows": FRAGMENT_ROWS}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as name:
        folder = Path(name)
        results["idle_at_start"] = round(max(idle_share(), 0.0), 3)
        results["videos"] = "rendered" if videos is None else "of a folder"
        source = rendered(folder / "videos", watch.quick, watch.say) if videos is None else videos
        clips = readable(source, CLIP_S)[:num_clips]
        results["clips"] = len(clips)
        watch.part("loading models")
        before, after = Maker(RunConfig().settings()), Maker(RunConfig(**CHANGED).settings())
        before.fresh(clips[:1])  # first use of the models
        watch.part(f"extracting {len(clips)} clips")
        made = before.fresh(clips)
        results["row_bytes"] = round(statistics.mean(row.nbytes for row in made.rows))
        results["extract_cpu_s_per_clip"] = round(made.seconds / len(clips), 4)
        results["add_column"] = add_column(folder / "copies", before, made, num_rows, watch)
        results["extract_again"] = {"seconds": round(made.seconds / len(clips) * num_rows, 1), "measured": False}
        results["changed_hands"] = changed_hands(folder / "hands", before, after, clips, made, watch)
    return describe("stages", results, goals_of(results), watch)


def add_column(folder: Path, maker: Maker, made: Made, num_rows: int, watch: Watch) -> dict[str, Any]:
    """The column added to rows that exist, and the rows written anew with it; medians of some rounds."""
    vectors = _vectors(num_rows)
    added, rewritten = [], []
    watch.part(f"writing {num_rows} rows")
    db = write_copies(folder / "rows", maker, made.rows, num_rows)
    ids = db.clips(["clip_id"]).column("clip_id").to_pylist()
    add_columns_for(db, FIELDS)
    for number in range(1 if watch.quick else ROUNDS):
        watch.part(f"round {number + 1}: adding a column, rewriting the rows")
        added.append(_cost(Path(db.uri), lambda: _add(db, maker, ids, vectors)))
        target = folder / f"rewritten{number}"
        target.mkdir()
        rewritten.append(_cost(target, partial(_rewrite, db, maker, target, vectors)))
        shutil.rmtree(target)
    return {
        "column_bytes": vectors.nbytes,
        "added": _median(added),
        "rewritten": _median(rewritten),
    }


def changed_hands(
    folder: Path, before: Maker, after: Maker, clips: Sequence[Clip], made: Made, watch: Watch
) -> dict[str, Any]:
    """Another setting of the hands: the update of the rows beside a fresh extraction with it."""
    after.fresh(clips[:1])
    watch.part("extracting with other settings of hands")
    fresh = after.fresh(clips)
    watch.part("updating the rows")
    update = after.updated(clips, made.rows)
    db = write_copies(folder, before, made.rows, len(clips))
    ids = [f"bench:{number:06d}" for number in range(len(clips))]
    at = {clip.clip_id: number for number, clip in enumerate(clips)}
    ordered = sorted(update.rows, key=lambda row: at[row.column("clip_id")[0].as_py()])
    news = pa.Table.from_batches(ordered)
    news = news.set_column(0, "clip_id", pa.array(ids, pa.string()))
    wrote = _cost(Path(db.uri), lambda: _commit(db, after, [news], list(after.graph.schema())))
    stages = {name: sum(name in found for found in update.stages.values()) for name in after.graph.names}
    return {
        "setting": "hands.min_detection_confidence 0.5 -> 0.6",
        "stages_computed": {name: num for name, num in stages.items() if num},
        "stages_in_all": len(after.graph.names),
        "update_cpu_s_per_clip": round(update.seconds / len(clips), 4),
        "fresh_cpu_s_per_clip": round(fresh.seconds / len(clips), 4),
        "update_bytes_per_clip": round(wrote.num_bytes / len(clips)),
        "row_bytes": round(statistics.mean(row.nbytes for row in fresh.rows)),
        "rows_differing": _differing(ordered, fresh.rows),
    }


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What was reached of what a column may cost."""
    column, hands = results.get("add_column"), results.get("changed_hands")
    added = column and column["added"]
    share = column and column["added"]["bytes"] / column["rewritten"]["bytes"]
    again = added and added["seconds"] / results["extract_again"]["seconds"]
    ratio = hands and hands["update_cpu_s_per_clip"] / hands["fresh_cpu_s_per_clip"]
    return [
        goal(
            "bytes written for a new column",
            column and column["added"]["bytes"] / column["column_bytes"],
            "of its own",
            1.5,
            False,
        ),
        goal("bytes for a new column, beside rewriting the rows", share, "of their bytes", 0.05, False),
        goal("seconds to add a column", again, "of those of extracting again", 0.01, False),
        goal("CPU seconds after a changed setting of hands", ratio, "of a fresh extraction's", 1.0, False),
        goal("rows after it that differ from a fresh extraction", hands and hands["rows_differing"], "rows", 0, False),
    ]


def _vectors(num: int) -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(num, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _column(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)


def _add(db: Database, maker: Maker, ids: Sequence[str], vectors: np.ndarray) -> None:
    """As a run: each shard stages its clips' values, the driver commits them."""
    parts = []
    for start in range(0, len(ids), SHARD_CLIPS):
        rows = slice(start, start + SHARD_CLIPS)
        columns = [pa.array(ids[rows], pa.string()), _column(vectors[rows]), pa.array(["k" * 16] * len(ids[rows]))]
        parts.append(pa.Table.from_arrays(columns, names=["clip_id", *(field.name for field in FIELDS)]))
    _commit(db, maker, parts, FIELDS)


def _commit(db: Database, maker: Maker, parts: Sequence[pa.Table], fields: Sequence[pa.Field]) -> None:
    staged = [write_update(db.uri, part, "bench") for part in parts]
    ColumnCommitter(db, maker.run_key, fields).commit(staged)


def _rewrite(db: Database, maker: Maker, target: Path, vectors: np.ndarray) -> None:
    """Every row read, and written with the new column."""
    to = Database.open(target, create=True)
    schema = pa.schema([*maker.graph.schema(), *FIELDS], metadata=maker.graph.schema().metadata)
    committer, start = Committer(to, maker.run_key, schema), 0
    for batch in db.batches(maker.graph.schema().names, batch_size=FRAGMENT_ROWS):
        rows = slice(start, start + batch.num_rows)
        more = [_column(vectors[rows]), pa.array(["k" * 16] * batch.num_rows)]
        whole = pa.RecordBatch.from_arrays([*batch.columns, *more], schema=schema)
        committer.commit([write_fragment(to.uri, [whole], schema)])
        start += batch.num_rows


def _cost(folder: Path, do: Callable[[], None]) -> Cost:
    before = _files(folder)
    began = time.perf_counter()
    do()
    seconds = time.perf_counter() - began
    return Cost(seconds, sum(size for file, size in _files(folder).items() if file not in before))


def _files(folder: Path) -> dict[str, int]:
    return {
        os.path.join(place, name): os.path.getsize(os.path.join(place, name))
        for place, _, names in os.walk(folder)
        for name in names
    }


def _median(costs: Sequence[Cost]) -> dict[str, float]:
    seconds, num_bytes = ([getattr(cost, name) for cost in costs] for name in ("seconds", "num_bytes"))
    return {"seconds": round(statistics.median(seconds), 3), "bytes": int(statistics.median(num_bytes))}


def _differing(updates: Sequence[pa.RecordBatch], fresh: Sequence[pa.RecordBatch]) -> int:
    """Rows with a new column that a fresh row has otherwise."""
    num = 0
    for update, row in zip(updates, fresh, strict=True):
        names = [name for name in update.schema.names if not name.startswith(STATE_PREFIX)]
        num += not all(same_cells(update.column(name), row.column(name)) for name in names)
    return num
