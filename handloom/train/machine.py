"""What a worker runs on, for the report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("handloom", "torch", "ray", "numpy", "pylance", "transformers")


def hardware(device: torch.device) -> dict[str, Any]:
    """What this worker runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    threads = torch.get_num_threads()
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "threads": threads, "gpu": gpu}


def versions() -> dict[str, str]:
    """Of the packages that matter for training."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
