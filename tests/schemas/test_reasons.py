"""The reasons of rejects are a closed set: whatever the code says is in it, and whatever is in it is said."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import handloom
from handloom.schemas.tables.reject import REASONS, RETRIABLE

PACKAGE = Path(handloom.__file__).parent
# The place of `reason` among the arguments of what makes a reject or an error that becomes one.
MAKERS = {"ClipError": 2, "Reject": 2, "NotAVideoError": 0}


@cache
def reasons_said() -> tuple[tuple[str, str], ...]:
    """(where, reason) of every literal reason in the package."""
    return tuple(said for path in sorted(PACKAGE.rglob("*.py")) for said in reasons_of(path))


def reasons_of(path: Path) -> Iterator[tuple[str, str]]:
    if any(maker in (text := path.read_text()) for maker in MAKERS):
        for node in ast.walk(ast.parse(text, str(path))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] not in MAKERS:
                continue
            place = MAKERS[ast.unparse(node.func).split(".")[-1]]
            named = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            for argument in named + node.args[place : place + 1]:
                for part in ast.walk(argument):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield f"{path.name}:{node.lineno}", part.value


def test_every_reason_is_of_the_set():
    assert not [(where, reason) for where, reason in reasons_said() if reason not in REASONS]


def test_every_word_of_the_set_is_used():
    assert {reason for _, reason in reasons_said()} == REASONS.keys()


def test_the_set_is_explained():
    assert REASONS.keys() >= RETRIABLE
    assert all(word.isidentifier() and word == word.lower() for word in REASONS)
    assert all(REASONS.values())
