"""`handloom bench extract`: frames/s and CPU-seconds per frame end to end, beside the ceiling and a plain script.

All three process the same clips with as many processes as there are cores, with models loaded beforehand, in turns over
several rounds; ratios are taken within a round, because machines drift.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from handloom.bench.cpu import busy_s, idle_share
from handloom.bench.plain import Spent, measure
from handloom.bench.report import describe, goal
from handloom.errors import ConfigError
from handloom.ingest.folder import ingest_folder
from handloom.pipelines.run import run
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig
from handloom.store.clip_list import add_clips
from handloom.store.database import Database
from handloom.video.probe import Prober
from handloom.video.source import VideoSource
from handloom.workers.ledger import Finished

ROUNDS = 3
NUM_CLIPS = 20
NUM_SHORT = 130  # per round
RENDERED = 6


def bench_extract(videos: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure on the videos of a folder (unreadable ones left out), or on rendered clips."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        work = Path(folder)
        source = videos or _render(work / "rendered", say)
        clips = _repeat(_readable(source), NUM_CLIPS)
        say(f"{len(clips)} clips a round, {ROUNDS} rounds, {cores} processes, {idle_share():.0%} of the machine idle")
        rounds = [_round(number, clips, cores, work, say) for number in range(ROUNDS)]
        doubled = _repeat(clips, 2 * len(clips))
        say("once with twice the clips")
        twice, _ = _end_to_end(doubled, work / "twice")
        say("once with one second of one video, many times")
        _, many = _end_to_end(_same_second(clips, NUM_SHORT), work / "many")
    results = {
        "videos": "rendered scenes" if videos is None else f"{len({c.video_uri for c in clips})} videos of a folder",
        "clips_per_round": len(clips),
        "rounds": rounds,
        "end_to_end": _median(rounds, "end_to_end"),
        "ceiling": _median(rounds, "ceiling"),
        "plain_script": _median(rounds, "plain_script"),
        "twice_the_clips": _numbers(twice),
        "many_short_clips": _early_and_late(many),
    }
    return describe("extract", results, _goals(results, rounds, twice))


def _round(number: int, clips: list[Clip], cores: int, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """One round, the order turned from round to round."""
    kinds = ["end_to_end", "ceiling", "plain_script"]
    values: dict[str, Any] = {}
    for kind in kinds[number % 3 :] + kinds[: number % 3]:
        if kind == "end_to_end":
            spent, _ = _end_to_end(clips, work / f"round{number}")
        else:
            spent = measure(kind, clips, cores)
        values[kind] = _numbers(spent)
        cpu_ms = 1000 * spent.cpu_s_per_frame
        say(f"round {number + 1} {kind}: {spent.frames_per_s:.1f} frames/s, {cpu_ms:.1f} ms CPU a frame")
    return values


def _end_to_end(clips: list[Clip], path: Path) -> tuple[Spent, list[Finished]]:
    """One `run` into a new database: from the first clip's beginning to the last commit, and every clip's times."""
    db = Database.open(path, create=True)
    add_clips(db, clips)
    meter = _Meter()
    summary = run(db, RunConfig(), quiet=True, watch=meter)
    shutil.rmtree(path)
    if summary.num_rejects:
        raise ConfigError(f"{summary.num_rejects} clips of the benchmark were rejected: {summary.reasons}")
    return Spent(summary.num_frames, meter.wall_s, meter.cpu_s), meter.finished


class _Meter:
    """Watches a run: the time and the CPU time from its first clip's beginning to its last commit."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._cpu_at_start = 0.0

    def __call__(self, ledger: ray.actor.ActorHandle) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait_for_first_clip, args=(ledger,), daemon=True)
            self._thread.start()
            return
        self._thread.join()
        self.cpu_s = busy_s() - self._cpu_at_start
        self.finished = list(ray.get(ledger.finished.remote()).values())
        self.wall_s = time.time() - min(clip.began for clip in self.finished)

    def _wait_for_first_clip(self, ledger: ray.actor.ActorHandle) -> None:
        while not ray.get(ledger.progress.remote()).working:
            time.sleep(0.02)
        self._cpu_at_start = busy_s()


def _goals(results: dict[str, Any], rounds: list[dict[str, Any]], twice: Spent) -> list[dict[str, Any]]:
    def ratio(kind: str) -> float:
        return statistics.median(r["end_to_end"]["frames_per_s"] / r[kind]["frames_per_s"] for r in rounds)

    linear = results["twice_the_clips"]["frames_per_s"] / results["end_to_end"]["frames_per_s"]
    many = results["many_short_clips"]
    return [
        goal("end to end against the ceiling", ratio("ceiling"), "ratio of frames/s, median of rounds", 0.90),
        goal("end to end against the plain script", ratio("plain_script"), "ratio of frames/s, median of rounds", 1.0),
        goal("cost linear in clips: rate with twice the clips", linear, "ratio of frames/s", 0.95),
        goal(
            "second clip of the run against the hundredth",
            many["second_ms_per_frame"] / many["hundredth_ms_per_frame"],
            "ratio of ms per frame, medians of clips 2 to 11 and 91 to 110",
            1.1,
            at_least=False,
        ),
    ]


def _early_and_late(finished: list[Finished]) -> dict[str, Any]:
    cost = [1000 * (clip.ended - clip.began) / clip.num_frames for clip in finished]
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


def _median(rounds: list[dict[str, Any]], kind: str) -> dict[str, float]:
    names = ("frames_per_s", "cpu_ms_per_frame")
    return {name: round(statistics.median(r[kind][name] for r in rounds), 2) for name in names}


def _render(folder: Path, say: Callable[[str], None]) -> Path:
    from handloom.synth import demo_specs, write_clip

    folder.mkdir()
    for i, spec in enumerate(demo_specs(RENDERED, seed=0)):
        say(f"rendering {i + 1}/{RENDERED}")
        write_clip(spec, folder / f"scene_{i}.mp4", camera=False, truth=False)
    return folder


def _readable(folder: Path) -> list[Clip]:
    with tempfile.TemporaryDirectory() as cache, Prober(VideoSource(cache)) as probe:
        clips = ingest_folder(str(folder), probe=probe, clip_seconds=10.0).clips
    usable = [clip for clip in clips if clip.end_s is not None]
    if not usable:
        raise ConfigError(f"no video of {folder} can be read")
    return usable


def _repeat(clips: list[Clip], num: int) -> list[Clip]:
    return _renamed([clips[i % len(clips)] for i in range(num)])


def _same_second(clips: list[Clip], num: int) -> list[Clip]:
    """One second of one video `num` times: what differs between the clips is only when they are processed."""
    first = clips[0]
    return _renamed([replace(first, end_s=min(first.start_s + 1.0, first.end_s or first.start_s))] * num)


def _renamed(clips: list[Clip]) -> list[Clip]:
    return [replace(clip, clip_id=f"bench:{i:04d}:{clip.video_id}") for i, clip in enumerate(clips)]
