"""CPU time of the whole machine, which counts every process of a run; and of this process by stage."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

from handloom.errors import ConfigError


def busy_s() -> float:
    """Seconds that all cores together have been busy since boot. Only differences on an idle machine are meaningful.

    Raises:
        ConfigError: not on Linux.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        raise ConfigError("the benchmark reads /proc/stat: it runs on Linux only")
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(v) for v in stat.read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def idle_share(seconds: float = 1.0) -> float:
    """Share of the machine that is idle now, for the report."""
    before = busy_s()
    time.sleep(seconds)
    return 1 - (busy_s() - before) / (seconds * (os.cpu_count() or 1))


class CpuClock:
    """CPU seconds of this process, all threads, by stage: `sums`."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self._stage, self._last = "", 0.0

    def begin(self, stage: str, num_frames: int = 0) -> None:
        """End the present stage, if any, and begin `stage`. num_frames: passed by `Extractor`, not used."""
        self.end()
        self._stage = stage

    def end(self) -> None:
        now = time.process_time()
        if self._stage:
            self.sums[self._stage] += now - self._last
        self._stage, self._last = "", now
