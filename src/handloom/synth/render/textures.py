"""Procedural textures, seeded: tables, room and objects."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.float32]  # (S, S, 3), sRGB 0 to 1

SIZE = 512


def _noise(rng: np.random.Generator, cells: tuple[int, int], size: int = SIZE) -> NDArray[np.float32]:
    """(size, size) smooth value noise in -1..1 with `cells` (x, y) cells."""
    grid = rng.uniform(-1.0, 1.0, (cells[1], cells[0])).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _fractal(rng: np.random.Generator, cells: int, octaves: int, size: int = SIZE) -> NDArray[np.float32]:
    return sum(_noise(rng, (cells * 2**i, cells * 2**i), size) / 2**i for i in range(octaves))


def _tinted(base: tuple[float, float, float], shade: NDArray[np.float32]) -> Texture:
    return np.clip(np.array(base, np.float32) * (1.0 + shade[..., None]), 0.0, 1.0)


def wood(rng: np.random.Generator) -> Texture:
    """Planks with grain."""
    grain = _noise(rng, (160, 6)) * 0.10 + _noise(rng, (48, 3)) * 0.16 + _noise(rng, (256, 24)) * 0.06
    planks = np.repeat(rng.uniform(-0.12, 0.12, 6).astype(np.float32), SIZE // 6 + 1)[:SIZE]
    shade = grain + planks[None, :]
    shade[:, :: SIZE // 6] -= 0.25
    return _tinted((0.46, 0.33, 0.23), shade)


def cloth(rng: np.random.Generator) -> Texture:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    bands = 0.10 * np.sign(np.sin(x * 2 * np.pi / 64)) + 0.10 * np.sign(np.sin(y * 2 * np.pi / 64))
    return _tinted((0.36, 0.47, 0.50), bands + 0.05 * _fractal(rng, 32, 3))


def marble(rng: np.random.Generator) -> Texture:
    vein = np.abs(_fractal(rng, 5, 5))
    return _tinted((0.66, 0.67, 0.68), 0.35 * np.minimum(vein, 0.6) - 0.22 + 0.04 * _fractal(rng, 64, 2))


def green(rng: np.random.Generator) -> Texture:
    return _tinted((0.28, 0.42, 0.33), 0.10 * _fractal(rng, 8, 3) + 0.12 * _noise(rng, (200, 200)))


TEXTURES: dict[str, Callable[[np.random.Generator], Texture]] = {
    "wood": wood,
    "cloth": cloth,
    "marble": marble,
    "green": green,
}
"""Table tops by name."""


def floor(rng: np.random.Generator) -> Texture:
    tiles = np.kron(rng.uniform(-0.15, 0.15, (8, 8)), np.ones((SIZE // 8, SIZE // 8))).astype(np.float32)
    return _tinted((0.40, 0.38, 0.36), tiles + 0.06 * _fractal(rng, 40, 2))


def wall(rng: np.random.Generator) -> Texture:
    """A plain wall with images and shelves."""
    shade = 0.06 * _fractal(rng, 6, 4)
    texture = _tinted((0.62, 0.62, 0.58), shade)
    for _ in range(7):  # images and shelves, so that there are corners to track
        x, y, w, h = rng.integers(0, SIZE - 140, 2).tolist() + rng.integers(40, 130, 2).tolist()
        colour = rng.uniform(0.15, 0.8, 3).tolist()
        cv2.rectangle(texture, (x, y), (x + w, y + h), colour, -1)
        cv2.rectangle(texture, (x, y), (x + w, y + h), [0.2, 0.18, 0.16], 4)
    return texture


def solid(rng: np.random.Generator, kind: str, colour: tuple[float, float, float]) -> Texture:
    """Texture of an object: `stripes`, `label`, `checker` or `speckle` in its colour."""
    size = 256
    y, x = np.mgrid[:size, :size]
    if kind == "stripes":
        shade = np.where((y // 24) % 2 == 0, 0.0, 0.35)
    elif kind == "label":
        shade = np.where((y > 70) & (y < 190), 0.45, 0.0) - np.where((y > 110) & (y < 150) & (x % 32 < 18), 0.6, 0.0)
    elif kind == "checker":
        shade = np.where(((x // 32) + (y // 32)) % 2 == 0, 0.12, -0.30)
    else:
        shade = np.zeros((size, size))
    noise = 0.10 * _fractal(rng, 12, 4, size)
    if kind == "speckle":
        noise = noise + 0.35 * np.sign(_noise(rng, (24, 24), size))
    return _tinted(colour, (shade + noise).astype(np.float32))
