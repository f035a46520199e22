"""Arrays in the Zarr format, version 2: a folder with `.zarray` and one file per chunk, not compressed.

Written here because a training machine's zarr may be version 3 and an extracting one may have none. Format:
zarr-specs, `docs/v2/v2.0.rst`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 2**20


def zarr_files(values: NDArray, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[str, bytes]]:
    """`(name, content)` of an array's files: `.zarray`, then the chunks, cut along the first axis.

    Every chunk is as large as the first, filled up with the fill value, NaN for floats: a chunk that is lost reads as
    unknown, never as zero.
    """
    values = np.ascontiguousarray(values)
    row_bytes = max(1, values[:1].nbytes)
    length = max(1, min(len(values), chunk_bytes // row_bytes))
    is_float = values.dtype.kind == "f"
    yield (
        ".zarray",
        json.dumps(
            {
                "zarr_format": 2,
                "shape": list(values.shape),
                "chunks": [length, *values.shape[1:]],
                "dtype": values.dtype.newbyteorder("<").str,
                "compressor": None,
                "fill_value": "NaN" if is_float else 0,
                "order": "C",
                "filters": None,
            },
            indent=4,
        ).encode(),
    )
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    for number, start in enumerate(range(0, len(values), length)):
        chunk = little[start : start + length]
        if len(chunk) < length:
            rest = np.full((length - len(chunk), *values.shape[1:]), np.nan if is_float else 0, little.dtype)
            chunk = np.concatenate([chunk, rest])
        yield ".".join([str(number), *("0" for _ in values.shape[1:])]), chunk.tobytes()
