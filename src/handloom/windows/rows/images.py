"""JPEG images of windows: decoded, resized, and kept for overlapping windows."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from handloom.errors import StoreError
from handloom.schemas.tables.arrow import IMAGE_FORMATS

Size = tuple[int, int] | None


def decode_jpeg(data: bytes, size: Size, where: str) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, resized to `size` (h, w) with antialiasing where it is given.

    Raises StoreError, with `where` (clip and frame), for damaged and incomplete images.
    """
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if size is not None:
                image.draft("RGB", (size[1], size[0]))  # libjpeg skips what a smaller image does not need
            image.load()
            whole = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise StoreError(
            f"the image of {where} cannot be decoded: {error}", "the table is damaged: extract the clip again"
        ) from error
    if size is not None and whole.size != (size[1], size[0]):
        whole = whole.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(whole)


@dataclass(eq=False)
class Reel:
    """The decoded images of one camera of a row.

    images: (T, h, w, 3) uint8, None before the first; memory of frames that are not decoded is never touched. done:
    (T,) which are decoded.
    """

    done: NDArray[np.bool_]
    images: NDArray[np.uint8] | None = None
    num_done: int = 0
    is_held: bool = True

    @property
    def decoded(self) -> NDArray[np.uint8]:
        """`images`, of which at least one has been decoded."""
        if self.images is None:
            raise StoreError("no image of this row has been decoded")
        return self.images

    @property
    def num_bytes(self) -> int:
        return 0 if self.images is None else self.num_done * self.images[0].nbytes


class ImageCache:
    """Decoded images of the rows used last, up to about `max_bytes`; safe for several threads.

    All images of a row are dropped together; those of the row in use stay, however large they are.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._held: OrderedDict[tuple[int, str | None], Reel] = OrderedDict()
        self._lock = threading.Lock()

    def reel(self, key: tuple[int, str | None], num_frames: int) -> Reel:
        """The images of a row. key: (place of the row, camera)."""
        with self._lock:
            if key not in self._held:
                self._held[key] = Reel(np.zeros(num_frames, bool))
            self._held.move_to_end(key)
            return self._held[key]

    def keep(self, reel: Reel, frame: int, image: NDArray[np.uint8], where: str) -> None:
        """Keep an image; the images used longest ago are dropped. Raises StoreError if its size differs from the row's
        other images."""
        with self._lock:
            if reel.images is None:
                reel.images = np.empty((len(reel.done), *image.shape), np.uint8)
            if reel.images.shape[1:] != image.shape:
                sizes = f"{reel.images.shape[1:]} and of {image.shape}"
                raise StoreError(f"{where}: the row has images of {sizes} px", "give image_size")
            reel.images[frame] = image
            if not reel.done[frame]:
                reel.done[frame] = True
                reel.num_done += 1
                self._num_bytes += image.nbytes * reel.is_held
            while self._num_bytes > self._max_bytes and len(self._held) > 1:
                key, oldest = next(iter(self._held.items()))
                if oldest is reel:
                    self._held.move_to_end(key)
                    continue
                del self._held[key]
                oldest.is_held = False
                self._num_bytes -= oldest.num_bytes
