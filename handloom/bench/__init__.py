"""Benchmarks: each prints one JSON object with hardware, versions, results and goals, and keeps it in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError


def run_benchmark(name: str, videos: Path | None, save: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the benchmark `name` on a folder of videos, or on rendered clips, and return its report.

    Raises:
        ConfigError: no such benchmark, or no videos.
    """
    from handloom.bench.extract import bench_extract

    benchmarks = {"extract": bench_extract}
    if name not in benchmarks:
        raise ConfigError(f"there is no benchmark {name!r}", f"one of: {', '.join(benchmarks)}")
    report = benchmarks[name](videos, say)
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        (save / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
