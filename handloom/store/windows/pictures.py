"""JPEG pictures of windows: decoded, resized, and kept for the windows that overlap."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from handloom.errors import StoreError

Size = tuple[int, int] | None


def decode_jpeg(data: bytes, size: Size, where: str) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, resized to `size` (h, w) with antialiasing where it is given.

    Raises StoreError that names `where` (clip and frame) for bytes that are no whole picture: never noise, never grey.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if size is not None:
                picture.draft("RGB", (size[1], size[0]))  # libjpeg skips what a smaller picture does not need
            picture.load()
            whole = picture.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise StoreError(
            f"the picture of {where} cannot be decoded: {error}", "the table is damaged: extract the clip again"
        ) from error
    if size is not None and whole.size != (size[1], size[0]):
        whole = whole.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(whole)


class PictureCache:
    """The pictures decoded last, up to so many bytes; threads share it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._held: OrderedDict[tuple[int, str | None, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, str | None, int]) -> NDArray[np.uint8] | None:
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key]

    def put(self, key: tuple[int, str | None, int], picture: NDArray[np.uint8]) -> None:
        """Keep it; what was used longest ago goes."""
        with self._lock:
            if key in self._held or picture.nbytes > self._max_bytes:
                return
            self._held[key] = picture
            self._num_bytes += picture.nbytes
            while self._num_bytes > self._max_bytes:
                _, old = self._held.popitem(last=False)
                self._num_bytes -= old.nbytes
