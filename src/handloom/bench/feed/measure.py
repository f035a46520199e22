"""`handloom bench feed`: windows/s and MB/s of `db.windows` loaders beside bare Lance, LeRobot v3 and WebDataset.

All read the same clips on this machine, from a warm page cache, into torch batches of the same windows: `arm4r` (16 + 1
steps of point tracks) and `arvrm` (10 steps of images and hands). Readers take turns over several rounds, in an order
that rotates; a ratio is the median of the rounds' ratios, because machines drift. A round reads one epoch, for LeRobot
with images a part of one. Loader processes are started beforehand and not timed. Our loaders may hold a quarter of the
clips at a time, as with a large table: images decoded in one epoch are decoded again in the next.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.bench.cpu import idle_share
from handloom.bench.feed import lerobot, package, webdataset
from handloom.bench.feed.data import HANDS, NUM_CLIPS, TRACKS, VIDEO, FeedData, database, prepare
from handloom.bench.feed.recipes import RECIPES, STEPS, loader_waits
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.windows.api import Windows
from handloom.windows.dataset import Memory
from handloom.windows.loading.loader import WindowLoader
from handloom.windows.order import Order
from handloom.windows.rows.images import decode_jpeg

ROUNDS = 5
QUICK_ROUNDS, QUICK_CLIPS, QUICK_STEPS = 2, 6, 20
QUICK_RECIPE = ("batch_size=8",)  # six clips hold no batch of 32 windows
BATCH = 16
WORKERS = (0, 2)
SOME = 8 * BATCH  # windows of a LeRobot round with images: it reads them one by one, each at the same cost
OURS, LEROBOT, WEBDATASET = "handloom", "lerobot_v3", "webdataset"
TAKE, TAKE_DECODE = "lance_take", "lance_take_and_decode"


@dataclass(frozen=True)
class Kind:
    """The windows of one recipe. shards: key of their shards in `FeedData.shards`."""

    name: str
    past: int
    future: int
    names: tuple[str, ...]
    images: bool
    shards: str

    @property
    def num_steps(self) -> int:
        return self.past + self.future

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.names, *(["images"] if self.images else []))


KINDS = (Kind("arm4r", 16, 1, TRACKS, False, "tracks"), Kind("arvrm", 10, 0, HANDS, True, "hands"))


@dataclass(frozen=True)
class Read:
    """What one reader read in one round."""

    num_windows: int
    num_bytes: int
    seconds: float

    @property
    def windows_per_s(self) -> float:
        return self.num_windows / self.seconds

    @property
    def mb_per_s(self) -> float:
        return self.num_bytes / self.seconds / 1e6


def bench_feed(
    videos: Path | None,
    watch: Watch,
    num_clips: int | None = None,
    db: str | None = None,
    lerobot_python: str | None = None,
) -> dict[str, Any]:
    """Measure on up to `num_clips` clips of `db`, of a folder of videos, or of rendered ones.

    Args:
        lerobot_python: a Python that has the `lerobot` package, whose own reader is then measured, too.

    Raises:
        ConfigError: no clip with images and tracks; `lerobot_python` fails.
    """
    rounds, steps = (QUICK_ROUNDS, QUICK_STEPS) if watch.quick else (ROUNDS, STEPS)
    num_clips = (QUICK_CLIPS if watch.quick else NUM_CLIPS) if num_clips is None else max(num_clips, 1)
    results: dict[str, Any] = {"rounds": rounds, "batch_size": BATCH, "page_cache": "warm", "recipes": {}}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        work = Path(folder)
        opened = database(db, videos, num_clips, work, watch.say)
        data = prepare(opened, num_clips, work, watch.say)
        idle = max(idle_share(), 0.0)
        watch.say(f"{len(data.clip_ids)} clips, {rounds} rounds, {idle:.0%} of the machine idle")
        results |= {
            "clips": len(data.clip_ids), "hz": data.hz, "picture_px": list(data.image),
            "idle_at_start": round(idle, 3),
        }  # fmt: skip
        for kind in KINDS:
            results[kind.name] = {}
            measure(data, kind, rounds, watch, results[kind.name])
            if lerobot_python:
                results[kind.name]["lerobot_package"] = _package(data, kind, lerobot_python, rounds, watch.say)
        loader_waits(opened, watch.say, results["recipes"], steps, assignments=QUICK_RECIPE if watch.quick else ())
    return describe("feed", results, goals_of(results), watch)


def measure(
    data: FeedData, kind: Kind, rounds: int, watch: Watch, into: dict[str, Any], workers: Sequence[int] = WORKERS
) -> None:
    """Measure every reader of one kind of windows. Medians and ratios are written to `into` after every round."""
    readers = make_readers(data, kind, workers)
    watch.expect(watch.num_done + (rounds + 1) * len(readers))
    watch.part(f"{kind.name}: every reader once, for the page cache")
    for name, reader in readers.items():
        reader(0)
        watch.did(name)
    found: dict[str, list[Read]] = {name: [] for name in readers}
    names = list(readers)
    for number in range(rounds):
        watch.part(f"{kind.name}: round {number + 1} of {rounds}")
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(readers[name](number))
            watch.did(name)
        into |= {"windows": found[f"{OURS}, 0 workers"][0].num_windows, "fields": list(kind.fields)}
        into |= {"rounds_read": number + 1, "readers": {name: _numbers(reads) for name, reads in found.items()}}
        into["ratios"] = _ratios(found, workers)


def make_readers(
    data: FeedData, kind: Kind, num_workers: Sequence[int] = WORKERS, batch: int = BATCH
) -> dict[str, Callable[[int], Read]]:
    """Every reader by name: a function that reads an epoch, given by number, and returns what it read."""
    windows = open_windows(data, kind)
    readers: dict[str, Callable[[int], Read]] = {TAKE: lambda epoch: take_blocks(windows, epoch, decode=False)}
    if kind.images:
        readers[TAKE_DECODE] = lambda epoch: take_blocks(windows, epoch, decode=True)
    else:
        apart = open_windows(data, kind, kind.num_steps)
        readers[f"{TAKE}, no overlap"] = lambda epoch: take_blocks(apart, epoch, decode=False)
        alone = our_loader(data, kind, 0, batch, kind.num_steps)
        readers[f"{OURS}, no overlap"] = lambda epoch: _epoch_of(alone, kind, epoch)
    some = SOME if kind.images else None
    for workers in num_workers:
        mine = our_loader(data, kind, workers, batch)
        loader = lerobot.batches(lerobot_windows(data, kind, order_of(windows)[:some]), batch, workers)
        shards = webdataset.batches(data.shards[kind.shards], cut_windows(kind), batch, workers)
        readers[f"{OURS}, {workers} workers"] = partial(_epoch_of, mine, kind)
        for name, batches in ((LEROBOT, loader), (WEBDATASET, shards)):
            readers[f"{name}, {workers} workers"] = _each_epoch(batches, kind)
    return readers


def _each_epoch(batches: Any, kind: Kind) -> Callable[[int], Read]:
    return lambda epoch: read_all(batches, kind)


def open_windows(data: FeedData, kind: Kind, stride: int = 1) -> Windows:
    """The windows, from loaders that hold a quarter of the clips' columns, and of their images, at a time."""
    asked: dict[str, Any] = {"past": kind.past, "future": kind.future, "fields": list(kind.fields), "stride": stride}
    num_frames = int(data.db.read("clips", ["num_frames"], data.where).column(0).to_numpy().sum())
    if kind.images:
        frame_bytes = 3 * data.image[0] * data.image[1]
    else:
        frame_bytes = sum(4 * int(np.prod(data.shapes[name])) for name in kind.names)
    memory = Memory(**{"pictures_mb" if kind.images else "block_mb": 1 + (num_frames * frame_bytes >> 22)})
    return data.db.windows(where=data.where, memory=memory, **asked)


def our_loader(data: FeedData, kind: Kind, workers: int, batch: int = BATCH, stride: int = 1) -> WindowLoader:
    return open_windows(data, kind, stride).loader(batch, num_workers=workers, drop_last=False)


def lerobot_windows(data: FeedData, kind: Kind, windows: Sequence[tuple[int, int]]) -> lerobot.LeRobotWindows:
    shapes = {name: data.shapes[name] for name in kind.names}
    video = VIDEO if kind.images else None
    return lerobot.LeRobotWindows(data.lerobot, data.arrow, windows, kind.num_steps, shapes, video, data.image)


def cut_windows(kind: Kind) -> webdataset.CutWindows:
    return webdataset.CutWindows(kind.num_steps, kind.names, kind.images)


def order_of(windows: Windows, epoch: int = 0) -> list[tuple[int, int]]:
    """(clip, first step) of every window in the order of our loader."""
    numbers = np.concatenate([numbers for numbers, _ in _order(windows, epoch).batches()])
    clips, which = windows.plan.locate(numbers)
    return list(zip(clips.tolist(), (which * windows.spec.stride).tolist(), strict=True))


def _order(windows: Windows, epoch: int) -> Order:
    loader = windows.loader(BATCH, drop_last=False)
    loader.set_epoch(epoch)
    return loader._order()  # only benchmarks ask in what order


def _epoch_of(loader: WindowLoader, kind: Kind, epoch: int) -> Read:
    loader.set_epoch(epoch)
    return read_all(loader, kind)


def read_all(batches: Iterable[Any], kind: Kind) -> Read:
    """Read every batch once; the bytes are those of the kind's fields."""
    num_windows = num_bytes = 0
    began = time.perf_counter()
    for batch in batches:
        num_windows += len(batch[kind.fields[0]])
        num_bytes += sum(batch[name].numel() * batch[name].element_size() for name in kind.fields)
    return Read(num_windows, num_bytes, time.perf_counter() - began)


def take_blocks(windows: Windows, epoch: int, *, decode: bool) -> Read:
    """Read the rows of our loader's blocks with Lance's `take` alone; decode: and decode every image.

    The windows are those in the rows; the bytes are those that Lance returned (and of the decoded images).
    """
    table = windows.db.existing_table("clips", windows.version)
    num_bytes = 0
    began = time.perf_counter()
    for block in _order(windows, epoch).blocks():
        places = windows.plan.rows[np.unique(block.clips)]
        rows = table.take(places.tolist(), columns=windows.spec.columns())
        num_bytes += rows.nbytes
        if decode:
            num_bytes += sum(_decoded_bytes(cell.values) for cell in rows.column("frame_jpeg"))
    return Read(len(windows), num_bytes, time.perf_counter() - began)


def _decoded_bytes(jpegs: Any) -> int:
    return sum(_image(jpeg.as_buffer()).nbytes for jpeg in jpegs)


def _image(data: bytes) -> NDArray[np.uint8]:
    return decode_jpeg(data, None, "a benchmark")


def _package(
    data: FeedData, kind: Kind, python: str, rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """The same windows through the `lerobot` package's own reader, run by `python`."""
    order = order_of(open_windows(data, kind))[:SOME]
    starts = np.concatenate([[0], np.cumsum([e["length"] for e in lerobot_windows(data, kind, []).episodes])])
    asked: dict[str, Any] = {
        "root": str(data.lerobot), "keys": [*kind.names, *([VIDEO] if kind.images else [])], "batch_size": BATCH,
        "num_steps": kind.num_steps, "indices": [int(starts[clip]) + first for clip, first in order], "rounds": rounds,
    }  # fmt: skip
    found = {}
    for workers in WORKERS:
        say(f"{kind.name}: the lerobot package, {workers} workers")
        command = [python, package.__file__, json.dumps(asked | {"workers": workers})]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            problem = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ConfigError(
                f"lerobot's reader in {python}: {problem[0]}", "give a Python that has lerobot 0.4 or newer"
            )
        told = json.loads(done.stdout.splitlines()[-1])
        rate = told["windows"] / statistics.median(told["seconds"])
        found[f"{workers} workers"] = {
            "windows_per_s": round(rate, 2), "versions": told["versions"], "video_backend": told["video_backend"],
        }  # fmt: skip
    return found


def _numbers(reads: list[Read]) -> dict[str, float]:
    rates = [read.windows_per_s for read in reads]
    return {
        "windows_per_s": round(statistics.median(rates), 2),
        "windows_per_s_lowest": round(min(rates), 2),
        "windows_per_s_highest": round(max(rates), 2),
        "mb_per_s": round(statistics.median(read.mb_per_s for read in reads), 2),
        "windows_read": reads[0].num_windows,
    }


def _ratios(found: dict[str, list[Read]], workers: Sequence[int]) -> dict[str, float]:
    """Ours over each other reader of the same windows: the median of the rounds' ratios of windows/s (or of MB/s)."""

    def ratio(ours: str, other: str, what: str = "windows_per_s") -> float:
        pairs = zip(found[ours], found[other], strict=True)
        return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)

    ours = f"{OURS}, 0 workers"
    out = {f"{name}, {w} workers": ratio(f"{OURS}, {w} workers", f"{name}, {w} workers")
           for w in workers for name in (LEROBOT, WEBDATASET)}  # fmt: skip
    out |= {name: ratio(ours, name) for name in (TAKE, TAKE_DECODE) if name in found}
    out[f"{TAKE}, MB/s"] = ratio(ours, TAKE, "mb_per_s")
    if f"{TAKE}, no overlap" in found:
        out[f"{TAKE}, no overlap"] = ratio(f"{OURS}, no overlap", f"{TAKE}, no overlap")
    return {name: round(value, 4) for name, value in out.items()}


def goals_of(results: dict[str, Any], num_workers: Sequence[int] = WORKERS) -> list[dict[str, Any]]:
    """Every goal of this benchmark; `handloom` is what `db.windows` loaders give. What was not measured is null."""
    unit = "ratio of windows/s, median of rounds"
    arm4r, arvrm = (results.get(name, {}).get("ratios", {}) for name in ("arm4r", "arvrm"))
    goals = [goal("tracks, no byte twice, against bare Lance take", arm4r.get(f"{TAKE}, no overlap"), unit, 0.8)]
    for workers in num_workers:
        mark = f"{workers} workers"
        lerobot = arvrm.get(f"{LEROBOT}, {mark}")
        goals.append(goal(f"images and hands against LeRobot v3, {mark}", lerobot, unit, 3.0))
        for name, ratios in (("tracks", arm4r), ("images and hands", arvrm)):
            goals.append(goal(f"{name} against WebDataset, {mark}", ratios.get(f"{WEBDATASET}, {mark}"), unit, 1.0))
        if "lerobot_package" in results.get("arvrm", {}):
            theirs = results["arvrm"]["lerobot_package"][mark]["windows_per_s"]
            ours = results["arvrm"]["readers"][f"{OURS}, {mark}"]["windows_per_s"]
            goals.append(goal(f"images and hands against lerobot's own reader, {mark}", ours / theirs, unit, 3.0))
    for name in RECIPES:
        share = results["recipes"].get(name, {}).get("loader_wait_share")
        goals.append(goal(f"loader wait of {name}", share, "share of step time", 0.05, at_least=False))
    return goals
