"""The package is found from every folder, the clone's parent too: there the clone itself is a folder `handloom`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import handloom

REPOSITORY = Path(__file__).parents[1]


def test_a_folder_of_the_same_name_is_not_taken_for_the_package(tmp_path):
    (tmp_path / "handloom" / "docs").mkdir(parents=True)
    command = [sys.executable, "-c", "import handloom; print(handloom.__file__, handloom.open)"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert told.stdout.startswith(handloom.__file__), told.stderr


def test_nothing_of_the_repository_is_importable_but_the_package():
    """Installed in place, its folder `src` is on the path: what lies there is the package alone."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["where"] == ["src"]
    assert [path.name for path in (REPOSITORY / "src").iterdir() if path.suffix != ".egg-info"] == ["handloom"]
