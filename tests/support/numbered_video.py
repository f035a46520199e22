"""Videos whose pictures carry their own number, so that a decoded frame says which one it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from handloom.video.write import DEFAULT, Encoding, write_video

BITS = 12


def numbered_picture(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """(h, w, 3) uint8: `number` as 4 x 3 black and white fields, over a band that is red left and blue right."""
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        value = 230 if number >> bit & 1 else 25
        image[row * height // 4 : (row + 1) * height // 4, column * width // 4 : (column + 1) * width // 4] = value
    image[3 * height // 4 :, : width // 2] = (200, 30, 30)
    image[3 * height // 4 :, width // 2 :] = (30, 30, 200)
    return image


def number_of(picture: np.ndarray) -> int:
    """The number of a decoded picture of any size; AssertionError if it is not one of ours, upright and unspoilt."""
    height, width = picture.shape[:2]
    centres = [(int((r + 0.5) * height / 4), int((c + 0.5) * width / 4)) for r in range(4) for c in range(4)]
    fields = np.array([picture[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((0, 1)) for y, x in centres])
    levels = fields[:BITS].mean(1)
    assert ((levels < 80) | (levels > 175)).all(), f"spoilt picture: levels {levels.round()}"
    left, right = fields[12], fields[15]
    assert left[0] > left[2] + 60, f"not upright: red band is {left.round()}"
    assert right[2] > right[0] + 60, f"not upright: blue band is {right.round()}"
    return sum(1 << bit for bit, level in enumerate(levels) if level > 128)


def numbers_of(pictures: Iterable[np.ndarray]) -> list[int]:
    return [number_of(picture) for picture in pictures]


def write_numbered(
    path: Path, frame_s: Sequence[float] | np.ndarray, encoding: Encoding = DEFAULT, width: int = 128, height: int = 96
) -> str:
    """One numbered picture per frame time; returns the path as a string."""
    write_video(path, (numbered_picture(i, width, height) for i in range(len(frame_s))), frame_s, encoding)
    return str(path)
