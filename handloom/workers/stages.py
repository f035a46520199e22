"""From a clip's frames to what is in them: hands, camera, tracks, depth, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera import camera_for
from handloom.geometry.camera_path import estimate_path
from handloom.geometry.given_path import given_path
from handloom.geometry.hand_fit import fit_hands
from handloom.geometry.hand_quality import hand_quality
from handloom.geometry.pnp import place_hands
from handloom.geometry.track_quality import track_quality
from handloom.geometry.world import hands_to_world
from handloom.models.features import CornerTracks
from handloom.models.hands_mediapipe import MediaPipeHands
from handloom.models.protocols import ClipFrames, HandExtractor, PointTracker
from handloom.models.tracks_lk import LucasKanade
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.values import Camera, CameraPath, HandPoints, Hands, LiftedTracks, Tracks, VideoInfo

Lap = Callable[[str], None]


@dataclass(frozen=True)
class Understood:
    """What a clip holds. hands_world_m: (T, 2, 21, 3) or None; flags: (T,) int32, `schemas.frame_flags`."""

    camera: Camera
    path: CameraPath
    hands: Hands
    hands_world_m: NDArray[np.floating] | None
    tracks: Tracks
    lifted: LiftedTracks | None
    depth_source: str | None
    quality: dict[str, float | None]
    flags: NDArray[np.int32] | None


class Stages:
    """Holds the models that look at a clip as a whole."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hands: HandExtractor = MediaPipeHands(settings.hands)
        self._corners = CornerTracks()
        self._tracks: PointTracker = LucasKanade(settings.tracks)

    def understand(self, clip: Clip, info: VideoInfo, frames: ClipFrames, lap: Lap) -> Understood:
        """All that needs the whole clip at once. `lap(stage)` is called when a stage has ended.

        Raises:
            ClipError: a model failed, the given camera or depth cannot be used.
        """
        camera = camera_for(clip, info, self._settings.camera)
        points = self._hands.extract(clip, info, frames)
        hands = self._placed(points, camera, info, frames.frame_s)
        lap("hands")
        camera, path, numbers = self._path(clip, info, frames, points, hands, camera)
        if camera.source == "estimated":
            hands = self._placed(points, camera, info, frames.frame_s)
        lap("camera")
        tracks = self._tracks.track(clip, info, frames, points)
        lap("tracks")
        quality = hand_quality(hands, info, camera) | track_quality(tracks) | numbers
        lap("quality")
        world = hands_to_world(hands, path)
        return Understood(camera, path, hands, world, tracks, None, None, quality, None)

    def _placed(self, points: HandPoints, camera: Camera, info: VideoInfo, frame_s: NDArray[np.float64]) -> Hands:
        if self._settings.hands.backend == "mediapipe":
            return place_hands(points, camera)
        return fit_hands(points, camera, info, frame_s)

    def _path(
        self, clip: Clip, info: VideoInfo, frames: ClipFrames, points: HandPoints, hands: Hands, camera: Camera
    ) -> tuple[Camera, CameraPath, dict[str, float]]:
        """Given poses as they are; else estimated from the scene's corners, if asked for."""
        given = given_path(clip, frames.frame_s)
        if given is not None:
            return camera, replace(given, unit_m=1.0 if given.scale == "metric" else None), {}
        if self._settings.camera.poses == "given":
            return camera, CameraPath(None, "none", "none", "not_given"), {}
        corners = self._corners.track(info, frames, points)
        found = estimate_path(corners, hands, camera, frames.frame_s, info)
        return found.camera, found.path, found.numbers
