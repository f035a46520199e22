"""Modules that stand elsewhere since 0.4: their old names still import, with a warning."""

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
    "handloom.models.hub_encoders": "handloom.models.hub.encoders",
    "handloom.schemas.frame_flags": "handloom.schemas.tables.frame_flags",
    "handloom.schemas.robot": "handloom.schemas.tables.robot",
    "handloom.schemas.row": "handloom.schemas.tables.row",
    "handloom.store.database": "handloom.api",
    "handloom.store.windows": "handloom.windows",
    "handloom.store.windows.dataset": "handloom.windows.dataset",
    "handloom.store.windows.neighbours": "handloom.windows.neighbours",
    "handloom.workers.window_source": "handloom.workers.training.window_source",
}
"""Those that the documentation of 0.3 named."""


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of `MOVED` by its old name: the same module, not a second one."""

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
        module.__spec__ = self._specs[module.__name__]  # the import system has given it the old name's


def _now(name: str) -> str:
    """What a module that has moved, or one in a package that has, is called now; empty for all others."""
    above, _, last = name.rpartition(".")
    return MOVED.get(name) or (f"{MOVED[above]}.{last}" if above in MOVED else "")


def install() -> None:
    """Have the old names found, before the files of a package that has moved are found a second time."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
