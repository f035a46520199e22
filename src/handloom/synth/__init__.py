"""Rendered egocentric scenes with exact truth: the demo's, the tests' and the accuracy benchmark's videos."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_MOVED = {"Truth": "handloom.synth.truth"}  # what the documentation of 0.3 named here


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is {_MOVED[name]}.{name} since handloom 0.4", FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(_MOVED[name]), name)
