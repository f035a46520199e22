"""`handloom bench search`: a million vectors beside words and bytes, searched through the index, compared with all.

A table of `clips` on disk gets clustered vectors, words and thumbnails (`rows`); `handloom index` runs in a process of
its own, whose time and memory are measured. Each query is then searched for alone, in one process, with the files in
the page cache: the vector search itself (`ranking.approximate`: ids, exactly scored), and `db.search`, which also looks
up the newest version and reads the hits' columns. Recall is against all vectors. FAISS searches the same vectors in
memory, in the same number of partitions. Then 1 % new rows are committed, searched at once, and indexed. Real rows have
up to a megabyte: their other columns are in pages of their own, which no search reads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.cpu import idle_share
from handloom.bench.report import describe, goal
from handloom.bench.search import faiss_index
from handloom.bench.search.rows import COLUMN, FILTER, FRAGMENT_ROWS, NAME, THUMBNAIL_BYTES, Vectors, append, clip_id_of
from handloom.bench.search.times import Times
from handloom.bench.search.truth import Nearest, recall
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.store.search.index import ANN_THRESHOLD_ROWS
from handloom.store.search.ranking import approximate, best_clips

K = 10
MIN_RECALL, MAX_P50_MS, MAX_P99_MS = 0.98, 4.0, 8.0
MAX_NEW_S = 10.0
_INDEX = """
import json, sys
from dataclasses import asdict
from handloom.api import Database
from handloom.store.search.index import build_indexes
report = build_indexes(Database.open(sys.argv[1]), ann_threshold_rows=int(sys.argv[2]))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(json.dumps({"peak_memory_bytes": int(peak) * 1024, "report": asdict(report)}))
"""


@dataclass(frozen=True)
class Size:
    """How much is measured. threshold_rows: from so many rows on an embedding gets an index."""

    rows: int = 1_000_000
    dim: int = 512
    queries: int = 500
    threshold_rows: int = ANN_THRESHOLD_ROWS

    @property
    def new_rows(self) -> int:
        """1 % of the rows, committed later."""
        return max(1, self.rows // 100)

    @property
    def disk_bytes(self) -> int:
        """What it takes: rows, the index, copies for searches, and some more."""
        return int(self.rows * (4 * self.dim * 2.25 + THUMBNAIL_BYTES + 800))


QUICK = Size(rows=20_000, dim=64, queries=200, threshold_rows=10_000)


def bench_search(videos: Path | None, watch: Watch, size: Size | None = None) -> dict[str, Any]:
    """Measure; `videos` is not used. Raises ConfigError if the disk of temporary files is too small."""
    size = size or (QUICK if watch.quick else Size())
    results: dict[str, Any] = asdict(size)
    with tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        free = shutil.disk_usage(folder).free
        if free < size.disk_bytes:
            raise ConfigError(
                f"{folder} has {free / 2**30:.1f} GiB free, the benchmark writes {size.disk_bytes / 2**30:.1f} GiB",
                "free some space, name another folder with TMPDIR, or measure less with --quick",
            )
        with watch.measuring(units=3 * size.rows):
            results["idle_at_start"] = round(max(idle_share(), 0.0), 3)
            _measure(Path(folder) / "db", size, watch, results)
    return describe("search", results, goals_of(results), watch)


def _measure(folder: Path, size: Size, watch: Watch, results: dict[str, Any]) -> None:
    db = Database.open(folder, create=True)
    vectors = Vectors(size.rows, size.dim)
    watch.part(f"writing {size.rows} rows")
    _append(db, vectors, 0, size.rows, watch)
    results["rows_bytes"] = _bytes(folder / "clips.lance" / "data")
    watch.part("indexing")
    results["index"] = indexed(db, size)
    watch.part("comparing with every row")
    queries = vectors.queries(size.queries, vectors.centres())
    nearest = Nearest(queries, K)
    nearest.read(db, lambda rows: watch.did(units=rows))
    results["filter_share"] = round(len(nearest.filtered) / size.rows, 4)
    watch.part("searching")
    results["ours"] = searched(db, queries, nearest)
    results["first_search_s"] = first_search_s(db, queries[0])
    watch.part("FAISS")
    results["faiss"] = _faiss(size, vectors, queries, nearest, results, watch)
    watch.part(f"{size.new_rows} new rows")
    results["new_rows"] = grown(db, size, vectors, watch)


def indexed(db: Database, size: Size) -> dict[str, Any]:
    """Build or update the indexes in a process of its own: seconds, peak memory, bytes, and its report."""
    folder = Path(db.location.table_uri("clips")) / "_indices"
    before = _bytes(folder)
    began = time.perf_counter()
    call = [sys.executable, "-c", _INDEX, db.uri, str(size.threshold_rows)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "index")
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "bytes_added": _bytes(folder) - before,
        **json.loads(output),  # `ru_maxrss` would be that of this process, until the other has begun
    }


def searched(db: Database, queries: NDArray[np.float32], nearest: Nearest) -> dict[str, Any]:
    """Latency and recall of the vector search and of `db.search`, with and without the filter."""
    table = db.existing_table("clips")
    numbers: dict[str, Any] = {}
    cases = (("all", None, nearest.of_all), ("filtered", FILTER, nearest.of_one_person))
    for name, where, truth in cases:
        bare, whole = Times(), Times()
        found = [bare.of(partial(_bare, table, q, where)) for q in queries]
        hits = [whole.of(partial(db.search, vector=q, by=NAME, k=K, where=where)) for q in queries]
        numbers[name] = {
            "vectors": bare.numbers() | {"recall": _recall([[hit.clip_id for hit in one] for one in found], truth)},
            "db_search": whole.numbers() | {"recall": _recall([[hit.clip_id for hit in one] for one in hits], truth)},
        }
    return numbers


def _bare(table: Any, query: NDArray[np.float32], where: str | None) -> list[Any]:
    """The nearest clips of the vector search alone."""
    return best_clips(approximate(table, COLUMN, query[None].astype(float), K, where), K)


def first_search_s(db: Database, query: NDArray[np.float32]) -> float:
    """The first `db.search` of a new process, without its start and imports."""
    code = (
        "import sys, json, time, handloom; from handloom.retrieval.search import search\n"
        "began = time.perf_counter()\n"
        "handloom.open(sys.argv[1]).search(vector=json.loads(sys.stdin.read()), by=sys.argv[2])\n"
        "print(time.perf_counter() - began)"
    )
    call = [sys.executable, "-c", code, db.uri, NAME]
    done = subprocess.run(call, input=json.dumps(query.tolist()), capture_output=True, text=True, check=True)
    return round(float(done.stdout), 3)


def grown(db: Database, size: Size, vectors: Vectors, watch: Watch) -> dict[str, Any]:
    """Commit 1 % new rows, look for some of them before and after they are indexed."""
    _append(db, vectors, size.rows, size.new_rows, watch)
    places = np.random.default_rng(5).choice(size.new_rows, min(size.queries, size.new_rows, 200), replace=False)
    committed = time.perf_counter()
    results: dict[str, Any] = {"rows": size.new_rows}
    queries = _vectors_at(vectors, size, places)
    results["waiting"] = _found_first(db, queries, places, size)
    results["first_found_s"] = round(time.perf_counter() - committed - results["waiting"].pop("seconds"), 3)
    results["index"] = indexed(db, size)
    results["indexed"] = _found_first(db, queries, places, size)
    results["indexed"].pop("seconds")
    return results


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals; null where nothing was measured."""
    new, goals = results.get("new_rows", {}), []
    for name, told in (("all", ""), ("filtered", " of 1 % that a filter keeps")):
        found = results.get("ours", {}).get(name, {}).get("vectors", {})
        goals += [
            goal(f"recall@{K}{told}", found.get("recall"), "share", MIN_RECALL),
            goal(f"p50{told}", found.get("p50_ms"), "ms", MAX_P50_MS, at_least=False),
            goal(f"p99{told}", found.get("p99_ms"), "ms", MAX_P99_MS, at_least=False),
        ]
    return [
        *goals,
        goal("1 % new rows are found", new.get("waiting", {}).get("found"), "share", 1.0),
        goal("1 % new rows are indexed in", new.get("index", {}).get("seconds"), "s", MAX_NEW_S, at_least=False),
    ]


def _found_first(db: Database, queries: NDArray[np.float32], places: NDArray[np.int64], size: Size) -> dict[str, Any]:
    """Search by stored vectors of new rows: the share that finds its own row first."""
    times, began = Times(), time.perf_counter()
    hits = [times.of(partial(db.search, vector=q, by=NAME, k=1)) for q in queries]
    found = [one[0].clip_id == clip_id_of(size.rows + int(place)) for one, place in zip(hits, places, strict=True)]
    return times.numbers() | {"found": round(float(np.mean(found)), 4), "seconds": time.perf_counter() - began}


def _vectors_at(vectors: Vectors, size: Size, places: NDArray[np.int64]) -> NDArray[np.float32]:
    centres = vectors.centres()
    parts = [
        vectors.rows(size.rows + start, min(FRAGMENT_ROWS, size.new_rows - start), centres)
        for start in range(0, size.new_rows, FRAGMENT_ROWS)
    ]
    return np.concatenate(parts)[places]


def _append(db: Database, vectors: Vectors, first: int, num: int, watch: Watch) -> None:
    before = 0
    for written in append(db, vectors, first, num):
        watch.did(f"{written} rows", units=written - before)
        before = written


def _faiss(
    size: Size, vectors: Vectors, queries: NDArray[np.float32], nearest: Nearest, results: dict[str, Any], watch: Watch
) -> dict[str, Any] | str:
    """FAISS's numbers, or why there are none."""
    (index,) = [one for one in results["index"]["report"]["vectors"] if one["column"] == COLUMN]
    measured = faiss_index.measure(
        _parts(size, vectors, watch), size.rows, index["partitions"], index["probes"], queries, nearest
    )
    return "not installed: pip install faiss-cpu" if measured is None else measured


def _parts(size: Size, vectors: Vectors, watch: Watch) -> Iterator[NDArray[np.float32]]:
    centres = vectors.centres()
    for start in range(0, size.rows, FRAGMENT_ROWS):
        part = vectors.rows(start, min(FRAGMENT_ROWS, size.rows - start), centres)
        watch.did(f"{start} rows", units=len(part))
        yield part


def _recall(clip_ids: list[list[str]], truth: NDArray[np.int64]) -> float:
    return round(recall([[_number(clip_id) for clip_id in one] for one in clip_ids], truth), 4)


def _number(clip_id: str) -> int:
    """The row of a clip: the inverse of `clip_id_of`."""
    _, video, times = clip_id.split(":")
    return 16 * int(video[1:]) + int(times.split("-")[0]) // 1000


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
