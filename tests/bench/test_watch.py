"""Benchmarks' progress, and their end by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest
from support.process import descendants, start

from handloom.bench.report import describe, goal, keep
from handloom.bench.watch import LINE_EVERY_S, Watch
from handloom.pipelines.process_pool import process_pool


class Clock:
    """A clock that the test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_have_the_part_the_time_and_the_time_left():
    said, clock = [], Clock()
    watch = Watch(said.append, clock=clock)
    clock.now_s += 5  # rendering, say
    with watch.measuring(units=10):
        watch.part("round 1 of 2, ceiling")
        for number in range(4):
            clock.now_s += LINE_EVERY_S
            watch.did(f"clip {number + 1} of 10")
        watch.did("clip 5 of 10")  # too soon for a line
        watch.expect(6)
        clock.now_s += 1
        watch.part("round 2 of 2, ceiling")
    watch.say("kept in a.json")
    assert said == [
        "[0:05] round 1 of 2, ceiling",
        "[0:10, about 0:45 to go] round 1 of 2, ceiling: clip 1 of 10",
        "[0:15, about 0:40 to go] round 1 of 2, ceiling: clip 2 of 10",
        "[0:20, about 0:35 to go] round 1 of 2, ceiling: clip 3 of 10",
        "[0:25, about 0:30 to go] round 1 of 2, ceiling: clip 4 of 10",
        "[0:26, about 0:04 to go] round 2 of 2, ceiling",
        "[0:26] kept in a.json",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_measuring_and_the_report_is_made(number):
    watch, found = Watch(print), []
    before = signal.getsignal(number)
    with watch.measuring():
        found.append(1)
        os.kill(os.getpid(), number)
        time.sleep(5)
        found.append(2)
    assert (watch.interrupted, found) == (True, [1])
    assert signal.getsignal(number) == before


def test_ctrl_c_ends_the_command_with_its_report_and_leaves_no_process():
    process = start("bench", "commit", "--quick")
    assert process.stderr is not None
    assert "shards" in process.stderr.readline(), "it measures"
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    out, err = process.communicate(timeout=120)
    assert (process.returncode, json.loads(out)["interrupted"]) == (130, True), err
    assert "Traceback" not in err
    assert not [pid for pid in below if Path(f"/proc/{pid}/cmdline").exists()]


def test_an_error_in_the_measuring_is_raised():
    watch = Watch(print)
    with pytest.raises(ValueError, match="no"), watch.measuring():
        raise ValueError("no")
    assert not watch.interrupted


def test_what_was_not_measured_is_null_and_a_report_describes_its_run():
    watch = Watch(print, quick=True)
    watch.interrupted = True
    report = describe("extract", {}, [goal("a", None, "ratio", 0.9), goal("b", 0.95, "ratio", 0.9)], watch)
    assert [one["met"] for one in report["goals"]] == [None, True]
    assert report["goals"][0]["value"] is None
    assert (report["quick"], report["interrupted"]) == (True, True)
    hardware = report["hardware"]
    assert hardware["gpu"] is None or {"name", "memory", "driver"} == set(hardware["gpu"][0])
    assert 1 <= hardware["cores_allowed"] <= hardware["cores"]
    assert hardware["openblas_cores"] is not None


def test_a_whole_report_is_never_replaced_by_a_partial_one(tmp_path: Path):
    watch = Watch(print)
    kept = keep(describe("extract", {}, [], watch), tmp_path)
    whole = kept.read_bytes()
    watch.quick = True
    assert keep(describe("extract", {}, [], watch), tmp_path).name == "extract.quick.json"
    watch.interrupted = True
    assert keep(describe("extract", {}, [], watch), tmp_path).name == "extract.interrupted.json"
    assert kept.name == "extract.json"
    assert kept.read_bytes() == whole
    assert json.loads(whole)["interrupted"] is False


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, whoever started this process: a script's background job (`make test &`) begins
    with SIGINT ignored, and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_pool_that_is_given_up_ends_at_once():
    before = set(active_children())

    def give_up() -> None:
        with process_pool(1) as pool:
            assert pool.submit(len, "abc").result() == 3
            jobs = [pool.submit(time.sleep, 100_000) for _ in range(3)]
            os.kill(os.getpid(), signal.SIGINT)
            jobs[0].result()

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert set(active_children()) <= before
