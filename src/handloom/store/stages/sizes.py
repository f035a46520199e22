"""How much the columns of a fragment take on disk. No data are read, but the ends of its data files."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lance.file import LanceFileReader

from handloom.store.stages.staged import Options


def field_bytes(uri: str, fragment: Any, options: Options = None) -> Counter[int]:
    """Bytes by field id of a fragment's columns, without what later files have replaced. 10 ms a file on a local disk.

    uri: of the table. fragment: its description, `lance.FragmentMetadata`. Raises Lance's own errors.
    """
    given = dict(options) if options else None
    found: Counter[int] = Counter()
    for file in fragment.files:
        columns = LanceFileReader(f"{uri}/data/{file.path}", storage_options=given).metadata().columns
        for field, at in zip(file.fields, file.column_indices, strict=True):
            if field >= 0 and at >= 0:
                buffers = [*columns[at].column_buffers, *(b for page in columns[at].pages for b in page.buffers)]
                found[field] += sum(buffer.size for buffer in buffers)
    return found
