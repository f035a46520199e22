"""The fields that every benchmark report has: how and where it was measured; and writing reports to files."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from handloom.bench.watch import Watch
from handloom.machine import hardware, installed

OPENCV = ("opencv-contrib-python", "opencv-contrib-python-headless")  # one of them is installed
PACKAGES = ("ray", "mediapipe", "ai-edge-litert", "pycolmap", "decord", "av", *OPENCV, "numpy", "pyarrow", "pylance",
            "lancedb")  # fmt: skip


def goal(name: str, value: float | None, unit: str, wanted: float, at_least: bool = True) -> dict[str, Any]:
    """One goal of the report. `met` compares unrounded values; null if the value is None, not measured."""
    if value is None:
        return {"name": name, "value": None, "unit": unit, "goal": wanted, "met": None}
    met = value >= wanted if at_least else value <= wanted
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": wanted, "met": bool(met)}


def describe(name: str, results: dict[str, Any], goals: list[dict[str, Any]], watch: Watch) -> dict[str, Any]:
    """The report: `name`, `quick`, `interrupted`, `wall_s`, `commit`, `hardware`, `versions`, `results`, `goals`."""
    return {
        "name": name,
        "quick": watch.quick,
        "interrupted": watch.interrupted,
        "wall_s": round(watch.elapsed_s, 1),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **{p: installed(p) for p in PACKAGES}},
        "results": results,
        "goals": goals,
    }


def keep(report: dict[str, Any], folder: Path) -> Path:
    """Write the report into `folder`: a whole one as `NAME.json`, others as `NAME.quick.json` or
    `NAME.interrupted.json`, so that they never replace it."""
    kind = ".interrupted" if report["interrupted"] else ".quick" if report["quick"] else ""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report['name']}{kind}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def _commit() -> str | None:
    """Commit of the checkout that the package runs from, with `+changes` if files differ; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", folder, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        state: list[str | Path] = ["git", "-C", folder, "status", "--porcelain", "--", "."]
        changed = subprocess.run(state, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changed else "")
