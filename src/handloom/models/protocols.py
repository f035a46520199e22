"""What a model does for a clip: one Protocol per task. Nothing of one clip is kept for the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.values import Camera, DepthMaps, HandPoints, Tracks, VideoInfo


class ClipFrames(Protocol):
    """All frames of a clip at the working size, in any order, any number of times."""

    frame_s: NDArray[np.float64]  # (T,)

    def __len__(self) -> int: ...
    def rgb(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3)."""
        ...

    def grey(self, index: int) -> NDArray[np.uint8]:
        """(h, w)."""
        ...


class HandExtractor(Protocol):
    """Frames to both hands. Results are in source pixels: working pixels times (source width / w, source height / h),
    pixel centres at whole numbers in both.
    """

    def extract(self, clip: Clip, info: VideoInfo, frames: ClipFrames) -> HandPoints: ...


class PointTracker(Protocol):
    """Frames to tracks of surface points: the grid of the first frame, and points where they carry information.

    No point is followed across a cut. cuts: first frames of the second and later shots.
    """

    def track(
        self,
        clip: Clip,
        info: VideoInfo,
        frames: ClipFrames,
        hands: HandPoints,
        cuts: Sequence[int] | NDArray[np.integer] = (),
    ) -> Tracks: ...


class DepthProvider(Protocol):
    """Frames to depth maps, or None where the clip has none (no file, no metric model)."""

    def maps(self, clip: Clip, info: VideoInfo, frames: ClipFrames, camera: Camera) -> DepthMaps | None: ...


@dataclass(frozen=True)
class BackendHands:
    """What a hand backend finds in a clip. Axis 1 is the hand: left, right, the person's own, not mirrored.

    visible: (T, 2) bool. confidence: (T, 2), 0 to 1. keypoints_px: (T, 2, 21, 2) in pixels of the frames that the
    backend got; (0, 0) is the centre of the top-left one. All NaN where a hand is not visible, finite where it is.
    keypoints_cam_m: (T, 2, 21, 3) metres, camera frame: x right, y down, z forward; NaN for a hand that is visible, but
    could not be placed. None: the backend places no hands, and handloom fits them to the pixels.
    model_m: (T, 2, 21, 3) metres of any origin, axes as the camera's: the hand's shape and turn, needed for that fit.
    """

    visible: NDArray[np.bool_]
    confidence: NDArray[np.floating[Any]]
    keypoints_px: NDArray[np.floating[Any]]
    keypoints_cam_m: NDArray[np.floating[Any]] | None = None
    model_m: NDArray[np.floating[Any]] | None = None


class HandBackend(Protocol):
    """A hand network of one's own: `hands.backend = "package.module:Class"`.

    It is constructed once in each worker, and nothing of one clip is kept for the next. A class method
    `licence(options)` may name the licence of its weights.
    """

    def __init__(self, options: Mapping[str, Any], device: str) -> None:
        """options: the settings' table `hands.options`. device: `hands.device`, `cpu` or `cuda`, which is there.

        Raise ValueError or OSError where the options or the files are wrong: the run stops with that text.
        """
        ...

    @classmethod
    def identity(cls, options: Mapping[str, Any]) -> Mapping[str, str]:
        """All that can change the hands and is no setting: the version of the code, the digest of the weights, library
        versions. It is asked on a machine that may have no GPU: no network is loaded for it.
        """
        ...

    def find(self, clip: Clip, info: VideoInfo, frames: ClipFrames, camera: Camera) -> BackendHands:
        """Both hands in every frame.

        Args:
            info: of the source video, whose size is not the frames'.
            frames: `len(frames)`, `frames.rgb(t)`: (h, w, 3) uint8 of the working size, `frames.frame_s`.
            camera: intrinsics in pixels of the frames, given or assumed (`camera.source`).
        """
        ...
