"""Waiting for results: in order, errors and all, and not for ever."""

from __future__ import annotations

import threading
import time

import pytest

from handloom.errors import StoreError
from handloom.pipelines.arriving import Stalled, arriving


def nothing() -> None:
    pass


def test_results_and_errors_come_as_they_are():
    assert list(arriving(range(100), nothing, lambda: 0.0)) == list(range(100))

    def fails():
        yield 1
        raise StoreError("disk full")

    waiting = arriving(fails(), nothing, lambda: 0.0)
    assert next(waiting) == 1
    with pytest.raises(StoreError, match="disk full"):
        next(waiting)


def test_the_wait_ends_when_nobody_works_and_only_then():
    release = threading.Event()

    def never():
        yield 1
        release.wait(20)

    idle_s = iter([0.0, 0.0, 1e9])  # two looks at a worker that is busy, then silence
    waiting = arriving(never(), release.set, lambda: next(idle_s), stall_s=0.3)
    assert next(waiting) == 1
    began = time.monotonic()
    with pytest.raises(Stalled, match=r"no worker .* 0.3 s"):
        next(waiting)
    assert time.monotonic() - began >= 1.5  # three looks
    assert next(idle_s, None) is None
    assert release.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "results"]
