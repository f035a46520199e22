"""Stored JPEGs as images of one size, and where their pixels go."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handloom.errors import StoreError
from handloom.schemas.tables.arrow import IMAGE_FORMATS


@dataclass(frozen=True)
class Fit:
    """An image shrunk or enlarged into another of `size` (width, height), centred, with black bars beside it.

    scale: of the image's own pixels, (x, y). offset_px: of its first pixel's corner.
    """

    size: tuple[int, int]
    inner: tuple[int, int]
    scale: tuple[float, float]
    offset_px: tuple[int, int]

    @staticmethod
    def into(size: tuple[int, int], width: int, height: int) -> Fit:
        """A whole `width` x `height` image, as large as it fits into `size`, with its proportions."""
        ratio = min(size[0] / width, size[1] / height)
        inner = min(size[0], max(1, round(width * ratio))), min(size[1], max(1, round(height * ratio)))
        offset = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        return Fit(size, inner, (inner[0] / width, inner[1] / height), offset)

    def seen_from(self, image: tuple[int, int], width: int, height: int) -> Fit:
        """The same, for pixels of the source of `width` x `height` that the image (width, height) was made from."""
        scale = self.scale[0] * image[0] / width, self.scale[1] * image[1] / height
        return Fit(self.size, self.inner, scale, self.offset_px)

    def points(self, points_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 2) pixels of the image as pixels of the fitted one; whole numbers are pixel centres in both."""
        return (np.asarray(points_px, np.float64) + 0.5) * np.array(self.scale) + np.array(self.offset_px) - 0.5

    def camera_matrix(self, matrix: NDArray[np.floating]) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the image as those of the fitted one."""
        found = np.array(matrix, np.float64)
        found[:2, :2] *= np.array(self.scale)[:, None]
        found[:2, 2] = self.points(found[:2, 2])
        return found

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w, 3) of any size, fitted; unchanged if it has the size already."""
        small = image
        if (image.shape[1], image.shape[0]) != self.inner:
            small = np.asarray(Image.fromarray(image).resize(self.inner, Image.Resampling.BICUBIC, reducing_gap=3.0))
        if self.inner == self.size:
            return small
        left, top = self.offset_px
        found = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        found[top : top + self.inner[1], left : left + self.inner[0]] = small
        return found


def decode_jpeg(data: bytes, what: str) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB. Raises StoreError, which names `what`, where it is no image."""
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise StoreError(f"{what} is no JPEG ({len(data)} bytes): {error}", "process the clip again") from error


def jpeg_size(data: bytes, what: str) -> tuple[int, int]:
    """(width, height) of an image, from its header. Raises StoreError where it is no image."""
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise StoreError(f"{what} is no JPEG ({len(data)} bytes): {error}", "process the clip again") from error
