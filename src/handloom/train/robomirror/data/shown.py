"""Held-out windows for drawing: the image of one frame, and keypoints in pixels of that image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.schemas.tables.row import row_camera
from handloom.train.parts.table_checks import has_images
from handloom.windows.api import Windows, open_windows
from handloom.windows.spec import IMAGES

SHOWN_FIELDS = ("width", "height", "camera_matrix", "camera_distortion", "camera_model")


@dataclass(frozen=True)
class ShownSample:
    """A transform that adds to `base`'s: `frame` (h, w, 3) uint8 of step `at`, grey where no image is stored, `size`
    (width, height) of the source, and `camera`, None where it is unknown."""

    base: Callable[[dict[str, Any]], dict[str, Any]] | None
    at: int

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        images, size = sample.get(IMAGES), (int(sample["width"]), int(sample["height"]))
        seen = None if images is None or not sample["images_valid"][self.at] else np.asarray(images[self.at])
        grey = np.full((size[1], size[0], 3), 128, np.uint8)
        shown: dict[str, Any] = {"frame": grey if seen is None else seen, "size": size}
        shown["camera"] = None if sample["camera_matrix"] is None else row_camera(sample)
        return (dict(sample) if self.base is None else self.base(dict(sample))) | shown


def shown_windows(windows: Windows) -> Windows:
    """The same windows, with what `ShownSample` adds for their middle frame."""
    spec, images = windows.spec, [IMAGES] if has_images(windows.db, windows.version) else []
    spec = replace(spec, fields=tuple(dict.fromkeys((*spec.fields, *SHOWN_FIELDS, *images))))
    return open_windows(windows.db, spec, windows.version, ShownSample(windows.transform, spec.num_steps // 2))


def in_pixels(points: NDArray, shown: Mapping[str, Any]) -> NDArray[np.float32]:
    """(T, P, 3) keypoints in the frame of the head to (T, P, 2) pixels of the shown image; NaN where unknown."""
    camera = shown["camera"]
    pixels = np.full((*points.shape[:-1], 2), np.nan) if camera is None else project(points, camera)
    size = np.array([shown["frame"].shape[1], shown["frame"].shape[0]])
    return ((pixels + 0.5) * (size / shown["size"]) - 0.5).astype(np.float32)
