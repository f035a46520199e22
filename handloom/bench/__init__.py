"""Benchmarks: each prints one JSON object with hardware, versions, results and goals, and keeps it in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError


def run_benchmark(
    name: str, videos: Path | None, save: Path | None, say: Callable[[str], None], num_clips: int | None = None
) -> dict[str, Any]:
    """Run the benchmark `name` and return its report.

    `extract` measures on a folder of videos, or on rendered clips. `accuracy` measures on `num_clips` rendered clips
    and, beside them, on a folder in EgoDex's layout.

    Raises:
        ConfigError: no such benchmark, or no videos.
    """
    from handloom.bench.accuracy import NUM_CLIPS, bench_accuracy
    from handloom.bench.extract import bench_extract

    clips = NUM_CLIPS if num_clips is None else num_clips
    benchmarks = {"extract": bench_extract, "accuracy": partial(bench_accuracy, num_clips=clips)}
    if name not in benchmarks:
        raise ConfigError(f"there is no benchmark {name!r}", f"one of: {', '.join(benchmarks)}")
    report = benchmarks[name](videos, say)
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        (save / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
