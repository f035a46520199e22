"""The folder in which a Ray of our own keeps its sockets and logs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handloom.errors import ConfigError

# A socket's whole name may have 107 bytes; Ray adds "/session_2026-11-28_15-22-58_123456_1234567/sockets/plasma_store".
MAX_BYTES = 107 - 65
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def ray_folder() -> Iterator[str | None]:
    """None where Ray's own choice will do (RAY_TMPDIR or TMPDIR or /tmp); else a short private one, removed at the end.

    Slurm's jobs have a TMPDIR whose name is too long for sockets: Ray ends with a trace.

    Raises:
        ConfigError: no folder with a short name can be written.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    chosen = os.environ[name] if name is not None else "/tmp"
    if len(os.fsencode(os.path.join(chosen, "ray"))) <= MAX_BYTES:
        yield None
        return
    folder = _short_folder(name, chosen)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder(name: str | None, chosen: str) -> str:
    """A new folder that nobody else can read, and whose name nobody could have taken before (mkdtemp)."""
    for parent in SHORT:
        if not Path(parent).is_dir():
            continue
        try:
            return tempfile.mkdtemp(prefix=f"handloom-{os.getuid()}-", dir=parent)
        except OSError:  # not ours to write in, or full: the next
            continue
    problem = (
        f"{name} is {chosen}: with {len(os.fsencode(chosen))} bytes it is too long for Ray's sockets (at most "
        f"{MAX_BYTES - len('/ray')}), and none of {', '.join(SHORT)} can be written"
    )
    raise ConfigError(problem, "set RAY_TMPDIR to a folder with a shorter name")
