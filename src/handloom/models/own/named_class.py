"""Classes of other packages that the settings name: `package.module:Class`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence

from handloom.errors import ConfigError
from handloom.schemas.settings import OWN_CLASS

AT_IMPORT = (
    ArithmeticError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip
"""What running a module for the first time may raise."""


def load_class(setting: str, named: str, methods: Sequence[str] = ()) -> type:
    """The class that a setting names.

    Args:
        setting: for errors, such as `hands.backend`.
        named: `package.module:Class`.
        methods: that it must have.

    Raises:
        ConfigError: the module cannot be imported, or has no such class with these methods.
    """
    if not re.fullmatch(OWN_CLASS, named):
        problem = f"{setting} = {named!r} names no class"
        raise ConfigError(problem, "expected package.module:Class, such as my_lab.hands:Network")
    module_name, _, name = named.partition(":")
    try:
        module = importlib.import_module(module_name)
    except AT_IMPORT as error:
        raise ConfigError(
            f"{setting} = {named!r}: the module {module_name} cannot be imported: {type(error).__name__}: {error}",
            "install its package in the Python that runs handloom, on every node, or correct the name",
        ) from error
    found = getattr(module, name, None)
    if found is None:
        names = sorted(each for each, value in vars(module).items() if _is_own(value, module_name))
        problem = f"{setting} = {named!r}: {module_name} has no {name}"
        raise ConfigError(problem, f"its classes are {', '.join(names)}" if names else f"{module_name} has no class")
    if not inspect.isclass(found):
        raise ConfigError(f"{setting} = {named!r}: {name} is a {type(found).__name__}, expected a class")
    lacks = [each for each in methods if not callable(getattr(found, each, None))]
    if lacks:
        raise ConfigError(f"{setting} = {named!r}: the class lacks {', '.join(lacks)}", "see handloom.models.protocols")
    return found


def _is_own(value: object, module_name: str) -> bool:
    return inspect.isclass(value) and value.__module__ == module_name
