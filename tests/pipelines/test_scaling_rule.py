"""When the pool of a run grows or scales down: properties of the rules, and what a user reads of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handloom.pipelines.cluster.broker import (
    EXTRACTION,
    GRANTED,
    HOLDING,
    TRAINING,
    WAITING,
    JobDemand,
    asked_text,
    holders_text,
    not_free,
)
from handloom.pipelines.cluster.capacity import (
    ClusterSnapshot,
    Pools,
    actor_needs,
    count_fitting,
    place,
    pools_now,
    reserved_bundles,
)
from handloom.pipelines.cluster.scaling_rule import ResizeRule, count_more, find_request
from handloom.schemas.settings import Resources

MB = 1 << 20
NODES = st.lists(
    st.fixed_dictionaries(
        {
            "CPU": st.sampled_from([0.0, 1.0, 2.0, 4.0, 16.0]),
            "GPU": st.sampled_from([0.0, 1.0, 2.0]),
            "memory": st.sampled_from([2048.0 * MB, 8192.0 * MB, 65536.0 * MB]),
        }
    ),
    min_size=1,
    max_size=4,
).map(tuple)
NEEDS = st.sampled_from([(1.0, 0.0), (0.5, 0.25), (2.0, 0.5), (1.0, 1.0)])


@st.composite
def pools_at_work(draw) -> tuple[Resources, Pools, ClusterSnapshot, ClusterSnapshot]:
    """`(resources, pools, the cluster with these pools, the same cluster once they have ended)`."""
    nodes, (cpus, gpus) = draw(NODES), draw(NEEDS)
    resources = Resources(
        mode=draw(st.sampled_from(["fused", "split"])),
        num_actors=draw(st.sampled_from([None, 3, 40])),
        num_decode_actors=draw(st.sampled_from([None, 1])),
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        reserve_cpus=draw(st.sampled_from([0.0, 1.0, 3.0])),
        reserve_gpus=draw(st.sampled_from([0.0, 0.5])),
    )
    others = draw(st.integers(0, 16)) / 16
    ended = ClusterSnapshot(nodes, tuple({name: n[name] * (1 - others) for name in n} for n in nodes))
    pools = pools_now(resources, draw(st.integers(1, 40)), ended)
    assume(pools.num_actors)
    memory = {"memory": pools.memory_bytes}
    free, decode = place(ended.free, {"CPU": resources.cpus_per_decode_actor} | memory, pools.num_decode)
    free, models = place(free, actor_needs(resources) | memory, pools.num_actors)
    assume((models, decode) == (pools.num_actors, pools.num_decode))
    return resources, pools, replace(ended, free=tuple(free)), ended


@given(pools_at_work())
def test_growth_takes_only_what_is_free_and_the_next_pool_has_it(found):
    resources, pools, cluster, ended = found
    more = count_more(resources, pools, cluster, [])
    assert 0 <= more <= count_fitting(cluster.free, actor_needs(resources))
    assert pools.num_actors + more <= (resources.num_actors or 10**6)
    for name, kept in (("CPU", resources.reserve_cpus), ("GPU", resources.reserve_gpus)):
        if more and actor_needs(resources)[name]:
            own = sum(bundle.get(name, 0.0) for bundle in reserved_bundles(resources, pools))
            assert own + more * actor_needs(resources)[name] + kept <= cluster.total[name] + 1e-3
    grown = pools_now(resources, 10**6, ended)
    if more:  # else the run would end its pool again and again
        assert (grown.num_actors, grown.num_decode) != (pools.num_actors, pools.num_decode)
    if resources.mode == "fused":
        assert grown.num_actors >= pools.num_actors + more


def job(name: str, state: str, cpus: float = 1.0, gpus: float = 0.0, kind: str = TRAINING) -> JobDemand:
    return JobDemand(name, kind, ({"CPU": cpus, "GPU": gpus},), state)


@given(pools_at_work(), st.sampled_from([WAITING, GRANTED]))
def test_a_run_does_not_take_what_another_job_is_about_to_take(found, state):
    resources, pools, cluster, _ = found
    assert count_more(resources, pools, cluster, [job("training", state)]) == 0
    holding = [job("training", HOLDING)]
    assert count_more(resources, pools, cluster, holding) == count_more(resources, pools, cluster, [])


@given(pools_at_work(), st.integers(0, 4), st.floats(0, 40), st.floats(0, 4))
def test_a_request_is_served_where_the_run_can_spare_what_is_missing(found, min_actors, cpus, gpus):
    resources, pools, cluster, _ = found
    resources = resources.model_copy(update={"min_actors": min_actors})
    request = job("training", WAITING, cpus, gpus)
    served = find_request(resources, pools, cluster, [request])
    spare = max(0, pools.num_actors - min_actors)
    if served is None:
        each = actor_needs(resources)
        assert not spare or any(cluster.free_of(k) + spare * each[k] < request.needs(k) for k in each)
    else:
        assert served == request
        free, left = cluster.free_of("CPU"), pools.num_actors - spare
        held = pools.num_actors * resources.cpus_per_actor
        assert cpus + left * resources.cpus_per_actor <= free + held + 1e-3
    assert find_request(resources, pools, cluster, [request], ignored=["training"]) is None
    assert find_request(resources, pools, cluster, [replace(request, state=GRANTED)]) is None
    assert find_request(resources, pools, cluster, [replace(request, kind=EXTRACTION)]) is None


NODE = {"CPU": 8.0, "GPU": 1.0, "memory": 65536.0 * MB}
FULL = ClusterSnapshot((NODE,), (NODE | {"CPU": 0.0},))


def with_free(cpus: float) -> ClusterSnapshot:
    return ClusterSnapshot((NODE,), (NODE | {"CPU": cpus},))


def test_resources_must_be_free_for_a_while_and_for_a_quarter_more_actors():
    rule = ResizeRule(Resources(), Pools(4, 0, 0), grow_after_s=10)
    looks = [(0.0, 2), (8.0, 2), (9.0, 0), (10.0, 2), (19.0, 4), (20.0, 4)]  # at 9 s somebody took them
    whys = [rule.why(FULL, [], at, with_free(cpus)) for at, cpus in looks]
    assert whys == [""] * 5 + ["adds up to 4 actors: resources have been free for 10 s"]

    eight = ResizeRule(Resources(), Pools(8, 0, 0), grow_after_s=0)
    big = {"CPU": 16.0, "GPU": 0.0, "memory": 65536.0 * MB}
    few, enough = (ClusterSnapshot((big,), (big | {"CPU": cpus},)) for cpus in (1.0, 2.0))
    assert eight.why(FULL, [], 0.0, few) == ""
    assert eight.why(FULL, [], 0.0, enough).startswith("adds up to 2 actors")
    assert eight.why(FULL, [], 0.0, None) == ""  # it must not grow
    one = ResizeRule(Resources(), Pools(1, 0, 0), grow_after_s=0)
    assert one.why(FULL, [], 0.0, with_free(1.0)).startswith("adds up to 1 actor:")


def test_a_request_comes_before_growth_and_is_named():
    rule = ResizeRule(Resources(), Pools(4, 0, 0), grow_after_s=0)
    asking = job("training arm4r [node1:7]", WAITING, cpus=3.0, gpus=1.0)
    why = rule.why(with_free(1.0), [job("other", HOLDING), asking], 0.0, with_free(1.0))
    assert why == "scales down for training arm4r [node1:7] (3 CPUs and 1 GPUs)"
    too_much = replace(asking, bundles=({"CPU": 6.0},))  # one actor is kept
    assert rule.why(with_free(1.0), [too_much], 0.0, with_free(1.0)) == ""
    assert ResizeRule(Resources(min_actors=0), Pools(4, 0, 0)).why(with_free(2.0), [too_much], 0.0) != ""


@pytest.mark.parametrize(
    ("demands", "text"),
    [
        ([], "of 8 CPUs and 1 GPUs 2 CPUs and 1 GPUs are free; held by jobs outside of handloom (6 CPUs)"),
        (
            [job("training", HOLDING, 4.0), job("extraction", HOLDING, 2.0, kind=EXTRACTION)],
            "of 8 CPUs and 1 GPUs 2 CPUs and 1 GPUs are free; held by training (4 CPUs), extraction (2 CPUs)",
        ),
        (
            [job("training", GRANTED, 4.0), job("next", WAITING, 4.0)],
            "of 8 CPUs and 1 GPUs 2 CPUs and 1 GPUs are free; "
            "held by training (4 CPUs), jobs outside of handloom (2 CPUs)",
        ),
    ],
)
def test_messages_say_who_holds_what(demands, text):
    assert holders_text(with_free(2.0), demands) == text
    error = not_free([{"CPU": 4.0}] * 2 + [{"CPU": 1.0, "GPU": 1.0}], 60, text)
    assert error.problem == f"2 x 4 CPUs + 1 x 1 CPUs and 1 GPUs did not become free within 60 s: {text}"
    assert holders_text(with_free(8.0), []).endswith("are free; no job holds any")
    assert asked_text([{"CPU": 0.5}]) == "1 x 0.5 CPUs"
