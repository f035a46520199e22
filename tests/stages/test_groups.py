"""Groups of stages: a chain, as short as any, in which every stage comes after those that it reads."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.errors import ConfigError
from handloom.schemas.settings import Settings
from handloom.schemas.tables.stage_columns import COLUMNS_OF
from handloom.stages.pools.groups import SHARED, chain, groups_of
from handloom.stages.registry import MORE, stage_graph


@st.composite
def graphs(draw, most: int = 9):
    names = [f"s{i}" for i in range(draw(st.integers(1, most)))]
    reads = {n: draw(st.lists(st.sampled_from(names[:i]), max_size=3, unique=True)) if i else []
             for i, n in enumerate(names)}  # fmt: skip
    kinds = {n: draw(st.sampled_from("abc")) for n in names}
    return names, reads, kinds


@given(graphs())
def test_a_chain_holds_each_stage_once_after_those_it_reads(graph):
    names, reads, kinds = graph
    groups = chain(names, reads, kinds, kinds[names[0]])
    order = [name for group in groups for name in group]
    assert sorted(order) == sorted(names)
    assert all(order.index(read) < order.index(name) for name in names for read in reads[name])
    assert all(len({kinds[name] for name in group}) == 1 for group in groups)
    assert kinds[groups[0][0]] == kinds[names[0]]
    assert all(kinds[a[0]] != kinds[b[0]] for a, b in pairwise(groups)), "neighbours are one"


@given(graphs(6))
def test_no_chain_is_shorter(graph):
    names, reads, kinds = graph
    found = len(chain(names, reads, kinds, None))

    def done_by(order) -> bool:
        done: set[str] = set()
        for kind in order:
            for name in names:
                if kinds[name] == kind and name not in done and done.issuperset(reads[name]):
                    done.add(name)
        return done == set(names)

    assert not any(done_by(order) for order in product("abc", repeat=found - 1))


def test_many_pools_that_do_not_read_each_other_are_fast():
    names = [f"s{i}" for i in range(40)]
    reads = {name: ["s0"] if name != "s0" else [] for name in names}
    assert len(chain(names, reads, {name: name for name in names}, "s0")) == 40


def groups(**stages):
    settings = Settings(stages=stages)
    return groups_of(stage_graph(settings), settings.stages)


def test_without_pools_all_stages_are_one_group():
    (one,) = groups()
    assert one.stages == (*COLUMNS_OF, *MORE)
    assert one.needs == SHARED
    assert one.steps == (one.stages,)


def test_a_stage_with_needs_of_its_own_divides_the_others():
    before, depth, after = groups(depth={"gpus": 1})
    assert depth.stages == ("depth",)
    assert depth.needs.gpus == 1
    assert {"probe", "hands_2d", "lens", "camera", "tracks", "appearance"} <= set(before.stages)
    assert set(after.stages) == {"hands_3d", "world", "lift", "quality", "motion", "segments"}


def test_equal_needs_share_a_pool_and_others_do_not():
    equal = groups(hands_2d={"gpus": 0.5}, tracks={"gpus": 0.5})
    assert [group.stages for group in equal][1] == ("hands_2d", "tracks")
    assert len(equal) == 3
    other = groups(hands_2d={"gpus": 0.5}, tracks={"gpus": 1})
    assert ("tracks",) in [group.stages for group in other]


def test_decoding_has_no_pool():
    with pytest.raises(ConfigError, match="first group"):
        groups(probe={"cpus": 2})
