"""Numbers with their nouns."""

from __future__ import annotations


def plural(number: int, one: str, many: str = "") -> str:
    """`1 row`, `2 rows`, `0 rows`. many: where it is not `one` with an s: `plural(2, "row was", "rows were")`."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
