"""`clips` as Parquet or Arrow IPC files with the table's own schema, and an index that says they are complete.

A shard is written as `clips-00000.parquet.unfinished` and gets its name, `clips-00000-of-00012.parquet`, when all are
there; `index.json` comes last. `index.unfinished.json` names every file of an export under way: where it stands
without `index.json`, the export was killed. An earlier export is replaced only when the new one is complete.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handloom.errors import ConfigError, StoreError
from handloom.export.files import CARD, INDEX, UNFINISHED, ExportFolder, HashingSink, storage_errors
from handloom.export.new_export import INDEX_VERSION, SUFFIX, earlier_files, remove_files
from handloom.export.rows import row_groups


class ParquetShard:
    """Writes tables as row groups; the file reads back with exactly `schema`, metadata included.

    Except where a fixed-size vector (an embedding, `camera_matrix`) is null in some row: pyarrow up to 25 writes such a
    column but cannot read it (apache/arrow#35692), so the file then names it a plain list, which every reader takes;
    `table.cast(schema)` makes it fixed-size again. The stored bytes are the same either way.
    """

    def __init__(self, sink: HashingSink, schema: pa.Schema) -> None:
        self._schema = schema
        self._with_nulls: set[str] = set()
        self._writer = pq.ParquetWriter(sink, schema, store_schema=False, **_options(schema))

    def write_table(self, table: pa.Table) -> None:
        self._with_nulls.update(
            f.name for f in self._schema if pa.types.is_fixed_size_list(f.type) and table.column(f.name).null_count
        )
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def close(self) -> None:
        fields = [f.with_type(pa.list_(f.type.value_field)) if f.name in self._with_nulls else f for f in self._schema]
        schema = pa.schema(fields, self._schema.metadata)
        self._writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(schema.serialize()).decode()})
        self._writer.close()


def _options(schema: pa.Schema) -> dict[str, Any]:
    """zstd for all but pictures, which are compressed already; statistics and dictionaries for plain columns only.

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
    """Write rows as Parquet shards (zstd; pictures as they are) that read back with exactly `schema`.

    One exception, for pyarrow's sake: see `handloom.export.shards.ParquetShard` on vectors that are null.

    Args:
        batches: the rows, in any batch sizes; read once, never more than one row group (32 MiB) and one batch held.
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
    return _export("parquet", batches, ExportFolder(out), schema, metadata or {}, limits, overwrite, card, progress)


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
    return _export("arrow", batches, ExportFolder(out), schema, metadata or {}, limits, overwrite, card, progress)


def read_index(out: str) -> dict[str, Any]:
    """`index.json` of a finished export. Raises ConfigError where there is none, and says whether one was killed."""
    folder = ExportFolder(out)
    index = folder.read_json(INDEX)
    if index is not None:
        return index
    if folder.read_json(UNFINISHED) is not None:
        raise ConfigError(f"the export in {out!r} was not finished", "export again with --overwrite")
    raise ConfigError(f"{out!r} holds no export: there is no {INDEX}", "check the folder's name")


def _limits(max_bytes: int, max_rows: int | None) -> tuple[int, int]:
    if max_bytes < 1 or (max_rows is not None and max_rows < 1):
        raise ConfigError(f"a shard of at most {max_bytes} bytes and {max_rows} rows holds nothing", "give at least 1")
    return max_bytes, max_rows if max_rows is not None else 2**31 - 1


def _export(
    form: Format,
    batches: Iterable[pa.RecordBatch],
    folder: ExportFolder,
    schema: pa.Schema,
    metadata: dict[str, Any],
    limits: tuple[int, int],
    overwrite: bool,
    card: Callable[[], str] | None,
    progress: Progress | None,
) -> list[ExportShard]:
    old = earlier_files(folder, overwrite)
    folder.create()
    stale = [name for name in old if name.endswith(SUFFIX)]  # of a killed export
    remove_files(folder, stale)
    old = sorted(set(old) - set(stale))
    keeps_mark = bool(old) and folder.read_json(INDEX) is None  # killed while it took its final names
    begun: list[str] = []

    def begin_shard() -> HashingSink:
        begun.append(f"{TABLE}-{len(begun):05d}.{form}{SUFFIX}")
        _mark(folder, [*old, *begun])
        return folder.open_shard(begun[-1])

    try:
        shards = _write_shards(form, batches, schema, limits, begin_shard, begun, progress)
    except BaseException:  # Ctrl-C too: no half export stays behind; raised again
        with suppress(StoreError):  # the first error is the one to tell
            folder.remove(begun if keeps_mark else [*begun, UNFINISHED])
        raise
    named = [replace(s, path=f"{TABLE}-{n:05d}-of-{len(shards):05d}.{form}") for n, s in enumerate(shards)]
    cards = [] if card is None else [CARD]
    _mark(folder, [*old, *begun, *cards, *(shard.path for shard in named)])
    folder.remove([INDEX])
    remove_files(folder, old)
    if card is not None:
        folder.write_text(CARD, card())
    for shard, name in zip(shards, named, strict=True):
        folder.move(shard.path, name.path)
    folder.write_json(INDEX, _index(form, schema, metadata, named, cards))
    folder.remove([UNFINISHED])
    return named


def _mark(folder: ExportFolder, files: list[str]) -> None:
    """Say that an export is under way, and every file that it or its forerunner may leave."""
    folder.write_json(UNFINISHED, {"handloom_export": INDEX_VERSION, "files": sorted(set(files))})


def _write_shards(
    form: Format,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    limits: tuple[int, int],
    begin_shard: Callable[[], HashingSink],
    names: list[str],
    progress: Progress | None,
) -> list[ExportShard]:
    """All rows into shards; one empty shard where there are none, so that the schema is never lost."""
    max_bytes, max_rows = limits
    groups = row_groups(batches, schema, max_bytes=min(ROW_GROUP_BYTES, max_bytes))
    shards: list[ExportShard] = []
    group = next(groups, None)
    while group is not None or not shards:
        sink, num_rows = begin_shard(), 0
        with _open_writer(form, sink, schema) as write:
            while group is not None and num_rows < max_rows and (sink.tell() < max_bytes or not num_rows):
                part = group.slice(0, max_rows - num_rows)
                write(part)
                num_rows += part.num_rows
                if progress is not None:
                    progress(sum(s.num_rows for s in shards) + num_rows, sum(s.num_bytes for s in shards) + sink.tell())
                group = group.slice(part.num_rows) if part.num_rows < group.num_rows else next(groups, None)
        shards.append(ExportShard(names[-1], num_rows, sink.tell(), sink.sha256()))
    return shards


@contextmanager
def _open_writer(form: Format, sink: HashingSink, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends one row group (Parquet) or record batch (Arrow) to `sink`; closes both at the end."""
    with storage_errors("begin a shard of", "the export"):
        writer = ParquetShard(sink, schema) if form == "parquet" else pa.ipc.new_file(sink, schema)

    def write(table: pa.Table) -> None:
        # Copied into one chunk per column: otherwise the bytes would show in which batches the rows arrived.
        table = table.combine_chunks().take(pa.array(np.arange(len(table))))
        with storage_errors("write a shard of", "the export"):
            writer.write_table(table)

    try:
        yield write
    except BaseException:  # whatever ended it, the file is closed; raised again
        with suppress(OSError):
            writer.close()
        with suppress(OSError):
            sink.close()
        raise
    with storage_errors("finish a shard of", "the export"):
        writer.close()
        sink.close()


def _index(
    form: Format, schema: pa.Schema, metadata: dict[str, Any], shards: list[ExportShard], cards: list[str]
) -> dict[str, Any]:
    return {
        "handloom_export": INDEX_VERSION,
        "format": form,
        "table": TABLE,
        "source": metadata,
        "num_rows": sum(shard.num_rows for shard in shards),
        "num_bytes": sum(shard.num_bytes for shard in shards),
        "columns": {field.name: str(field.type) for field in schema},
        "shards": [asdict(shard) for shard in shards],
        "files": [*cards, *(shard.path for shard in shards)],
    }
