"""A run is rounds of pools: a clip that one round has not finished goes into the next, until none is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from handloom.errors import StoreError
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.workers.shard import Shard, ShardResult, plan_shards

NUM_NAMED = 5


class Rounds:
    """The clips that are left, and what the rounds so far have told about them.

    A clip can come back unfinished because the pool was about to change, because it must be tried again by itself
    (`ShardResult.alone`) or on another node (`ShardResult.elsewhere`), or because its result never reached the driver.
    """

    def __init__(self, clips: Iterable[Clip]) -> None:
        self.left = list(clips)
        self.number = 0
        self._finished: set[str] = set()
        self._alone: set[str] = set()
        self._num_learned = 0

    def shards(self, clips: Sequence[Clip], shard_clips: int, shard_s: float, num_workers: int) -> list[Shard]:
        """The next round's work: `clips`, of those left. Those that are to be alone are shards of one, at the end."""
        together = [clip for clip in clips if clip.clip_id not in self._alone]
        alone = [Shard((clip,)) for clip in clips if clip.clip_id in self._alone]
        return [*plan_shards(together, shard_clips, shard_s, num_workers), *alone]

    def heard(self, result: ShardResult) -> None:
        """A shard's result has come."""
        self._finished.update(result.clip_ids())
        new = set(result.alone) - self._alone
        self._alone |= new
        self._num_learned += len(new) + len(result.elsewhere)

    def end(self, drained: bool) -> None:
        """A round has ended. drained: its workers were told to stop, so that the pool can change.

        Raises:
            StoreError: it finished nothing and learned nothing: the next would be the same.
        """
        self.number += 1
        before, learned = len(self.left), self._num_learned
        self.left = [clip for clip in self.left if clip.clip_id not in self._finished]
        self._finished.clear()
        self._num_learned = 0
        if self.left and len(self.left) == before and not learned and not drained:
            raise lost([clip.clip_id for clip in self.left], "after a round of all workers")


def lost(clip_ids: Sequence[str], when: str) -> StoreError:
    """The error of clips that are neither rows nor rejects although the work is over."""
    named = ", ".join(clip_ids[:NUM_NAMED]) + (f" and {len(clip_ids) - NUM_NAMED} more" * (len(clip_ids) > NUM_NAMED))
    return StoreError(
        f"{plural(len(clip_ids), 'clip has', 'clips have')} neither a row nor a reject {when}: {named}",
        "finished clips are committed: run again to process these; if it ends the same way, look at Ray's logs",
    )
