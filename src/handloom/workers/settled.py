"""The state of the libraries in which a row is made: the same before every clip, whatever ran in the process before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
from threadpoolctl import ThreadpoolController

_LIBRARIES: list[tuple[int, ThreadpoolController]] = []  # the last scan, and how many modules were imported then


@contextmanager
def settled() -> Iterator[None]:
    """One thread in every library, no code that depends on addresses, random numbers from the start.

    The processes that handloom starts have one thread from the beginning (`kernels.PINNED`); this is for all others, in
    which numpy was imported long before. BLAS and OpenMP get their threads back at the end.
    """
    cv2.setNumThreads(1)
    # Intel's primitives inside OpenCV choose their code by processor and by address. Of this thread only, as the seed.
    cv2.ipp.setUseIPP(False)
    cv2.setRNGSeed(0)
    with _libraries().limit(limits=1):
        yield


def _libraries() -> ThreadpoolController:
    """Those that are loaded now. A scan takes milliseconds, and only an import can have loaded another."""
    num_modules = len(sys.modules)
    if not _LIBRARIES or _LIBRARIES[0][0] != num_modules:
        _LIBRARIES[:] = [(num_modules, ThreadpoolController())]
    return _LIBRARIES[0][1]
