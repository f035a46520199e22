"""What a model does for a clip. One Protocol per task.

Frames arrive in chunks, so that memory does not grow with the clip.

Every extractor is used as `begin(...)`, `feed(frames)` for each chunk in order, `finish()`; `begin` forgets all that
came before, so that a clip's values never depend on the clips before it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.values import Camera, Hands, Tracks, VideoInfo

Frames = NDArray[np.uint8]  # (n, h, w, 3) RGB, shrunk to the working size


class HandExtractor(Protocol):
    """Frames to both hands. `px_scale` = (source width / w, source height / h): multiplies working-size coordinates."""

    def begin(self, clip: Clip, info: VideoInfo, camera: Camera) -> None: ...
    def feed(self, frames: Frames, frame_s: NDArray[np.float64]) -> None: ...
    def finish(self) -> Hands: ...


class PointTracker(Protocol):
    """Frames to surface points followed from the clip's first frame."""

    def begin(self, clip: Clip, info: VideoInfo) -> None: ...
    def feed(self, frames: Frames, frame_s: NDArray[np.float64]) -> None: ...
    def finish(self) -> Tracks: ...


class AppearanceEncoder(Protocol):
    """Frames to one unit vector of what the scene and the hand regions look like."""

    def begin(self, clip: Clip, info: VideoInfo) -> None: ...
    def feed(self, frames: Frames, frame_s: NDArray[np.float64]) -> None: ...
    def finish(self, hands: Hands) -> NDArray[np.float32]: ...
