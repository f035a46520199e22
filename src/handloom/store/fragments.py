"""Fragments: what a worker writes for its shard, without committing it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lance
import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import write_fragments

from handloom.errors import StoreError
from handloom.store.columns import allow_null
from handloom.store.location import Location, lance_errors


@dataclass(frozen=True)
class FragmentRecord:
    """What the driver must know to commit a shard: Lance's own description of the data files, and whose rows they hold.

    Small and JSON-able; `clip_ids` are in row order.
    """

    fragments: tuple[str, ...]
    clip_ids: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> FragmentRecord:
        values = json.loads(text)
        return FragmentRecord(tuple(values["fragments"]), tuple(values["clip_ids"]))

    def metadata(self) -> list[lance.FragmentMetadata]:
        return [lance.FragmentMetadata.from_json(text) for text in self.fragments]

    def files(self) -> list[str]:
        """Names of the data files: unique, so they say whether a commit is this one."""
        return [file["path"] for text in self.fragments for file in json.loads(text)["files"]]


def write_fragment(
    uri: str, batches: Sequence[pa.RecordBatch], schema: pa.Schema, storage_options: dict[str, str] | None = None
) -> FragmentRecord:
    """Write rows into data files of `clips` that nobody sees before the driver commits them.

    Args:
        uri: the database. Its table `clips` exists: the driver made it before the run (`Committer`).
        batches: rows in the columns of `schema`, at least one row.
        schema: of `clips`.

    Raises StoreError if they cannot be written (a full disk, for one) or there is nothing to write.
    """
    clip_ids = tuple(i for batch in batches for i in batch.column("clip_id").to_pylist())
    if not clip_ids:
        raise StoreError("a fragment without rows was asked for")
    check_there(Location.parse(uri))
    table_uri = Location.parse(uri).table_uri("clips")
    with lance_errors(f"write {len(clip_ids)} rows", table_uri):
        table = lance.dataset(table_uri, storage_options=storage_options or None)
        if allow_null(table, schema):  # somebody has added a column since the run began
            table = lance.dataset(table_uri, storage_options=storage_options or None)
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        fragments = write_fragments(reader, table, schema=schema, mode="append")
    return FragmentRecord(tuple(json.dumps(f.to_json()) for f in fragments), clip_ids)


def check_there(location: Location) -> None:
    """Raise StoreError where a local database has no table `clips` on this machine. Lance would make an empty one."""
    table = Path(location.table_uri("clips"))
    if location.is_local and not (table / "_versions").is_dir():
        problem = f"there is no table at {table} on this machine"
        raise StoreError(problem, "mount the database's file system there, or use a database in s3://")


def unseen_files(uri: str, record: FragmentRecord) -> list[str]:
    """Files of an uncommitted fragment that this machine does not see: somebody wrote them to another folder.

    A store in S3 is one for all.
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
