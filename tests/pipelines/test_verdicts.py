"""A failure counts once another node has confirmed it; a node on which all clips fail is left, a healthy one never."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import make_clip

from handloom.pipelines.cluster.nodes import Left
from handloom.pipelines.run.rounds import Rounds
from handloom.pipelines.run.verdicts import Verdicts
from handloom.schemas.tables.reject import Reject
from handloom.store.fragments import FragmentRecord
from handloom.store.stages.staged import ColumnUpdate
from handloom.workers.place import Place
from handloom.workers.shard import ShardResult

S3 = "s3://bucket/db"  # its files are not looked for


@dataclass
class Node:
    """What goes wrong on a node, at any time."""

    blind: bool = False  # sees no video
    offline: bool = False  # fetches nothing
    mute: bool = False  # writes nothing
    stuck: bool = False  # its workers hang

    def work(self, node_id: str, clips, gone: set[str]) -> ShardResult:
        rejects, rows = [], []
        for clip in clips:
            reason = "video_missing" if self.blind or clip.video_uri in gone else "fetch_failed" if self.offline else ""
            if reason:
                rejects.append(Reject(clip.clip_id, "fetch", reason, f"{reason} here\nhint: look"))
            elif self.stuck:
                rejects.append(Reject(clip.clip_id, "hands", "hung", "killed twice\nhint: look", 2))
            else:
                rows.append(clip.clip_id)
        if rows and self.mute:
            return ShardResult(None, (), 0, failure=("read-only", "look")).at(Place(node_id, f"host {node_id}"))
        record = FragmentRecord((), tuple(rows)) if rows else None
        return ShardResult(record, tuple(rejects), len(rows)).at(Place(node_id, f"host {node_id}"))


class Machines:
    """The nodes of a cluster as `Verdicts` knows them."""

    def __init__(self, nodes: dict[str, Node], gone: set[str]) -> None:
        self.nodes, self.gone = nodes, gone
        self.used = {node_id: f"host {node_id}" for node_id in nodes}
        self.left: dict[str, Left] = {}

    @property
    def without(self) -> frozenset[str]:
        return frozenset(self.left)

    def see(self, videos):
        return {i: {uri: "no" for uri in uris if self.nodes[i].blind or uri in self.gone} for i, uris in videos.items()}

    def spare(self, node_ids) -> bool:
        return bool(self.used.keys() - set(node_ids))

    def leave(self, node_id: str, why: str) -> None:
        if node_id in self.used:
            self.left[node_id] = Left(self.used.pop(node_id), why)


def run(machines: Machines, clips, seed: int = 0) -> tuple[dict[str, str | Reject], int]:
    """What becomes of each clip, and the number of rounds; as `pipelines.run` does it, without Ray."""
    rng, rounds, verdicts = random.Random(seed), Rounds(clips), Verdicts(machines, clips, S3)
    ends: dict[str, str | Reject] = {}
    while rounds.left:
        some, without = verdicts.next_pool(rounds.left)
        assert some
        pool = sorted(machines.used.keys() - without)
        for shard in rounds.shards(some, 4, 60.0, len(pool)):
            node_id = rng.choice(pool)
            result = verdicts.on(machines.nodes[node_id].work(node_id, shard.clips, machines.gone))
            result.check()
            rounds.add(result)
            found = dict.fromkeys(result.record.clip_ids if result.record else (), "row")
            found |= {reject.clip_id: reject for reject in result.rejects}
            assert not found.keys() & ends.keys()
            ends |= found
            if verdicts.without - without:  # the pool is drained: the rest of the shards comes back untouched
                break
        rounds.end(drained=bool(verdicts.without - without))
    return ends, rounds.number


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Node, st.booleans(), st.booleans(), st.booleans(), st.booleans()), max_size=5), st.data())
def test_every_clip_ends_right_while_one_node_is_healthy(others, data):
    nodes = {f"n{number}": node for number, node in enumerate(data.draw(st.permutations([Node(), *others])))}
    clips = [make_clip(number) for number in range(60)]
    gone = data.draw(st.sets(st.sampled_from(sorted({clip.video_uri for clip in clips}))))
    machines = Machines(nodes, gone)
    ends, num_rounds = run(machines, clips, data.draw(st.integers(0, 99)))
    for clip in clips:
        end = ends[clip.clip_id]
        assert end == "row" if clip.video_uri not in gone else end.reason == "video_missing"
        if clip.video_uri in gone and len(machines.used) > 1:
            assert "tried on host" in end.detail
    assert not any(nodes[node_id] == Node() for node_id in machines.left)
    assert num_rounds <= 2 * len(nodes) + 2


def test_a_list_of_missing_videos_is_no_nodes_fault():
    """The first hundred clips of an EPIC subset: all missing, on every node."""
    clips = [make_clip(number) for number in range(100)]
    machines = Machines({"a": Node(), "b": Node()}, {clip.video_uri for clip in clips})
    ends, num_rounds = run(machines, clips)
    assert (Counter(end.reason for end in ends.values()), num_rounds) == (Counter({"video_missing": 100}), 1)
    assert not machines.left
    end = ends[clips[0].clip_id]
    first = f"video_missing here; tried on {end.host}, looked for on host {'b' if end.host == 'host a' else 'a'}"
    assert end.detail == f"{first}\nhint: look"


def test_a_server_that_is_down_is_no_nodes_fault():
    """If no fetch has succeeded on any node, every clip is fetched on six of them before it is rejected."""
    clips = [make_clip(number) for number in range(20)]
    for names, attempts in (("abc", 3), ("abcdefghi", 6)):
        machines = Machines({name: Node(offline=True) for name in names}, set())
        ends, _ = run(machines, clips)
        assert {(end.reason, end.attempts) for end in ends.values()} == {("fetch_failed", attempts)}
        assert not machines.left


@pytest.mark.parametrize("seed", range(5))
def test_two_nodes_that_fail_are_no_witnesses_while_a_third_does_its_work(seed):
    """Four of five nodes hang: once clips were rejected that the fifth had not tried."""
    clips = [make_clip(number) for number in range(60)]
    nodes = {name: Node(stuck=name != "c") for name in "abcde"}
    ends, _ = run(Machines(nodes, {clips[0].video_uri}), clips, seed)
    assert {end for clip_id, end in ends.items() if clip_id != clips[0].clip_id} >= {"row"}
    assert all(end == "row" or end.reason == "video_missing" for end in ends.values())


def test_one_node_alone_has_the_last_word():
    machines = Machines({"a": Node(blind=True)}, set())
    ends, num_rounds = run(machines, [make_clip(0)])
    assert num_rounds == 1
    assert ends[make_clip(0).clip_id].detail == "video_missing here\nhint: look"
    result = Node(mute=True).work("a", [make_clip(0)], set())
    assert Verdicts(machines, [make_clip(0)], S3).on(result).failure == ("read-only", "look")


def test_a_node_is_left_for_what_goes_well_elsewhere():
    clips = [make_clip(number) for number in range(40)]
    machines = Machines({"a": Node(), "b": Node(blind=True), "c": Node(mute=True)}, set())
    ends, _ = run(machines, clips)
    assert set(ends.values()) == {"row"}
    assert machines.left["c"].why == "read-only"
    assert machines.left["b"].why == "3 clips in a row failed there, the last: video_missing here"


def test_clips_that_hang_are_tried_on_another_node():
    clips = [make_clip(number) for number in range(40)]
    machines = Machines({"a": Node(), "b": Node(stuck=True)}, set())
    ends, _ = run(machines, clips)
    assert set(ends.values()) == {"row"}
    assert machines.left["b"].why.endswith(" clips in a row failed there, the last: killed twice")
    ends, _ = run(Machines({"a": Node(stuck=True), "b": Node(stuck=True)}, set()), clips[:1])
    (end,) = ends.values()
    assert (end.reason, end.attempts) == ("hung", 4)
    assert "tried on host" in end.detail


def test_rows_that_the_driver_cannot_see_were_not_written(tmp_path):
    """A node without the database's file system: Lance writes into a new folder there."""
    clip = make_clip(0)
    record = FragmentRecord(('{"files": [{"path": "elsewhere.lance"}]}',), (clip.clip_id,))
    result = ShardResult(record, (), 3).at(Place("a", "host a"))
    machines = Machines({"a": Node(), "b": Node()}, set())
    judged = Verdicts(machines, [clip], str(tmp_path)).on(result)
    assert (judged.record, judged.clip_ids(), judged.num_frames) == (None, (), 0)
    assert machines.left["a"].why == f"it wrote 1 row into another folder {tmp_path} than the driver's"
    alone = Verdicts(Machines({"a": Node()}, set()), [clip], str(tmp_path)).on(result)
    assert "another folder" in alone.failure[0]

    update = ColumnUpdate("run/elsewhere.lance", (clip.clip_id,), ("mine",), 4)
    result = ShardResult(None, (), 0, targets=("mine",), updates=(update,), updated=(clip.clip_id,)).at(Place("a", "h"))
    machines = Machines({"a": Node(), "b": Node()}, set())
    judged = Verdicts(machines, [clip], str(tmp_path)).on(result)
    assert (judged.updates, judged.clip_ids(), list(machines.left)) == ((), (), ["a"])


def test_a_clip_whose_stage_has_hung_goes_to_another_node_if_there_is_one():
    clips = [make_clip(number) for number in range(2)]
    reject = Reject(clips[0].clip_id, "mine", "hung", "killed twice", node_id="a")
    machines = Machines({"a": Node(), "b": Node()}, set())
    verdicts = Verdicts(machines, clips, S3)
    through_two_pools = ShardResult(None, (), 0, moved=(reject,)).at(Place("b", "host b"))
    result = verdicts.on(through_two_pools)
    assert (result.elsewhere, result.clip_ids()) == ((clips[0].clip_id,), ())
    assert verdicts.next_pool(clips) == ([clips[1]], frozenset())
    assert verdicts.next_pool(clips[:1]) == (clips[:1], frozenset("a"))
    machines.leave("b", "it has gone")
    assert verdicts.next_pool(clips[:1]) == (clips[:1], frozenset("b")), "it ends where it has hung"


@pytest.mark.parametrize("reason", ["video_missing", "fetch_failed"])
def test_what_was_interrupted_is_still_to_be_done(reason):
    reject = Reject(make_clip(0).clip_id, "fetch", reason, "no", node_id="a")
    other = replace(reject, clip_id=make_clip(1).clip_id, stage="decode", reason="damaged")
    result = ShardResult(None, (reject, other), 0, node_id="a")
    verdicts = Verdicts(Machines({"a": Node(), "b": Node()}, set()), [make_clip(0), make_clip(1)], S3)
    assert verdicts.sure(result).rejects == (other,)
