"""Options that several commands share: one dataclass each, spread over the parameters of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its parameters that are dataclasses as parameters of its own, in their places."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {param.name: param.annotation for param in own if is_dataclass(param.annotation)}

    def shown() -> Iterator[inspect.Parameter]:
        for param in own:
            if param.name in groups:
                yield from _fields_of(param.annotation)
            else:
                yield param.replace(kind=inspect.Parameter.KEYWORD_ONLY)

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**made, **given)

    as_command: Any = run
    as_command.__signature__ = inspect.Signature(list(shown()))
    return as_command


def _fields_of(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )
