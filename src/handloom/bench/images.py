"""A clip's frames decoded in this process, by the reader that the pipeline takes, and its second choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from handloom.video.container.packets import PacketIndex
from handloom.video.decode.readers import AvReader, DecodeFailedError, DecordReader, decord_stays_small, suits_decord


class Images:
    """Frames of one video at `indices`, shrunk to size = (width, height).

    decoder: decord if it suits the file, else PyAV; PyAV once decord has failed.
    """

    def __init__(self, path: str, index: PacketIndex, indices: NDArray[np.intp], size: tuple[int, int]) -> None:
        self._asked = (path, index)
        self._indices, self._size = indices, size
        self.decoder = "pyav"
        self._reader: DecordReader | AvReader
        if suits_decord(index) and decord_stays_small(index, size):
            try:
                self._reader = DecordReader(path, index, size)
            except DecodeFailedError:
                pass
            else:
                self.decoder = "decord"
                return
        self._reader = AvReader(path, index)

    def chunks(self, begin: Callable[[], object]) -> Iterator[NDArray[np.uint8]]:
        """As `DecodedClip.chunks`.

        Raises:
            DecodeFailedError: the video cannot be decoded.
        """
        begin()
        try:
            yield from self._reader.read(self._indices, self._size)
        except DecodeFailedError:
            if self.decoder == "pyav":
                raise
            self.decoder, self._reader = "pyav", AvReader(*self._asked)
            yield from self.chunks(begin)
