"""SQL filters: quoting, and what Lance says about one it cannot read."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.store.lance_faults import first_words, is_filters_fault

_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*)|(?P<text>'(?:[^']|'')*(?:'|$)|\"[^\"]*(?:\"|$))|(?P<number>\d[\w.]*)"
    r"|(?P<name>`[^`]*`|[^\W\d]\w*)|(?P<sign>[^\s])"
)
COMPARING = ("=", "<", ">")
# Words of SQL conditions and of the types one casts to; whatever stands before a bracket is a function.
_WORDS = frozenset(
    re.findall(
        r"\w+",
        """and or not in is null true false unknown like ilike similar to between symmetric escape case when then else
        end cast try_cast as from distinct any all exists date time timestamp interval year month day hour minute second
        at zone int integer tinyint smallint bigint unsigned float real double precision decimal numeric boolean bool
        string varchar char text binary array div xor regexp rlike""",
    )
)


def check_filter(text: str, schema: pa.Schema) -> None:
    """Raise ConfigError if `text` names a column, or a member of a struct column, that `schema` does not have.

    Nothing else is checked. Meant for a filter that Lance has refused: a word of SQL not known here looks like a
    column.
    """
    tokens = list(_tokens(text))
    columns = {name.lower(): name for name in schema.names}
    for at, (kind, word) in enumerate(tokens):
        before, after = _sign(tokens, at - 1), _sign(tokens, at + 1)
        if kind != "name" or before == "." or after == "(" or (word.lower() in _WORDS and word.lower() not in columns):
            continue
        if word.lower() not in columns:
            raise _unknown_column(text, word, schema, is_value=before in COMPARING)
        member = _member(tokens, at)
        if member is not None:
            _check_member(text, schema.field(columns[word.lower()]), member)


def members_of(schema: pa.Schema) -> list[str]:
    """Every member of every struct column, as a filter names it: `quality.blur`."""
    return [f"{field.name}.{part.name}" for field in schema if pa.types.is_struct(field.type) for part in field.type]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "comment":
            yield str(match.lastgroup), match.group().strip("`")


def _sign(tokens: Sequence[tuple[str, str]], at: int) -> str | None:
    return tokens[at][1] if 0 <= at < len(tokens) and tokens[at][0] == "sign" else None


def _member(tokens: Sequence[tuple[str, str]], at: int) -> str | None:
    """The member named after the column at `at`: `column.member` or `column['member']`."""
    sign, follows = _sign(tokens, at + 1), tokens[at + 2] if at + 2 < len(tokens) else ("", "")
    if sign == "." and follows[0] == "name":
        return follows[1]
    return follows[1].strip("'\"") if sign == "[" and follows[0] == "text" else None


def _check_member(text: str, field: pa.Field, member: str) -> None:
    if not pa.types.is_struct(field.type):
        raise ConfigError(
            f"--where {text!r} cannot be used: column {field.name} has no members, so {field.name}.{member} is nothing",
            f"name the column alone: {field.name} ({field.type})",
        )
    names = [part.name for part in field.type]
    if member not in names:
        raise ConfigError(
            f"--where {text!r} cannot be used: {field.name} has no member {member!r}{_near(member, names)}",
            f"{field.name} holds {', '.join(names)}",
        )


def _unknown_column(text: str, word: str, schema: pa.Schema, is_value: bool) -> ConfigError:
    """is_value: it stands where a value does, and may be text that lacks its quotes."""
    members = members_of(schema)
    known = {name: name for name in schema.names} | {name.partition(".")[2]: name for name in members}
    near = _near(word, known, known)
    quoted = f"text stands in single quotes: '{word}'"
    hint = f"{f'{quoted}; ' if is_value else ''}docs/tables.md has every column"
    if not near:
        hint = f"an SQL condition on these columns: {', '.join(schema.names)}"
        hint += (f"; and on {', '.join(members)}" if members else "") + f"; {quoted}"
    return ConfigError(f"--where {text!r} cannot be used: there is no column {word!r}{near}", hint)


def _near(word: str, names: Sequence[str] | dict[str, str], shown: dict[str, str] | None = None) -> str:
    """`; near: a, b` for the names most like `word`, in any case; empty if there are none."""
    by_lower = {name.lower(): name for name in names}
    found = [by_lower[near] for near in difflib.get_close_matches(word.lower(), by_lower, 3, 0.6)]
    return f"; near: {', '.join(shown[name] if shown else name for name in found)}" if found else ""


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
