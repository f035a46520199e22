"""One Parquet file with the schema of `clips`."""

from __future__ import annotations

import base64
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from handloom.export.files import HashingSink


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
