"""`clips` as Parquet or Arrow IPC files with the table's own schema.

A shard is written as `clips-00000.parquet.unfinished`; when all are written their number is known, and it gets its
name, `clips-00000-of-00012.parquet`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handloom.errors import ConfigError, StoreError
from handloom.export.new_export import CARD, INDEX, MARK, NewExport, new_export, read_record
from handloom.export.rows import row_groups
from handloom.io.folder import Folder, Sink

Place = tuple[str, ...]
"""A column, and the names of members on the way to a part of it."""
ITEM = "[]"  # of a list


class ParquetShard:
    """Writes tables as row groups; the file reads back with exactly `schema`, metadata included.

    Except where a fixed-size vector (an embedding, `camera_matrix`, one within a list or struct) is null in some row:
    pyarrow up to 25 writes such a column but cannot read it (apache/arrow#35692), so the file declares it a plain list,
    which every reader can read; `table.cast(schema)` makes it fixed-size again. The stored bytes are the same.
    """

    def __init__(self, sink: Sink | io.BytesIO, schema: pa.Schema) -> None:
        self._schema = schema
        self._with_nulls: set[Place] = set()
        self._writer = pq.ParquetWriter(sink, schema, store_schema=False, **_options(schema))

    def write_table(self, table: pa.Table) -> None:
        for field in self._schema:
            for chunk in table.column(field.name).chunks if pa.types.is_nested(field.type) else ():
                self._with_nulls.update(_null_vectors(chunk, (field.name,)))
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def close(self) -> None:
        fields = [field.with_type(_readable(field.type, (field.name,), self._with_nulls)) for field in self._schema]
        schema = pa.schema(fields, self._schema.metadata)
        self._writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(schema.serialize()).decode()})
        self._writer.close()


def _null_vectors(array: pa.Array[Any], path: Place) -> Iterator[Place]:
    """Where fixed-size lists are null in an array, also those of a null struct."""
    kind = array.type
    if pa.types.is_struct(kind):
        for field, child in zip(kind, array.flatten(), strict=True):
            yield from _null_vectors(child, (*path, field.name))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_fixed_size_list(kind) and array.null_count:
            yield path
        if pa.types.is_nested(kind.value_type):
            yield from _null_vectors(array.flatten(), (*path, ITEM))


def _readable(kind: pa.DataType, path: Place, lists: Collection[Place]) -> pa.DataType:
    """The type with plain lists in place of the fixed-size ones at these paths."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_readable(field.type, (*path, field.name), lists)) for field in kind])
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return kind
    item = kind.value_field.with_type(_readable(kind.value_type, (*path, ITEM), lists))
    if pa.types.is_fixed_size_list(kind) and path not in lists:
        return pa.list_(item, kind.list_size)
    return pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)


def _options(schema: pa.Schema) -> dict[str, Any]:
    """zstd for all but images, which are compressed already; statistics and dictionaries for flat columns only.

    Inner fields keep Arrow's name `item` (not Parquet's `element`), or the schema would not read back as it was.
    """
    flat = [f.name for f in schema if not pa.types.is_nested(f.type) and not pa.types.is_binary(f.type)]
    strings = [f.name for f in schema if pa.types.is_string(f.type)]
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty, use_compliant_nested_type=False)
    columns = pq.ParquetFile(empty).schema
    codecs = {c.path: "none" if c.physical_type == "BYTE_ARRAY" and c.path not in strings else "zstd" for c in columns}
    return {
        "compression": codecs,
        "use_dictionary": strings,
        "write_statistics": flat,
        "use_compliant_nested_type": False,
    }


TABLE = "clips"
MAX_SHARD_BYTES = 512 * 2**20
ROW_GROUP_BYTES = 32 * 2**20

Format = Literal["parquet", "arrow"]
Progress = Callable[[int, int], None]  # rows written so far, bytes written so far


@dataclass(frozen=True)
class ExportShard:
    """One file of an export."""

    path: str
    num_rows: int
    num_bytes: int
    sha256: str


def export_parquet(
    batches: Iterable[pa.RecordBatch],
    out: str,
    *,
    schema: pa.Schema,
    metadata: dict[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    max_shard_rows: int | None = None,
    overwrite: bool = False,
    card: Callable[[], str] | None = None,
    progress: Progress | None = None,
) -> list[ExportShard]:
    """Write rows as Parquet shards (zstd; images as they are) that read back with exactly `schema`.

    One exception, which pyarrow needs: see `ParquetShard` on vectors that are null.

    Args:
        batches: the rows, in batches of any size; read once. Memory holds one row group (32 MiB) and one batch.
        out: folder or URI; created if it is not there.
        schema: of the table, with its metadata and its fields'.
        metadata: kept in `index.json` under `source`: database, table version, run key, settings. JSON values.
        max_shard_bytes: a shard is closed once its file has this size.
        max_shard_rows: ... or once it has this many rows.
        overwrite: replace an earlier export in `out`, finished or not. Only files that its index names are removed.
        card: gives the text of README.md once all rows are written; None: no card.
        progress: called after every row group with the rows and bytes written so far.

    Raises:
        ConfigError: `out` holds files and `overwrite` is false, or is no place that can be written to.
        ShapeError: a batch does not have the schema's columns.
        StoreError: writing failed (permission, full disk). What was written is removed as far as that is possible.
    """
    limits = _limits(max_shard_bytes, max_shard_rows)
    return _export("parquet", batches, out, schema, metadata or {}, limits, overwrite, card, progress)


def export_arrow(
    batches: Iterable[pa.RecordBatch],
    out: str,
    *,
    schema: pa.Schema,
    metadata: dict[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    max_shard_rows: int | None = None,
    overwrite: bool = False,
    card: Callable[[], str] | None = None,
    progress: Progress | None = None,
) -> list[ExportShard]:
    """Write rows as Arrow IPC files, uncompressed so that they can be memory-mapped. Otherwise as `export_parquet`."""
    limits = _limits(max_shard_bytes, max_shard_rows)
    return _export("arrow", batches, out, schema, metadata or {}, limits, overwrite, card, progress)


def read_index(out: str) -> dict[str, Any]:
    """`index.json` of a finished export. Raises ConfigError where there is none, or where one was killed."""
    folder = Folder.parse(out)
    index = read_record(folder, INDEX)
    if index is not None:
        return index
    if read_record(folder, MARK) is not None:
        raise ConfigError(f"the export in {out!r} was not finished", "export again with --overwrite")
    raise ConfigError(f"{out!r} holds no export: there is no {INDEX}", "check the folder's name")


def _limits(max_bytes: int, max_rows: int | None) -> tuple[int, int]:
    if max_bytes < 1 or (max_rows is not None and max_rows < 1):
        raise ConfigError(
            f"a shard of at most {max_bytes} bytes and {max_rows} rows can hold no row", "give at least 1"
        )
    return max_bytes, max_rows if max_rows is not None else 2**31 - 1


def _export(
    form: Format,
    batches: Iterable[pa.RecordBatch],
    out: str,
    schema: pa.Schema,
    metadata: dict[str, Any],
    limits: tuple[int, int],
    overwrite: bool,
    card: Callable[[], str] | None,
    progress: Progress | None,
) -> list[ExportShard]:
    with new_export(out, overwrite=overwrite) as export:
        drafts = _write_shards(form, batches, schema, limits, export, progress)
        shards = [replace(s, path=f"{TABLE}-{n:05d}-of-{len(drafts):05d}.{form}") for n, s in enumerate(drafts)]
        export.rename({draft.path: shard.path for draft, shard in zip(drafts, shards, strict=True)})
        if card is not None:
            export.write(CARD, card().encode())
        export.finish(_index(form, schema, metadata, shards))
    return shards


def _write_shards(
    form: Format,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    limits: tuple[int, int],
    export: NewExport,
    progress: Progress | None,
) -> list[ExportShard]:
    """All rows in shards. Without rows one empty shard keeps the schema."""
    max_bytes, max_rows = limits
    groups = row_groups(batches, schema, max_bytes=min(ROW_GROUP_BYTES, max_bytes))
    shards: list[ExportShard] = []
    group = next(groups, None)
    while group is not None or not shards:
        name, num_rows = f"{TABLE}-{len(shards):05d}.{form}", 0
        sink, num_bytes = export.open_draft(name), sum(shard.num_bytes for shard in shards)
        with _open_writer(form, sink, schema) as write:
            while group is not None and num_rows < max_rows and (sink.num_bytes < max_bytes or not num_rows):
                part = group.slice(0, max_rows - num_rows)
                write(part)
                num_rows += part.num_rows
                if progress is not None:
                    progress(sum(s.num_rows for s in shards) + num_rows, num_bytes + sink.num_bytes)
                group = group.slice(part.num_rows) if part.num_rows < group.num_rows else next(groups, None)
        shards.append(ExportShard(name, num_rows, sink.num_bytes, sink.digest.hexdigest()))
    return shards


@contextmanager
def _open_writer(form: Format, sink: Sink, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends one row group (Parquet) or record batch (Arrow) to `sink`; closes both at the end."""
    with sink:
        writer = ParquetShard(sink, schema) if form == "parquet" else pa.ipc.new_file(sink, schema)

        def write(table: pa.Table) -> None:
            # Copied into one chunk per column: otherwise the bytes would depend on the batches in which rows arrive.
            writer.write_table(table.combine_chunks().take(pa.array(np.arange(len(table)))))

        try:
            yield write
        except BaseException:  # whatever ended it, the file is closed; raised again
            with suppress(OSError, StoreError):
                writer.close()
            raise
        writer.close()


def _index(form: Format, schema: pa.Schema, metadata: dict[str, Any], shards: list[ExportShard]) -> dict[str, Any]:
    return {
        "format": form,
        "table": TABLE,
        "source": metadata,
        "num_rows": sum(shard.num_rows for shard in shards),
        "num_bytes": sum(shard.num_bytes for shard in shards),
        "columns": {field.name: str(field.type) for field in schema},
        "shards": [asdict(shard) for shard in shards],
    }
