"""`handloom judgements`: what people think of clips, counted and listed, written to and read from CSV files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.ingest.csv_rows import CsvRow, read_rows
from handloom.io.atomic import atomic_file
from handloom.plural import plural
from handloom.schemas.tables.arrow import JUDGEMENTS, VERDICTS
from handloom.store.clips.judgements import Judgement, ids_in_rows, judge

MOST_LISTED = 50
MOST_NOTE = 60
"""Characters of a note in the list."""
ROWS_PER_COMMIT = 2000


def as_json(rows: pa.Table) -> list[dict[str, Any]]:
    """Judgements as JSON values: times as ISO 8601 in UTC."""
    return [row | {"at": row["at"].isoformat()} for row in rows.to_pylist()]


def judgements_text(rows: pa.Table) -> str:
    """Counts by verdict and reason, and the newest judgements, a line each."""
    judged = rows.to_pylist()
    verdicts = Counter(row["verdict"] for row in judged)
    lines = [", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)]
    reasons = Counter((row["verdict"], row["reason"]) for row in judged if row["reason"])
    lines += [f"  {verdict}: {reason}  {count}" for (verdict, reason), count in reasons.most_common()]
    for row in judged[:MOST_LISTED]:
        note = " ".join((row["note"] or "").split())
        note = note if len(note) <= MOST_NOTE else f"{note[:MOST_NOTE]}..."
        told = " - ".join(text for text in (row["reason"], note) if text)
        who = f"  ({row['who']}, {row['at']:%Y-%m-%d %H:%M})" if row["who"] else f"  ({row['at']:%Y-%m-%d %H:%M})"
        lines.append(f"{row['verdict']:<4}  {row['clip_id']}{f'  {told}' if told else ''}{who}")
    if len(judged) > MOST_LISTED:
        lines.append(f"and {len(judged) - MOST_LISTED} earlier ones; --json and --csv give all")
    return "\n".join(lines)


def csv_text(rows: pa.Table) -> str:
    """Judgements as the text of a CSV file with the columns of the table; null is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, JUDGEMENTS.names)
    writer.writeheader()
    writer.writerows(as_json(rows))
    return text.getvalue()


def write_csv(rows: pa.Table, path: Path) -> None:
    """Write judgements as a CSV file. Raises StoreError."""
    with atomic_file(path) as draft:
        draft.write_text(csv_text(rows), encoding="utf-8", newline="")


class Added(NamedTuple):
    """How many judgements of a file were added, and left out: the table's is as late or later; the clip has no row."""

    added: int
    older: int = 0
    without_row: int = 0


def read_csv(db: Database, path: Path, skip_missing: bool = False) -> Added:
    """Add the judgements of a CSV file that are later than those of the same clips in the table; without `at` they are
    of now. skip_missing: leave out those of clips that have no row here.

    Raises ConfigError, with the line, for one that cannot be used; StoreError for clips without a row, before anything
    is added.
    """
    hint = "`handloom judgements --csv` writes one"
    columns, rows = read_rows(str(path), "the judgements", if_empty=hint, strict=True)
    if missing := [name for name in ("clip_id", "verdict") if name not in columns]:
        hint = f"a header with {', '.join(JUDGEMENTS.names)}; the first two are needed"
        raise ConfigError(f"{path} has no column {missing[0]!r}", hint)
    told = [_judgement(row, columns) for row in rows]
    there = ids_in_rows(db, [one.clip_id for one in told])
    given = [replace(one, clip_id=id_) for one, id_ in zip(told, there, strict=True) if id_ is not None]
    if len(given) < len(told) and not skip_missing:
        first = told[there.index(None)].clip_id
        problem = (
            f"{path}: {len(told) - len(given)} of {plural(len(told), 'judgement')} are of clips without a row here"
        )
        hint = "nothing was added; --skip-missing adds the others"
        raise StoreError(f"{problem}, the first is {first!r}", hint)
    kept = db.judgements()
    before = dict(zip(kept.column("clip_id").to_pylist(), kept.column("at").to_pylist(), strict=True))
    later = [one for one in given if one.at is None or one.clip_id not in before or one.at > before[one.clip_id]]
    for start in range(0, len(later), ROWS_PER_COMMIT):
        judge(db, later[start : start + ROWS_PER_COMMIT])
    return Added(len(later), len(given) - len(later), len(told) - len(given))


def added_text(result: Added) -> str:
    """The result of `read_csv`."""
    older = f"; {result.older} left out: the table's are as late or later" if result.older else ""
    missing = f"; {result.without_row} left out: their clips have no row here" if result.without_row else ""
    return f"added {plural(result.added, 'judgement')}{older}{missing}"


def _judgement(row: CsvRow, columns: list[str]) -> Judgement:
    try:
        row.check_width()
        cells = {name: row[name] or None for name in JUDGEMENTS.names if name in columns}
        at = cells.pop("at", None)
        version = cells.pop("clips_version", None)
        time = None if at is None else datetime.fromisoformat(at)
        if time is not None and time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        if cells["verdict"] not in VERDICTS:
            raise ValueError(f"verdict {cells['verdict']!r}, expected {' or '.join(VERDICTS)}")
        if cells["clip_id"] is None:
            raise ValueError("no clip_id")
        texts: dict[str, Any] = cells
        return Judgement(**texts, at=time, clips_version=None if version is None else int(version))
    except ValueError as error:
        raise ConfigError(f"{row.where}: {error}", "nothing was added") from error
