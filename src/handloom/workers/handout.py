"""Which shard a worker gets: a node that has fetched a video works on that video, as long as the load stays even.

Ray Data gives the next shard to whichever actor is idle. With videos in a store that cost one download for nearly
every shard: 26 a video of 30 shards on 100 nodes, simulated (tests/workers/test_handout.py). So a shard of the input is
only a ticket here: what its holder works on is decided when it begins, by where it stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class _Video:
    """The shards of one video that nobody has yet, in order of time. nodes: those that have fetched it."""

    left: deque[int]
    nodes: set[str] = field(default_factory=set)


class Handout:
    """Hands out shards, each once; a ticket that comes again (its worker has died) gets the same shard again.

    Args:
        videos: for each shard the video that most of it is of; shards of one video follow each other.
        num_nodes: of the cluster, about.
    """

    def __init__(self, videos: Sequence[str], num_nodes: int) -> None:
        self._num_nodes = max(1, num_nodes)
        self._given: dict[int, int] = {}
        self._videos: dict[str, _Video] = {}
        for shard, video in enumerate(videos):
            self._videos.setdefault(video, _Video(deque())).left.append(shard)
        self._fresh = deque(self._videos.values())  # nobody has begun them
        self._begun: list[_Video] = []
        self._last: dict[str, _Video] = {}

    def take(self, ticket: int, node: str, worker: str) -> int:
        """The shard for whoever holds the ticket: of the video in hand, of one that its node has, of a new one, or of
        the one with the most left.
        """
        if ticket not in self._given:
            video = self._video_for(node, worker)
            self._last[worker] = video
            video.nodes.add(node)
            self._given[ticket] = video.left.popleft()
        return self._given[ticket]

    def _video_for(self, node: str, worker: str) -> _Video:
        last = self._last.get(worker)
        if last is not None and last.left:
            return last
        self._begun = [video for video in self._begun if video.left]
        own = [video for video in self._begun if node in video.nodes]
        share = -(-(len(self._fresh) + len(self._begun)) // self._num_nodes)
        if self._fresh and len(own) < share:
            self._begun.append(self._fresh.popleft())
            return self._begun[-1]
        if own:
            return max(own, key=lambda video: len(video.left))
        if self._fresh:
            self._begun.append(self._fresh.popleft())
            return self._begun[-1]
        return max(self._begun, key=lambda video: len(video.left) / len(video.nodes))
