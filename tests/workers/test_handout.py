"""Shards of remote videos: each is handed out once, and a node fetches a video once."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.workers.ledger import Handout

VIDEOS = st.lists(st.integers(1, 6), min_size=1, max_size=8).map(
    lambda sizes: [f"v{number}" for number, size in enumerate(sizes) for _ in range(size)]
)


@given(VIDEOS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_shard_is_handed_out_once_and_again_to_its_own_ticket(videos, num_nodes, rng):
    handout = Handout(videos, num_nodes)
    tickets = list(range(len(videos)))
    rng.shuffle(tickets)
    given_ = {t: handout.take(t, f"n{(w := rng.randrange(2 * num_nodes)) % num_nodes}", f"w{w}") for t in tickets}
    assert sorted(given_.values()) == list(range(len(videos)))
    assert {t: handout.take(t, "another node", "another worker") for t in tickets} == given_


@dataclass
class Measured:
    downloads: float  # a video
    makespan_s: float


def simulate(videos: list[str], num_nodes: int, actors: int, work_s: float, fetch_s: float, take: Callable) -> Measured:
    """Nodes of `actors` workers each; a node fetches a video before its first shard, its other workers wait for it."""
    rng = random.Random(1)
    fetched: dict[tuple[int, str], float] = {}
    idle = [(rng.random(), worker) for worker in range(num_nodes * actors)]
    heapq.heapify(idle)
    end_s = 0.0
    for ticket in range(len(videos)):
        now, worker = heapq.heappop(idle)
        node = worker // actors
        video = videos[take(ticket, f"n{node}", f"w{worker}")]
        ready = fetched.setdefault((node, video), now + fetch_s)
        done = max(now, ready) + work_s * rng.uniform(0.5, 1.5)
        end_s = max(end_s, done)
        heapq.heappush(idle, (done, worker))
    return Measured(len(fetched) / len(set(videos)), end_s)


@pytest.mark.parametrize(
    ("num_nodes", "num_videos", "most"),
    [(1, 100, 1.0), (10, 100, 1.15), (100, 100, 1.7), (100, 1000, 1.15), (100, 20, 6.1)],
)
def test_a_node_fetches_a_video_once(num_nodes, num_videos, most):
    """Videos of an hour in 30 shards of two minutes; 16 actors per node; a fetch takes as long as half a shard.

    Shards in the order of the list to whoever is idle: 1, 10 and 26 downloads a video on 1, 10 and 100 nodes. Where
    there are many more actors than videos, several nodes must work on one.
    """
    videos = [f"v{number}" for number in range(num_videos) for _ in range(30)]
    how = (videos, num_nodes, 16, 40.0, 20.0)
    before = simulate(*how, lambda ticket, node, worker: ticket)
    after = simulate(*how, Handout(videos, num_nodes).take)
    assert after.downloads <= most
    assert after.makespan_s <= before.makespan_s * 1.05
