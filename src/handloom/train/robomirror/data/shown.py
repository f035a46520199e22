"""Held-out windows for drawing: the image of one frame, and hands in pixels of that image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.schemas.tables.row import row_camera
from handloom.train.parts.table_checks import has_images
from handloom.train.robomirror.data.windows import FIELDS, MotionSample, motion_windows
from handloom.train.robomirror.settings import RobomirrorSettings

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

SHOWN_FIELDS = ("width", "height", "camera_matrix", "camera_distortion", "camera_model")


@dataclass(frozen=True)
class ShownSample:
    """A transform that adds to `MotionSample`'s: `frame` (h, w, 3) uint8 of step `at`, grey where no image is stored,
    `size` (width, height) of the source, and `camera`, None where it is unknown."""

    at: int

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        images, size = sample.get("images"), (int(sample["width"]), int(sample["height"]))
        has_frame = images is not None and bool(sample["images_valid"][self.at])
        grey = np.full((size[1], size[0], 3), 128, np.uint8)
        shown = {"frame": np.asarray(images[self.at]) if has_frame else grey, "size": size}
        shown["camera"] = None if sample["camera_matrix"] is None else row_camera(sample)
        return MotionSample()(sample) | shown


def shown_windows(db: Database, settings: RobomirrorSettings, version: int, split: str) -> Windows:
    """The windows of a split, with what `ShownSample` adds for their middle frame."""
    fields = [*FIELDS, *SHOWN_FIELDS, *(["images"] if has_images(db, version) else [])]
    changed: dict[str, Any] = {"fields": fields, "transform": ShownSample(settings.steps // 2)}
    return motion_windows(db, settings, version, split, **changed)


def hands_px(points_m: NDArray, shown: Mapping[str, Any]) -> NDArray[np.float32]:
    """(T, 2, 21, 3) keypoints in the frame of the head to (T, 42, 2) pixels of the shown image; NaN where unknown."""
    points = points_m.reshape(len(points_m), -1, 3)
    camera = shown["camera"]
    pixels = np.full((*points.shape[:-1], 2), np.nan) if camera is None else project(points, camera)
    size = np.array([shown["frame"].shape[1], shown["frame"].shape[0]])
    return ((pixels + 0.5) * (size / shown["size"]) - 0.5).astype(np.float32)
