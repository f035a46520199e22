"""CPU time of the whole machine: what a run costs, whoever spends it."""

from __future__ import annotations

import os
from pathlib import Path

from handloom.errors import ConfigError


def busy_s() -> float:
    """Seconds that all cores together have been busy since boot. Only differences on a quiet machine mean anything.

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
    """Share of the machine that is idle right now: a benchmark on a busy machine says so."""
    import time

    before = busy_s()
    time.sleep(seconds)
    return 1 - (busy_s() - before) / (seconds * (os.cpu_count() or 1))
