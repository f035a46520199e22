"""Rows of a CSV file, one per line, so that one damaged line never swallows the next."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from handloom.errors import ConfigError
from handloom.ingest.files import Options, read_bytes


@dataclass(frozen=True)
class Row:
    """One row: `row["column"]` is its cell, without surrounding spaces; `where` names file, row and line."""

    path: str
    number: int  # the first row after the header is 1
    line: int  # of the file, as an editor shows it
    columns: dict[str, int]
    cells: list[str]
    problem: str = ""

    @property
    def where(self) -> str:
        return f"{self.path.rpartition('/')[2]} row {self.number} (line {self.line})"

    def __getitem__(self, column: str) -> str:
        return self.cells[self.columns[column]].strip()

    def check_width(self) -> None:
        """Raises ValueError where the row does not have one cell per column, or cannot be read at all."""
        if self.problem:
            raise ValueError(self.problem)
        if len(self.cells) != len(self.columns):
            short = list(self.columns)[len(self.cells) :]
            missing = f": column {short[0]} and what follows is missing" if short else ""
            raise ValueError(f"{len(self.cells)} cells, expected {len(self.columns)}{missing}")


def read_rows(path: str, what: str, options: Options = None) -> tuple[list[str], Iterator[Row]]:
    """The header's columns, and the rows. Empty lines are no rows; a cell holds no line break.

    Raises:
        ConfigError: the file cannot be read, is empty, or names a column twice.
    """
    text = _decode(read_bytes(path, what, options))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise ConfigError(f"{what} {path} is empty, expected a header and rows", "download it again")
    try:
        columns = [cell.strip() for cell in next(csv.reader([lines[first]]))]
    except csv.Error as error:
        raise ConfigError(f"{what} {path} is no CSV file: {error} in its first line", "check the path") from error
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ConfigError(f"{what} {path} has the column {twice[0]} twice", "expected every column once")
    return columns, _rows(path, lines, first + 1, {name: i for i, name in enumerate(columns)})


def _rows(path: str, lines: list[str], first: int, columns: dict[str, int]) -> Iterator[Row]:
    number = 0
    for i in range(first, len(lines)):
        if not lines[i].strip():
            continue
        number += 1
        try:
            cells, problem = next(csv.reader([lines[i]])), ""
        except csv.Error as error:
            cells, problem = [], f"no CSV: {error}"
        if not _is_text(lines[i]):
            problem = "bytes that are not UTF-8"
        yield Row(path, number, i + 1, columns, cells, problem)


def _is_text(line: str) -> bool:
    if line.isascii():
        return True
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decode(data: bytes) -> str:
    """UTF-8, or UTF-16 where the first bytes say so (spreadsheets write it); other bytes become lone surrogates."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="surrogateescape")
