"""The reasons of rejects are a closed set: the reasons in the code are those of the set."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import handloom
from handloom.schemas.tables.reject import REASONS, RETRIABLE

PACKAGE = Path(handloom.__file__).parent
# The place of `reason` among the arguments of what makes a reject or an error that becomes one.
MAKERS = {"ClipError": 2, "Reject": 2, "NotAVideoError": 0, "AskError": 0}


@cache
def reasons_said() -> tuple[tuple[str, str], ...]:
    """(where, reason) of every reason in the package that is a literal or a constant of its module."""
    return tuple(said for path in sorted(PACKAGE.rglob("*.py")) for said in reasons_of(path))


def reasons_of(path: Path) -> Iterator[tuple[str, str]]:
    if any(maker in (text := path.read_text()) for maker in MAKERS):
        tree = ast.parse(text, str(path))
        constants = dict(constants_of(tree))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] not in MAKERS:
                continue
            place = MAKERS[ast.unparse(node.func).split(".")[-1]]
            named = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            for argument in named + node.args[place : place + 1]:
                for part in ast.walk(argument):
                    value = constants.get(part.id) if isinstance(part, ast.Name) else getattr(part, "value", None)
                    if isinstance(value, str):
                        yield f"{path.name}:{node.lineno}", value


def constants_of(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """(name, value) of the module's constants, also of several in one assignment."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for names, values in ((target, node.value) for target in node.targets):
                several = isinstance(names, ast.Tuple) and isinstance(values, ast.Tuple)
                for name, value in zip(names.elts, values.elts, strict=True) if several else [(names, values)]:
                    if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
                        yield name.id, value.value


def test_every_reason_in_the_code_is_in_the_set():
    assert not [(where, reason) for where, reason in reasons_said() if reason not in REASONS]


def test_every_reason_of_the_set_is_used():
    assert {reason for _, reason in reasons_said()} == REASONS.keys()


def test_every_reason_has_a_meaning():
    assert REASONS.keys() >= RETRIABLE
    assert all(word.isidentifier() and word == word.lower() for word in REASONS)
    assert all(REASONS.values())
