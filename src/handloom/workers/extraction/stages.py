"""From a clip's frames to what is in them: hands, camera, tracks, depth, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.geometry.camera.given_path import given_path
from handloom.geometry.camera.intrinsics import camera_for
from handloom.geometry.camera.path import EstimatedPath, estimate_path, with_scale
from handloom.geometry.camera.world import hands_to_world, metric_poses
from handloom.geometry.cross_quality import cross_quality
from handloom.geometry.hands.fit import fit_hands, resized
from handloom.geometry.hands.focal import told_by_hands
from handloom.geometry.hands.model import HAND_LENGTH_M
from handloom.geometry.hands.pnp import place_hands
from handloom.geometry.hands.quality import hand_quality
from handloom.geometry.metric.evidence import Metres, metric_numbers, with_lens, with_world
from handloom.geometry.metric.path_scale import metric_scale
from handloom.geometry.metric.posterior import LENGTH_SIGMA, SEEN_SIGMA, Posterior
from handloom.geometry.picture_stats import PictureNumbers
from handloom.geometry.pieces import lift_in_pieces, lift_later
from handloom.geometry.tracks.quality import lost_shares, track_quality
from handloom.geometry.tracks.still import place_still_points, rays_of, spread_of
from handloom.models.cuts import find_cuts
from handloom.models.features import CornerTracks
from handloom.models.hands.points import not_across
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import HandSize, parse_hand
from handloom.schemas.settings import Settings
from handloom.schemas.values import (
    Camera,
    CameraPath,
    ClipAnalysis,
    DepthMaps,
    HandPoints,
    Hands,
    Tracks,
    VideoInfo,
)
from handloom.workers.extraction.choose import depth_provider, hand_extractor, point_tracker

Begin = Callable[[str], None]


class Stages:
    """Holds the models that look at a clip as a whole."""

    def __init__(self, settings: Settings, begin: Begin = lambda stage: None) -> None:
        """`begin(stage)` is called before each model is loaded."""
        self._settings = settings
        begin("load hands")
        self._hands = hand_extractor(settings.hands)
        self._corners = CornerTracks()
        begin("load tracks")
        self._tracks = point_tracker(settings.tracks)
        begin("load depth")
        self._depth = depth_provider(settings.depth)

    def understand(
        self, clip: Clip, info: VideoInfo, frames: ClipFrames, pictures: PictureNumbers, begin: Begin
    ) -> ClipAnalysis:
        """All that needs the whole clip at once. `begin(stage)` is called when a stage begins.

        Raises:
            ClipError: a model failed, the given camera or depth cannot be used.
        """
        camera = camera_for(clip, info, self._settings.camera)
        begin("pictures")
        cuts = find_cuts(frames)
        begin("hands")
        points = not_across(self._hands.extract(clip, info, frames), cuts)
        begin("hand_fit")
        size = self._hand_size(clip)
        seen = (points, camera, info, frames.frame_s)
        known = Posterior.before(camera.focal_sigma, size.sigma, size.seen_sigma)
        sizes = {"hand_length_m": size.length_m, "seen_size": size.seen_size}
        known, camera = told_by_hands(known, *seen, **sizes)
        begin("depth")
        maps = None if self._depth is None else self._depth.maps(clip, info, frames, camera)
        begin("camera")
        estimated = self._path(clip, info, frames, points, camera, cuts)
        metres = Metres(known)
        if estimated.camera is not camera and estimated.path.world_from_camera is not None:
            metres, camera = with_lens(metres, camera, estimated.camera, info), estimated.camera
        begin("hand_fit")
        if self._settings.hands.backend == "mediapipe":
            hands = place_hands(points, camera)
        else:
            hands = fit_hands(points, camera, info, frames.frame_s, **sizes, posterior=metres.known)
        sized = with_world(metres, hands, estimated.path, camera, info, frames.frame_s, maps)
        hands, metres = resized(hands, metres.known, sized.known), sized
        begin("camera")
        if estimated.path.source == "estimated":
            estimated = with_scale(estimated, hands, frames.frame_s, info, maps)
        begin("tracks")
        tracks = self._tracks.track(clip, info, frames, points, cuts)
        begin("lift")
        path = with_unit(estimated.path, tracks, hands, camera, info, frames.frame_s, maps)
        seen_from = (hands, in_metres(path), camera, maps, info)
        lifted = lift_in_pieces(tracks, *seen_from)
        if tracks.grids is not None:
            lifted = replace(lifted, grids_depth_m=lift_later(tracks, *seen_from))
        begin("quality")
        lost = lost_shares(tracks, hands, info, cuts)
        agreement, flags = cross_quality(
            hands, tracks, lifted, path, camera, info, frames.frame_s, pictures, cuts, points.doubts, lost
        )
        quality = hand_quality(hands, info, camera) | track_quality(tracks, lost) | estimated.numbers
        quality |= pictures.quality() | agreement
        quality |= metric_numbers(metres, hands, path, quality.get("camera_scale_sigma"), size.length_m)
        quality |= {"num_cuts": float(len(cuts)), "hand_view_log_odds": points.view_log_odds}
        measured = bool(np.isfinite(lifted.depth_m).any())
        source = None if not measured else "geometry" if maps is None else maps.source
        world = hands_to_world(hands, path)
        return ClipAnalysis(camera, path, hands, tracks, world, lifted, source, quality, flags)

    def _hand_size(self, clip: Clip) -> HandSize:
        """What the clip list says of the hands, with the settings where it says nothing."""
        try:
            hand = parse_hand(clip.hand)
        except ValueError as error:
            problem = f"what the clip list says of the hands cannot be used: {error}"
            hint = "ingest again, with another --hand-length-m or --camera-preset"
            raise ClipError(clip.clip_id, "hand_fit", "bad_camera", problem, hint) from None
        usual = HandSize(HAND_LENGTH_M, LENGTH_SIGMA, self._settings.hands.seen_size, None, SEEN_SIGMA)
        return replace(usual, **{name: value for name, value in vars(hand).items() if value is not None})

    def _path(
        self,
        clip: Clip,
        info: VideoInfo,
        frames: ClipFrames,
        points: HandPoints,
        camera: Camera,
        cuts: NDArray[np.int64],
    ) -> EstimatedPath:
        """Given poses as they are; else estimated from the scene's corners, if asked for, without a scale yet."""
        given = given_path(clip, frames.frame_s)
        if given is None and self._settings.camera.poses == "given":
            given = CameraPath(None, "none", "none", "not_given")
        if given is not None:
            return _as_given(given, camera)
        corners = self._corners.track(info, frames, points, cuts.tolist())
        return estimate_path(corners, None, camera, frames.frame_s, info)


def _as_given(path: CameraPath, camera: Camera) -> EstimatedPath:
    nothing = np.zeros(0, np.int64)
    poses = path.world_from_camera
    numbers = {} if poses is None else {"camera_coverage": float(np.isfinite(poses).all(axis=(1, 2)).mean())}
    return EstimatedPath(path, camera, np.zeros((0, 3)), nothing, nothing, numbers)


def with_unit(
    path: CameraPath,
    tracks: Tracks,
    hands: Hands,
    camera: Camera,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    maps: DepthMaps | None,
) -> CameraPath:
    """`path` with its unit in metres: known, or measured where a given path has a unit of its own."""
    if path.world_from_camera is None or path.scale == "metric":
        return replace(path, unit_m=None if path.world_from_camera is None else 1.0)
    if path.source != "given":
        return path  # it was tried
    rays = rays_of(tracks.points_px, camera)
    rays[~tracks.visible] = np.nan
    still = place_still_points(tracks, rays, path.world_from_camera, spread_of(rays, camera))
    places = still.place[np.isfinite(still.place).all(axis=1)]
    found = metric_scale(path.world_from_camera, places, hands, camera, frame_s, maps, info)
    return path if found is None else replace(path, unit_m=found.metres)


def in_metres(path: CameraPath) -> CameraPath:
    """The same path with translations in metres, where its unit is known; else as it is."""
    poses = metric_poses(path)
    return path if poses is None else replace(path, world_from_camera=poses, scale="metric", unit_m=1.0)
