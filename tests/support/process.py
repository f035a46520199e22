"""`handloom` as a user starts it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

HANDLOOM = [sys.executable, "-c", "from handloom.cli import main; main()"]


def start(*args: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `handloom ARGS` in a process group of its own, without a terminal."""
    return subprocess.Popen([*HANDLOOM, *map(str, args)], **_options(env), start_new_session=True)


def handloom(
    *args: object, env: dict[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run `handloom ARGS` to its end."""
    process = start(*args, env=env)
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def _options(env: dict[str, str] | None) -> dict[str, Any]:
    values = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | (env or {})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return {**pipes, "env": values}


def descendants(pid: int) -> set[int]:
    """Every process below `pid`."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def command(pid: int) -> str:
    """The command that it was started with, or the title that it has given itself; "" once it has gone."""
    try:
        with open(f"/proc/{pid}/cmdline") as found:
            return found.read().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_agent(pid: int) -> bool:
    """Ray's two agents wait up to a minute for a controller that has gone, then end."""
    return "Agent" in command(pid)


def state(pid: int) -> str:
    """The letter of the kernel: R runs or waits for a processor, S sleeps until something happens, X has gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def alive(pid: int) -> bool:
    """False once it has gone; a zombie has."""
    return state(pid) not in "ZX"
