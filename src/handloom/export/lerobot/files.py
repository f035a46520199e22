"""LeRobot v3.0's files: Parquet and MP4 files that many episodes share, closed at a size, numbered in chunks."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from handloom.errors import StoreError
from handloom.export.new_export import NewExport
from handloom.io.folder import Sink
from handloom.video.write import GrowingVideo

FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
ROW_GROUP_BYTES = 8 * 2**20
MB = 2**20


class Numbering:
    """Which file is being written: file 0 to 999 of chunk 0, then of chunk 1."""

    def __init__(self, template: str) -> None:
        self._template, self._number = template, -1

    def next_name(self) -> str:
        """The name of the next file."""
        self._number += 1
        return self._template.format(chunk_index=self.chunk, file_index=self.file)

    @property
    def chunk(self) -> int:
        return self._number // FILES_PER_CHUNK

    @property
    def file(self) -> int:
        return self._number % FILES_PER_CHUNK


class RollingParquet:
    """Tables of whole episodes in files of about `max_bytes`. Memory holds one row group."""

    def __init__(self, export: NewExport, template: str, schema: pa.Schema, max_bytes: int) -> None:
        self._export, self._schema, self._max_bytes = export, schema, max_bytes
        self._numbering = Numbering(template)
        self._writer: pq.ParquetWriter | None = None
        self._sink: Sink | None = None
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0

    def place(self) -> tuple[int, int]:
        """(chunk, file) of the next episode; begins a new file if this one is full."""
        if self._sink is not None and self._sink.num_bytes + self._pending_bytes >= self._max_bytes:
            self.close()
        if self._writer is None:
            self._sink = self._export.open(self._numbering.next_name())
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression="snappy", use_dictionary=False)
        return self._numbering.chunk, self._numbering.file

    def add(self, table: pa.Table) -> None:
        """An episode's rows, into the file that `place` named last."""
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= min(ROW_GROUP_BYTES, self._max_bytes):
            self._flush()

    def close(self) -> None:
        """Finish the file: without its footer it cannot be read."""
        if self._writer is None or self._sink is None:
            return
        self._flush()
        self._writer.close()
        self._sink.close()
        self._writer = self._sink = None

    def _flush(self) -> None:
        if self._pending:
            if self._writer is None:
                raise StoreError("rows were added to no file", "call `place` before `add`")
            table = pa.concat_tables(self._pending).combine_chunks()
            self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._pending, self._pending_bytes = [], 0


class RollingVideo:
    """One camera's episodes, one after the other, in MP4 files of about `max_bytes`.

    Every file is written on a local disk and goes to the export when it is closed: MP4 writers seek.
    """

    def __init__(self, export: NewExport, template: str, size: tuple[int, int], hz: float, max_bytes: int) -> None:
        self._export, self._size, self._hz, self._max_bytes = export, size, hz, max_bytes
        self._numbering = Numbering(template)
        self._video: GrowingVideo | None = None
        self._file = ExitStack()

    def begin_episode(self) -> tuple[int, int, float]:
        """(chunk, file, time in seconds of the next image in it)."""
        if self._video is not None and self._video.num_bytes() >= self._max_bytes:
            self.close()
        if self._video is None:
            path = self._file.enter_context(self._export.local_file(self._numbering.next_name()))
            self._video = GrowingVideo(path, self._size, self._hz)
        return self._numbering.chunk, self._numbering.file, self._video.end_s

    def append(self, image: NDArray[np.uint8]) -> None:
        """(h, w, 3) RGB of the dataset's size."""
        self._open_video().append(image)

    @property
    def end_s(self) -> float:
        return self._open_video().end_s

    def _open_video(self) -> GrowingVideo:
        if self._video is None:
            raise StoreError("no video is open", "call `begin_episode` before `append`")
        return self._video

    def close(self) -> None:
        """Finish the file and hand it to the export."""
        if self._video is not None:
            self._video.close()
            self._video = None
            self._file.close()

    def discard(self) -> None:
        """Close the file without handing it over."""
        if self._video is not None:
            video, self._video = self._video, None
            try:
                video.close()
            finally:
                video.path.unlink(missing_ok=True)
                self._file.close()
