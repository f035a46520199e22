"""Which arithmetic a process computes with: environment variables that numpy, SciPy, OpenCV and torch read on import.

OpenBLAS, numpy and OpenCV hold code for several generations of processors and pick one when they are imported; sums
then come out in another order on another kind of processor. With several threads they come out in yet another order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

PINNED: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For every process that makes numbers which are stored, set before it imports numpy: one thread in every library.

Not the kind of code: a process that imported numpy before handloom could not be given the same, and rows made there
would differ from those of a run on the same machine.
"""

AVX2: Mapping[str, str] = {
    "OPENBLAS_CORETYPE": "Haswell",  # in numpy, SciPy, OpenCV and pycolmap: each carries an OpenBLAS of its own
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}
"""For clusters of several kinds of x86-64 processors: the newest code that all with AVX2 and FMA have. Users set it."""


def for_workers() -> dict[str, str]:
    """The variables of a run's workers: one thread, and the kind of code that this process was told to use, if any."""
    return dict(PINNED) | {name: os.environ[name] for name in AVX2 if name in os.environ}
