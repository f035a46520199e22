"""The package is found from every folder, the clone's parent too: there the clone itself is a folder `handloom`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def all_required(wanted: list[str]) -> set[str]:
    """Names of the distributions that an installation of these requirements brings, those that are here."""
    found: set[str] = set()
    waiting = [(canonicalize_name(one.name), one.extras) for one in map(Requirement, wanted)]
    while waiting:
        name, extras = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for one in map(Requirement, lines):
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((canonicalize_name(one.name), one.extras))
    return found


def test_the_gallery_starts_with_its_extra_alone():
    """The server can be imported where nothing is found but what `pip install 'handloom[web]'` installs."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    installed = all_required([*project["dependencies"], *project["optional-dependencies"]["web"]]) | {"handloom"}
    absent = [name for name, of in packages_distributions().items() if installed.isdisjoint(map(canonicalize_name, of))]
    assert {"ray", "av"} <= set(absent)
    code = """
import sys
absent = set(sys.argv[1:]) - set(sys.modules)
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
import handloom.web.serving
"""
    told = subprocess.run([sys.executable, "-c", code, *absent], capture_output=True, text=True, timeout=240)
    assert told.returncode == 0, told.stderr
