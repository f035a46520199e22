"""What a worker runs on, for the report."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from handloom.machine import cpu_model, installed

PACKAGES = ("handloom", "torch", "ray", "numpy", "pylance", "transformers")


def hardware(device: torch.device) -> dict[str, Any]:
    """What this worker runs on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    threads = torch.get_num_threads()
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "threads": threads, "gpu": gpu}


def versions() -> dict[str, str]:
    """Of the packages that matter for training."""
    found = {"python": platform.python_version()}
    return found | {package: number for package in PACKAGES if (number := installed(package)) is not None}
