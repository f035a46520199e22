"""The linters find nothing: among the tests, so that they run beside them and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(900)  # mypy without its cache takes half a minute of CPU, more where others use the cores
@pytest.mark.parametrize(
    "command", [("ruff", "check", "--output-format", "concise", "."), ("mypy",)], ids=lambda command: command[0]
)
def test_the_linters_find_nothing(command):
    pytest.importorskip(command[0], reason=f"needs {command[0]} (pip install 'handloom[dev]')")
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
