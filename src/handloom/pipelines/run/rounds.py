"""A run is a series of rounds, each with its own pool: clips that one round has not finished go into the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from handloom.errors import StoreError
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.workers.shard import Shard, ShardResult, plan_shards, plan_update_shards

NUM_NAMED = 5


class Rounds:
    """The clips that are left, and what is known of them from the rounds so far.

    A clip can come back unfinished because the pool was about to change, because it must be tried again by itself
    (`ShardResult.alone`) or on another node (`ShardResult.elsewhere`), or because its result never reached the driver.
    """

    def __init__(
        self,
        clips: Iterable[Clip],
        targets: Mapping[str, tuple[str, ...]] | None = None,
        fragment_of: Callable[[str], int | None] = lambda clip_id: None,
        batch_clips: Mapping[str, int] | None = None,
    ) -> None:
        """targets: of clips that have a row, the stages to compute. fragment_of: where their rows are. batch_clips:
        {stage: clips that it takes at once}."""
        self.left = list(clips)
        self._targets, self._fragment_of = targets or {}, fragment_of
        self._batch_clips = batch_clips or {}
        self.number = 0
        self._finished: set[str] = set()
        self._alone: set[str] = set()
        self._num_learned = 0

    def shards(self, clips: Sequence[Clip], shard_clips: int, shard_s: float, num_workers: int) -> list[Shard]:
        """The next round's shards of `clips`. Clips that must be tried by themselves are shards of one, at the end."""
        together = [clip for clip in clips if clip.clip_id not in self._alone]
        new = [clip for clip in together if clip.clip_id not in self._targets]
        rows = [clip for clip in together if clip.clip_id in self._targets]
        alone = [
            Shard((clip,), self._targets.get(clip.clip_id, ()), (self._fragment_of(clip.clip_id),))
            for clip in clips
            if clip.clip_id in self._alone
        ]
        how = (shard_clips, shard_s, num_workers)
        updates = plan_update_shards(rows, self._targets, self._fragment_of, *how, self._batch_clips)
        return [*plan_shards(new, shard_clips, shard_s, num_workers), *updates, *alone]

    def add(self, result: ShardResult) -> None:
        """Take in what a shard's result says of its clips."""
        self._finished.update(result.clip_ids())
        new = set(result.alone) - self._alone
        self._alone |= new
        self._num_learned += len(new) + len(result.elsewhere)

    def end(self, drained: bool) -> None:
        """End a round. drained: its workers were told to stop, so that the pool can change.

        Raises:
            StoreError: it finished no clip and learned nothing, so the next would be the same.
        """
        self.number += 1
        before, learned = len(self.left), self._num_learned
        self.left = [clip for clip in self.left if clip.clip_id not in self._finished]
        self._finished.clear()
        self._num_learned = 0
        if self.left and len(self.left) == before and not learned and not drained:
            raise lost([clip.clip_id for clip in self.left], "after a round of all workers")


def lost(clip_ids: Sequence[str], when: str) -> StoreError:
    """The error of a run that is over, and has neither a row nor a reject of these clips."""
    named = ", ".join(clip_ids[:NUM_NAMED]) + (f" and {len(clip_ids) - NUM_NAMED} more" * (len(clip_ids) > NUM_NAMED))
    return StoreError(
        f"{plural(len(clip_ids), 'clip has', 'clips have')} neither a row nor a reject {when}: {named}",
        "finished clips are committed: run again to process these; if it ends the same way, look at Ray's logs",
    )
