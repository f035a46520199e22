"""All sampled frames of one clip, readable in any order: in memory while they are few, else in an unnamed file."""

from __future__ import annotations

import os
import tempfile

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError, StoreError

MEMORY_BYTES = 256 << 20


class FrameStore:
    """Append chunks in order, then read single frames. One store serves one clip; `close` it.

    Beyond `memory_bytes` the frames go to an unlinked temporary file, read with `pread`: pages of a mapped file would
    count as the worker's memory. Grey images are kept while memory is left beside the frames: every stage that
    reads all frames needs them.

    Raises StoreError where the disk is full.
    """

    def __init__(self, frame_s: NDArray[np.float64], memory_bytes: int = MEMORY_BYTES) -> None:
        self.frame_s = np.asarray(frame_s, np.float64)
        self._memory_bytes = memory_bytes
        self._chunks: list[NDArray[np.uint8]] = []
        self._starts: list[int] = []  # index of each chunk's first frame
        self._held = 0  # bytes of frames and grey images in memory
        self._greys: dict[int, NDArray[np.uint8]] = {}
        self._file: int | None = None
        self._file_from = 0  # frames from here on are in the file
        self._num = 0
        self._shape: tuple[int, ...] | None = None

    def append(self, frames: NDArray[np.uint8]) -> None:
        """(n, h, w, 3) uint8 RGB; all of one size."""
        if self._shape is None:
            self._shape = frames.shape[1:]
        if frames.shape[1:] != self._shape:
            raise ShapeError(f"frames of {frames.shape[1:]} after frames of {self._shape}")
        if self._file is None and self._held + frames.nbytes <= self._memory_bytes:
            self._starts.append(self._num)
            self._chunks.append(frames)
            self._held += frames.nbytes
        else:
            self._append_to_file(frames)
        self._num += len(frames)

    def _append_to_file(self, frames: NDArray[np.uint8]) -> None:
        try:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="handloom-frames-") as file:
                    self._file = os.dup(file.fileno())
                self._file_from = self._num
            _write_all(self._file, np.ascontiguousarray(frames))
        except OSError as error:
            problem = f"{self._num} frames of a clip were stored in {tempfile.gettempdir()}, writing the next failed: "
            hint = "free space there, set TMPDIR to a larger disk, or cut the clips shorter"
            raise StoreError(problem + str(error.strerror), hint) from error

    def __len__(self) -> int:
        return self._num

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8. IndexError beyond the last frame."""
        if not 0 <= index < self._num:
            raise IndexError(f"frame {index} of {self._num}")
        if self._file is not None and self._shape is not None and index >= self._file_from:
            size = int(np.prod(self._shape))
            data = os.pread(self._file, size, (index - self._file_from) * size)
            return np.frombuffer(data, np.uint8).reshape(self._shape)
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._chunks[chunk][index - self._starts[chunk]]

    def grey(self, index: int) -> NDArray[np.uint8]:
        """(h, w) uint8, read-only: the next call may return the same array. IndexError beyond the last frame."""
        grey = self._greys.get(index)
        if grey is None:
            grey = cv2.cvtColor(self.rgb(index), cv2.COLOR_RGB2GRAY)
            grey.flags.writeable = False
            if self._held + grey.nbytes <= self._memory_bytes:
                self._greys[index] = grey
                self._held += grey.nbytes
        return grey

    def clear(self) -> None:
        """Forget all frames; the clip's first one can be appended again."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._shape = None, None
        self._chunks, self._starts, self._num, self._held = [], [], 0, 0
        self._greys.clear()

    close = clear


def _write_all(file: int, frames: NDArray[np.uint8]) -> None:
    view = memoryview(frames.data).cast("B")
    while len(view):
        view = view[os.write(file, view) :]
