"""`handloom index`: the indexes, and how much of the table they cover."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from handloom.api import Database
from handloom.plural import plural
from handloom.store.clips.segments import bring_segments
from handloom.store.clips.upkeep import drop_old_versions
from handloom.store.duplicates.grouping import Duplicates, can_group, duplicate_counts, group_duplicates
from handloom.store.runs.lease import DatabaseBusy, alone, living_runs
from handloom.store.runs.runs import latest_run
from handloom.store.search.coverage import coverage
from handloom.store.search.index import IndexReport, build_indexes
from handloom.store.search.index import compact as merge
from handloom.store.search.vectors.build import VectorIndex, described_of

log = logging.getLogger(__name__)

KEPT = "keep_versions_days"
MAX_GROUPS, MAX_MEMBERS = 20, 10  # that are printed


def update_indexes(db: Database, *, compact: bool = False) -> tuple[IndexReport, int, Duplicates | None]:
    """Bring near-duplicates, indexes and the table `segments` up to date, then drop versions that the last run would
    drop, with their old index files.

    compact: merge small files first. Also the number of dropped versions, 0 where no run says how long they are kept;
    and the near-duplicates, None where the table lacks the columns that find them, or a run works on the database.
    """
    if compact:
        merge(db)
    duplicates = None
    if can_group(db) and (runs := living_runs(db)):
        log.warning(
            "near-duplicates are not grouped while run %s works on %s; afterwards: handloom duplicates --db %s",
            runs[0].run_id,
            db.uri,
            db.uri,
        )
    elif can_group(db):
        try:
            duplicates = find_duplicates(db)
        except DatabaseBusy as busy:  # it has begun since
            log.warning(
                "near-duplicates are not grouped: %s; afterwards: handloom duplicates --db %s", busy.problem, db.uri
            )
    report = build_indexes(db)
    bring_segments(db)
    run = latest_run(db)
    days = json.loads(run.resources).get(KEPT) if run is not None and run.resources else None
    dropped = 0 if days is None else drop_old_versions(db, timedelta(days=days))
    return report, dropped, duplicates


def find_duplicates(db: Database, *, look: float | None = None, agreement: float | None = None) -> Duplicates:
    """`store.duplicates.grouping.group_duplicates`; raises DatabaseBusy as well if a run works on the database."""
    with alone(db, "duplicates", "near-duplicates cannot be grouped meanwhile"):
        return group_duplicates(db, look=look, agreement=agreement)


def index_counts(db: Database) -> list[dict[str, Any]]:
    """Each index: rows that it covers and lacks, parts, bytes, and the recall of those of embeddings."""
    table = db.table("clips")
    if table is None:
        return []
    return [
        {
            "name": index.name,
            "column": index.column,
            "kind": index.kind,
            "rows": index.num_indexed,
            "rows_waiting": index.num_waiting,
            "parts": len(index.part_rows),
            "bytes": index.num_bytes,
            "recall": described_of(table, index).recall,
        }
        for index in coverage(table).values()
    ]


def index_lines(indexes: list[dict[str, Any]], uri: str) -> list[str]:
    """For `status`: how many rows the indexes lack. Nothing before the first `handloom index`."""
    if not any(index["rows"] for index in indexes):
        return []
    waiting = [index for index in indexes if index["rows_waiting"]]
    if not waiting:
        return [f"  indexes   {len(indexes):>8}   cover all rows"]
    most = max(index["rows_waiting"] for index in waiting)
    return [
        f"  indexes   {len(indexes):>8}   {len(waiting)} lack up to {plural(most, 'row')}, which are searched one by "
        f"one; add them: handloom index --db {uri}"
    ]


def duplicates_json(db: Database) -> dict[str, int] | None:
    """For `status`: how many rows have which state of their group; None: never computed."""
    counts = duplicate_counts(db)
    return None if counts is None else asdict(counts)


def duplicate_lines(counts: dict[str, int] | None, uri: str) -> list[str]:
    """For `status` and `stages`: the groups of near-duplicates, and rows whose group is not that of today."""
    if counts is None:
        return []
    groups = f"{plural(counts['num_groups'], 'group')} of {plural(counts['num_in_groups'], 'clip')}"
    behind = [f"{counts[name]} {name}" for name in ("outdated", "missing") if counts[name]]
    told = f"; rows whose group is {', '.join(behind)}: handloom duplicates --db {uri}" if behind else ""
    return [f"  near-duplicates   {groups}{told}"]


def duplicates_text(found: Duplicates) -> str:
    """The result of `handloom duplicates` as text."""
    least = f"look from {found.thresholds.look:g}, pictures agree from {found.thresholds.agreement:g}"
    compared = f"{found.num_compared} compared with all" if found.num_compared else "none of them new"
    lines = [
        f"{plural(found.num_rows, 'clip')}, {compared}: {plural(found.num_groups, 'group')} of near-duplicates with "
        f"{plural(found.num_in_groups, 'clip')} ({least}; version {found.version})"
    ]
    if found.num_without:
        told = plural(found.num_without, "clip has", "clips have")
        lines.append(f"  {told} no group: look or fingerprint was not computed; `handloom run` computes what rows lack")
    return "\n".join(lines)


def group_lines(found: Duplicates) -> list[str]:
    """The clips of the first groups."""
    lines = []
    for group in found.groups[:MAX_GROUPS]:
        more = f" and {len(group) - MAX_MEMBERS} more" if len(group) > MAX_MEMBERS else ""
        lines.append(f"  {', '.join(group[:MAX_MEMBERS])}{more}")
    if len(found.groups) > MAX_GROUPS:
        lines.append(
            f"  ... and {plural(len(found.groups) - MAX_GROUPS, 'more group', 'more groups')} (--json lists all)"
        )
    return lines


def report_text(report: IndexReport, dropped: int, duplicates: Duplicates | None = None) -> str:
    """The result of `handloom index` as text."""
    exact = f"; exact search on {', '.join(report.exact)}" if report.exact else ""
    lines = [f"{plural(report.num_rows, 'row')}, indexes {', '.join(report.names)} (version {report.version}){exact}"]
    lines += [_vector_line(index) for index in report.vectors]
    if report.copies is not None:
        told = f"{plural(report.copies.num_rows, 'row')}, {report.copies.num_bytes / 1e6:.1f} MB"
        lines.append(f"  copies of ids, words and embeddings, which searches read: {told}")
    lines += [] if duplicates is None else [f"  near-duplicates: {duplicates_text(duplicates)}"]
    lines += [f"  {plural(dropped, 'old version')} dropped"] if dropped else []
    return "\n".join(lines)


def _vector_line(index: VectorIndex) -> str:
    found = "recall not measured" if index.recall is None else f"finds {index.recall:.1%} of the 10 nearest"
    size = "" if index.num_bytes is None else f", {index.num_bytes / 1e6:.1f} MB"
    read = f", reads {index.probes} of {index.partitions} partitions" if index.partitions else ""
    built = "" if index.built_s is None else f", built in {index.built_s:.1f} s"
    return (
        f"  {index.column}: {index.kind}, {index.num_rows - index.num_waiting} of {plural(index.num_rows, 'row')} in "
        f"{plural(index.parts, 'part')}{size}; {found}{read}{built}"
    )
