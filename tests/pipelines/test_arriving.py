"""Waiting for results: in order, errors and all, and not for ever."""

from __future__ import annotations

import threading
import time

import pytest

from handloom.errors import StoreError
from handloom.pipelines.run.results import ResultStream, Stalled


def nothing() -> None:
    pass


def test_results_and_errors_come_as_they_are():
    with ResultStream(range(100), nothing, lambda: 0.0) as arrivals:
        assert [number for number in arrivals if number is not None] == list(range(100))

    def fails():
        yield 1
        raise StoreError("disk full")

    with ResultStream(fails(), nothing, lambda: 0.0) as arrivals:
        waiting = filter(None, arrivals)
        assert next(waiting) == 1
        with pytest.raises(StoreError, match="disk full"):
            next(waiting)


def test_what_is_on_its_way_can_still_be_had():
    go, release, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly():
        yield 1
        go.wait()
        time.sleep(0.1)
        yield 2
        release.wait()
        ended.set()

    with ResultStream(slowly(), release.set, lambda: 0.0) as arrivals:
        assert next(iter(arrivals)) == 1
        go.set()
        assert next(arrivals.drain(1e6, 1e6)) == 2
        assert list(arrivals.drain(0.2, 1e6)) == []
        assert not ended.is_set()  # after 0.2 s without a result, not at the end


def test_the_wait_ends_when_nobody_works_and_only_then():
    release, others = threading.Event(), set(threading.enumerate())

    def never():
        yield 1
        release.wait()

    idle_s = iter([0.0, 0.0, 1e9])  # two looks at a worker that is busy, then silence
    with ResultStream(never(), release.set, lambda: next(idle_s), stall_s=0.3) as arrivals:
        waiting = iter(arrivals)
        assert next(waiting) == 1
        began = time.monotonic()
        assert [next(waiting), next(waiting)] == [None, None]  # time for other things meanwhile
        with pytest.raises(Stalled, match=r"no worker .* 0.3 s"):
            next(waiting)
        assert time.monotonic() - began >= 1.5  # three looks
    assert next(idle_s, None) is None
    assert release.is_set()
    assert not [thread for thread in {*threading.enumerate()} - others if thread.name == "results"]
