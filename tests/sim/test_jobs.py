"""Jobs in processes that die: results in order, each once, whatever dies when; what cannot be done is named."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass
from operator import itemgetter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import crashing
from support.process import alive

from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.sim.executors import Died
from handloom.pipelines.sim.jobs import MOST_LOST, TRIES, Jobs, Where, as_they_end, in_order


class Hand:
    """A worker in here, whose jobs end, and whose node is lost, by chance."""

    def __init__(self, hands: Hands) -> None:
        self.hands, self.job = hands, None

    def give(self, run, arguments) -> None:
        assert self.job is None, "one job at a time"
        self.job = run, *arguments
        item = arguments[0]
        others = {hand.job[1] for hand in self.hands.every if hand is not self and hand.job is not None}
        alone = {one for one in {item, *others} if self.hands.deaths_of(one) == TRIES - 1}
        assert not alone or not others, "the last try has no other beside it"

    def result(self):
        job, self.job = self.job, None
        if job is None:  # it has started
            if self.hands.rng.random() < 0.1 and self.hands.num_lost_nodes < TRIES - 1:
                self.hands.num_lost_nodes += 1
                raise Died("it did not start")
            return None
        run, item = job
        if self.hands.rng.random() < 0.1:
            raise Died("the node was lost", counts=False)
        self.hands.begun.append(item)
        if self.hands.deaths_of(item) < self.hands.deaths.get(item, 0) + 1:
            raise Died("it died")
        return run(item)


class Hands:
    """An executor in here."""

    def __init__(self, num: int, deaths: dict[int, int], seed: int) -> None:
        self.num, self.deaths, self.rng = num, deaths, Random(seed)
        self.every: list[Hand] = []
        self.begun: list[int] = []
        self.num_lost_nodes = 0

    def deaths_of(self, item: int) -> int:
        return self.begun.count(item)

    def start(self) -> tuple[Hand, bool]:
        self.every.append(Hand(self))
        return self.every[-1], self.rng.random() < 0.5

    def done(self, busy: Collection[Hand]) -> list[Hand]:
        return self.rng.sample(list(busy), self.rng.randint(1, len(busy)))  # raises where it would wait for ever


@dataclass(frozen=True)
class Here(Where):
    """Runs jobs in `Hands`."""

    hands: Hands | None = None

    def executor(self, num_jobs: int, worth: int = 1):
        return nullcontext(self.hands)


@given(st.integers(1, 4), st.dictionaries(st.integers(4, 19), st.integers(1, TRIES), max_size=6), st.integers(0))
def test_any_deaths_in_any_order_give_the_same(num, deaths, seed):
    """A job on which fewer than `TRIES` workers died has its result; others are lost, and named."""
    lost = [f"job {item}: it died" for item in range(20) if deaths.get(item) == TRIES]
    expected = [f"job {item}: it died" if deaths.get(item) == TRIES else item * item for item in range(20)]
    jobs = Jobs(lambda item: item * item, lambda item: f"job {item}", lambda _, lost: f"{lost.name}: {lost.how}")
    for is_ordered in (True, False):
        hands = Hands(num, deaths, seed)
        where = Here(hands=hands)
        results = in_order(jobs, iter(range(20)), 20, where) if is_ordered else as_they_end(jobs, range(20), where)
        if len(lost) > MOST_LOST:
            with pytest.raises(HandloomError, match="3 processes of the simulator died in job"):
                list(results)
            continue
        found = list(results) if is_ordered else [result for _, result in sorted(results, key=itemgetter(0))]
        assert found == expected
        tries = [min(deaths.get(item, 0) + 1, TRIES) for item in range(20)]
        assert [hands.deaths_of(item) for item in range(20)] == tries, "nothing is done twice"


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0))
def test_what_a_job_raises_comes_after_the_results_before_it(num, bad, seed):
    found, hands = [], Hands(num, {}, seed)
    results = in_order(Jobs(lambda item: 1 / (item - bad), str), iter(range(10)), 10, Here(hands=hands))
    with pytest.raises(ZeroDivisionError):
        found.extend(results)
    assert found == [1 / (item - bad) for item in range(bad)]


def test_workers_that_do_not_start_are_an_error():
    class Never(Hand):
        def result(self):
            raise Died("no module handloom")

    hands = Hands(2, {}, 0)
    hands.start = lambda: (Never(hands), False)
    with pytest.raises(HandloomError, match="processes of the simulator do not start: no module handloom"):
        list(in_order(Jobs(str, str), iter("ab"), 2, Here(hands=hands)))


def test_a_process_that_dies_costs_nothing_but_time(tmp_path):
    """Of this machine: one item kills its process once, another always."""
    once = crashing.once(tmp_path / "marker")
    items, values = (
        ["1", once, "2", crashing.ALWAYS, "3", "4"],
        [1, 7, 2, "lost: its process was ended by signal 11", 3, 4],
    )
    jobs = Jobs(eval, lambda _: "lost", lambda _, lost: f"{lost.name}: {lost.how}")
    assert list(in_order(jobs, items, len(items), Where(2))) == values
    with pytest.raises(HandloomError, match="3 processes of the simulator died in lost: its process was ended by"):
        list(in_order(jobs, [crashing.ALWAYS] * 2, 2, Where(2)))


def test_processes_end_with_a_command_that_is_killed():
    """They waited for work from it for ever."""
    code = """
import os, time
from handloom.pipelines.process_pool import process_pool
with process_pool(1) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as command:
        pid = int(command.stdout.readline())
        assert alive(pid)
        command.kill()
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_a_number_of_workers_is_checked():
    with pytest.raises(ConfigError, match="0 workers"):
        Where(0)
