"""Which staged updates are worth a commit now.

A commit writes the changed columns of a whole fragment, so one for each shard of a fragment of 1,000 clips writes them
63 times (measured: 194 MB for embeddings of 3 MB). A fragment whose clips have all arrived is written once. Where that
takes long the rest is written as well from time to time, so that a kill loses little: with a share of 0.1 the driver
spends a tenth of its time on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from handloom.store.stages.staged import ColumnUpdate

WAIT_S = 60.0
SHARE = 0.1


class WaitingUpdates:
    """Staged updates that wait for a commit.

    Args:
        fragment_of: the fragment of a clip's row (`ColumnCommitter.fragment_of`).
        expected: the clips that will come.
        wait_s: an update of a fragment that is not complete waits so long at least. share: of the time that its commits
            may take.
    """

    def __init__(
        self,
        fragment_of: Callable[[str], int | None],
        expected: Iterable[str],
        *,
        now: float,
        wait_s: float = WAIT_S,
        share: float = SHARE,
    ) -> None:
        """now: seconds of any clock that never goes back, here and below."""
        self._fragment_of = fragment_of
        self._coming = set(expected)
        self._count(self._coming)
        self._updates: list[ColumnUpdate] = []
        self._wait_s, self._share = wait_s, share
        self._next = now + wait_s

    def __len__(self) -> int:
        """Number of clips in updates that wait."""
        return sum(len(update.clip_ids) for update in self._updates)

    def add(self, update: ColumnUpdate) -> None:
        """A worker has staged an update."""
        self._updates.append(update)
        self.end(update.clip_ids)

    def end(self, clip_ids: Iterable[str]) -> None:
        """Nothing more comes of these clips, for example as they are rejected."""
        for clip_id in self._coming.intersection(clip_ids):
            self._coming.remove(clip_id)
            self._left[self._fragments[clip_id]] -= 1

    def due(self, now: float, *, everything: bool = False) -> list[ColumnUpdate]:
        """Take the updates to commit now: of complete fragments, and when it is time (or with `everything`) all.

        In the order in which they were added.
        """
        if everything or now >= self._next or not self._updates:
            taken = self._updates
        else:
            self._follow_merges()
            taken = [update for update in self._updates if self._is_complete(update)]
        files = {update.file for update in taken}
        self._updates = [update for update in self._updates if update.file not in files]
        return taken

    def committed(self, now: float, took_s: float) -> None:
        """A commit has ended. Fragments that are not complete wait the longer, the longer it took."""
        self._next = now + max(self._wait_s, took_s / self._share)

    def _is_complete(self, update: ColumnUpdate) -> bool:
        return all(self._left[self._fragments.get(clip_id)] <= 0 for clip_id in update.clip_ids)

    def _count(self, clip_ids: Iterable[str]) -> None:
        self._fragments = {clip_id: self._fragment_of(clip_id) for clip_id in clip_ids}
        self._left = Counter(self._fragments[clip_id] for clip_id in self._coming)

    def _follow_merges(self) -> None:
        """Count anew where clips lie elsewhere by now: a run merges fragments, and a merged one must not be written
        again with every shard of those that it is made of."""
        waiting = [clip_id for update in self._updates for clip_id in update.clip_ids]
        if any(self._fragment_of(clip_id) != self._fragments.get(clip_id) for clip_id in waiting):
            self._count(self._coming.union(waiting))
