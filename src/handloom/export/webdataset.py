"""WebDataset: tar shards, one sample per clip, that `webdataset` decodes without code of handloom's.

A sample is `KEY.json` (columns with one value per clip), `KEY.COLUMN.npy` for every array, and `KEY.000000.jpg` and so
on, the stored frames as they are. Files of a sample follow each other; the same rows give the same names, order, times
and owners. Format: webdataset's `docs/`, POSIX ustar.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from handloom.errors import ConfigError, StoreError
from handloom.export.new_export import CARD, NewExport, new_export
from handloom.export.shards import MAX_SHARD_BYTES
from handloom.schemas.tables.row import row_arrays

KEY_LENGTH = 48  # with the longest column it must stay within ustar's 100 characters
NAME_LENGTH = 36  # of a column with a file of its own: longer names, of stages of one's own, are in the JSON
_NOT_IN_JSON = ("frame_jpeg", "thumbnail", "camera", "video_uri")  # images, the input's camera, paths of this machine
Progress = Callable[[int, int], None]  # samples written so far, bytes written so far


@dataclass(frozen=True)
class TarShard:
    """One file of the export."""

    path: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class WebDatasetSummary:
    """What `export_webdataset` wrote. urls: the shards in brace notation, relative to the folder."""

    num_samples: int
    num_frames: int
    num_bytes: int
    urls: str
    shards: tuple[TarShard, ...]


def export_webdataset(
    batches: Iterable[pa.RecordBatch],
    out: str,
    *,
    card: Callable[[str], str],
    metadata: dict[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WebDatasetSummary:
    """Write rows of `clips` as tar shards into `out`, a folder or URI. Memory holds one batch.

    Args:
        batches: rows, read once.
        card: given the shards in brace notation, the text of README.md; called when all rows are written.
        metadata: kept in `index.json` under `source`. JSON values.
        max_shard_bytes: a shard is closed with the sample that brings it to this size.

    Raises:
        ConfigError: no row, or `out` holds files and `overwrite` is false.
        StoreError: writing failed. What was written is removed as far as that is possible.
    """
    if max_shard_bytes < 1:
        raise ConfigError(f"a shard of at most {max_shard_bytes} bytes can hold no clip", "give at least 1")
    with new_export(out, overwrite=overwrite) as export:
        shards, num_frames = _write_shards(export, _samples(batches), max_shard_bytes, progress)
        if not shards:
            raise ConfigError("there is no clip to export", "loosen --where, or process clips first")
        urls = brace_notation(len(shards))
        export.write(CARD, card(urls).encode())
        num_samples = sum(shard.num_rows for shard in shards)
        num_bytes = sum(shard.num_bytes for shard in shards)
        facts = {"num_rows": num_samples, "num_frames": num_frames, "num_bytes": num_bytes, "urls": urls}
        listed = {"shards": [asdict(shard) for shard in shards]}
        listed["written"] = export.files()
        export.finish({"format": "webdataset", "source": metadata or {}, **facts, **listed})
    return WebDatasetSummary(num_samples, num_frames, num_bytes, urls, tuple(shards))


def brace_notation(num_shards: int) -> str:
    """`clips-{000000..000011}.tar`, as `webdataset` expects it."""
    return f"clips-{{000000..{num_shards - 1:06d}}}.tar"


def sample_key(clip_id: str) -> str:
    """A clip's key: letters, digits, `_` and `-` only (a dot would end it), and a hash that keeps two clips apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", clip_id)[:KEY_LENGTH]
    return f"{plain}-{hashlib.sha256(clip_id.encode()).hexdigest()[:10]}"


def sample_files(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """`(extension, content)` of one clip's files, in the order they are stored.

    row: of `handloom.schemas.tables.row.row_arrays`. Columns that were not computed have no file and are null in the
    JSON, `arrays` of which names those that have one.
    """
    values = {name: value for name, value in row.items() if isinstance(value, np.ndarray)}
    arrays = {name: value for name, value in values.items() if len(name) <= NAME_LENGTH}
    row = {**row, **{name: value.tolist() for name, value in values.items() if name not in arrays}}
    frames = row.get("frame_jpeg") or []
    plain = {name: value for name, value in row.items() if name not in arrays and name not in _NOT_IN_JSON}
    plain |= {"arrays": sorted(arrays), "num_pictures": len(frames)}
    yield "json", json.dumps(plain, ensure_ascii=False, sort_keys=True, default=_as_text).encode()
    for name in sorted(arrays):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
        yield f"{name}.npy", buffer.getvalue()
    for number, jpeg in enumerate(frames):
        yield f"{number:06d}.jpg", jpeg


def _as_text(value: object) -> str:
    """What JSON has no type for: bytes in Base64, times and others as Python writes them."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _samples(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for index in range(batch.num_rows):
            yield row_arrays(batch, index)


def _write_shards(
    export: NewExport, samples: Iterator[dict[str, Any]], max_bytes: int, progress: Progress | None
) -> tuple[list[TarShard], int]:
    shards: list[TarShard] = []
    num_rows = num_frames = num_bytes = 0
    keys: set[str] = set()
    sample = next(samples, None)
    while sample is not None:
        name = f"clips-{len(shards):06d}.tar"
        rows_before = num_rows
        with (
            export.open(name) as sink,
            tarfile.open(fileobj=cast(IO[bytes], sink), mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            while sample is not None and (sink.num_bytes < max_bytes or num_rows == rows_before):
                key = _new_key(sample["clip_id"], keys)
                for extension, content in sample_files(sample):
                    _add(tar, f"{key}.{extension}", content)
                num_rows, num_frames = num_rows + 1, num_frames + sample["num_frames"]
                if progress is not None:
                    progress(num_rows, num_bytes + sink.num_bytes)
                sample = next(samples, None)
        num_bytes += sink.num_bytes
        shards.append(TarShard(name, num_rows - rows_before, sink.num_bytes, sink.digest.hexdigest()))
    return shards, num_frames


def _new_key(clip_id: str, keys: set[str]) -> str:
    key = sample_key(clip_id)
    if key in keys:
        raise StoreError(f"two clips have the key {key}, the second is {clip_id}", "is it in the table twice?")
    keys.add(key)
    return key


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)  # its other fields stay: mtime 0, owner 0, mode 0644
    tar.addfile(entry, io.BytesIO(content))
