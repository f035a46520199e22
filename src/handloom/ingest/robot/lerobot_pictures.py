"""The pictures of a LeRobotDataset that stores single images: PNG, JPEG or TIFF inside Parquet."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.ingest.files import Options
from handloom.ingest.robot.lerobot_parquet import open_parquet, parquet_errors
from handloom.ingest.robot.source import Unusable

PEEKED_ROWS = 16


def image_bytes(table: pa.Table, key: str) -> list[bytes | None]:
    """The encoded pictures of an image feature, (T); None where a picture is not in the file."""
    if key not in table.column_names:
        raise Unusable("bad_pictures", f"the data has no column {key!r}")
    cells = table.column(key).to_pylist()
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    return [cell if isinstance(cell, bytes) else None for cell in cells]


def decode_image(data: bytes | None) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of a picture of 8 bits. Raises Unusable where it is none."""
    image = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data else None
    if image is None:
        raise Unusable("bad_pictures", f"a picture of {len(data or b'')} bytes is no PNG or JPEG")
    if image.dtype != np.uint8:  # cv2's own way to 8 bits keeps the upper byte: 900 mm of depth become 3 of 255
        raise Unusable("bad_pictures", f"{_what(data)}, expected 8 bits")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def depth_in(uri: str, key: str, options: Options = None) -> str | None:
    """What the first picture of an image feature is, where that is depth: one channel of more than 8 bits.

    Raises UnreadableParquet.
    """
    file = open_parquet(uri, options)
    try:
        if key not in file.schema_arrow.names:
            return None
        with parquet_errors(uri):
            for batch in file.iter_batches(batch_size=PEEKED_ROWS, columns=[key], use_threads=False):
                data = next(filter(None, image_bytes(pa.Table.from_batches([batch]), key)), None)
                if data is not None:
                    image = _decode(data, cv2.IMREAD_UNCHANGED)
                    is_depth = image is not None and image.ndim == 2 and image.dtype != np.uint8
                    return _what(data) if is_depth else None
        return None
    finally:
        file.close()


def _what(data: bytes) -> str:
    image = _decode(data, cv2.IMREAD_UNCHANGED)
    channels = 1 if image.ndim == 2 else image.shape[2]
    return f"a picture of {image.dtype} and {channels} channel{'s' * (channels > 1)}"


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    """None where it cannot be decoded; cv2 raises for pictures that claim more than it takes."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
