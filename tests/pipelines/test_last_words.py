"""A run whose process is killed still prints how far it came."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest
from support.extraction import new_database
from support.process import start
from support.raylets import NodeSpec, cluster

RUN = """
import os, signal
from handloom.pipelines.cluster.head_health import LastWords
with LastWords("/data/db", 9) as last_words:
    last_words.know(num_clips=4, num_rejects=1)
    {end}
"""
LOST = """
from handloom.pipelines.cluster import head_health as head
from handloom.pipelines.cluster.head_health import LastWords
head.LOOK_S, head.LOST_S, head.LATE_S = 0.05, 0.2, 0.2
with LastWords("/data/db", 9) as last_words, head.Head("{address}", last_words) as found:
    print(flush=True)
    input()  # a call of Ray that does not come back
"""


def said(code: str, **options) -> tuple[int, str]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=240, **options)
    return done.returncode, done.stderr


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_process_that_is_ended_says_what_is_committed(end):
    code, text = said(RUN.format(end=end))
    assert code in (1, -signal.SIGKILL)
    committed, problem, hint = text.splitlines()
    assert committed == "4 clips, 1 rejects of 9 clips are committed"
    assert problem.startswith("error: the run's process was killed, or ended by Ray")
    assert hint.endswith("go on with: handloom run --db /data/db")


def test_a_run_that_ends_by_itself_says_nothing_more():
    assert said(RUN.format(end="pass")) == (0, "")
    code, text = said(RUN.format(end="raise SystemExit(3)"))
    assert (code, text) == (3, "")


def test_a_head_that_has_gone_is_noticed_in_a_call_that_hangs():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", LOST.format(address=address)], **pipes)
        process.stdout.readline()
        time.sleep(0.6)
        assert process.poll() is None  # the head answers
    assert process.wait(240) == 1
    assert f"error: the head of the Ray cluster at {address} has gone" in process.stderr.read()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGKILL])
def test_the_drivers_own_node_goes(tmp_path, clips, with_signal):
    db = new_database(tmp_path / "db", clips)
    with cluster(NodeSpec("head")) as running:
        one_each = ["--set", "resources.shard_clips=1", "--set", "resources.commit_clips=1"]
        run = start("run", "--db", db.uri, "--ray-address", running.address, *one_each)
        until = time.monotonic() + 100
        while not db.count("clips") and run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        running.kill(0, with_signal)
        began = time.monotonic()
        _, err = run.communicate(timeout=240)
    assert (run.returncode, time.monotonic() - began < 40) == (1, True), err
    assert f"of {len(clips)} clips are committed" in err
