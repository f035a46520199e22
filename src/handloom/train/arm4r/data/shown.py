"""Held-out windows for drawing: the image of one step, the camera, and places of points in pixels of that image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.geometry.tracks.arm4r_scale import PER_PX, from_912x512
from handloom.schemas.tables.row import row_camera
from handloom.train.arm4r.data.track_sample import TrackSample

SHOWN_FIELDS = ("images", "camera_matrix", "camera_distortion", "camera_model")


@dataclass(frozen=True)
class ShownSample:
    """A transform that adds to `sample`'s: `frame` (h, w, 3) uint8 of step `at`, grey where no image is stored,
    `has_frame`, `picture_size` (width, height) of the source, and `camera`, None where it is unknown."""

    sample: TrackSample
    at: int

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of `sample` and those for drawing."""
        images, valid = sample.get("images"), sample.get("images_valid")
        seen = None if images is None or valid is None or not valid[self.at] else np.asarray(images[self.at])
        grey = np.full((sample["height"], sample["width"], 3), 128, np.uint8)
        return {
            **self.sample(sample),
            "frame": grey if seen is None else seen,
            "has_frame": seen is not None,
            "picture_size": (int(sample["width"]), int(sample["height"])),
            "camera": None if sample.get("camera_matrix") is None else row_camera(sample),
        }


def frame_pixels(points: NDArray[np.floating], shown: Mapping[str, Any], frame: str) -> NDArray[np.float32]:
    """(S, N, 3) points of a sample to (S, N, 2) pixels of `shown["frame"]`.

    frame: `camera`: points are (u', v', z') of each step's own image; `world`: points are metres in the camera frame of
    the first step, and are projected into its image through its lens (NaN without a camera).
    """
    width, height = shown["picture_size"]
    if frame == "camera":
        pixels = from_912x512(np.asarray(points, np.float64)[..., :2] / PER_PX, width, height)
    else:
        camera = shown["camera"]
        pixels = np.full((*points.shape[:-1], 2), np.nan) if camera is None else project(points, camera)
    size = np.array([shown["frame"].shape[1], shown["frame"].shape[0]])
    return ((pixels + 0.5) * (size / [width, height]) - 0.5).astype(np.float32)
