"""Lance fragments: data files that a worker writes for its shard, and that the driver commits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lance
import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import write_fragments

from handloom.errors import StoreError
from handloom.store.columns import allow_null
from handloom.store.lance_faults import LANCE_ERRORS
from handloom.store.location import Location, lance_errors

REOPEN_S = 600.0


@dataclass(frozen=True)
class FragmentRecord:
    """What the driver needs to commit a shard: Lance's description of the data files (JSON) and the clips in them.

    clip_ids: in row order.
    """

    fragments: tuple[str, ...]
    clip_ids: tuple[str, ...]

    def metadata(self) -> list[lance.FragmentMetadata]:
        return [lance.FragmentMetadata.from_json(text) for text in self.fragments]

    def files(self) -> list[str]:
        """Names of the data files. They are unique, so a commit can be recognised by them."""
        return [file["path"] for text in self.fragments for file in json.loads(text)["files"]]

    def field_ids(self) -> set[int]:
        """Lance's numbers of the columns that were written."""
        return {id for text in self.fragments for file in json.loads(text)["files"] for id in file["fields"]}


def write_fragment(
    uri: str, batches: Sequence[pa.RecordBatch], schema: pa.Schema, storage_options: dict[str, str] | None = None
) -> FragmentRecord:
    """Write rows into data files of `clips`; they become visible when the driver commits them.

    Args:
        uri: the database. Its table `clips` exists: the driver made it before the run (`Committer`).
        batches: rows in the columns of `schema`, at least one row.
        schema: of `clips`.

    Opens the table once in `REOPEN_S` seconds, not for every shard: opening reads the manifest, 0.3 to 0.6 s at 100,000
    fragments, and writing to an opened table takes 4 ms. The driver sees at the commit whether the columns have changed
    since.

    Raises StoreError if they cannot be written (for example a full disk) or there are no rows.
    """
    clip_ids = tuple(i for batch in batches for i in batch.column("clip_id").to_pylist())
    if not clip_ids:
        raise StoreError("cannot write a fragment without rows")
    check_there(Location.parse(uri))
    table_uri = Location.parse(uri).table_uri("clips")

    def write() -> list[lance.FragmentMetadata]:
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        return write_fragments(reader, _opened(table_uri, storage_options, schema), schema=schema, mode="append")

    with lance_errors(f"write {len(clip_ids)} rows", table_uri):
        was_open = table_uri in _tables
        try:
            fragments = write()
        except LANCE_ERRORS:
            if not was_open:
                raise
            open_again(uri)  # a user may have changed the table's columns
            fragments = write()
    return FragmentRecord(tuple(json.dumps(f.to_json()) for f in fragments), clip_ids)


_tables: dict[str, tuple[float, lance.LanceDataset]] = {}  # by URI: when this process has opened the table


def open_again(uri: str) -> None:
    """Let the next `write_fragment` of this process open the table again: its columns have changed."""
    _tables.pop(Location.parse(uri).table_uri("clips"), None)


def _opened(table_uri: str, storage_options: dict[str, str] | None, schema: pa.Schema) -> lance.LanceDataset:
    opened_s, table = _tables.get(table_uri, (0.0, None))
    if table is None or time.monotonic() - opened_s > REOPEN_S:
        table = lance.dataset(table_uri, storage_options=storage_options or None)
        if allow_null(table, schema):  # a user has added a column since the run began
            table = lance.dataset(table_uri, storage_options=storage_options or None)
        _tables[table_uri] = time.monotonic(), table
    return table


def check_there(location: Location) -> None:
    """Raise StoreError if a local database has no table `clips` on this machine: Lance would make an empty one."""
    table = Path(location.table_uri("clips"))
    if location.is_local and not (table / "_versions").is_dir():
        problem = f"there is no table at {table} on this machine"
        raise StoreError(problem, "mount the database's file system there, or use a database in s3://")


def unseen_files(uri: str, record: FragmentRecord) -> list[str]:
    """Files of an uncommitted fragment that do not exist on this machine: they were written to another folder.

    Always empty in S3, which is the same for all machines.
    """
    location = Location.parse(uri)
    if not location.is_local:
        return []
    folder = Path(location.table_uri("clips")) / "data"
    return [name for name in record.files() if not (folder / name).exists()]


def read_rows(
    uri: str,
    record: FragmentRecord,
    keep: Iterable[str],
    schema: pa.Schema,
    storage_options: dict[str, str] | None = None,
) -> list[pa.RecordBatch]:
    """The rows of an uncommitted fragment whose `clip_id` is in `keep`, each clip once."""
    table_uri = Location.parse(uri).table_uri("clips")
    wanted = set(keep)
    kept = []
    with lance_errors("read a written fragment", table_uri):
        for file in record.files():
            reader = LanceFileReader(f"{table_uri}/data/{file}", storage_options=storage_options or None)
            for batch in reader.read_all(batch_size=16).to_batches():
                for index, clip_id in enumerate(batch.column("clip_id").to_pylist()):
                    if clip_id in wanted:
                        wanted.remove(clip_id)
                        kept.append(batch.slice(index, 1).select(schema.names).cast(schema))
    return kept
