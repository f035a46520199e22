"""Extraction and training on one cluster: neither starves, and the rows are those of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from support.extraction import new_database, row_digests

from handloom.errors import ConfigError
from handloom.pipelines.cluster import broker
from handloom.pipelines.cluster.capacity import ClusterSnapshot, Pools, actor_needs, count_fitting, place, size_pools
from handloom.pipelines.cluster.reservation import reserve_resources
from handloom.pipelines.cluster.scaling import PoolScaler, ScalingTimes, Watch
from handloom.pipelines.run.run import run
from handloom.schemas.settings import Resources, RunConfig
from handloom.workers.ledger import Ledger, start_ledger
from handloom.workers.shard import ShardResult

GB = float(1 << 30)
nodes = st.lists(
    st.fixed_dictionaries(
        {
            "CPU": st.sampled_from([0.0, 1.0, 2.0, 4.0, 16.0]),
            "GPU": st.sampled_from([0.0, 1.0, 2.0]),
            "memory": st.sampled_from([1 * GB, 8 * GB, 64 * GB]),
        }
    ),
    min_size=1,
    max_size=4,
)


@given(
    nodes,
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.sampled_from(["fused", "split"]),
    st.sampled_from([(1.0, 0.0), (0.5, 0.25), (2.0, 0.5), (1.0, 1.0)]),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.integers(1, 40),
)
def test_pools_fit_into_what_is_free_and_keep_the_reserve(found, used, mode, needs, reserve, num_shards):
    free = tuple({k: n[k] * (1 - share) for k in n} for n, share in zip(found, used, strict=False))
    cluster = ClusterSnapshot(tuple(found), free)
    resources = Resources(mode=mode, cpus_per_actor=needs[0], gpus_per_actor=needs[1], reserve_cpus=reserve)
    try:
        pools = size_pools(resources, num_shards, cluster)
    except ConfigError:
        with contextlib.suppress(ConfigError):  # never only for what others hold
            assert not size_pools(resources, num_shards, cluster.emptied()).num_actors
        return
    if not pools.num_actors:
        return
    assert pools.num_actors <= num_shards
    left, num_decode = place(free, {"CPU": resources.cpus_per_decode_actor}, pools.num_decode)
    assert num_decode == pools.num_decode
    assert count_fitting(left, actor_needs(resources)) >= pools.num_actors
    ours = pools.num_actors * needs[0] + pools.num_decode * resources.cpus_per_decode_actor
    assert ours + max(reserve, cluster.used("CPU")) <= cluster.total["CPU"] + 1e-3
    assert pools.memory_bytes * (pools.num_actors + pools.num_decode) <= cluster.free_of("memory")


def test_gpu_shares_are_counted_beside_training():
    """Half of the one GPU is a training worker's: two extraction actors of a quarter are left, four before."""
    node = {"CPU": 16.0, "GPU": 1.0, "memory": 64 * GB}
    beside = ClusterSnapshot((node,), (node | {"CPU": 14.0, "GPU": 0.5},))
    quarter = Resources(gpus_per_actor=0.25)
    assert size_pools(quarter, 99, beside).num_actors == 2
    assert size_pools(quarter, 99, beside.emptied()).num_actors == 4
    split = size_pools(Resources(gpus_per_actor=0.25, mode="split"), 99, beside)
    assert (split.num_actors, split.num_decode) == (2, 4)
    assert size_pools(Resources(gpus_per_actor=0.25, reserve_gpus=0.75), 99, beside).num_actors == 1
    with pytest.raises(ConfigError, match=r"has 16 CPUs and 1 GPUs, but 1 model actors of 1 CPUs and 2 GPUs"):
        size_pools(Resources(gpus_per_actor=2), 99, beside)
    growing = ClusterSnapshot((node,), (node,), scales=True)  # nodes with two GPUs may still come
    assert size_pools(Resources(gpus_per_actor=2), 99, growing).num_actors == 0
    assert size_pools(Resources(num_actors=40), 99, growing).num_actors == 16


def test_a_drained_ledger_gives_everything_back_and_blames_nobody():
    ledger, shard = Ledger(), ("a", "b")
    ledger.enter(shard)
    assert ledger.begin("a", 1)
    assert ledger.drain() == 1
    ledger.end("a", 1, True, 5)
    assert not ledger.begin("b", 1)
    assert ledger.enter(("c",)).drained
    assert ledger.decode(("c",)) is None
    for _ in range(3):
        ledger.resume()
        entry = ledger.enter(("b",))
        assert (entry.crashes, entry.one_by_one, entry.drained) == ({"b": 0}, False, False)
        ledger.drain()
    assert ledger.progress().working == {}


@settings(max_examples=200)
@given(st.integers(1, 8), st.integers(1, 3), st.data())
def test_a_pool_that_stops_ends_when_all_that_was_taken_up_has_arrived(num_shards, num_workers, data):
    """Workers begin shards, die, and finish in any order; the reply to `drain` may come late."""
    ledger, watch = Ledger(), Watch(None, Pools(num_workers, 0, 0), num_shards)
    waiting, at_work, on_the_way, lost = [(f"{i}",) for i in range(num_shards)], [], [], set()
    answer = told = None
    while waiting or at_work or on_the_way:
        steps = ["take"] * (bool(waiting) and len(at_work) < num_workers)
        steps += ["finish", "die"] * bool(at_work) + ["arrive"] * bool(on_the_way)
        steps += ["drain"] * (answer is None) + ["tell"] * (answer is not None and told is None)
        step = data.draw(st.sampled_from(steps))
        if step == "take":
            shard = waiting.pop(0)
            at_work.append((shard, ledger.enter(shard).drained))
            lost -= {shard for shard, given_back in at_work if not given_back}
        elif step == "die":
            shard, given_back = at_work.pop(data.draw(st.integers(0, len(at_work) - 1)))
            waiting.insert(0, shard)
            lost |= set() if given_back else {shard}
        elif step == "finish":
            on_the_way.append(at_work.pop(data.draw(st.integers(0, len(at_work) - 1))))
        elif step == "drain":
            answer = ledger.drain()
        elif step == "tell":
            told = answer
            watch.stopping(told)
        else:
            ended = watch.arrived(ShardResult(None, (), 0, given_back=on_the_way.pop(0)[1]))
            to_come = [shard for shard, given_back in at_work + on_the_way if not given_back]
            assert not (ended and to_come)
            if ended:
                return
            assert told is None or to_come or lost  # what a dead worker left is given back: the end comes by itself


class Trainer(threading.Thread):
    """Asks for one CPU once a worker of the run is at work, and holds it until `until_rows` rows are finished.

    The workers are stopped until the run has seen the request: else fast workers would end the run before.
    """

    def __init__(self, until_rows: int) -> None:
        super().__init__(daemon=True)
        self.until_rows = until_rows
        self.ledger = None
        self.began_at = self.waiting = self.error = None

    def __call__(self, ledger) -> None:
        if self.ledger is None:
            self.ledger = ledger
            self.start()

    def run(self) -> None:
        try:
            self._train()
        except (ConfigError, ray.exceptions.RayError, AssertionError) as error:
            self.error = error

    def _train(self) -> None:
        self._until(lambda: self._progress().working)
        pids = list(self._progress().working)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        awake = threading.Thread(target=self._wake, args=(pids,), daemon=True)
        awake.start()
        with reserve_resources([{"CPU": 1.0}], "training test", wait_s=240):
            group = ray.util.placement_group([{"CPU": 1.0}])
            assert group.wait(240)
            self.began_at = self._progress().num_rows
            self._until(lambda: self._progress().num_rows >= self.until_rows)
            ray.util.remove_placement_group(group)
        awake.join()

    def _wake(self, pids) -> None:
        self._until(lambda: ray.get(self.ledger.decode.remote(("",))) is None)
        self.waiting = [entry.state for entry in broker.others("") if entry.kind == broker.TRAINING]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def _progress(self):
        return ray.get(self.ledger.progress.remote())

    def _until(self, true, limit_s: float = 240) -> None:
        end = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fused", "split"])
@pytest.mark.timeout(180)
def test_a_run_scales_down_for_training_and_both_finish(tmp_path, clips, expected, ray_address, caplog, mode):
    db = new_database(tmp_path / "db", clips)
    trainer = Trainer(until_rows=4)
    resources = Resources(shard_clips=3, commit_clips=2)
    if mode == "split":  # on two CPUs: four of half a CPU each, of which one has to stay
        half = {"cpus_per_actor": 0.5, "cpus_per_decode_actor": 0.5, "num_decode_actors": 1}
        resources = Resources(mode="split", shard_clips=2, commit_clips=2, **half)
    summary = run(db, RunConfig(resources=resources), quiet=True, watch=trainer)
    trainer.join(240)
    assert trainer.error is None
    assert trainer.waiting == ["waiting"]
    assert trainer.began_at < len(clips)  # beside the run, not after it
    assert "extraction scales down for training test" in caplog.text
    assert (summary.exit, summary.num_clips, summary.num_rejects) == ("done", len(clips), 0)
    assert row_digests(db) == expected


@pytest.mark.slow
def test_where_nothing_is_free_both_say_who_holds_it(tmp_path, clips, ray_address, caplog):
    db = new_database(tmp_path / "db", clips[:2])
    with reserve_resources([{"CPU": 1.0}] * 2, "training one", wait_s=240):
        group = ray.util.placement_group([{"CPU": 2.0}])
        assert group.wait(240)
        problem = r"1 x 1 CPUs did not become free within 1 s: of 2 CPUs 0 CPUs are free; held by training one"
        with pytest.raises(ConfigError, match=problem):
            run(db, RunConfig(resources=Resources(wait_s=1)), quiet=True)
        second = reserve_resources([{"CPU": 1.0}], "training two", wait_s=1)
        with pytest.raises(ConfigError, match=r"held by training one .*2 CPUs"), second:
            pass
        ray.util.remove_placement_group(group)
    assert not [entry for entry in broker.others("") if entry.kind == broker.TRAINING]

    with reserve_resources([{"CPU": 1.0}], "training three", wait_s=240):  # a run starts before training has taken it
        late = threading.Timer(3.0, ray.util.placement_group, [[{"CPU": 1.0}]], {"name": "late"})
        late.start()
        assert run(db, RunConfig(resources=Resources(shard_clips=1)), quiet=True).num_clips == 2
        late.join()
        assert "works with 1 actors instead of 2" in caplog.text
        ray.util.remove_placement_group(ray.util.get_placement_group("late"))


def test_a_run_scales_down_for_training_and_grows_again(ray_address, caplog):
    """The short form of the slow runs above: the real scaler and ledger, and actors that only hold CPUs."""
    times = ScalingTimes(poll_s=0.2, steady_s=0.5, grow_after_s=0.5)
    ledger = start_ledger()
    sizes, trained = [], []

    class Worker:  # in here: Ray's processes cannot import this file
        def ready(self) -> None:
            return None

    def training() -> None:
        with reserve_resources([{"CPU": 1.0}], "training five", wait_s=240):
            group = ray.util.placement_group([{"CPU": 1.0}])
            trained.append(group.wait(240))
            until = time.monotonic() + 240
            while sizes != [2, 1] and time.monotonic() < until:
                time.sleep(0.05)
            ray.util.remove_placement_group(group)

    trainer = threading.Thread(target=training, daemon=True)
    with PoolScaler(Resources(shard_clips=1), "db", ledger, times=times) as scaler:
        for first in (True, False, False):
            pools = scaler.pools(8, first)
            sizes.append(pools.num_actors)
            workers = [ray.remote(num_cpus=1)(Worker).remote() for _ in range(pools.num_actors)]
            ray.get([worker.ready.remote() for worker in workers])
            with scaler.watched(pools, 8) as watched:
                watched.arrived(ShardResult(None, (), 0))  # all actors are up
                if first:
                    assert ray.get(ledger.enter.remote(("a",))).drained is False
                    trainer.start()
                until = time.monotonic() + 240
                while len(sizes) < 3 and not watched.drained and time.monotonic() < until:
                    time.sleep(0.05)
            if len(sizes) < 3:
                assert ray.get(ledger.enter.remote(("b",))).drained is True
                scaler.resume()
            for worker in workers:
                ray.kill(worker)
    trainer.join(240)
    assert (sizes, trained) == ([2, 1, 2], [True])
    assert "scales down for training five" in caplog.text
    assert "adds up to 1 actor: resources have been free for 0.5 s" in caplog.text


def test_a_job_that_loses_its_resources_asks_again(ray_address):
    """As when its workers have died, and a run was faster than their successors."""
    with reserve_resources([{"CPU": 1.0}], "training four", wait_s=240, settle_s=4.0):
        states = [_state_of("training four", broker.GRANTED)]
        group = ray.util.placement_group([{"CPU": 1.0}])
        states.append(_state_of("training four", broker.HOLDING))
        ray.util.remove_placement_group(group)
        states += [_state_of("training four", state) for state in (broker.GRANTED, broker.WAITING)]
        group = ray.util.placement_group([{"CPU": 1.0}])
        states.append(_state_of("training four", broker.HOLDING))
        ray.util.remove_placement_group(group)
    assert all(states), states


def _state_of(name: str, wanted: str) -> bool:
    """Whether the job publishes `wanted` within half a minute: a busy cluster replies late."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if wanted in [entry.state for entry in broker.others("") if entry.job.startswith(name)]:
            return True
        time.sleep(0.1)
    return False
