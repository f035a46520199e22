"""Videos whose images show their own number, so that each decoded frame can be identified."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from handloom.video.write import DEFAULT, Encoding, write_video

BITS = 12


def numbered_image(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """(h, w, 3) uint8: `number` as 4 x 3 black and white fields, over a band that is red left and blue right."""
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        value = 230 if number >> bit & 1 else 25
        image[row * height // 4 : (row + 1) * height // 4, column * width // 4 : (column + 1) * width // 4] = value
    image[3 * height // 4 :, : width // 2] = (200, 30, 30)
    image[3 * height // 4 :, width // 2 :] = (30, 30, 200)
    return image


def number_of(image: np.ndarray) -> int:
    """The number of a decoded image of any size; AssertionError if it is not an upright, undamaged numbered image."""
    rows, columns = _centres(*image.shape[:2])
    fields = image[rows, columns].mean(1)
    levels = fields[:BITS].mean(1)
    assert ((levels < 80) | (levels > 175)).all(), f"damaged image: levels {levels.round()}"
    left, right = fields[12], fields[15]
    assert left[0] > left[2] + 60, f"not upright: red band is {left.round()}"
    assert right[2] > right[0] + 60, f"not upright: blue band is {right.round()}"
    return sum(1 << bit for bit, level in enumerate(levels) if level > 128)


@cache
def _centres(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, each (16, 9), of the nine pixels in the middle of every field.

    For one index: reading an image takes 36 us, 159 with a slice for each field, and tests read tens of thousands.
    """
    y, x = (((np.arange(4) + 0.5) * size / 4).astype(int) for size in (height, width))
    near = np.arange(-1, 2)
    y, x, down, right = np.meshgrid(y, x, near, near, indexing="ij")
    rows, columns = np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)
    return rows.reshape(16, 9), columns.reshape(16, 9)


def numbers_of(images: Iterable[np.ndarray]) -> list[int]:
    return [number_of(image) for image in images]


def write_numbered(
    path: Path, frame_s: Sequence[float] | np.ndarray, encoding: Encoding = DEFAULT, width: int = 128, height: int = 96
) -> str:
    """One numbered image per frame time; returns the path as a string."""
    write_video(path, (numbered_image(i, width, height) for i in range(len(frame_s))), frame_s, encoding)
    return str(path)
