"""Which process holds a lease, and whether it still runs."""

from __future__ import annotations

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

PROC = Path("/proc")
ENDED = "ZX"  # states of a process that has ended and was not waited for yet


@dataclass(frozen=True)
class Holder:
    """A process, identified so that no other one is taken for it.

    machine: boot id and pid namespace, as two machines may have one name; None without /proc. process_start: clock
    ticks from boot to the start of the process, as pids are used again. where: the run's SQL filter on the clip list.
    """

    host: str
    pid: int
    user: str
    machine: str | None = None
    process_start: int | None = None
    where: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Holder:
        values = json.loads(text)
        return Holder(**{name: values.get(name) for name in Holder.__dataclass_fields__})

    def has_gone(self) -> bool | None:
        """Whether the process has ended; None if it is on another machine."""
        if self.machine is None or self.machine != _machine():
            return None
        return _process_start(self.pid) != self.process_start


def this_process(where: str | None = None) -> Holder:
    """This process as a holder."""
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, _user(), _machine(), _process_start(pid), where)


def _machine() -> str | None:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _process_start(pid: int) -> int | None:
    """When a process began, clock ticks after boot; None if there is no such process or it has ended."""
    try:
        words = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()  # the name may hold brackets
    except OSError:
        return None
    return None if words[0] in ENDED else int(words[19])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"
