"""Hardware and package versions of a worker, for the report."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from handloom.machine import cpu_model, installed

PACKAGES = ("handloom", "torch", "ray", "numpy", "pylance", "transformers")


def hardware(device: torch.device) -> dict[str, Any]:
    """CPU model, cores, torch's threads and GPU (None without one) of this worker."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    threads = torch.get_num_threads()
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "threads": threads, "gpu": gpu}


def versions() -> dict[str, str]:
    """`{package: version}` of Python and of the packages that training depends on, as far as they are installed."""
    found = {"python": platform.python_version()}
    return found | {package: number for package in PACKAGES if (number := installed(package)) is not None}
