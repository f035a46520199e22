"""Copies of a rendered video that a search for near-duplicates should find: as they come from downloads and cutting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.look.copies import cropped, mirrored, recoloured
from handloom.errors import ConfigError
from handloom.video.write import DEFAULT, write_video

Images = NDArray[np.uint8]
Times = NDArray[np.float64]
Change = Callable[[Images, Times, np.random.Generator], tuple[Images, Times]]
POOR = replace(DEFAULT, crf=36)

COPIES: dict[str, Change] = {
    "re-encoded": lambda images, times, rng: (images, times),
    "cropped to 60 %": lambda images, times, rng: (cropped(images, rng, 0.6), times),
    "mirrored": lambda images, times, rng: (mirrored(images, rng), times),
    "recoloured": lambda images, times, rng: (recoloured(images, rng), times),
    "half as fast": lambda images, times, rng: (images, 2 * times),
    "cut by a third": lambda images, times, rng: (images[len(images) // 3 :], times[: len(times) - len(images) // 3]),
    "cropped to 60 %, mirrored": lambda images, times, rng: (cropped(mirrored(images, rng), rng, 0.6), times),
}
"""By what was done. `re-encoded` is so at a quarter of the bits; the others at the quality of the video."""


def write_copy(video: Path, path: Path, how: str) -> None:
    """Write a copy of a video to `path`; the same for the same names.

    Raises:
        ConfigError: the video holds no frames.
    """
    images, times = _frames(video)
    rng = np.random.default_rng([*how.encode(), 0, *video.stem.encode()])
    made, made_s = COPIES[how](images, times, rng)
    even = made[:, : made.shape[1] // 2 * 2, : made.shape[2] // 2 * 2]
    write_video(path, [np.ascontiguousarray(image) for image in even], made_s, POOR if how == "re-encoded" else DEFAULT)


def _frames(video: Path) -> tuple[Images, Times]:
    """All frames (T, h, w, 3), RGB, and their times from 0."""
    reader = cv2.VideoCapture(str(video))
    rate, images = reader.get(cv2.CAP_PROP_FPS), []
    while True:
        there, image = reader.read()
        if not there:
            break
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    reader.release()
    if not images:
        raise ConfigError(f"{video} holds no frames", "remove the folder of --data: it is rendered again")
    return np.stack(images), np.arange(len(images)) / rate
