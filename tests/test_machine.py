"""Facts about the machine in reports and in `handloom doctor`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from handloom.machine import VECTORS, cpu_flags, gpus, hardware
from handloom.pipelines.doctor import gpu


@pytest.fixture
def driver(tmp_path: Path, monkeypatch):
    """`driver(script)`: an nvidia-smi that does what the script says."""

    def make(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return make


def test_gpus_with_memory_and_driver(driver):
    driver("""printf 'NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15\\nNVIDIA L4, 23034 MiB, 550.54.15\\n'""")
    first, second = gpus()
    assert first == {"name": "NVIDIA H100 80GB HBM3", "memory": "81559 MiB", "driver": "550.54.15"}
    assert hardware()["gpu"] == [first, second]
    (finding,) = gpu()
    assert (finding.state, finding.detail.count("MiB")) == ("ok", 2)


def test_a_driver_that_does_not_reply_is_no_gpu(driver):
    driver("echo 'NVIDIA-SMI has failed' >&2; exit 9")
    assert hardware()["gpu"] is None
    (finding,) = gpu()
    assert (finding.state, finding.detail) == ("optional", "NVIDIA-SMI has failed")


def test_facts_that_change_numbers_are_recorded():
    found = hardware()
    assert 1 <= found["cores_allowed"] <= found["cores"]
    assert set(cpu_flags()) <= set(VECTORS)


def test_the_kernels_that_openblas_chose():
    """In a process of its own: it is chosen when numpy is imported."""
    code = "import numpy; from handloom.machine import openblas_cores; print(*openblas_cores())"
    env = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True, env=env
    )
    if "avx2" in cpu_flags():
        assert done.stdout == "Haswell\n"
