"""Which arithmetic a process computes with: environment variables that numpy, SciPy, OpenCV and torch read on import.

OpenBLAS, numpy and OpenCV hold code for several generations of processors and pick one when they are imported; sums
then come out in another order on another machine. `PINNED` asks all of them for the same code on one thread. Give it to
every process that makes numbers which are stored, before that process imports numpy.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")

# Not OMP_NUM_THREADS, which torch reads, too: a trainer with several cores is to use them.
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
ONE_THREAD = {**ONE_BLAS_THREAD, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# The newest instructions that every x86-64 processor since 2015 has. Lance's own wheels need them as well.
AVX2 = {
    "OPENBLAS_CORETYPE": "Haswell",  # in numpy, in SciPy and in OpenCV: each carries an OpenBLAS of its own
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}


def kernels(flags: frozenset[str] | None = None) -> dict[str, str]:
    """The variables that choose the code; empty on processors other than x86-64 with AVX2, which keep their own.

    flags: the processor's, as Linux names them; None: this processor's.
    """
    flags = _flags() if flags is None else flags
    return dict(AVX2) if {"avx2", "fma"} <= flags else {}


def _flags() -> frozenset[str]:
    if platform.machine() not in ("x86_64", "AMD64") or not CPU_INFO.exists():
        return frozenset()
    lines = CPU_INFO.read_text(errors="replace").splitlines()
    return frozenset(next((line.split() for line in lines if line.startswith("flags")), ()))


PINNED: Mapping[str, str] = {**ONE_THREAD, **kernels()}
"""For workers and children: one thread, and the same code on every processor that has it."""


def pin_driver() -> None:
    """Pin this process, a command's own: the code, and BLAS's threads. Call it before numpy is imported."""
    os.environ.update(ONE_BLAS_THREAD | kernels())
