"""What users name as `package.module:NAME`: a stage, a hand network, a policy, a recipe of their own."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Any

from handloom.errors import ConfigError

OWN_CLASS = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""`package.module:Name`, as a regular expression."""
INSTALL = (
    "install its package in the Python that runs handloom, on every node, or correct the name; with PYTHONPATH=. files "
    "of this folder are found"
)


def load_named(what: str, place: str) -> Any:
    """What `package.module:NAME` names; the module is imported.

    Args:
        what: for errors, `the policy my_lab.policies:Still`.

    Raises:
        ConfigError: `place` has another form; the module cannot be imported, whatever it raises; it has no such name.
        ModuleNotFoundError: a library that a module of handloom needs is not installed.
    """
    if not re.fullmatch(OWN_CLASS, place):
        raise ConfigError(f"{what}: {place!r} is not package.module:Name", "such as my_lab.hands:Network")
    module_name, _, name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and module_name.startswith("handloom."):
            raise  # the command says what installs it
        problem = f"{what}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(problem, INSTALL) from error
    if not hasattr(module, name):
        own = ", ".join(sorted(found for found in vars(module) if _is_own(module, found)))
        raise ConfigError(f"{what}: {module_name} has no {name}", f"it has {own}" if own else "it defines nothing")
    return getattr(module, name)


def _is_own(module: ModuleType, name: str) -> bool:
    """Whether a public name of a module is a class, a function or an object of its own."""
    return not name.startswith("_") and getattr(vars(module)[name], "__module__", None) == module.__name__
