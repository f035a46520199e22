"""SQL filters: quoting, the functions `stage_key` and `judged`, and the error for a filter that Lance cannot use."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import lance
import pyarrow as pa

from handloom.errors import ConfigError
from handloom.io.addresses import is_utf8
from handloom.schemas.tables.stage_columns import KEY_PREFIX, key_column
from handloom.store.lance_faults import first_words, is_filters_fault, unknown_column, unknown_member


def members_of(schema: pa.Schema) -> list[str]:
    """Every member of every struct column, as a filter names it: `quality.blur`."""
    return [f"{field.name}.{part.name}" for field in schema if pa.types.is_struct(field.type) for part in field.type]


def _refused(where: str, schema: pa.Schema, error: Exception) -> ConfigError:
    """Why Lance cannot use a filter, with the nearest names where it has found an unknown one."""
    if (name := unknown_column(error)) == "clip_id" and "judged" in where.lower():
        problem = f"the filter {where!r} cannot be used: clips are judged, and rows of this table have no `clip_id`"
        return ConfigError(problem, f"a condition on its columns: {', '.join(schema.names)}")
    if (member := unknown_member(error)) is not None and (column := _struct_without(where, schema, member)) is not None:
        return _unknown_member(where, column, member)
    if name is not None:
        return _unknown_column(where, name, schema)
    reason = first_words(error)
    reason = reason[reason.find("sql parser error") :] if "sql parser error" in reason else reason
    return ConfigError(
        f"the filter {where!r} cannot be used: {reason}",
        f"an SQL condition on these columns: {', '.join(schema.names)}",
    )


def _struct_without(where: str, schema: pa.Schema, member: str) -> pa.Field | None:
    """The struct column in the filter that has no such member: Lance does not name it."""
    structs = (field for field in schema if pa.types.is_struct(field.type) and field.name.lower() in where.lower())
    return next((field for field in structs if field.type.get_field_index(member) < 0), None)


def _unknown_member(where: str, column: pa.Field, member: str) -> ConfigError:
    names = [part.name for part in column.type]
    return ConfigError(
        f"the filter {where!r} cannot be used: {column.name} has no member {member!r}{_near(member, names)}",
        f"{column.name} holds {', '.join(names)}",
    )


def _unknown_column(where: str, word: str, schema: pa.Schema) -> ConfigError:
    if word.startswith(KEY_PREFIX):
        return _unknown_stage(where, word.removeprefix(KEY_PREFIX), schema)
    members = members_of(schema)
    known = {name: name for name in schema.names} | {name.partition(".")[2]: name for name in members}
    near = _near(word, known, known)
    quotes = f"text stands in single quotes: '{word}'"
    is_value = re.search(rf"[=<>(,]\s*{re.escape(word)}\b", where) is not None
    hint = "docs/tables.md has every column, `handloom stages --json` those of your own stages"
    if is_value or not near:
        hint = f"{quotes}; {hint}"
    return ConfigError(f"the filter {where!r} cannot be used: there is no column {word!r}{near}", hint)


def _unknown_stage(where: str, stage: str, schema: pa.Schema) -> ConfigError:
    stages = stages_of(schema)
    if not stages and "hand_visible" not in schema.names:
        problem = "rows of `clips` have keys of stages, and this filter is on another table"
        return ConfigError(
            f"the filter {where!r} cannot be used: {problem}",
            f"a condition on its columns: {', '.join(schema.names)}",
        )
    if not stages:
        return ConfigError(
            f"the filter {where!r} cannot be used: the table has no keys of stages",
            "rows of `clips` have them; to a table that handloom before 0.4 made, the next `handloom run` adds them, "
            "without extracting anything again",
        )
    return ConfigError(
        f"the filter {where!r} cannot be used: there is no stage {stage!r}{_near(stage, stages)}",
        f"stages of this table: {', '.join(stages)}",
    )


def stages_of(schema: pa.Schema) -> list[str]:
    """The stages whose keys the rows of a table hold."""
    return [name.removeprefix(KEY_PREFIX) for name in schema.names if name.startswith(KEY_PREFIX)]


def _near(word: str, names: Iterable[str], shown: Mapping[str, str] | None = None) -> str:
    """`; near: a, b` for the names most like `word`, in any case; empty if there are none."""
    by_lower = {name.lower(): name for name in names}
    found = [by_lower[near] for near in difflib.get_close_matches(word.lower(), by_lower, 3, 0.6)]
    return f"; near: {', '.join(shown[name] if shown else name for name in found)}" if found else ""


_STRINGS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`")
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_STAGE_KEY = re.compile(
    rf"{_STRINGS.pattern}|{_COMMENTS.pattern}|(?<![\w.])stage_key\s*\((?P<stage>[^()]*)\)", re.IGNORECASE | re.DOTALL
)
_TEXT = r"'(?:[^']|'')*'|\"[^\"]*\""
_JUDGED = re.compile(
    rf"{_STRINGS.pattern}|{_COMMENTS.pattern}|(?<![\w.])judged\s*\((?P<given>(?:[^()'\"]|{_TEXT})*)\)",
    re.IGNORECASE | re.DOTALL,
)
_TEXTS = re.compile(rf"\s*(?:{_TEXT})?(?:\s*,\s*(?:{_TEXT}))*\s*")
_NAME = re.compile(r"'([^'`]+)'|\"([^\"`]+)\"")
_PREFIXED = re.compile(r"(?<![\w'])[bnr](?='')", re.IGNORECASE)
_CODE = re.compile(rf"(?P<text>{_STRINGS.pattern})|(?P<comment>--|/\*)")
_CALLED = re.compile(r"([A-Za-z_]\w*|'')\s*\(")
_ESCAPED = re.compile(r"\w''")
_PLACEHOLDERS = re.compile(r"\?|\$\w*|(?<!:):[A-Za-z_]\w*")


def quoted(text: str) -> str:
    """The text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """`column IN ('a', 'b')`; `false` without values."""
    items = ", ".join(quoted(v) for v in values)
    return f"{column} IN ({items})" if items else "false"


def forms_of(text: str) -> list[str]:
    """The text as given and in Unicode's forms NFC and NFD: ids before 0.4 have the form that their machine used."""
    return list(dict.fromkeys([text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]))


def _with_key_columns(where: str) -> str:
    """`stage_key('hands_2d')` as the column that it stands for. Raises ConfigError for a name without quotes."""

    def column(found: re.Match[str]) -> str:
        if found["stage"] is None:
            return found[0]  # text, or a comment
        name = _NAME.fullmatch(found["stage"].strip())
        if name is None:
            problem = f"the filter {where!r} cannot be used: {found[0]!r} does not name a stage in quotes"
            raise ConfigError(problem, "stage_key('hands_2d'); docs/tables.md has the stages")
        return f"`{key_column(name[1] or name[2])}`"

    return _STAGE_KEY.sub(column, where)


def with_judged(where: str | None, ids_of: Callable[..., Collection[str]]) -> str | None:
    """The filter with `clip_id IN (...)` where `judged('good')` stands.

    ids_of: called with the texts in the brackets. Raises ConfigError for brackets that hold something else, and what
    `ids_of` raises.
    """
    if where is None or "judged" not in where.lower():
        return where

    def listed(found: re.Match[str]) -> str:
        if found["given"] is None:
            return found[0]  # text, or a comment
        if not _TEXTS.fullmatch(found["given"]):
            problem = f"the filter {where!r} cannot be used: {found[0]!r} holds something else than texts in quotes"
            raise ConfigError(problem, "judged('good'), judged('bad'), judged('bad', 'REASON'), or judged() for all")
        texts = [text[1:-1].replace(text[0] * 2, text[0]) for text in re.findall(_TEXT, found["given"])]
        if len(texts) > 2:
            problem = f"the filter {where!r} cannot be used: {found[0]!r} takes at most a verdict and a reason"
            raise ConfigError(problem, "judged('bad', 'REASON')")
        ids = sorted(ids_of(*texts))
        return in_list("clip_id", ids) if ids else "(false AND clip_id IS NULL)"  # of a table without ids an error

    return _JUDGED.sub(listed, where)


def clause(where: str | None) -> str | None:
    """The filter in brackets, with the columns that `stage_key('NAME')` stands for.

    Without brackets Lance 14 ignores what follows a complete condition (`hand_left duration_s < 4`, `hand_left) OR
    ...`); in brackets it raises an error. Raises ConfigError for unbalanced brackets, for a stage without quotes, for
    what is no UTF-8, and for `?`, `$1`, `:name`, `b'x'`, `n'x'` and `r'x'`, on which Lance 14 panics.
    """
    if where is None:
        return None
    if not is_utf8(where):
        raise ConfigError(f"the filter {where!r} cannot be used: it is no UTF-8 text", "write it as UTF-8")
    depth, bare = 0, _STRINGS.sub("''", where)
    code = _COMMENTS.sub("", bare)
    if (found := _PLACEHOLDERS.search(code)) is not None:
        problem = f"the filter {where!r} cannot be used: {found[0]!r} is a placeholder, expected a value"
        raise ConfigError(problem, "write the value itself; text stands in single quotes")
    if (found := _PREFIXED.search(code)) is not None:
        problem = f"the filter {where!r} cannot be used: there is {found[0]!r} before a text in quotes"
        raise ConfigError(problem, "text stands in single quotes, with nothing before them: 'cup'")
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth or not where.strip():
        raise ConfigError(f"the filter {where!r} cannot be used: {'unbalanced brackets' if depth else 'it is empty'}")
    where = _with_key_columns(where)
    return f"({where}\n)" if "--" in where else f"({where})"  # the line break ends a comment


KEYWORDS = frozenset(("and", "or", "not", "in", "between", "like", "ilike", "is", "then", "else", "when", "decimal"))
"""Words of SQL that stand before brackets."""


def calls_only(where: str, allowed: Collection[str]) -> None:
    """Raises ConfigError for a filter that calls another function than `allowed`, or that hides what it calls: in
    comments, in quotes, or behind texts with a letter before them, in which a backslash escapes the quote."""
    bare = _CODE.sub(lambda found: "''" if found["text"] else found[0], where)
    problem = f"the filter {where[:200]!r} cannot be used here: "
    for pattern, what in ((r"--|/\*", "it holds a comment"), (_ESCAPED, "a letter stands before a text in quotes")):
        if re.search(pattern, bare):
            raise ConfigError(problem + what, "leave it out")
    for name in _CALLED.findall(bare):
        if name.lower() not in allowed and name.lower() not in KEYWORDS:
            called = "what is called stands in quotes" if name == "''" else f"it calls {name!r}"
            raise ConfigError(problem + called, f"expected one of: {', '.join(sorted(allowed))}")


@contextmanager
def filtered(where: str | None, table: lance.LanceDataset) -> Iterator[None]:
    """For reads of a table that filter by `where`: an error about the filter is raised as ConfigError."""
    try:
        yield
    except (ValueError, OSError) as error:
        if where is None or not is_filters_fault(error):
            raise
        raise _refused(where, table.schema, error) from error


def both(where: str | None, condition: str) -> str:
    """The filter, if there is one, AND the condition."""
    return f"({where}) AND ({condition})" if where else condition
