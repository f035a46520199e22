"""A Ray cluster of several raylets on this machine, each node with an environment of its own.

A node may lack a folder or be unable to write to one (a mount namespace, where this user may make one), and have its
own host name, variables and import path: what differs between the nodes of a real cluster.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.process import descendants

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
START = [*RAY, "start", "--block", "--disable-usage-stats"]
UP_S, DOWN_S = 240.0, 240.0


@dataclass(frozen=True)
class NodeSpec:
    """How a node differs from the others. hidden: folders that are empty there. read_only: folders it cannot write to.

    name: for Ray (`--node-name`); None: Ray knows the node by its address alone. env: over the test's own variables.
    own_mounts: also where nothing is hidden yet. num_gpus: that Ray is told of; there need not be any.
    """

    name: str | None
    num_cpus: int = 1
    num_gpus: int = 0
    hidden: Sequence[Path] = ()
    read_only: Sequence[Path] = ()
    hostname: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    own_mounts: bool = False


class Cluster:
    """The raylets that run. `address` is for `--ray-address`; the first node is the head."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.address = ""
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._started: set[int] = set()

    def start(self, spec: NodeSpec) -> int:
        """Start a raylet and wait until it has joined. Returns its number, for `kill`."""
        number = len(self._nodes)
        host = f"127.0.0.{number + 1}"
        options = ["--node-ip-address", host, "--num-cpus", str(spec.num_cpus), "--object-store-memory", str(80 << 20)]
        options += ["--num-gpus", str(spec.num_gpus), "--include-log-monitor", "false"]
        options += ["--node-name", spec.name] if spec.name else []
        if number:
            options += ["--address", self.address]
        else:
            self.address = f"{host}:{_free_port(host)}"
            options += ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard", "false"]
            options += ["--temp-dir", self._folder]
        command = _in_own_mounts([*START, *options], spec)
        log = Path(self._folder) / f"node{number}.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_enable_metrics_collection": "0"}
        env |= {"RAY_AUTH_MODE": "disabled", **spec.env}  # no token, also where this user has one in ~/.ray
        with log.open("wb") as out:
            node = subprocess.Popen(command, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, process_group=0)
        self._nodes.append(node)
        _until(lambda: b"Ray runtime started" in log.read_bytes(), node, log)
        return number

    def hide(self, number: int, folder: Path) -> None:
        """Make the folder empty on a node with its own mounts, as when its file system goes."""
        mount = ["mount", "-t", "tmpfs", "none", str(folder)]
        command = ["nsenter", "--mount", "--target", str(self._nodes[number].pid), *mount]
        subprocess.run(command, check=True, capture_output=True, timeout=240)

    def kill(self, number: int, with_signal: int = signal.SIGKILL) -> None:
        """Kill the node's raylet and its workers at once, as when a node loses power."""
        found = descendants(self._nodes[number].pid)
        self._started |= found
        for pid in (self._nodes[number].pid, *found):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, with_signal)

    def raylet(self, number: int) -> int:
        """The process id of the raylet alone."""
        for pid in descendants(self._nodes[number].pid):
            with contextlib.suppress(FileNotFoundError):
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "raylet":
                    return pid
        raise LookupError(f"node {number} has no raylet")

    def end(self) -> None:
        """Kill every process that was started: on SIGTERM Ray's agents take up to a minute."""
        for _ in range(2):  # a worker that was just being started
            for node in self._nodes:
                self._started |= {node.pid} | descendants(node.pid)
            for pid in self._started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for node in self._nodes:
            node.wait(DOWN_S)


@contextlib.contextmanager
def cluster(*specs: NodeSpec) -> Iterator[Cluster]:
    """Raylets by these specs; the first is the head. All end with the block."""
    with tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp") as folder:  # short: it holds Ray's sockets
        running = Cluster(folder)
        try:
            for spec in specs:
                running.start(spec)
            yield running
        finally:
            running.end()


def mounts_allowed() -> bool:
    """Whether this user may give a process mounts and a host name of its own."""
    command = ["unshare", "--mount", "--uts", "--propagation", "private", "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=240).returncode == 0
    except FileNotFoundError:
        return False


def _in_own_mounts(command: list[str], spec: NodeSpec) -> list[str]:
    if not (spec.own_mounts or spec.hidden or spec.read_only or spec.hostname):
        return command
    lines = [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in spec.hidden]
    for folder in map(shlex.quote, map(str, spec.read_only)):
        lines += [f"mount --bind {folder} {folder}", f"mount -o remount,ro,bind {folder}"]
    lines += [f"hostname {shlex.quote(spec.hostname)}"] if spec.hostname else []
    script = " && ".join([*lines, f"exec {shlex.join(command)}"])
    return ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script]


def _free_port(host: str) -> int:
    with socket.socket() as found:
        found.bind((host, 0))
        return found.getsockname()[1]


def _until(true, node: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + UP_S
    while not true():
        if node.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"a raylet did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
