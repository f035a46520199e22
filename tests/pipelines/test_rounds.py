"""Rounds go on until every clip has ended, and not for ever."""

from __future__ import annotations

import pytest
from support.rows import make_clip

from handloom.errors import StoreError
from handloom.pipelines.run.rounds import Rounds
from handloom.schemas.tables.reject import Reject
from handloom.workers.shard import Shard, ShardResult

CLIPS = tuple(make_clip(number) for number in range(8))


def ended(shard: Shard, alone: tuple[str, ...] = ()) -> ShardResult:
    rejects = [Reject(c.clip_id, "hands", "model_failed", "") for c in shard.clips if c.clip_id not in alone]
    return ShardResult(None, tuple(rejects), 0, alone=alone)


def test_a_result_that_never_came_is_made_again():
    rounds = Rounds(CLIPS)
    shards = rounds.shards(rounds.left, 2, 60.0, 1)
    for shard in shards[1:]:
        rounds.add(ended(shard))
    rounds.end(drained=False)
    assert rounds.left == list(shards[0].clips)
    for shard in rounds.shards(rounds.left, 2, 60.0, 1):
        rounds.add(ended(shard))
    rounds.end(drained=False)
    assert (rounds.left, rounds.number) == ([], 2)


def test_a_clip_that_is_to_be_alone_comes_again_as_a_shard_of_one_after_the_others():
    rounds = Rounds(CLIPS)
    first, *others = rounds.shards(rounds.left, 4, 60.0, 1)
    rounds.add(ended(first, alone=(first.clips[0].clip_id,)))
    rounds.end(drained=False)
    *together, last = rounds.shards(rounds.left, 4, 60.0, 1)
    assert last.clips == first.clips[:1]
    assert [c for shard in together for c in shard.clips] == [c for shard in others for c in shard.clips]
    for shard in together:
        rounds.add(ended(shard))
    rounds.end(drained=False)
    rounds.add(ShardResult(None, (), 0, alone=(last.clips[0].clip_id,)))  # which is nothing new
    with pytest.raises(StoreError, match=f"1 clip has neither a row nor a reject.*: {last.clips[0].clip_id}"):
        rounds.end(drained=False)


def test_a_round_that_changes_nothing_ends_the_run_and_names_the_clips():
    rounds = Rounds(CLIPS)
    rounds.end(drained=True)  # the pool was to change: nothing is wrong
    with pytest.raises(StoreError, match=rf"8 clips .*{CLIPS[0].clip_id}, .* and 3 more"):
        rounds.end(drained=False)
