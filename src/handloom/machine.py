"""Facts about this machine: processor, memory, GPUs, and the kernels that numerical libraries chose."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
MAPS = Path("/proc/self/maps")
VECTORS = ("avx2", "fma", "avx512f")  # the choice of kernels in OpenBLAS, numpy and OpenCV depends on these
GPU_FACTS = ("name", "memory.total", "driver_version")
GPU_TIMEOUT_S = 30.0
CORE_NAMES = ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "scipy_openblas_get_corename",
              "openblas_get_corename")  # fmt: skip


def hardware() -> dict[str, Any]:
    """The facts that benchmarks record with their numbers. `gpu` is None if there is none."""
    return {
        "cpu": cpu_model(),
        "cpu_flags": cpu_flags(),
        "cores": os.cpu_count(),
        "cores_allowed": cores_allowed(),
        "openblas_cores": openblas_cores(),
        "memory_gib": round(memory_gib(), 1),
        "gpu": gpus() or None,
        "os": platform.platform(),
    }


def cpu_model() -> str:
    """The processor's name, from /proc/cpuinfo; without it, from Python's platform module."""
    return _cpu_info("model name") or platform.processor()


def cpu_flags() -> list[str]:
    """The flags of `VECTORS` that the processor has."""
    has = set(_cpu_info("flags").split())
    return [flag for flag in VECTORS if flag in has]


def cores_allowed() -> int:
    """Cores that this process may use: a container or `taskset` may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def gpus() -> list[dict[str, str]]:
    """`name`, `memory`, `driver` of every NVIDIA GPU; empty if there is none or the driver does not reply."""
    reply = ask_gpus()
    lines = reply.stdout.splitlines() if reply is not None and reply.returncode == 0 else []
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    return [dict(zip(("name", "memory", "driver"), row, strict=True)) for row in rows if len(row) == len(GPU_FACTS)]


def ask_gpus() -> subprocess.CompletedProcess[str] | None:
    """The output of `nvidia-smi`, in the order of `GPU_FACTS`; None if it is not installed."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, f"--query-gpu={','.join(GPU_FACTS)}", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=GPU_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(query, 1, "", f"nvidia-smi does not reply: {error}")


def openblas_cores() -> list[str]:
    """The kernels that each loaded OpenBLAS chose, such as `Haswell`: numpy, SciPy and OpenCV each bring their own."""
    lines = MAPS.read_text(errors="replace").splitlines() if MAPS.exists() else []
    paths = dict.fromkeys(line.split()[-1] for line in lines if "openblas" in line)
    return sorted({core for path in paths if (core := _core_of(path))})


def _core_of(path: str) -> str | None:
    library = ctypes.CDLL(path)  # loaded already: this only finds it
    for name in CORE_NAMES:
        if hasattr(library, name):
            core_name = getattr(library, name)
            core_name.restype = ctypes.c_char_p
            return core_name().decode()
    return None


def installed(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_info(name: str) -> str:
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
