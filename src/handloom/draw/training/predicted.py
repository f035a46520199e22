"""A held-out window as an image: the true and the predicted paths of its points, in two colours on the frame."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from handloom.schemas.training import Example

TRUE_COLOUR, PREDICTED_COLOUR = (86, 180, 233), (255, 120, 0)
WIDTH_PX = 560
MAX_MOVERS, MAX_OTHERS = 90, 60
SUPERSAMPLING = 2


def draw_example(example: Example, width_px: int = WIDTH_PX) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB: the frame, `width_px` wide and somewhat faded, with both paths of each point.

    Blue is true, orange (thinner, on top) predicted; a ring marks the start of a path, a dot its end. The points that
    move most are drawn, and an even selection of the others; paths have gaps where they are unknown.
    """
    scale = SUPERSAMPLING * width_px / example.frame.shape[1]
    size = (round(example.frame.shape[1] * scale), round(example.frame.shape[0] * scale))
    faded = Image.fromarray(example.frame).resize(size, Image.Resampling.BICUBIC)
    image = Image.blend(faded, Image.new("RGB", size, (24, 24, 28)), 0.35)
    pen = ImageDraw.Draw(image)
    chosen = chosen_points(example.true_px, example.predicted_px)
    for points, colour, width in ((example.true_px, TRUE_COLOUR, 2.0), (example.predicted_px, PREDICTED_COLOUR, 1.0)):
        for number in chosen:
            _draw_path(pen, points[:, number] * scale + (scale - 1) / 2, colour, width * SUPERSAMPLING)
    small = (size[0] // SUPERSAMPLING, size[1] // SUPERSAMPLING)
    return np.asarray(image.resize(small, Image.Resampling.LANCZOS))


def jpeg_of(example: Example, width_px: int = WIDTH_PX, quality: int = 85) -> bytes:
    """`draw_example` as a JPEG file."""
    out = io.BytesIO()
    Image.fromarray(draw_example(example, width_px)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def chosen_points(true_px: NDArray[np.float32], predicted_px: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indices of the points to draw: the `MAX_MOVERS` with the longest true paths, and at most `MAX_OTHERS` others."""
    known = np.isfinite(true_px).all(-1).sum(0) >= 2
    known |= np.isfinite(predicted_px).all(-1).sum(0) >= 2
    candidates = np.flatnonzero(known)
    steps = np.linalg.norm(np.diff(true_px[:, candidates], axis=0), axis=-1)
    order = candidates[np.argsort(-np.nansum(steps, axis=0), kind="stable")]
    movers, others = order[:MAX_MOVERS], np.sort(order[MAX_MOVERS:])
    stride = max(1, -(-len(others) // MAX_OTHERS))
    return np.concatenate([others[::stride], movers])


def _draw_path(
    pen: ImageDraw.ImageDraw, points: NDArray[np.float64], colour: tuple[int, int, int], width: float
) -> None:
    """The path of one point, (S, 2), with gaps where it is unknown; width in pixels of the supersampled image."""
    known = np.isfinite(points).all(axis=-1)
    if not known.any():
        return
    for step in np.flatnonzero(known[:-1] & known[1:]):
        pen.line([*points[step], *points[step + 1]], fill=colour, width=round(width))
    first, last = points[known][0], points[known][-1]
    ring, dot = 2 * SUPERSAMPLING, 1.2 * width
    pen.ellipse([*(first - ring), *(first + ring)], outline=colour, width=SUPERSAMPLING)
    pen.ellipse([*(last - dot), *(last + dot)], fill=colour)
