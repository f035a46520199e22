"""`handloom bench commit`: what a commit costs as the table grows, and what reading many fragments costs.

Synthetic shards of 16 clips with every column of `clips` and hardly any values are committed as a run commits them: all
that waits at once, about a thousand clips, and small fragments are merged between commits (here in this process, in a
run in tasks of Ray). `unmerged` are the same commits on a table of so many fragments: what a run paid before. Tables of
each size take turns. `reads` opens a table of unlike clips before and after merging, and with an index on `clip_id`. A
local disk, one process, warm page cache.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handloom.api import Database
from handloom.bench.commit.shards import RUN_KEY, SCHEMA, SHARD_CLIPS, Shards, clips, written
from handloom.bench.cpu import idle_share
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.pipelines.status.status import status
from handloom.schemas.settings import Resources
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.upkeep import MAX_SMALL_FRAGMENTS, plan, put_in_place, rewrite
from handloom.store.search.index import ensure_clip_index
from handloom.store.tables import Tables

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (500, 1_000, 4_000)
READ_SHARDS, QUICK_READ_SHARDS = 10_000, 1_000
COMMIT_SHARDS = max(1, Resources().commit_clips // SHARD_CLIPS)
MERGED_ROUNDS, QUICK_ROUNDS = 18, 3  # 1116 shards: two merges, wherever a table stands between them
UNMERGED_ROUNDS = 5
GROWN_SHARDS = 10_000  # in three minutes on two cores; 100,000 take half an hour
MERGE_COMMITS = 0.25  # manifests that merging adds to those of commits: two of nine
MILLION = 1_000_000
MAX_GROWTH, MAX_GIB = 2.0, 5.0


@dataclass(frozen=True)
class Commit:
    """One commit. num_shards: committed with it and before. cpu_s: of this process. manifest_bytes: that it wrote."""

    num_shards: int
    seconds: float
    cpu_s: float
    manifest_bytes: int


def bench_commit(videos: Path | None, watch: Watch, sizes: Sequence[int] = (), read_shards: int = 0) -> dict[str, Any]:
    """Measure on tables of `sizes` shards; `videos` is not used."""
    sizes = sizes or (QUICK_SIZES if watch.quick else SIZES)
    read_shards = read_shards or (QUICK_READ_SHARDS if watch.quick else READ_SHARDS)
    results: dict[str, Any] = {"shard_clips": SHARD_CLIPS, "commit_shards": COMMIT_SHARDS}
    grown = sum(size if size <= GROWN_SHARDS else GROWN_SHARDS // 10 for size in sizes)
    with watch.measuring(units=grown), tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        results["idle_at_start"] = round(max(idle_share(), 0.0), 3)
        results["unmerged"] = unmerged(Path(folder) / "unmerged", sizes, watch)
        results["merged"] = grow(Path(folder) / "merged", sizes, watch)
        results["reads"] = reads(Path(folder) / "reads", read_shards, watch)
    return describe("commit", results, goals_of(results, sizes), watch)


class Growing:
    """A table of synthetic shards that grows by commits. merges: whether small fragments are merged, as in a run."""

    def __init__(self, folder: Path, merges: bool = True) -> None:
        self.db = Database.open(folder, create=True)
        self.committer = Committer(self.db, RUN_KEY, SCHEMA)
        self.commits: list[Commit] = []
        self.copy_s: list[float] = []
        self.put_s: list[float] = []
        self._shards, self._merges = Shards(self.db), merges

    @property
    def num_shards(self) -> int:
        return self.commits[-1].num_shards if self.commits else 0

    def commit(self, num: int = COMMIT_SHARDS) -> None:
        """Commit the next shards, and merge fragments if that is due."""
        records = self._shards.take(num)
        self.commits.append(measured(self.db, self.committer, records, self.num_shards))
        if self._merges and (tasks := plan(self.db)):
            copy_s, put_s = merge(self.db, tasks)
            self.copy_s.append(copy_s)
            self.put_s.append(put_s)

    def begin(self, num_shards: int) -> None:
        """Commit the merged fragments of so many shards, the first of them made by a merge of this table."""
        each = MAX_SMALL_FRAGMENTS + COMMIT_SHARDS
        self.commit(each)
        records = self._shards.merged(num_shards // each - 1)
        self.commits.append(measured(self.db, self.committer, records, num_shards - len(records)))

    @property
    def largest(self) -> int:
        """Bytes of its largest manifest."""
        return max(commit.manifest_bytes for commit in self.commits)

    def numbers(self) -> dict[str, Any]:
        """Of all commits until now."""
        total = manifest_bytes(self.db) / 2**30
        return {
            "shards": self.num_shards,
            "commits": len(self.commits),
            "commit_s": round(sum(commit.seconds for commit in self.commits), 2),
            "slowest_s": round(max(commit.seconds for commit in self.commits), 4),
            "manifests_gib": round(total, 4),
            "manifests_gib_a_million_clips": round(total * MILLION / (self.num_shards * SHARD_CLIPS), 4),
            "fragments": _num_fragments(self.db),
            "merges": len(self.copy_s),
            "copy_s": round(sum(self.copy_s), 2),
            "put_in_place_s": round(statistics.median(self.put_s), 4) if self.put_s else None,
        }


def grow(folder: Path, sizes: Sequence[int], watch: Watch) -> dict[str, Any]:
    """Commit shards to one table for each of `sizes`, and merge small fragments as a run does.

    A table of more than `GROWN_SHARDS` begins with the merged fragments that a run would have made by then.
    """
    tables = {size: Growing(folder / str(size)) for size in sizes}
    for size, table in tables.items():
        watch.part(f"{size} shards, merged")
        if size > GROWN_SHARDS:
            table.begin(size - GROWN_SHARDS // 10)
        while table.num_shards < size:
            table.commit()
            watch.did(f"{table.num_shards} shards", COMMIT_SHARDS)
    turns = in_turn(tables, QUICK_ROUNDS if watch.quick else MERGED_ROUNDS, watch)
    grown = max((size for size in sizes if size <= GROWN_SHARDS), default=min(sizes))
    largest = max(table.largest for table in tables.values())
    a_million = MILLION / SHARD_CLIPS / COMMIT_SHARDS * (1 + MERGE_COMMITS)
    return {
        "sizes": turns,
        "grown": tables[grown].numbers(),
        "largest_manifest_bytes": largest,
        "manifests_gib_a_million_clips": round(largest * a_million / 2**30, 4),  # as if each were the largest
    }


def unmerged(folder: Path, sizes: Sequence[int], watch: Watch) -> dict[str, dict[str, float]]:
    """The same on tables of so many fragments."""
    tables = {size: Growing(folder / str(size), merges=False) for size in sizes}
    for size, table in tables.items():
        watch.part(f"{size} shards, not merged")
        table.commit(size)
    return in_turn(tables, UNMERGED_ROUNDS, watch)


def in_turn(tables: dict[int, Growing], rounds: int, watch: Watch) -> dict[str, dict[str, float]]:
    """Some more commits to each table: in turn, as machines drift."""
    watch.part(f"{rounds} commits to each")
    before = {size: len(table.commits) for size, table in tables.items()}
    for _ in range(rounds):
        for table in tables.values():
            table.commit()
    return {str(size): _numbers(table.commits[before[size] :]) for size, table in tables.items()}


def measured(db: Tables, committer: Committer, records: Sequence[Any], num_shards: int) -> Commit:
    """Commit `records` to a table that has `num_shards`."""
    began, cpu_s = time.perf_counter(), time.process_time()
    result = committer.commit(records)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    return Commit(num_shards + len(records), seconds, cpu_s, _manifest(db, result.version).stat().st_size)


def merge(db: Tables, tasks: Sequence[str]) -> tuple[float, float]:
    """Merge fragments; the seconds of copying and of the commit."""
    began = time.perf_counter()
    copied = [rewrite(db.uri, task) for task in tasks]
    copied_at = time.perf_counter()
    put_in_place(db, copied)
    return copied_at - began, time.perf_counter() - copied_at


def reads(folder: Path, num_shards: int, watch: Watch) -> dict[str, Any]:
    """Seconds of reading a table of `num_shards` fragments, then merged, then with an index on `clip_id`."""
    db = Database.open(folder, create=True)
    listed = clips(range(num_shards * SHARD_CLIPS))
    watch.part(f"a table of {len(listed)} clips in {num_shards} fragments")
    add_clips(db, listed)
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit(list(written(db, listed)))
    one = listed[len(listed) // 2].clip_id
    jobs: dict[str, Callable[[], Any]] = {
        "row": lambda: db.row(one),
        "status": lambda: status(db),
        "windows": lambda: db.windows(1, 0, ["hands"]),
        "start_of_a_run": lambda: Committer(db, RUN_KEY, SCHEMA),
    }
    results: dict[str, Any] = {"clips": len(listed)}

    def read(name: str) -> None:
        watch.part(f"reading {name}")
        results[name] = {"fragments": _num_fragments(db)} | {f"{job}_s": _median_s(jobs[job]) for job in jobs}

    read("unmerged")
    while tasks := plan(db):
        merge(db, tasks)
    read("merged")
    ensure_clip_index(db)
    read("indexed")
    return results


def goals_of(results: dict[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The goals; null where nothing was measured."""
    merged = results.get("merged", {}).get("sizes", {})
    growth = {}
    for name in ("seconds", "manifest_bytes"):
        values = [merged[str(size)][name] for size in sizes] if merged else []
        growth[name] = max(values) / min(values) if values else None
    across = f"from {sizes[0]} to {sizes[-1]} shards, most over least"
    million = results.get("merged", {}).get("manifests_gib_a_million_clips")
    return [
        goal(f"time of a commit {across}", growth["seconds"], "ratio", MAX_GROWTH, at_least=False),
        goal(f"bytes of a manifest {across}", growth["manifest_bytes"], "ratio", MAX_GROWTH, at_least=False),
        goal("manifests of a million clips", million, "GiB", MAX_GIB, at_least=False),
    ]


def _numbers(found: Sequence[Commit]) -> dict[str, float]:
    return {
        "commits": len(found),
        "seconds": round(statistics.median(commit.seconds for commit in found), 4),
        "cpu_s": round(statistics.median(commit.cpu_s for commit in found), 4),
        "manifest_bytes": round(statistics.mean(commit.manifest_bytes for commit in found)),
    }


def _median_s(job: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds), 3)


def _num_fragments(db: Tables) -> int:
    return len(db.existing_table("clips").get_fragments())


def _versions(db: Tables) -> Path:
    return Path(db.location.table_uri("clips")) / "_versions"


def _manifest(db: Tables, version: int) -> Path:
    return _versions(db) / f"{2**64 - 1 - version}.manifest"


def manifest_bytes(db: Tables) -> int:
    """Bytes of all manifests of `clips`."""
    return sum(path.stat().st_size for path in _versions(db).glob("*.manifest"))
