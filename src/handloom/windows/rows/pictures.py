"""JPEG pictures of windows: decoded, resized, and kept for the windows that overlap."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

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


@dataclass(eq=False)
class Reel:
    """The pictures of a row's camera that have been decoded, each at its frame's place.

    pictures: (T, h, w, 3) uint8, None before the first; memory of frames that nobody decoded is never touched. done:
    (T,) which were decoded.
    """

    done: NDArray[np.bool_]
    pictures: NDArray[np.uint8] | None = None
    num_done: int = 0
    is_held: bool = True

    @property
    def num_bytes(self) -> int:
        return 0 if self.pictures is None else self.num_done * self.pictures[0].nbytes


class PictureCache:
    """Decoded pictures of the rows looked at last, up to about so many bytes; threads share it.

    A row's pictures go together; the row that is being looked at stays, however large it is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._held: OrderedDict[tuple[int, str | None], Reel] = OrderedDict()
        self._lock = threading.Lock()

    def reel(self, key: tuple[int, str | None], num_frames: int) -> Reel:
        """The pictures of (place of the row, camera)."""
        with self._lock:
            if key not in self._held:
                self._held[key] = Reel(np.zeros(num_frames, bool))
            self._held.move_to_end(key)
            return self._held[key]

    def keep(self, reel: Reel, frame: int, picture: NDArray[np.uint8], where: str) -> None:
        """Put a picture into its place; what was used longest ago goes. Raises StoreError for another size than the
        others have."""
        with self._lock:
            if reel.pictures is None:
                reel.pictures = np.empty((len(reel.done), *picture.shape), np.uint8)
            if reel.pictures.shape[1:] != picture.shape:
                sizes = f"{reel.pictures.shape[1:]} and of {picture.shape}"
                raise StoreError(f"{where}: the row has pictures of {sizes} px", "give image_size")
            reel.pictures[frame] = picture
            if not reel.done[frame]:
                reel.done[frame] = True
                reel.num_done += 1
                self._num_bytes += picture.nbytes * reel.is_held
            while self._num_bytes > self._max_bytes and len(self._held) > 1:
                key, oldest = next(iter(self._held.items()))
                if oldest is reel:
                    self._held.move_to_end(key)
                    continue
                del self._held[key]
                oldest.is_held = False
                self._num_bytes -= oldest.num_bytes
