"""Rows of decoded clips, made in a process of its own with another environment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from support.decoded import HeldFrames
from support.rows import digests

TESTS = Path(__file__).parents[1]


def table_elsewhere(folder: Path, held: Sequence[HeldFrames], env: Mapping[str, str], *first: str) -> pa.Table:
    """The clips' rows; `first` are modules that the process imports before all others."""
    frames, out = folder / "frames.pickle", folder / "rows.arrow"
    frames.write_bytes(pickle.dumps(list(held)))
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-m", "support.rows_in_process", str(frames), str(out), *first]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths, **env}, capture_output=True, text=True, timeout=240
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    with pa.OSFile(str(out)) as file:
        return pa.ipc.open_file(file).read_all()


def rows_elsewhere(folder: Path, held: Sequence[HeldFrames], env: Mapping[str, str], *first: str) -> dict[str, str]:
    """The digests of `table_elsewhere`."""
    return digests(table_elsewhere(folder, held, env, *first))
