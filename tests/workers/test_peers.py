"""Errors of a training rank: another rank has crashed, or it has a bug itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import ray
import torch.distributed as dist
from support.process import alive

from handloom.train import ranks
from handloom.workers.training.ledger import start_training_ledger
from handloom.workers.training.peers import RankLost, detect_lost_ranks


def two_ranks(store: str, ledger):
    """Two actors as Ray Train makes them: they reply while they work."""

    class Rank:
        def __init__(self, rank: int) -> None:
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
            ray.get(ledger.enter.remote(rank, os.getpid(), ray.get_runtime_context().current_actor))

        def fail(self) -> str:
            return self._told(lambda: (_ for _ in ()).throw(RuntimeError("socket of a wrong shape")))

        def sum(self) -> str:
            return self._told(lambda: ranks.all_sum([1.0], "cpu"))

        def end(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def _told(self, work) -> str:
            try:
                with detect_lost_ranks(ledger):
                    return str(work())
            except (RankLost, RuntimeError) as error:
                return f"{type(error).__name__}: {error}"

    make = ray.remote(num_cpus=0, max_concurrency=2)(Rank)
    return [make.remote(rank) for rank in range(2)]


@pytest.mark.timeout(120)
def test_a_lost_rank_is_told_apart_from_a_bug(ray_address, tmp_path):
    """Gloo has no error class: the same RuntimeError means a lost rank if the other process has exited, else a bug."""
    first, second = two_ranks(str(tmp_path / "store"), start_training_ledger())
    assert ray.get([first.sum.remote(), second.sum.remote()]) == ["[2.0]", "[2.0]"]
    assert ray.get(first.fail.remote()) == "RuntimeError: socket of a wrong shape"
    waiting = first.sum.remote()
    second.end.remote()
    assert ray.get(waiting).startswith("RankLost: rank 1 died, and rank 0 lost it: ")
    ray.kill(first)


def test_error_types_of_torch_need_no_check_of_the_ranks(ray_address):
    with pytest.raises(RankLost, match="rank 0 lost the others: the store has gone"), detect_lost_ranks(None):
        raise dist.DistNetworkError("the store has gone\nand more")
    with pytest.raises(ValueError, match="mine"), detect_lost_ranks(None):
        raise ValueError("mine")
    with pytest.raises(RuntimeError, match="alone"), detect_lost_ranks(None):
        raise RuntimeError("alone")


def test_a_worker_ends_when_what_started_it_is_killed():
    """A killed command's worker wrote on into the folder of the job that took its place."""
    worker = "import os, time; from handloom.workers.training.training import end_with_parent as end; end()"
    worker += "; print(os.getpid(), flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as command:
        pid = int(command.stdout.readline())
        assert alive(pid)
        command.kill()
    until = time.monotonic() + 60
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)
