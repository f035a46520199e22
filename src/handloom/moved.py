"""Old names of modules that were moved in 0.4: they can still be imported, with a warning."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "handloom.geometry.arm4r": "handloom.geometry.tracks.arm4r",
    "handloom.geometry.later_grids": "handloom.geometry.tracks.stored_grids",
    "handloom.models.hub_encoders": "handloom.models.hub.encoders",
    "handloom.schemas.frame_flags": "handloom.schemas.tables.frame_flags",
    "handloom.schemas.robot": "handloom.schemas.tables.robot",
    "handloom.schemas.row": "handloom.schemas.tables.row",
    "handloom.store.database": "handloom.api",
    "handloom.store.windows": "handloom.windows",
    "handloom.store.windows.dataset": "handloom.windows.dataset",
    "handloom.store.windows.neighbours": "handloom.windows.neighbours",
    "handloom.train.arm4r.data.robot_state": "handloom.train.parts.robot_state",
    "handloom.train.arm4r.robot_state": "handloom.train.parts.robot_state",
    "handloom.train.folder": "handloom.io.folder",
    "handloom.workers.window_source": "handloom.workers.training.window_source",
}
"""Modules that the documentation of 0.3 names, and where they are now."""


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module of `MOVED` by its old name. It is the same module object, not a second one."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if _now(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = _now(spec.name)
        warnings.warn(f"{spec.name} is {now} since handloom 0.4", FutureWarning, stacklevel=2)
        module = importlib.import_module(now)
        self._specs[module.__name__] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._specs[module.__name__]  # the import system has set that of the old name


def _now(name: str) -> str:
    """The new name of a module that was moved, itself or with its package; empty for all others."""
    above, _, last = name.rpartition(".")
    return MOVED.get(name) or (f"{MOVED[above]}.{last}" if above in MOVED else "")


def install() -> None:
    """Put the finder first, so that the files of a moved package are not imported a second time under its old name."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
