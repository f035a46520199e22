"""What is printed of a test process that dies."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.local_ray import Obituary

WRITES = "import os, signal, sys; print(end='ready', flush=True); input(); os.write(2, b'the last words'); {end}"


@pytest.mark.parametrize(
    ("end", "says"),
    [("os._exit(7)", "ended with exit code 7"), ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL")],
)
def test_what_a_process_wrote_where_nobody_looks_is_kept(end, says, tmp_path, monkeypatch):
    """Its stderr is a file without a name, as pytest's capture makes it; it vanishes with the process.

    Of the Rays whose names end with its id, the ones before its time are those of another process.
    """
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with tempfile.TemporaryFile() as captured:
        process = subprocess.Popen([sys.executable, "-c", WRITES.format(end=end)], **pipes, stderr=captured)
    with process:
        process.stdout.read(5)
        ray_log(tmp_path, "older", process.pid)
        obituary = Obituary(process)
        log = ray_log(tmp_path, "own", process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
        text = obituary.text()
        obituary.close()
    assert text == f"process {process.pid} {says}\nit had written:\n  the last words\n{log}:\n  of own"


def ray_log(folder: Path, session: str, pid: int) -> Path:
    log = folder / "ray" / f"session_{session}_{pid}" / "logs" / "raylet.err"
    log.parent.mkdir(parents=True)
    log.write_text(f"of {session}")
    return log
