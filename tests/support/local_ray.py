"""The local Ray of a test process, and what is left of a test process that has died (`pytest -n 3`)."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process import alive, descendants

TESTS = Path(__file__).parents[1]
SERVERS = ("raylet", "gcs_server")
LOGS = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out", "python-core-driver-*_{pid}.log")
NUM_LINES, NUM_BYTES = 25, 20_000
END_S = 5.0


class LocalRay:
    """At most one Ray of this process at a time. Its address changes when it is started again.

    site: a folder on the import path of its workers, for packages that a test installs.
    """

    def __init__(self, site: Path) -> None:
        self.site = site
        self._running = contextlib.ExitStack()
        self._servers: set[int] = set()

    def address(self) -> str:
        """The address that other processes can join.

        Starts a Ray if none runs: before the first test that needs it; where `end` came too early (another test process
        has died, and this one got its tests); and where its own processes have died.
        """
        import ray

        if not (ray.is_initialized() and all(map(alive, self._servers))):
            self.end()
            self._start()
        return ray.get_runtime_context().gcs_address

    def end(self) -> None:
        """End it, if it runs."""
        self._running.close()

    def _start(self) -> None:
        from ray._private import worker

        from handloom.pipelines.cluster.connect import joined

        # What a node says, such as that it has started many workers, Ray prints on stdout, whenever it comes. `joined`
        # redirects that; a command that finds this Ray in its process does not, and a test would read it as its JSON.
        worker._worker_logs_enabled = False
        with contextlib.ExitStack() as starting:
            patch = starting.enter_context(pytest.MonkeyPatch.context())
            for folder in (self.site, TESTS):  # workers import `support`, too
                patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
            patch.setenv("RAY_BACKEND_LOG_LEVEL", "warning")  # else its core says not even why it ends the process
            patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # an actor for each start of a training job
            before = descendants(os.getpid())
            with contextlib.redirect_stdout(sys.__stdout__):  # what `joined` restores: pytest's own may be closed then
                starting.enter_context(joined(None, num_cpus=2))
            self._servers = {pid for pid in descendants(os.getpid()) - before if _program(pid) in SERVERS}
            self._running = starting.pop_all()


def _program(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:  # it has ended
        return ""


class Obituary:
    """Keeps open what a test process writes where nobody looks, to print it if the process dies.

    Made before the process starts a Ray: what is in Ray's folder by then is of others. pytest captures
    stderr in files without a name: they vanish with the process, and with them what Ray's core, and processes that
    outlive it, have said about its end.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._kills = _num_killed_for_memory()
        self._captured = list(_unnamed_files(process.pid))
        self._older = set(self._ray_sessions())  # of a process that had the same id

    def close(self) -> None:
        """Forget the process."""
        for file in self._captured:
            os.close(file)
        self._captured.clear()

    def text(self) -> str:
        """How it ended, the last lines that it has written, and those of its Ray's logs."""
        pid = self._process.pid
        parts = [f"process {pid} {self._end()}"]
        parts += [f"it had written:\n{text}" for text in {*map(_tail, self._captured)} if text]
        logs = [folder / "logs" for folder in self._ray_sessions() if folder not in self._older]
        for log in (log for folder in logs for name in LOGS for log in folder.glob(name.format(pid=pid))):
            with log.open("rb") as file:
                text = _tail(file.fileno())
            parts += [f"{log}:\n{text}"] if text else []
        return "\n".join(parts)

    def _ray_sessions(self) -> Iterator[Path]:
        """The folders of Rays that a process of this id has started: it is the end of their names."""
        base = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
        return base.glob(f"session_*_{self._process.pid}")

    def _end(self) -> str:
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return f"says nothing more, but has not ended within {END_S:g} s"
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        kills = _num_killed_for_memory() - self._kills
        return f"{ended}; for memory the kernel has killed {kills} processes since it began" if kills else ended


def _unnamed_files(pid: int) -> Iterator[int]:
    """The regular files that the process has open and that have no name (any more), opened here as well."""
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if os.readlink(link).endswith(" (deleted)") and stat.S_ISREG(link.stat().st_mode):
                yield os.open(link, os.O_RDONLY)


def _tail(file: int) -> str:
    size = os.fstat(file).st_size
    text = os.pread(file, NUM_BYTES, max(size - NUM_BYTES, 0)).decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.splitlines()[-NUM_LINES:])


def _num_killed_for_memory() -> int:
    """The processes of this machine that the kernel has killed because memory ran out."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
