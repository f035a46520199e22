"""The installed Ray behaves as `pipelines.cluster.ray_private` needs it: one test for each behaviour.

A failure here says what a new version of Ray has changed, before a run finds out.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import ray
from packaging.requirements import Requirement
from support.process import alive

from handloom.errors import HandloomError
from handloom.pipelines.cluster import ray_private

ALONE = """
import colorsys, json, os, statistics, sys, wave
from pathlib import Path
import ray
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.cluster.ray_private import never_start_unasked

class Same:
    def __call__(self, batch):
        return batch

def seen():
    import colorsys, statistics, wave
    return sys.path

for name in ("colorsys", "statistics", "wave"):
    Path(f"{name}.py").write_text("raise SystemExit('a file of the working directory was imported')")
with joined(None, num_cpus=2):
    path = ray.get(ray.remote(seen).remote())
    below = [int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split()]
    groups = {os.getpgid(pid) for pid in below}
    names = [open(f"/proc/{pid}/cmdline").read() for pid in below]
    rows = sorted(row["item"] for row in ray.data.from_items([1, 2]).map_batches(Same, concurrency=1).take_all())
    actors = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
try:
    ray.put(1)
    after = "started"
except ray.exceptions.RaySystemError:
    after = "refused"
print(json.dumps({"path": path, "own": os.getpgid(0), "groups": sorted(groups), "after": after}
                 | {"names": names, "rows": rows, "actors": sorted(actors)}))
"""


def test_what_each_node_has_free_is_told(ray_address):
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = ray_private.free_by_node()
    assert free.keys() == nodes.keys()
    assert all(free[i].get("CPU", 0) <= nodes[i]["CPU"] and free[i]["memory"] <= nodes[i]["memory"] for i in nodes)

    class Holder:
        def wait(self) -> None:
            return None

    # Of what no other test asks for: the actors that they leave give their CPUs back while this one looks.
    head = "node:__internal_head__"
    holder = ray.remote(num_cpus=0.1, resources={head: 0.5})(Holder).remote()
    ray.get(holder.wait.remote())
    until = time.monotonic() + 240
    while (free := ray_private.free_by_node().popitem()[1])[head] != 0.5 or free.get("CPU", 0) > 1.95:
        assert time.monotonic() < until, f"what an actor holds is still called free: {free}"
        time.sleep(0.1)
    ray.kill(holder)


def test_a_cluster_without_an_autoscaler_gets_no_more_nodes(ray_address):
    assert ray_private.gets_more_nodes() is False


def test_a_ray_of_our_own_keeps_apart(tmp_path):
    """Its processes are in other groups, its workers import nothing of the working directory, none starts unasked, and
    none is there to watch. It starts where TMPDIR is too long for its sockets."""
    scratch = tmp_path / ("x" * 44)
    scratch.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"TMPDIR": str(scratch)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["groups"]
    assert told["own"] not in told["groups"], "Ray's processes stay in the group of the driver"
    assert str(tmp_path) not in told["path"]
    assert "" not in told["path"]
    assert told["after"] == "refused", "Ray starts by itself after ray.shutdown"
    assert any("raylet" in name for name in told["names"])
    assert not any("log_monitor" in name for name in told["names"])
    assert told["rows"] == [1, 2]
    assert told["actors"] == []


def test_the_actors_of_a_dataset_are_stopped(ray_address, tmp_path):
    class Worker:
        def __init__(self, folder: str) -> None:
            Path(folder, str(os.getpid())).touch()

        def __call__(self, batch):
            return batch

    pool = ray.data.ActorPoolStrategy(size=1)
    data = ray.data.from_items([{"n": n} for n in range(8)], override_num_blocks=8)
    data = data.map_batches(Worker, batch_size=1, compute=pool, fn_constructor_args=(str(tmp_path),), num_cpus=0.1)
    ray_private.stop_dataset(data, 1.0)  # not read yet
    batches = iter(data.iter_batches(batch_size=1, prefetch_batches=0))
    next(batches)
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    assert alive(pid)
    ray_private.stop_dataset(data, 30.0)
    until = time.monotonic() + 240
    while alive(pid):
        assert time.monotonic() < until, "the pool's actor lives on"
        time.sleep(0.1)


def test_failures_of_ray_train_are_told_apart_by_type():
    from ray.train.v2._internal import exceptions

    died = ray.exceptions.ActorDiedError()
    for failure in (
        died,
        exceptions.WorkerHealthCheckFailedError("poll failed", died),
        exceptions.WorkerGroupStartupFailedError("a node died"),
        exceptions.WorkerHealthCheckTimeoutError("no answer"),
    ):
        assert ray_private.crash_behind(pickle.loads(pickle.dumps(failure))) is not None
        assert not ray_private.lacked_resources(failure)
    room = (exceptions.WorkerGroupStartupTimeoutError(2), exceptions.InsufficientClusterResourcesError("no GPU"))
    assert all(ray_private.lacked_resources(failure) for failure in room)
    for failure in (*room, RuntimeError("NCCL socket closed"), ray.exceptions.GetTimeoutError("late")):
        assert ray_private.crash_behind(failure) is None
    assert issubclass(ray.train.WorkerGroupError, ray.train.TrainingFailedError)
    assert ray.train.WorkerGroupError("two", {1: died}).worker_failures == {1: died}
    assert ray.train.ControllerError(died).controller_failure is died


@pytest.mark.parametrize(
    ("where", "name", "call"),
    [
        ("ray._private.state", "available_resources_per_node", ray_private.free_by_node),
        ("ray._private.state", "state", ray_private.gets_more_nodes),
        ("ray._private.auto_init_hook", "enable_auto_connect", ray_private.never_start_unasked),
        ("ray._private.worker", "_global_node", ray_private.session_folder),
        ("ray._private.utils", "set_kill_on_parent_death_linux", lambda: ray_private.groups_of_their_own().__enter__()),
        ("ray._private", "utils", lambda: ray_private.groups_of_their_own().__enter__()),
        (
            "ray.data._internal.stats._StatsManager",
            "update_execution_metrics",
            lambda: ray_private.without_monitors().__enter__(),
        ),
        ("ray._private.node.Node", "start_log_monitor", lambda: ray_private.without_monitors().__enter__()),
        (
            "ray.data._internal.execution.streaming_executor",
            "create_cluster_autoscaler",
            lambda: ray_private.no_more_nodes().__enter__(),
        ),
        (
            "ray.data._internal.execution.operators.actor_pool_map_operator",
            "get_actor_locations",
            lambda: ray_private.no_more_nodes().__enter__(),
        ),
        (
            "ray.data._internal.execution.streaming_executor_state",
            "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S",
            lambda: ray_private.polling_less().__enter__(),
        ),
        ("ray.train.v2._internal", "exceptions", lambda: ray_private.crash_behind(ValueError())),
    ],
)
def test_a_ray_that_has_changed_is_named(monkeypatch, where, name, call):
    __import__("ray.train.v2._internal.exceptions")
    monkeypatch.delattr(f"{where}.{name}")
    monkeypatch.delitem(sys.modules, f"{where}.{name}", raising=False)
    monkeypatch.setitem(sys.modules, f"{where}.{name}", None)
    with pytest.raises(HandloomError, match=rf"Ray {ray.__version__} has changed inside, .*{name}") as error:
        call()
    assert f"ray=={ray_private.TESTED}" in error.value.hint


def test_the_tested_version_is_allowed_and_installed_where_this_runs():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    wanted = tomllib.loads(text)["project"]["optional-dependencies"]["extract"]
    (ranges,) = [found.specifier for found in map(Requirement, wanted) if found.name == "ray"]
    assert ranges.contains(ray_private.TESTED)
    assert ranges.contains(ray.__version__)
