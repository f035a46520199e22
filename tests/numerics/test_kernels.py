"""The variables that choose the arithmetic, and what the libraries make of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from handloom.kernels import AVX2, PINNED, for_workers

ASKED = """
import json, cv2, numpy, scipy.linalg
from numpy.core._multiarray_umath import __cpu_features__ as features
from threadpoolctl import threadpool_info
blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
print(json.dumps({
    "kernels": sorted({library["architecture"] for library in blas}),
    "threads": max(library["num_threads"] for library in blas),
    "avx512": features["AVX512F"] or cv2.checkHardwareSupport(256),
}))
"""


def test_workers_compute_on_one_thread_with_the_code_their_driver_was_told_to_use(monkeypatch):
    for name in AVX2:
        monkeypatch.delenv(name, raising=False)
    assert for_workers() == dict(PINNED)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert for_workers() == dict(PINNED) | {"OPENBLAS_CORETYPE": "Zen"}


def test_libraries_obey_the_variables():
    """The names are read by the libraries alone: one that a new version no longer knows would choose nothing."""
    try:
        with open("/proc/cpuinfo") as info:
            flags = set(info.read().split())
    except OSError:
        flags = set()
    if not {"avx2", "fma"} <= flags:
        pytest.skip("not a processor with AVX2")
    env = {"PATH": "/usr/bin:/bin", **PINNED, **AVX2}
    done = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"kernels": ["Haswell"], "threads": 1, "avx512": False}
