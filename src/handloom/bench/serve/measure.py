"""`handloom bench serve`: the gallery of 100,000 clips in a real browser, on the machine that serves it.

A table of synthetic rows (`rows`) is served by a process of its own, `handloom serve`; headless Chromium opens its
pages (`browser`). No question is asked twice, so no answer comes from a cache. Beside it the requests alone, without a
browser. Chromium draws without a graphics card, on the cores that also serve.
"""

from __future__ import annotations

import http.client
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from handloom.api import Database
from handloom.bench.cpu import idle_share
from handloom.bench.kept import kept, place_of
from handloom.bench.report import describe, goal
from handloom.bench.search.rows import VERBS, clip_id_of
from handloom.bench.serve.browser import Visitor, browser, find_chromium, ids_of
from handloom.bench.serve.rows import make_templates, sentences, write_rows
from handloom.bench.watch import Watch
from handloom.errors import ConfigError, StoreError

ROW_BYTES, LEAN_ROW_BYTES = 52_000, 9_000
LEAN_FROM = 200_001
"""Tables of so many rows are of lean ones."""
MAX_FIRST_HIT_MS, MAX_SCRUB_MS = 200.0, 100.0
MAX_LEAN_MS, MAX_LEAN_GIB = 2000.0, 6.0
FRAME_MS = 1000 / 60
MADE = "made.json"
START_S = 120
_SERVE = "import sys; from handloom.cli import main; sys.argv[0] = 'handloom'; main()"


@dataclass(frozen=True)
class Size:
    """How much is measured. searches: of each kind. loads: of the first page. clips: whose frames are stepped through.
    cards: that are scrolled past, by `step_px` each animation frame."""

    rows: int = 100_000
    scenes: int = 6
    searches: int = 50
    loads: int = 15
    clips: int = 15
    cards: int = 10_000
    step_px: int = 160

    @property
    def lean(self) -> bool:
        """Whether rows have neither frames nor tracks: then requests alone are measured, not pages."""
        return self.rows >= LEAN_FROM


QUICK = Size(rows=2_000, scenes=2, searches=8, loads=3, clips=3, cards=1_000)


def bench_serve(
    data: Path | None, watch: Watch, size: Size | None = None, num_rows: int | None = None
) -> dict[str, Any]:
    """Measure; the table is kept in the folder `data`, if one is given. num_rows: of the table, in place of the usual
    number.

    Raises ConfigError without Chromium or Playwright, for fewer rows than searches, or if the disk is too small.
    """
    size = size or (QUICK if watch.quick else Size())
    if num_rows is not None:
        if num_rows < size.searches:
            raise ConfigError(f"--clips {num_rows}: the benchmark searches {size.searches} times", "give more clips")
        size = replace(size, rows=num_rows)
    if not size.lean and find_chromium() is None:
        raise ConfigError("there is no Chromium on this machine", "Debian and Ubuntu: apt-get install chromium")
    results: dict[str, Any] = {"size": asdict(size)}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as temporary:
        place = Path(temporary) if data is None else place_of(data, watch.quick)
        results["table"] = _table(place, size, watch)
        results["idle_at_start"] = round(max(idle_share(), 0.0), 3)
        began = time.perf_counter()
        with served(str(place / "db")) as (address, process):
            results["start"] = first_answers(address, began)
            results["server_after_start"] = memory_of(process.pid)
            results["requests"] = requests(address, process.pid, size, watch)
            results["server_after_requests"] = memory_of(process.pid)
            if not size.lean:
                before = cpu_s_of(process.pid)
                with browser() as opened:
                    results |= visited(opened, address, size, watch)
                results["server_after_pages"] = memory_of(process.pid)
                results["server_cpu_s_of_pages"] = round(cpu_s_of(process.pid) - before, 2)
    if size.lean:
        return describe("serve_large", results, goals_of_lean(results), watch)
    return describe("serve", results, goals_of(results), watch)


def _table(place: Path, size: Size, watch: Watch) -> dict[str, Any]:
    """Make the table, or find it as it was made: `write_cpu_s`, `rows_bytes`."""
    folder = place / "db"

    def make() -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        free, wanted = shutil.disk_usage(place).free, size.rows * (LEAN_ROW_BYTES if size.lean else ROW_BYTES)
        if free < wanted:
            raise ConfigError(
                f"{place} has {free / 2**30:.1f} GiB free, the benchmark writes {wanted / 2**30:.1f} GiB",
                "free some space, name another folder with --data or TMPDIR, or measure less with --quick",
            )
        began, cpu_s = time.perf_counter(), sum(os.times()[:4])
        templates = make_templates(place / "videos", size.scenes, watch, lean=size.lean)
        write_rows(Database.open(folder, create=True), templates, size.rows, watch)
        num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return {
            "write_s": round(time.perf_counter() - began, 1),
            "write_cpu_s": round(sum(os.times()[:4]) - cpu_s, 1),
            "row_bytes": round(num_bytes / size.rows),
        }

    return kept(place / MADE, {"rows": size.rows, "scenes": size.scenes}, make)


@contextmanager
def served(uri: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(address, process) of a server of the database, which is ended after the block."""
    call = [sys.executable, "-c", _SERVE, "serve", "--db", uri, "--port", "0"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline().strip() if process.stdout else ""
            if not line.startswith("http://"):
                raise StoreError(f"`handloom serve` of {uri} did not start: {line or 'it said nothing'}")
            _wait(line)
            yield line, process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _wait(address: str) -> None:
    """Until the first answer."""
    for _ in range(START_S * 10):
        try:
            with closing(Requests(address)) as asked:
                asked.get("/api/about")
            return
        except OSError:
            time.sleep(0.1)
    raise StoreError(f"{address} did not answer within {START_S} s")


def first_answers(address: str, began: float) -> dict[str, float]:
    """Seconds since `began`, when the server was started: until it answers, until a first page of clips with counts,
    and until a first search by words has found some."""
    found = {"answer_s": round(time.perf_counter() - began, 2)}
    with closing(Requests(address)) as asked:
        asked.get("/api/search", facets=1)
        found["page_s"] = round(time.perf_counter() - began, 2)
        asked.get("/api/search", text="someone opens a cupboard")
        found["words_s"] = round(time.perf_counter() - began, 2)
    return found


class Requests:
    """Requests over one connection that stays open."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, **query: Any) -> bytes:
        """The body. Raises StoreError unless the answer is 200."""
        self._connection.request("GET", f"{path}?{urlencode(query)}")
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise StoreError(f"{path} {query} answered {answer.status}: {body[:200].decode(errors='replace')}")
        return body

    def ms(self, path: str, query: dict[str, Any]) -> float:
        """Milliseconds until the body is there."""
        began = time.perf_counter()
        self.get(path, **query)
        return (time.perf_counter() - began) * 1000


def requests(address: str, pid: int, size: Size, watch: Watch) -> dict[str, Any]:
    """Each kind of request, one after another, without a browser: milliseconds, and the server's CPU time of one."""
    found = {}
    with closing(Requests(address)) as asked:
        for name, (path, query_of) in kinds(size).items():
            watch.part(f"requests: {name}")
            cpu_s = cpu_s_of(pid)
            times = [asked.ms(path, query_of(n)) for n in range(size.searches)]
            found[name] = spread(times) | {"server_cpu_ms": round(1000 * (cpu_s_of(pid) - cpu_s) / size.searches, 1)}
    return found


def kinds(size: Size) -> dict[str, tuple[str, Callable[[int], dict[str, Any]]]]:
    """The address and the query of request number n, by kind; none is asked twice."""
    rng = np.random.default_rng(1)
    ids = [clip_id_of(int(number)) for number in rng.choice(size.rows, size.searches, replace=False)]
    words, step = sentences(size.searches, seed=1), size.rows // size.searches
    found: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
        "list": ("/api/search", lambda n: {"offset": n * step}),
        "sorted": ("/api/search", lambda n: {"sort": "-blur", "offset": n * step}),
        "filter": ("/api/search", lambda n: {"q.blur": f"{n}:", "verb": VERBS[n % 5], "facets": 1}),
        "sql": ("/api/search", lambda n: {"where": f"participant = 'P{n:02d}' AND quality.blur > {n}", "facets": 1}),
        "words": ("/api/search", lambda n: {"text": words[n]}),
        "words_with_counts": ("/api/search", lambda n: {"text": f"{words[n]} now", "facets": 1}),
        "like_a_clip": ("/api/search", lambda n: {"clip": ids[n], "by": "motion"}),
        "like_a_clip_with_counts": ("/api/search", lambda n: {"clip": ids[n], "by": "look", "facets": 1}),
        "thumbnail": ("/media/thumb", lambda n: {"id": ids[n], "h": 160}),
        "clip": ("/api/clip", lambda n: {"id": ids[n]}),
    }
    if not size.lean:
        found["frames"] = ("/media/frames", lambda n: {"id": ids[n]})
        found["arrays"] = ("/api/arrays", lambda n: {"id": ids[n], "names": "hand_keypoints_px,world_from_camera"})
    return found


def visited(opened: Any, address: str, size: Size, watch: Watch) -> dict[str, Any]:
    """What a visitor waits for, and what the page holds after many thumbnails."""
    results: dict[str, Any] = {}
    watch.part("loading the first page")
    loads = []
    for _ in range(size.loads):
        visitor = Visitor(opened, address)
        loads.append(visitor.open())
        visitor.close()
    results["page_load"] = spread([one["ms"] for one in loads])
    visitor = Visitor(opened, address)
    visitor.open()
    watch.part("searching by words")
    hits = [visitor.words(text) for text in sentences(size.searches)]
    results["first_hit"] = {"words": _hits(hits)}
    watch.part("more like this")
    results["first_hit"]["like_a_clip"] = _hits(list(_alike(visitor, size.searches)))
    watch.part("filters")
    results["first_hit"]["filter"] = _hits(list(_filtered(visitor, size.searches)))
    watch.part("stepping through frames")
    clips = list(dict.fromkeys(ids_of(hits)))[: size.clips]
    results["open_clip"] = spread([visitor.open_clip(clip_id) for clip_id in clips])
    results["scrub"] = scrubbed(visitor, clips)
    watch.part(f"scrolling past {size.cards} thumbnails")
    visitor.open()
    results["page_memory_before"] = visitor.memory()
    results["scroll"] = _scrolled(visitor.scroll(size.cards, size.step_px))
    results["page_memory_after"] = visitor.memory()
    visitor.close()
    return results


def scrubbed(visitor: Visitor, clips: Sequence[str]) -> dict[str, Any]:
    """Forwards and backwards through the frames of each clip; the first press of each is not warm."""
    times: list[float] = []
    for clip_id in clips:
        visitor.open_clip(clip_id)
        times += visitor.scrub("ArrowRight", 7) + visitor.scrub("ArrowLeft", 7)
    return spread(times)


def _alike(visitor: Visitor, num: int) -> Iterator[dict[str, Any]]:
    """More like a clip, more like one of those, and so on; no clip twice."""
    asked: set[str] = set()
    for _ in range(num):
        found = visitor.more_like(asked)
        asked.add(found["like"])
        yield found


def _filtered(visitor: Visitor, num: int) -> Iterator[dict[str, Any]]:
    """A verb, and a noun beside it; no pair of them twice."""
    pairs = itertools.product(range(6), range(6))
    for verb, noun in itertools.islice(pairs, max(1, num // 2)):
        visitor.open()
        yield visitor.filter("Verb", verb)
        yield visitor.filter("Noun", noun)


def _hits(hits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The spread of the whole time, and of the search's request in it."""
    return spread([hit["ms"] for hit in hits]) | {"request": spread([hit["search_ms"] for hit in hits])}


def lost_frames(gaps_ms: Sequence[float]) -> int:
    """Frames of 60 a second that did not come, from the times between those that did."""
    return int(np.maximum(np.round(np.array(gaps_ms) / FRAME_MS) - 1, 0).sum())


def _scrolled(found: dict[str, Any]) -> dict[str, Any]:
    gaps = found.pop("gaps")
    lost = lost_frames(gaps)
    return {
        **{name: round(value, 1) for name, value in found.items()},
        "frames": len(gaps),
        "frames_lost": lost,
        "frames_lost_share": round(lost / (lost + len(gaps)), 4),
        "frame_p95_ms": round(float(np.percentile(gaps, 95)), 1),
    }


def spread(ms: Sequence[float]) -> dict[str, float]:
    """`calls`, `p50_ms`, `p95_ms`, `max_ms`."""
    p50, p95 = (round(float(value), 1) for value in np.percentile(ms, [50, 95]))
    return {"calls": len(ms), "p50_ms": p50, "p95_ms": p95, "max_ms": round(max(ms), 1)}


def memory_of(pid: int) -> dict[str, int]:
    """`resident_bytes` and its `peak_bytes`, of a process of this machine."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"resident_bytes": int(found["VmRSS"]) * 1024, "peak_bytes": int(found["VmHWM"]) * 1024}


def cpu_s_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def goals_of_lean(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals of a large table, which is measured by requests; null where nothing was measured."""
    p95 = {name: found["p95_ms"] for name, found in results.get("requests", {}).items()}
    peak = results.get("server_after_requests", {}).get("peak_bytes")
    names = ("list", "filter", "words", "words_with_counts", "like_a_clip")
    return [
        *(goal(f"{name}, p95", p95.get(name), "ms", MAX_LEAN_MS, at_least=False) for name in names),
        goal("memory, peak", None if peak is None else peak / 2**30, "GiB", MAX_LEAN_GIB, at_least=False),
    ]


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals; null where nothing was measured."""
    hits = results.get("first_hit", {})
    told = {"words": "of words", "like_a_clip": "like a clip", "filter": "of a filter"}
    return [
        *(
            goal(f"first hit {words}, p95", hits.get(name, {}).get("p95_ms"), "ms", MAX_FIRST_HIT_MS, at_least=False)
            for name, words in told.items()
        ),
        goal("key to frame, p95", results.get("scrub", {}).get("p95_ms"), "ms", MAX_SCRUB_MS, at_least=False),
    ]
