"""`handloom bench serve`: how long pages of the gallery wait for its server, with 100,000 clips.

A table of `clips` on disk gets clustered vectors, words, numbers and thumbnails, and its indexes. `handloom serve` runs
in a process of its own. One connection then asks as a page does: for lists, sorted lists, filters with counts and
histograms, SQL, words, clips like another, each followed by the first thumbnail of what was found; each time for
something else, so that no answer was kept. What a browser adds is not in it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
import pyarrow as pa
from PIL import Image

from handloom.api import Database
from handloom.bench.cpu import idle_share
from handloom.bench.report import describe, goal
from handloom.bench.search.rows import (
    FRAGMENT_ROWS,
    NAME,
    NOUNS,
    NUM_PEOPLE,
    RUN_KEY,
    VERBS,
    Vectors,
    batch,
    clip_id_of,
    schema_of,
)
from handloom.bench.watch import Watch
from handloom.schemas.tables.arrow import QUALITY
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes

MAX_FIRST_HIT_MS = 200.0
TILES, TILE_PX = 6, (171, 96)
STRIPS = 64
UNKNOWN_SHARE = 0.1
WARM_UP = 3
_SERVE = "from handloom.cli import main; main()"


@dataclass(frozen=True)
class Size:
    """How much is measured. calls: of each kind."""

    rows: int = 100_000
    dim: int = 512
    calls: int = 100


QUICK = Size(rows=5000, dim=64, calls=20)


def bench_serve(watch: Watch, size: Size | None = None) -> dict[str, Any]:
    """Measure."""
    size = size or (QUICK if watch.quick else Size())
    results: dict[str, Any] = asdict(size)
    with tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder, watch.measuring():
        results["idle_at_start"] = round(max(idle_share(), 0.0), 3)
        watch.part(f"writing {size.rows} rows")
        db = Database.open(Path(folder) / "db", create=True)
        write_rows(db, size)
        watch.part("indexing")
        build_indexes(db)
        watch.part("asking")
        _ask(db, size, watch, results)
    first = [kind["first_hit"]["p95_ms"] for kind in results.get("kinds", {}).values()]
    wanted = goal("first_hit_p95", max(first, default=None), "ms", MAX_FIRST_HIT_MS, at_least=False)
    return describe("serve", results, [wanted], watch)


def write_rows(db: Database, size: Size) -> None:
    """Rows of `bench search` with numbers of quality (a tenth unknown), scales, and thumbnails that are images."""
    schema, vectors = schema_of(size.dim), Vectors(size.rows, size.dim)
    centres, strips = vectors.centres(), [_strip(number) for number in range(STRIPS)]
    committer = Committer(db, RUN_KEY, schema)
    records = []
    for first in range(0, size.rows, FRAGMENT_ROWS):
        num = min(FRAGMENT_ROWS, size.rows - first)
        rows = batch(schema, first, vectors.rows(first, num, centres))
        rng = np.random.default_rng([5, first])
        more = {
            "thumbnail": pa.array([strips[(first + n) % STRIPS] for n in range(num)], pa.binary()),
            "quality": _qualities(rng, num),
            "world_scale": pa.array(rng.choice(["metric", "arbitrary", "none"], num), pa.string()),
        }
        columns = [more.get(name, column) for name, column in zip(schema.names, rows.columns, strict=True)]
        records.append(write_fragment(db.uri, [pa.RecordBatch.from_arrays(columns, schema=schema)], schema))
    committer.commit(records)


def _qualities(rng: np.random.Generator, num: int) -> pa.StructArray:
    parts = [
        pa.array(rng.gamma(2, 1, num).astype(np.float32), mask=rng.random(num) < UNKNOWN_SHARE)
        for _ in range(len(QUALITY))
    ]
    return pa.StructArray.from_arrays(parts, fields=list(QUALITY))


def _strip(number: int) -> bytes:
    """A strip of smooth images."""
    rng = np.random.default_rng([6, number])
    x = np.linspace(0, 1, TILES * TILE_PX[0])[None, :, None]
    y = np.linspace(0, 1, TILE_PX[1])[:, None, None]
    waves = np.sin(2 * np.pi * (rng.uniform(1, 9) * x + rng.uniform(1, 3) * y) + rng.uniform(0, 6, 3))
    out = io.BytesIO()
    Image.fromarray((127 + 120 * waves).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def queries(size: Size) -> dict[str, Callable[[int], dict[str, Any]]]:
    """What is asked for, by kind: the query of call number n."""
    rng = np.random.default_rng(7)
    places = rng.integers(size.rows, size=4096).tolist()
    facets: dict[str, Any] = {"facets": 1}

    def words(n: int) -> str:
        return f"{VERBS[n % len(VERBS)]} the {NOUNS[(11 * n + n // len(VERBS)) % len(NOUNS)]}".replace("-", " ")

    return {
        "list": lambda n: {"offset": places[n]},
        "sorted": lambda n: {"sort": "-blur", "offset": places[n]},
        "filters": lambda n: facets | {"q.blur": f"{0.5 + n / 100}:", "hand": ["right", "both"], "verb": VERBS[n % 5]},
        "sql": lambda n: {"where": f"participant = 'P{n % NUM_PEOPLE:02d}' AND quality.blur > {n / 100}"},
        "text": lambda n: facets | {"text": words(n)},
        "clip": lambda n: facets | {"clip": clip_id_of(places[n]), "by": NAME, "q.brightness": f"{n / 100}:"},
    }


class Server:
    """A running `handloom serve`, asked over one connection."""

    def __init__(self, address: str, pid: int) -> None:
        parts = urlsplit(address)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        self._pid = pid

    def get(self, address: str) -> bytes:
        """The body. Raises RuntimeError for any answer but 200."""
        self._connection.request("GET", address, headers={"Accept-Encoding": "gzip"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{address}: {answer.status} {body[:500]!r}")
        return body

    def close(self) -> None:
        self._connection.close()

    def cpu_s(self) -> float:
        """CPU seconds of the process so far."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """The largest memory that it has taken."""
        (peak,) = [line for line in Path(f"/proc/{self._pid}/status").read_text().splitlines() if "VmHWM" in line]
        return int(peak.split()[1]) * 1024


@contextmanager
def served(db: Database) -> Iterator[tuple[Server, float]]:
    """The server, and the seconds until its first answer."""
    command = [sys.executable, "-c", _SERVE, "serve", "--db", db.uri, "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        server = None
        try:
            server = Server((process.stdout.readline() if process.stdout else "").strip(), process.pid)
            server.get("/api/about")
            yield server, time.perf_counter() - began
        finally:
            if server is not None:
                server.close()
            process.send_signal(signal.SIGINT)


def _ask(db: Database, size: Size, watch: Watch, results: dict[str, Any]) -> None:
    with served(db) as (server, seconds):
        results["start_s"] = round(seconds, 2)
        kinds: dict[str, dict[str, Any]] = {}
        results["kinds"] = kinds
        for kind, query in queries(size).items():
            wholes, lists, thumbs, sizes = [], [], [], []
            cpu_s = 0.0
            for n in range(size.calls + WARM_UP):
                if n == WARM_UP:
                    cpu_s = server.cpu_s()
                began = time.perf_counter()
                body = server.get(f"/api/search?{urlencode(query(n), doseq=True)}")
                listed = time.perf_counter()
                found = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
                parsed = time.perf_counter()
                if found["hits"]:
                    server.get(f"/media/thumb?id={quote(found['hits'][0]['clip_id'], safe='')}&v={found['version']}")
                    thumbs.append(time.perf_counter() - parsed)
                lists.append(listed - began)
                wholes.append(listed - began + (thumbs[-1] if found["hits"] else 0.0))
                sizes.append(len(body))
                watch.did(kind)
            told = {"first_hit": wholes, "answer": lists, "thumbnail": thumbs}
            kinds[kind] = {name: _numbers(values[WARM_UP:]) for name, values in told.items() if values[WARM_UP:]}
            kinds[kind]["cpu_ms"] = round(1000 * (server.cpu_s() - cpu_s) / size.calls, 1)
            kinds[kind]["answer_bytes"] = int(np.median(sizes))
        results["peak_memory_bytes"] = server.peak_bytes()


def _numbers(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return {"calls": len(seconds), "p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1)}
