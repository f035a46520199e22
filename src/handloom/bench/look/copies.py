"""Copies of a clip that show the same scene otherwise: cropped, mirrored, in other colours and light."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Copy = Callable[[Images, np.random.Generator], Images]


def cropped(images: Images, rng: np.random.Generator, share: float) -> Images:
    """A part with this share of the area, of the same shape, anywhere; (n, h, w, 3)."""
    height, width = (round(side * share**0.5) for side in images.shape[1:3])
    top, left = rng.integers(0, images.shape[1] - height + 1), rng.integers(0, images.shape[2] - width + 1)
    return images[:, top : top + height, left : left + width]


def mirrored(images: Images, rng: np.random.Generator) -> Images:
    return images[:, :, ::-1]


def recoloured(images: Images, rng: np.random.Generator) -> Images:
    """Other light and another camera: gain of each channel 0.7 to 1.3, gamma 0.6 to 1.6, hue by up to 30 degrees,
    saturation 0.5 to 1.4."""
    light = np.clip(images / 255 * rng.uniform(0.7, 1.3, 3), 0, 1) ** rng.uniform(0.6, 1.6)
    turn, saturation = int(rng.integers(-15, 16)), rng.uniform(0.5, 1.4)
    return np.stack([_turned((255 * image).astype(np.uint8), turn, saturation) for image in light])


def _turned(image: Images, turn: int, saturation: float) -> Images:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int64)
    hsv[..., 0] = (hsv[..., 0] + turn) % 180  # OpenCV's hues are half degrees of the circle
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


COPIES: dict[str, Copy] = {
    "cropped to 60 %": lambda images, rng: cropped(images, rng, 0.6),
    "cropped to 36 %": lambda images, rng: cropped(images, rng, 0.36),
    "mirrored": mirrored,
    "recoloured": recoloured,
    "cropped to 60 %, mirrored, recoloured": lambda images, rng: recoloured(
        cropped(mirrored(images, rng), rng, 0.6), rng
    ),
}
"""By what was done; each gets the images and its own random numbers."""
