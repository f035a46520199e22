"""Environment variables that decide the order of sums: numpy, SciPy, OpenCV and torch read them when imported.

OpenBLAS, numpy and OpenCV have kernels for several generations of processors and choose one when they are imported, so
sums are taken in another order on another kind of processor, and again in another order with several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PINNED: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread in every library, for every process that computes stored numbers; set before it imports numpy.

The kernels are not pinned: a process that imported numpy before handloom cannot change them any more, and its rows
would differ from those of a run on the same machine.
"""

AVX2: Mapping[str, str] = {
    "OPENBLAS_CORETYPE": "Haswell",  # in numpy, SciPy, OpenCV and pycolmap: each carries an OpenBLAS of its own
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}
"""For clusters with several kinds of x86-64 processors: the newest kernels that run on all with AVX2 and FMA. Set by
users."""


def for_workers() -> dict[str, str]:
    """The variables for a run's workers: one thread, and those of `AVX2` that are set in this process."""
    return dict(PINNED) | {name: os.environ[name] for name in AVX2 if name in os.environ}


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started in this block compute on one thread, as the pipeline's actors do: idle BLAS threads spin."""
    before = {name: os.environ.get(name) for name in PINNED}
    os.environ.update(PINNED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
