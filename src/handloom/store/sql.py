"""SQL filters: quoting, and what Lance says about one it cannot read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.store.filters import check_filter
from handloom.store.lance_faults import first_words, is_filters_fault

_STRINGS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """`column IN ('a', 'b')`; a filter that nothing passes for no values."""
    items = ", ".join(quoted(v) for v in values)
    return f"{column} IN ({items})" if items else "false"


def forms_of(text: str) -> list[str]:
    """The text as it is written, and in Unicode's other forms: ids of lists before 0.4 keep what a machine wrote."""
    return list(dict.fromkeys([text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]))


def clause(where: str | None) -> str | None:
    """The filter in brackets. Lance 14 silently ignores what follows a complete condition (`hand_left duration_s < 4`,
    `hand_left) OR ...`); in brackets that is an error, as it must be. Raises ConfigError for unbalanced brackets.
    """
    if where is None:
        return None
    depth = 0
    for character in _STRINGS.sub("", where):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth or not where.strip():
        raise ConfigError(f"--where {where!r} cannot be used: {'unbalanced brackets' if depth else 'it is empty'}")
    return f"({where}\n)" if "--" in where else f"({where})"  # the line break ends a comment


@contextmanager
def filtered(where: str | None, schema: pa.Schema) -> Iterator[None]:
    """Around a read that filters by `where`: a filter that Lance cannot read becomes a ConfigError."""
    try:
        yield
    except (ValueError, OSError) as error:
        if where is None or not is_filters_fault(error):
            raise
        check_filter(where, schema)
        reason = first_words(error).split(". Valid fields are")[0]
        reason = reason[reason.find("sql parser error") :] if "sql parser error" in reason else reason
        raise ConfigError(
            f"--where {where!r} cannot be used: {reason}",
            f"an SQL condition on these columns: {', '.join(schema.names)}",
        ) from error


def both(where: str | None, condition: str) -> str:
    """Rows that pass the filter, if there is one, and the condition."""
    return f"({where}) AND ({condition})" if where else condition
