"""`handloom doctor`: what this machine has, what is missing, how to get it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

EXTRAS = {
    "": ("numpy", "pyarrow", "pylance", "lancedb", "pydantic", "typer"),
    "extract": (
        "ray",
        "mediapipe",
        "decord",
        "av",
        "opencv-contrib-python",
        "fsspec",
        "s3fs",
        "aiohttp",
        "scipy",
        "tqdm",
        "pillow",
    ),
    "models": ("torch", "transformers"),
}
WITHOUT_WINDOWS = {"opencv-contrib-python": "opencv-contrib-python-headless"}  # needs no libGL; holds the same cv2
IMPORTS = {"pylance": "lance", "opencv-contrib-python": "cv2", "pillow": "PIL"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. state: `ok`, `missing` (needed for the main job) or `optional` (absent, not needed)."""

    name: str
    state: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at Python, packages, memory, disk, GPU."""
    findings = [_python(), _machine()]
    for extra, packages in EXTRAS.items():
        findings += [_package(package, extra) for package in packages]
    return [*findings, _gpu()]


def _python() -> Finding:
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Finding("python", "ok", detail)
    return Finding("python", "missing", detail, "use Python 3.11 or 3.12: mediapipe 0.10.21 has wheels for these")


def _machine() -> Finding:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free_gb = shutil.disk_usage("/tmp").free / 2**30
    detail = (
        f"{os.cpu_count()} cores, {memory_gb:.1f} GiB memory, {free_gb:.1f} GiB free in /tmp, {platform.platform()}"
    )
    if memory_gb < 4:
        return Finding("machine", "missing", detail, "an actor needs up to 2.5 GiB: expect 4 GiB or more")
    return Finding("machine", "ok", detail)


def _package(package: str, extra: str) -> Finding:
    remedy = f"pip install 'handloom[{extra}]'" if extra else "pip install handloom"
    absent = "optional" if extra == "models" else "missing"
    found = _version(package) or _version(WITHOUT_WINDOWS.get(package, package))
    if found is None:
        return Finding(package, absent, "not installed", remedy)
    if extra == "models":  # importing torch takes seconds and proves little
        return Finding(package, "ok", found)
    try:
        importlib.import_module(IMPORTS.get(package, package))
    except ImportError as error:
        if "libGL" in str(error) or "libgthread" in str(error):
            remedy = f"apt-get install libgl1 libglib2.0-0; without root: pip uninstall -y {package} && "
            remedy += f"pip install --no-deps {package}-headless=={found}"
        return Finding(package, "missing", f"{found}, but it cannot be imported: {error}", remedy)
    return Finding(package, "ok", found)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> Finding:
    command = shutil.which("nvidia-smi")
    if command is None:
        return Finding("gpu", "optional", "no NVIDIA driver: everything runs on the CPU")
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    detail = "; ".join(done.stdout.split("\n")).strip("; ")
    return Finding("gpu", "ok" if done.returncode == 0 else "optional", detail or done.stderr.strip())
