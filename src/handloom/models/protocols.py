"""What a model does for a clip. One Protocol per task.

Models that look at each frame once are fed in chunks (`begin`, `feed`, `finish`); models that read a clip both ways get
all its frames at once (`ClipFrames`). Nothing of one clip is kept for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.values import Camera, DepthMaps, HandPoints, Hands, Tracks, VideoInfo

Frames = NDArray[np.uint8]  # (n, h, w, 3) RGB, shrunk to the working size


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
    """Frames to surface points: the grid of the first frame, and points where they carry information.

    No point is followed across a cut; cuts: first frames of shots, but of the first.
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
    """Frames to depth maps, or None where the clip has none (no file, nothing metric to be had)."""

    def maps(self, clip: Clip, info: VideoInfo, frames: ClipFrames, camera: Camera) -> DepthMaps | None: ...


class AppearanceEncoder(Protocol):
    """Frames to one unit vector of what the scene and the hand regions look like."""

    def begin(self, clip: Clip, info: VideoInfo) -> None: ...
    def feed(self, frames: Frames, frame_s: NDArray[np.float64]) -> None: ...
    def finish(self, hands: Hands) -> NDArray[np.float32]: ...
