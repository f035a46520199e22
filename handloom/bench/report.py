"""What every benchmark report says about where it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

OPENCV = ("opencv-contrib-python", "opencv-contrib-python-headless")  # one of them is installed
PACKAGES = ("ray", "mediapipe", "decord", "av", *OPENCV, "numpy", "pyarrow", "pylance", "lancedb")


def goal(name: str, value: float, unit: str, wanted: float, at_least: bool = True) -> dict[str, Any]:
    """One goal of the report; `met` compares unrounded values."""
    met = value >= wanted if at_least else value <= wanted
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": wanted, "met": bool(met)}


def describe(name: str, results: dict[str, Any], goals: list[dict[str, Any]]) -> dict[str, Any]:
    """The report: `name`, `commit`, `hardware`, `versions`, `results`, `goals`."""
    return {
        "name": name,
        "commit": _commit(),
        "hardware": _hardware(),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "results": results,
        "goals": goals,
    }


def _commit() -> str | None:
    """Commit of the checkout the package runs from, with `+changes` where it is not as committed; None elsewhere."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", folder, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        state = ["git", "-C", folder, "status", "--porcelain", "--", "handloom", ":/handloom"]
        changed = subprocess.run(state, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changed else "")


def _hardware() -> dict[str, Any]:
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "gpu": None,
        "os": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
