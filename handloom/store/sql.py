"""SQL filters: quoting, and what Lance says about one it cannot read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.store.location import first_words


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """`column IN ('a', 'b')`; a filter that nothing passes for no values."""
    items = ", ".join(quoted(v) for v in values)
    return f"{column} IN ({items})" if items else "false"


@contextmanager
def filtered(where: str | None, schema: pa.Schema) -> Iterator[None]:
    """Around a read that filters by `where`: a filter that Lance cannot read becomes a ConfigError."""
    try:
        yield
    except ValueError as error:  # Lance: `Invalid user input`
        if where is None:
            raise
        raise ConfigError(
            f"--where {where!r} cannot be used: {first_words(error)}",
            f"an SQL condition on these columns: {', '.join(schema.names)}",
        ) from error
