"""A recording with device truth, independent of its layout, and what a benchmark uses of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.hands import TrueHands
from handloom.geometry.camera.intrinsics import project
from handloom.geometry.camera.world import to_camera
from handloom.schemas.values import Camera, VideoInfo

Floats = NDArray[np.floating]

MIN_INSIDE = 0.5  # least share of a visible hand's keypoints in the image; device truth does not know occlusion
MIN_SHOWN = 0.3  # least visible share of a hand's surface, if the truth has it


@dataclass(frozen=True)
class Recorded:
    """Truth of T frames. frame_s: (T,); size: width, height; keypoints_world_m: (T, 2, 21, 3), axis 1 left, right, NaN
    where there is no hand; shown: (T, 2) visible share of the hand's surface, NaN unknown, None if the data has none;
    rgb: the image of a frame, (h, w, 3) uint8, or None if a video has the images; note: what the truth is."""

    frame_s: Floats
    camera: Camera
    size: tuple[int, int]
    world_from_camera: Floats
    keypoints_world_m: Floats
    note: str
    shown: Floats | None = None
    rgb: Callable[[int], NDArray[np.uint8]] | None = None

    @property
    def info(self) -> VideoInfo:
        """The properties of the images, as of a video stream."""
        step_s = float(np.median(np.diff(self.frame_s))) if len(self.frame_s) > 1 else 1 / 30
        start_s, end_s = float(self.frame_s[0]), float(self.frame_s[-1]) + step_s
        return VideoInfo(*self.size, 1 / step_s, "jpeg", "rgb24", 0, start_s, end_s, len(self.frame_s))

    def hands(self, index: NDArray[np.intp]) -> TrueHands:
        """Truth at frames (n,). A hand is visible if half of its keypoints are in the image and it is not hidden."""
        world, poses = self.keypoints_world_m[index], self.world_from_camera[index]
        cam = to_camera(world.reshape(len(index), -1, 3), poses).reshape(world.shape)
        px = project(cam, self.camera)
        inside = ((px >= -0.5) & (px < np.array(self.size) - 0.5)).all(axis=-1)
        visible = inside.mean(axis=-1) >= MIN_INSIDE
        if self.shown is not None:
            visible &= ~(self.shown[index] < MIN_SHOWN)  # unknown is not hidden
        matrix = self.camera.camera_matrix
        focal_px = float(np.sqrt(matrix[0, 0] * matrix[1, 1]))
        return TrueHands(px, cam, world, visible, focal_px, self.frame_s[index], poses, inside.any(axis=-1))

    def camera_text(self) -> str:
        """The JSON of a camera file: intrinsics, lens and metric poses."""
        frames = zip(self.frame_s, self.world_from_camera, strict=True)
        given = {
            "camera_matrix": self.camera.camera_matrix.reshape(-1).tolist(),
            "world_from_camera": [{"frame_s": float(at), "matrix": pose.reshape(-1).tolist()} for at, pose in frames],
            "world_scale": "metric",
        }
        if self.camera.distortion is not None:
            given["distortion"] = {"model": self.camera.model, "params": self.camera.distortion.tolist()}
        return json.dumps(given)
