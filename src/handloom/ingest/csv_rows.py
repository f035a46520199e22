"""CSV files, read line by line, so that a damaged line never swallows the next one.

What spreadsheets save is read: UTF-8 or UTF-16, with or without a byte order mark; commas, semicolons or tabs between
cells; any line ends; line breaks inside quoted cells.
"""

from __future__ import annotations

import csv
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

from handloom.errors import ConfigError
from handloom.ingest.names import printable
from handloom.io.reading import read_bytes
from handloom.io.remote import Options

DELIMITERS = (",", ";", "\t")
MAX_LINES_OF_A_ROW = 20
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?')  # a first line that Excel writes and reads


@dataclass(frozen=True)
class CsvRow:
    """One row: `row["column"]` is its cell without surrounding spaces; `where` names file, row and line."""

    path: str
    number: int  # the first row after the header is 1
    line: int  # of the file, as an editor shows it
    columns: dict[str, int]
    cells: list[str]
    width: int  # number of columns of the header, with those that have no name
    problem: str = ""
    delimiter: str = ","

    @property
    def where(self) -> str:
        return f"{self.path.rpartition('/')[2]} row {self.number} (line {self.line})"

    def __getitem__(self, column: str) -> str:
        return self.cells[self.columns[column]].strip()

    def check_width(self) -> None:
        """Raises ValueError if the row cannot be read, or does not have one cell per column."""
        if self.problem:
            raise ValueError(self.problem)
        if len(self.cells) != self.width:
            short = [name for name, i in self.columns.items() if i >= len(self.cells)]
            missing = f": column {short[0]} and what follows is missing" if short else ""
            raise ValueError(f"{len(self.cells)} cells, expected {self.width}{missing}")


def read_rows(
    path: str, what: str, options: Options = None, if_empty: str = "download it again", strict: bool = False
) -> tuple[list[str], Iterator[CsvRow]]:
    """The header's columns, and the rows. Lines of empty cells and columns without a name are skipped: spreadsheets
    write both around the cells in use. A line break in a quoted cell becomes a space.

    Args:
        if_empty: what to do about an empty file.
        strict: of a file that a program wrote: line breaks in quoted cells stay, and a stray quote is a problem of its
            row and of all after it.

    Raises:
        ConfigError: the file cannot be read, is empty, or names a column twice.
    """
    text = decode_text(read_bytes(path, what, options))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise ConfigError(f"{what} {path} is empty, expected a header and rows", if_empty)
    if "\0" in lines[first]:
        raise ConfigError(f"{what} {path} is no text, expected a CSV file", "check the path")
    try:
        if separator := _SEPARATOR.fullmatch(lines[first].strip()):
            first = next((i for i in range(first + 1, len(lines)) if lines[i].strip()), first)
        most = max(DELIMITERS, key=lambda d: len(_cells(lines[first], d)))  # of equal numbers the comma's
        delimiter = separator[1] if separator else most
        columns = [cell.strip() for cell in _cells(lines[first], delimiter)]
    except csv.Error as error:
        raise ConfigError(f"{what} {path} is no CSV file: {error} in its first line", "check the path") from error
    named = [name for name in columns if name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ConfigError(f"{what} {path} has the column {printable(twice[0])} twice", "expected every column once")
    by_name = {name: i for i, name in enumerate(columns) if name}
    rows = _strict_rows if strict else _rows
    return named, rows(path, lines, first + 1, by_name, len(columns), delimiter)


def _cells(line: str, delimiter: str) -> list[str]:
    """Raises csv.Error."""
    return next(csv.reader([line], delimiter=delimiter))


def _rows(
    path: str, lines: list[str], first: int, columns: dict[str, int], width: int, delimiter: str
) -> Iterator[CsvRow]:
    number = 0
    i = first
    while i < len(lines):
        line, here, i = lines[i], i, i + 1
        if not line.strip(f'{delimiter}"{string.whitespace}'):
            continue
        number += 1
        try:
            cells, problem = _cells(line, delimiter), ""
            if len(cells) != width and line.count('"') % 2:
                cells, i = _joined(lines, here, width, delimiter) or (cells, i)
        except csv.Error as error:
            cells, problem = [], f"no CSV: {error}"
        if not _is_text("\n".join(lines[here:i])):
            problem = "bytes that are no text (neither UTF-8 nor UTF-16): save it as CSV UTF-8"
        yield CsvRow(path, number, here + 1, columns, cells, width, problem, delimiter)


def _strict_rows(
    path: str, lines: list[str], first: int, columns: dict[str, int], width: int, delimiter: str
) -> Iterator[CsvRow]:
    reader = csv.reader((f"{line}\n" for line in lines[first:]), delimiter=delimiter, strict=True)
    number, line = 0, first + 1
    while True:
        cells, problem = [], ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"no CSV: {error}"
        if problem or any(map(str.strip, cells)):
            number += 1
            if not _is_text("\n".join(cells)):
                problem = "bytes that are no text (neither UTF-8 nor UTF-16): save it as CSV UTF-8"
            yield CsvRow(path, number, line, columns, cells, width, problem, delimiter)
        line = first + reader.line_num + 1


def _joined(lines: list[str], first: int, width: int, delimiter: str) -> tuple[list[str], int] | None:
    """A row whose quoted cell continues on the next lines, and the index of the line after it; None if there is none.

    A line that is a whole row by itself is not joined: the quote before it is a stray one.
    """
    joined = lines[first]
    for i in range(first + 1, min(first + MAX_LINES_OF_A_ROW, len(lines))):
        if len(_cells(lines[i], delimiter)) == width:
            return None
        joined = f"{joined} {lines[i]}"
        if joined.count('"') % 2 == 0:
            cells = _cells(joined, delimiter)
            return (cells, i + 1) if len(cells) == width else None
    return None


def _is_text(line: str) -> bool:
    """Whether `decode_text` could decode all of it."""
    if line.isascii():
        return True
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return "\ufffd" not in line


def decode_text(data: bytes) -> str:
    """Decode UTF-8 or UTF-16, with or without a byte order mark. Bytes that are neither become lone surrogates; in
    UTF-16 they become U+FFFD."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if len(data) > 1 and 0 in data[:2] and data[:2] != b"\0\0":
        return data.decode("utf-16-le" if data[1] == 0 else "utf-16-be", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")
