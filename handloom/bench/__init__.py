"""Benchmarks: each prints one JSON object with hardware, versions, results and goals, and keeps it in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError


def run_benchmark(
    name: str,
    videos: Path | None,
    save: Path | None,
    say: Callable[[str], None],
    num_clips: int | None = None,
    db: str | None = None,
    lerobot_python: str | None = None,
) -> dict[str, Any]:
    """Run the benchmark `name` and return its report.

    `extract` measures on a folder of videos, or on rendered clips. `accuracy` measures on `num_clips` rendered clips
    and, beside them, on a folder in EgoDex's layout. `feed` measures on `num_clips` clips of a database, of a folder of
    videos, or rendered; with a Python that has the `lerobot` package, on that package's reader too.

    Raises:
        ConfigError: no such benchmark, or no videos.
    """
    from handloom.bench.accuracy import NUM_CLIPS, bench_accuracy
    from handloom.bench.extract import bench_extract

    clips = NUM_CLIPS if num_clips is None else num_clips
    benchmarks = {"extract": bench_extract, "accuracy": partial(bench_accuracy, num_clips=clips)}
    if name == "feed":  # needs torch and webdataset
        from handloom.bench.feed import bench_feed

        benchmarks[name] = partial(bench_feed, num_clips=max(clips, 1), db=db, lerobot_python=lerobot_python)
    elif db is not None or lerobot_python is not None:
        raise ConfigError(f"benchmark {name!r} takes no --db and no --lerobot-python", "they are feed's")
    if name not in benchmarks:
        raise ConfigError(f"there is no benchmark {name!r}", f"one of: {', '.join([*benchmarks, 'feed'])}")
    report = benchmarks[name](videos, say)
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        (save / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
