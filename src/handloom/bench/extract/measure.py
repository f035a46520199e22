"""`handloom bench extract`: frames/s and CPU-seconds per frame end to end, beside the ceiling and a plain script.

All three process the same clips with one process per core, with models loaded beforehand, in turn over several rounds.
Ratios are taken within a round, because machines drift. A round has a limited length of video (`Amount`), and rounds
are added while they fit into a limit of time.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from handloom.api import Database
from handloom.bench.cpu import busy_s, idle_share
from handloom.bench.extract.clips import readable, renamed, rendered, repeat, same_second, seconds_of
from handloom.bench.extract.plain import Failed, Spent, measure
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.machine import cores_allowed
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.run.run import run
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig
from handloom.store.clips.clip_list import add_clips
from handloom.workers.ledger import Finished

POLL_S, FIRST_POLL_S = 0.5, 0.02


@dataclass(frozen=True)
class EndToEnd(Spent):
    """with_start_s: of the whole command, with the start and end of Ray and loading the models. finished: clips in
    order of their end. failed: clips that were rejected."""

    with_start_s: float
    finished: list[Finished]
    failed: list[Failed]


def end_to_end(clips: list[Clip], path: Path, watch: Watch, did: Callable[[int], None]) -> EndToEnd:
    """One `run` into a new database: from the first clip's start to the last commit, and every clip's times.

    Raises KeyboardInterrupt if the run was interrupted: `run` handles the signal itself and returns.
    """
    db = Database.open(path, create=True)
    try:
        add_clips(db, clips)
        meter = _Meter(did)
        began = time.perf_counter()
        with joined(None):  # here, not in `run`: the meter must stop before Ray does
            watch.take_signals()
            try:
                summary = run(db, RunConfig(), quiet=True, watch=meter)
            finally:
                meter.end()
        with_start_s = time.perf_counter() - began
        if summary.exit == "interrupted":
            raise KeyboardInterrupt
        rejects = db.read("rejects", ["clip_id", "reason", "detail"]).to_pylist() if summary.num_rejects else []
    finally:
        shutil.rmtree(path)
    failed = [Failed(r["clip_id"], f"{r['reason']}: {r['detail'].splitlines()[0]}") for r in rejects]
    return EndToEnd(summary.num_frames, meter.wall_s, meter.cpu_s, with_start_s, meter.finished, failed)


class _Meter:
    """Measures a run: time and CPU time from its first clip's start to its last commit."""

    def __init__(self, did: Callable[[int], None]) -> None:
        self._did = did
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._cpu_at_start = 0.0

    def __call__(self, ledger: ray.actor.ActorHandle) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, args=(ledger,), daemon=True)
            self._thread.start()
            return
        busy = busy_s()
        self.end()
        self.cpu_s = busy - self._cpu_at_start
        self.finished = list(ray.get(ledger.finished.remote()).values())
        self.wall_s = time.time() - min(clip.began for clip in self.finished)

    def end(self) -> None:
        """Stop polling: Ray ends a driver that calls it during shutdown, without a message."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, ledger: ray.actor.ActorHandle) -> None:
        """Note the CPU time when the first clip starts; then report the number of finished clips until the run ends."""
        try:
            while not ray.get(ledger.progress.remote()).working and not self._ended.is_set():
                time.sleep(FIRST_POLL_S)
            self._cpu_at_start = busy_s()
            while not self._ended.wait(POLL_S):
                progress = ray.get(ledger.progress.remote())
                self._did(progress.num_rows + progress.num_rejects)
        except (ray.exceptions.RayError, RuntimeError, OSError):
            return  # Ray is shutting down; the run reports why


KINDS = ("end_to_end", "ceiling", "plain_script")
MANY = 112  # short clips: the hundredth is the median of clips 91 to 110


@dataclass(frozen=True)
class Amount:
    """How much is measured: clips of at most clip_s; per round `clips` of them, or round_s of video. Rounds: `least`,
    then more up to `most` while they fit into limit_s. extra: also a run with twice the clips, and one with many short
    ones."""

    clip_s: float
    round_s: float
    clips: int
    least: int
    most: int
    limit_s: float
    extra: bool


FULL = Amount(clip_s=10.0, round_s=80.0, clips=20, least=2, most=5, limit_s=600.0, extra=True)
QUICK = Amount(clip_s=3.0, round_s=12.0, clips=4, least=1, most=2, limit_s=75.0, extra=False)


class _Unusable(Exception):
    """One of the three cannot read some clips."""

    def __init__(self, failed: list[Failed]) -> None:
        super().__init__(failed)
        self.failed = failed


def bench_extract(videos: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure on the videos of a folder, without those that one of the three cannot read, or on rendered clips."""
    amount = QUICK if watch.quick else FULL
    found = _Found("rendered scenes" if videos is None else "videos of a folder")
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        work = Path(folder)
        watch.say("rendering scenes" if videos is None else f"reading the videos of {videos}")
        source = rendered(work / "rendered", watch.quick, watch.say) if videos is None else videos
        _measure(readable(source, amount.clip_s), amount, work, watch, found)
    return describe("extract", found.results(), goals_of(found), watch)


class _Found:
    """The measurements so far."""

    def __init__(self, videos: str) -> None:
        self.videos = videos
        self.clips: list[Clip] = []
        self.left_out: dict[str, str] = {}
        self.idle: float | None = None
        self.rounds: list[dict[str, Any]] = []
        self.part: dict[str, Any] = {}  # of a round that has begun
        self.twice: EndToEnd | None = None
        self.many: dict[str, Any] | None = None

    def results(self) -> dict[str, Any]:
        return {
            "videos": f"{len({clip.video_uri for clip in self.clips})} {self.videos}",
            "left_out": self.left_out,
            "idle_at_start": None if self.idle is None else round(self.idle, 3),
            "processes": cores_allowed(),
            "clips_per_round": len(self.clips),
            "video_s_per_round": round(sum(map(seconds_of, self.clips)), 1),
            "rounds": self.rounds,
            "unfinished_round": self.part or None,
            **{kind: self._median(kind) for kind in KINDS},
            "twice_the_clips": None if self.twice is None else _with_start(self.twice),
            "many_short_clips": self.many,
        }

    def ratio(self, kind: str) -> float | None:
        """End to end over `kind`, median of the rounds."""
        if not self.rounds:
            return None
        return statistics.median(r["end_to_end"]["frames_per_s"] / r[kind]["frames_per_s"] for r in self.rounds)

    def _median(self, kind: str) -> dict[str, float] | None:
        if not self.rounds:
            return None
        names = [name for name in self.rounds[0][kind] if name not in ("frames", "wall_s")]
        return {name: round(statistics.median(r[kind][name] for r in self.rounds), 2) for name in names}


def _measure(clips: list[Clip], amount: Amount, work: Path, watch: Watch, found: _Found) -> None:
    found.idle = max(idle_share(), 0.0)
    found.clips = _usable(repeat(clips, amount.clips, amount.round_s), amount, work, watch, found)
    video_s = sum(map(seconds_of, found.clips))
    extra_s = (2 * video_s + MANY) if amount.extra else 0.0
    while len(found.rounds) < amount.least:
        watch.expect(watch.num_done + 3 * video_s * (amount.least - len(found.rounds)) + extra_s)
        _round(found, amount, work, watch)
    if amount.extra:
        _extra(found, work, watch)
    while len(found.rounds) < amount.most and watch.elapsed_s * (1 + 1 / len(found.rounds)) < amount.limit_s:
        watch.expect(watch.num_done + 3 * video_s)
        _round(found, amount, work, watch)


def _usable(clips: list[Clip], amount: Amount, work: Path, watch: Watch, found: _Found) -> list[Clip]:
    """The clips that all three can read; repeats the first round until no clip fails."""
    while True:
        found.clips = clips
        seconds = sum(map(seconds_of, clips))
        extra_s = 2 * seconds + MANY if amount.extra else 0.0
        watch.say(f"{len(clips)} clips of {seconds:.0f} s a round, {cores_allowed()} processes, "
                  f"{found.idle:.0%} of the machine idle")  # fmt: skip
        watch.expect(watch.num_done + 3 * seconds * amount.least + extra_s)
        try:
            _round(found, amount, work, watch)
        except _Unusable as error:
            uris = {clip.clip_id: clip.video_uri for clip in clips}
            for failed in error.failed:
                found.left_out[Path(uris[failed.clip_id]).name] = failed.problem
                watch.say(f"left out: {Path(uris[failed.clip_id]).name}: {failed.problem}")
            bad = {uris[failed.clip_id] for failed in error.failed}
            clips = [clip for clip in clips if clip.video_uri not in bad]
            if not clips:
                raise ConfigError("no clip of the benchmark can be read", "give other --videos") from error
        else:
            return clips


def _round(found: _Found, amount: Amount, work: Path, watch: Watch) -> None:
    """One round; the order rotates from round to round. In the first one end to end is first: it finds unreadable
    clips.

    Raises _Unusable if one of the three cannot read a clip.
    """
    number = len(found.rounds)
    found.part = {}
    for kind in KINDS[number % 3 :] + KINDS[: number % 3]:
        watch.part(f"round {number + 1} (of {amount.least} to {amount.most}), {kind}")
        did = _counting(watch, found.clips)
        if kind == "end_to_end":
            whole = end_to_end(found.clips, work / "db", watch, did)
            failed, numbers = whole.failed, _with_start(whole)
        else:
            spent, failed = measure(kind, found.clips, cores_allowed(), did)
            numbers = _numbers(spent)
        if failed:
            raise _Unusable(failed)
        found.part[kind] = numbers
        watch.say(f"round {number + 1}, {kind}: {numbers['frames_per_s']:.1f} frames/s, "
                  f"{numbers['cpu_ms_per_frame']:.1f} ms CPU a frame")  # fmt: skip
    found.rounds.append(found.part)
    found.part = {}


def _extra(found: _Found, work: Path, watch: Watch) -> None:
    """Runs that show whether the cost per clip grows: one with twice the clips, one with one second many times."""
    doubled = renamed(found.clips * 2)
    watch.part("twice the clips, end_to_end")
    found.twice = end_to_end(doubled, work / "db", watch, _counting(watch, doubled))
    short = same_second(found.clips, MANY)
    watch.part("one second of one video, many times, end_to_end")
    found.many = early_and_late(end_to_end(short, work / "db", watch, _counting(watch, short)))


def _counting(watch: Watch, clips: list[Clip]) -> Callable[[int], None]:
    """A function of the number of finished clips that reports them to the watch, in seconds of video of equal clips."""
    done, each_s = 0, sum(map(seconds_of, clips)) / len(clips)

    def did(num: int) -> None:
        nonlocal done
        if num > done:
            watch.did(f"clip {num} of {len(clips)}", (num - done) * each_s)
            done = num

    return did


def goals_of(found: _Found) -> list[dict[str, Any]]:
    """The goals of extraction; null where nothing was measured."""
    linear = against = None
    if found.twice is not None and found.rounds:
        linear = found.twice.frames_per_s / statistics.median(r["end_to_end"]["frames_per_s"] for r in found.rounds)
    if found.many is not None:
        against = found.many["second_ms_per_frame"] / found.many["hundredth_ms_per_frame"]
    by_round = "ratio of frames/s, median of rounds"
    return [
        goal("end to end against the ceiling", found.ratio("ceiling"), by_round, 0.90),
        goal("end to end against the plain script", found.ratio("plain_script"), by_round, 1.0),
        goal("cost linear in clips: rate with twice the clips", linear, "ratio of frames/s", 0.95),
        goal(
            "second clip of the run against the hundredth",
            against,
            "ratio of ms per frame, medians of clips 2 to 11 and 91 to 110",
            1.1,
            at_least=False,
        ),
    ]


def early_and_late(spent: EndToEnd) -> dict[str, Any]:
    """Cost of the first clips of a run, and of the hundredth."""
    cost = [1000 * (clip.ended - clip.began) / clip.num_frames for clip in spent.finished]
    return {
        "clips": len(cost),
        "first_ms_per_frame": round(cost[0], 2),
        "second_ms_per_frame": round(statistics.median(cost[1:11]), 2),
        "hundredth_ms_per_frame": round(statistics.median(cost[90:110]), 2),
    }


def _numbers(spent: Spent) -> dict[str, float]:
    return {
        "frames": spent.num_frames,
        "wall_s": round(spent.wall_s, 3),
        "frames_per_s": round(spent.frames_per_s, 2),
        "cpu_ms_per_frame": round(1000 * spent.cpu_s_per_frame, 2),
    }


def _with_start(spent: EndToEnd) -> dict[str, float]:
    """With the rate of the whole command, including the start and end of Ray and loading the models."""
    return _numbers(spent) | {"frames_per_s_with_start": round(spent.num_frames / spent.with_start_s, 2)}
