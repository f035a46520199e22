"""How many actors each group of stages gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.errors import ConfigError
from handloom.pipelines.cluster.capacity import ClusterSnapshot, pools_now, reserved_bundles, size_pools
from handloom.pipelines.cluster.scaling_rule import ResizeRule
from handloom.pipelines.cluster.stage_pools import Rates, better, rate, sized
from handloom.schemas.settings import Resources
from handloom.stages.pools.groups import SHARED, Group, Needs

GIB = 1 << 30
CPU_NODE = {"CPU": 16.0, "memory": 64.0 * GIB}
GPU_NODE = {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * GIB}


def group(name: str, needs: Needs = SHARED) -> Group:
    return Group((name,), needs, ((name,),))


CHAIN = (group("probe"), group("depth", Needs(cpus=1, gpus=0.5)), group("lift"))


def measured(*seconds: float, groups=CHAIN) -> Rates:
    rates = Rates(groups)
    for _ in range(20):
        rates.add(2, {g.stages[0]: 2 * s for g, s in zip(groups, seconds, strict=True)} | {"decode_wait": 0.0})
    return rates


def fits(pools, nodes) -> bool:
    return all(
        sum(p.num_actors * p.each[n] for p in pools) <= sum(x.get(n, 0) for x in nodes) + 1e-6 for n in ("CPU", "GPU")
    )


def test_each_pool_gets_actors_where_they_fit_and_rates_match():
    nodes = [CPU_NODE, CPU_NODE, GPU_NODE]
    pools = sized(CHAIN, Resources(), 1000, nodes, [2.0, 0.25, 0.5])
    assert fits(pools, nodes)
    rates = [pool.num_actors / spent for pool, spent in zip(pools, [2.0, 0.25, 0.5], strict=True)]
    assert max(rates) <= 2 * min(rates), "no group is starved, none waits"
    assert sum(pool.num_actors * pool.cpus for pool in pools) > 30, "of 40 CPUs, 8 of them beside the GPUs"
    assert [pool.apart for pool in pools] == [True, False, True]
    assert sum(pool.num_actors * pool.cpus for pool in pools if pool.apart) <= 32


def test_an_actor_with_a_gpu_needs_no_cpu_and_without_other_nodes_all_share():
    chain = (group("probe"), group("depth", Needs(gpus=1)))
    pools = sized(chain, Resources(), 1000, [GPU_NODE], [1.0, 0.1])
    assert [(pool.num_actors, pool.cpus, pool.apart) for pool in pools] == [(8, 1.0, False), (1, 0.0, False)]


def test_the_scarce_pool_decides_and_no_other_grows_beyond_it():
    pools = sized(CHAIN, Resources(), 1000, [CPU_NODE, GPU_NODE], [1.0, 8.0, 0.1])
    assert [pool.num_actors for pool in pools] == [1, 4, 1], "0.5 GPUs each, of 2: 0.5 clips a second"


def test_a_small_machine_reserves_less_than_it_uses():
    chain = (group("probe"), group("own", Needs(memory_mb=512)), group("after"))
    pools = sized(chain, Resources(), 10, [{"CPU": 2.0, "memory": 4.0 * GIB}], [1, 1, 1])
    assert [pool.num_actors for pool in pools] == [1, 1, 1]
    assert sum(pool.cpus for pool in pools) <= 2
    assert sum(pool.memory_bytes for pool in pools) <= 4 * GIB
    split, node = Resources(mode="split", num_decode_actors=3, cpus_per_decode_actor=0.2), {"CPU": 2.0, "memory": 13e9}
    both = pools_now(split, 10, ClusterSnapshot((node,), (node,)), Rates((*chain, group("last", Needs(cpus=0.2)))))
    assert len(both.stages) == 4
    assert 3 * both.memory_bytes + sum(pool.num_actors * pool.memory_bytes for pool in both.stages) <= 13e9
    assert 3 * 0.2 + sum(pool.num_actors * pool.cpus for pool in both.stages) <= 2
    assert sized(CHAIN, Resources(), 10, [{"CPU": 2.0, "memory": 4.0 * GIB}], [1, 1, 1]) == [], "no GPU"


@given(
    st.lists(st.tuples(st.floats(0.1, 4), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 20), min_size=5, max_size=5),
    st.integers(1, 40),
)
def test_pools_always_fit_and_are_never_larger_than_the_work(needs, seconds, num_shards):
    chain = (group("probe"), *(group(f"s{k}", Needs(cpus=c, gpus=g)) for k, (c, g) in enumerate(needs)))
    nodes = [CPU_NODE, GPU_NODE, GPU_NODE]
    pools = sized(chain, Resources(), num_shards, nodes, seconds[: len(chain)])
    assert not pools or (fits(pools, nodes) and all(1 <= pool.num_actors <= num_shards for pool in pools))


def test_sizes_follow_what_was_measured():
    cluster = ClusterSnapshot((CPU_NODE, GPU_NODE), (CPU_NODE, GPU_NODE))
    guessed = pools_now(Resources(), 1000, cluster, Rates(CHAIN))
    rates = measured(1.0, 0.05, 2.0)
    other = pools_now(Resources(), 1000, cluster, rates)
    assert better(guessed.stages, other.stages, rates.seconds())
    assert rate(other.stages, rates.seconds()) > rate(guessed.stages, rates.seconds())
    assert not better(other.stages, pools_now(Resources(), 1000, cluster, rates).stages, rates.seconds())
    assert len(reserved_bundles(Resources(), other)) == sum(pool.num_actors for pool in other.stages)


def test_the_first_sizes_follow_earlier_runs_where_there_are_any():
    assert Rates(CHAIN).seconds() == [1.0, 0.5, 0.5]
    assert Rates(CHAIN, {"probe": 0.1, "lift": 0.4, "gone": 9.0}).seconds() == [0.1, 0.5, 0.4]
    rates = Rates(CHAIN, {"depth": 3.0})
    rates.add(2, {"probe": 2.0, "depth": 4.0, "lift": 1.0, "decode_wait": 1.0})
    assert rates.seconds() == [1.5, 2.0, 0.5]


def test_what_is_left_over_by_the_slowest_pool_is_no_reason_to_grow():
    cluster = ClusterSnapshot((CPU_NODE, GPU_NODE), (CPU_NODE, GPU_NODE))
    pools = pools_now(Resources(), 1000, cluster, measured(1.0, 8.0, 0.1))
    rule = ResizeRule(Resources(), pools, grow_after_s=0.0)
    assert [rule.why(cluster, [], now, cluster) for now in (0.0, 1.0, 20.0)] == [""] * 3
    larger = ClusterSnapshot((CPU_NODE,) * 3 + (GPU_NODE,), (CPU_NODE,) * 3 + (GPU_NODE,))
    assert rule.why(larger, [], 30.0, larger)


def test_a_cluster_that_cannot_hold_a_pool_is_an_error_that_names_the_stage():
    cluster = ClusterSnapshot((CPU_NODE,), (CPU_NODE,))
    with pytest.raises(ConfigError, match=r"1 CPUs and 0.5 GPUs for depth"):
        size_pools(Resources(), 10, cluster, Rates(CHAIN))
    large = (group("probe"), group("depth", Needs(cpus=1, memory_mb=1 << 20)))
    with pytest.raises(ConfigError, match=r"has 16 CPUs and 65536 MB, but .* 1 CPUs and 1048576 MB for depth"):
        size_pools(Resources(), 10, cluster, Rates(large))
    with pytest.raises(ConfigError, match=r"16 CPUs for depth; 1 CPUs for each of 5 decode actors"):
        size_pools(Resources(mode="split"), 10, cluster, Rates((group("probe"), group("depth", Needs(cpus=16)))))
