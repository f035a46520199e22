"""Latencies of single calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")
WARM_UP = 20


class Times:
    """Milliseconds of each call but the first `WARM_UP`, and of all threads' CPU time: on a busy machine only that can
    be compared."""

    def __init__(self, warm_up: int = WARM_UP) -> None:
        self._seconds: list[tuple[float, float]] = []
        self._warm_up = warm_up

    def of(self, call: Callable[[], Result]) -> Result:
        """Call it, and note how long it took."""
        began, cpu_s = time.perf_counter(), time.process_time()
        result = call()
        self._seconds.append((time.perf_counter() - began, time.process_time() - cpu_s))
        return result

    def numbers(self) -> dict[str, float]:
        """`calls`, `p10_ms`, `p50_ms`, `p99_ms`, `cpu_ms` (median)."""
        wall, cpu = np.array(self._seconds[self._warm_up :] or self._seconds).T * 1000
        p10, p50, p99 = (round(float(value), 3) for value in np.percentile(wall, [10, 50, 99]))
        cpu_ms = round(float(np.median(cpu)), 3)
        return {"calls": len(wall), "p10_ms": p10, "p50_ms": p50, "p99_ms": p99, "cpu_ms": cpu_ms}
