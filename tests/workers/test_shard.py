"""Shards: every clip once, videos together."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import make_clip

from handloom.errors import StoreError
from handloom.schemas.tables.reject import Reject
from handloom.store.fragments import FragmentRecord
from handloom.workers.place import Place
from handloom.workers.shard import Shard, ShardResult, plan_shards, plan_update_shards

CLIPS = st.lists(st.integers(0, 60), unique=True, max_size=40).map(lambda numbers: [make_clip(n) for n in numbers])


@given(CLIPS, st.integers(1, 10), st.floats(0.5, 20), st.integers(1, 8))
def test_plan_holds_every_clip_once_and_keeps_videos_together(clips, shard_clips, shard_s, num_workers):
    shards = [shard.clips for shard in plan_shards(clips, shard_clips, shard_s, num_workers)]
    planned = [clip for shard in shards for clip in shard]
    assert sorted(c.clip_id for c in planned) == sorted(c.clip_id for c in clips)
    videos = [clip.video_uri for clip in planned]
    assert [v for i, v in enumerate(videos) if i == 0 or videos[i - 1] != v] == list(dict.fromkeys(videos))
    assert all(a.start_s < b.start_s for a, b in itertools.pairwise(planned) if a.video_uri == b.video_uri)
    for shard in shards:
        assert 1 <= len(shard) <= shard_clips
        assert sum(c.end_s - c.start_s for c in shard[:-1]) < shard_s
    if len(clips) >= 2 * num_workers:
        assert len(shards) >= 2 * num_workers  # every worker has work to the end


@given(CLIPS, st.integers(1, 10), st.integers(1, 8))
def test_a_shard_of_remote_videos_has_one_or_only_whole_ones(clips, shard_clips, num_workers):
    """Each worker with a part of a video must fetch it."""
    clips = [replace(clip, video_uri=f"s3://bucket{clip.video_uri}") for clip in clips]
    shards = [shard.clips for shard in plan_shards(clips, shard_clips, 60.0, num_workers)]
    assert sorted(c.clip_id for shard in shards for c in shard) == sorted(c.clip_id for c in clips)
    num_clips = Counter(clip.video_uri for clip in clips)
    for shard in shards:
        there = Counter(clip.video_uri for clip in shard)
        assert len(there) == 1 or all(num_clips[video] == num for video, num in there.items())


def test_small_remote_videos_share_shards():
    small = [make_clip(n, video_uri=f"s3://bucket/{n}.mp4") for n in range(40)]
    assert max(len(shard.clips) for shard in plan_shards(small, 8, 60.0, 1)) == 8


@given(st.lists(st.integers(0, 30), unique=True, max_size=30), st.integers(2, 8), st.integers(1, 9), st.integers(1, 3))
def test_rows_of_small_fragments_fill_the_batches_of_a_stage(numbers, batch, shard_clips, num_workers):
    """Batches of one made a network for 16 clips as slow as without a batch."""
    clips = [make_clip(number) for number in numbers]
    targets = {
        clip.clip_id: ("mine",) if number % 5 else ("other",) for number, clip in zip(numbers, clips, strict=True)
    }
    where = {clip.clip_id: number // 3 for number, clip in zip(numbers, clips, strict=True)}
    how = (targets, where.get, shard_clips, 60.0, num_workers, {"mine": batch, "unused": 99})
    shards = list(plan_update_shards(clips, *how))
    assert sorted(c.clip_id for shard in shards for c in shard.clips) == sorted(targets)
    assert all(shard.fragments == tuple(where[c.clip_id] for c in shard.clips) for shard in shards)
    assert all(targets[c.clip_id] == shard.targets for shard in shards for c in shard.clips)
    mine = [len(shard.clips) for shard in shards if shard.targets == ("mine",)]
    assert all(num % batch == 0 and num <= max(batch, shard_clips) for num in mine[:-1])
    assert all(len(set(shard.fragments)) == 1 for shard in shards if shard.targets == ("other",))
    (shard,) = shards[:1] or [Shard(())]
    assert Shard.from_json(shard.to_json()) == shard


def test_many_workers_get_no_tiny_shards():
    """62 clips for each worker were shards of 3.6 clips: one file, and one entry of every commit, each."""
    clips = [make_clip(n, video_uri=f"v{n % 200}") for n in range(20_000)]
    sizes = [len(shard.clips) for shard in plan_shards(clips, 16, 60.0, 320)]
    assert (min(sizes[:-1]), max(sizes)) == (4, 16)
    assert len(clips) / len(sizes) > 9
    assert len(list(plan_shards(clips[:320], 16, 60.0, 320))) == 320  # few clips: every worker has some
    long = [make_clip(n, start_s=0.0, end_s=20.0) for n in range(1000)]
    assert min(len(shard.clips) for shard in plan_shards(long, 16, 60.0, 100)) == 1  # long clips: a quarter of 60 s


def test_a_clip_of_unknown_length_ends_its_shard():
    clips = [make_clip(n, end_s=None) for n in range(4)]
    assert [len(shard.clips) for shard in plan_shards(clips, 16, 60.0, 1)] == [1, 1, 1, 1]


def test_shards_and_results_are_equal_after_json():
    shard = Shard((make_clip(1, narration="öffnet 'das' \"Glas\""), make_clip(2, end_s=None)))
    assert Shard.from_json(shard.to_json()) == shard
    record = FragmentRecord(('{"id": 0}',), ("a", "b"))
    result = ShardResult(record, (Reject("c", "decode", "damaged", "cut\nhint: no", 2),), 7, {"hands": 0.5})
    assert ShardResult.from_json(result.to_json()) == result
    moved = replace(result, moved=result.rejects, interrupted="mine")
    assert ShardResult.from_json(moved.to_json()) == moved
    placed = ShardResult.from_json(result.at(Place("0f", "node7")).to_json())
    assert (placed.host, placed.node_id, placed.rejects[0].host) == ("node7", "0f", "node7")
    result.check()
    failed = ShardResult.from_json(ShardResult(None, (), 0, failure=("disk full", "free some")).to_json())
    with pytest.raises(StoreError, match=r"disk full\nhint: free some"):
        failed.check()
