"""Stages of the camera: its lens, depth maps, its path, and the path in metres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.accept import EstimatedPath
from handloom.geometry.camera.given_path import given_path
from handloom.geometry.camera.intrinsics import camera_for
from handloom.geometry.camera.path import estimate_path, with_scale
from handloom.geometry.camera.world import hands_to_world, metric_poses, rays_of
from handloom.geometry.hands.focal import focal_from_hands
from handloom.geometry.metric.evidence import Metres, with_lens
from handloom.geometry.metric.path_scale import metric_scale
from handloom.geometry.metric.posterior import Posterior
from handloom.geometry.tracks.still import place_still_points, spread_of
from handloom.models.corner_tracks import CornerTracks
from handloom.schemas.tables.row import camera_cells, world_cells
from handloom.schemas.values import Camera, CameraPath, DepthMaps, Hands, Tracks, VideoInfo
from handloom.stages.builtin.hands import hand_size, sizes_of
from handloom.stages.choose import depth_provider
from handloom.stages.state import pack, unpack
from handloom.stages.work import EVERY_STEP, MISSING, BuiltinStage, Work


@dataclass(frozen=True)
class Lens:
    """The lens before the path: given, or assumed and mended by what hands show; and what is known of the metres."""

    known: Posterior
    camera: Camera


class LensStage(BuiltinStage):
    """The lens before the camera's path is known. Its value is `Lens`."""

    name = "lens"
    after = ("probe", "hands_2d")
    clip_fields = ("camera", "hand")
    versions = (*EVERY_STEP, "hand_fit")
    _CLASSES = (Lens, Posterior, Camera)

    def key_settings(self) -> dict[str, Any]:
        assumed = self.config.camera.model_dump(mode="json", exclude={"poses"})
        return assumed | {"keypoint_scale": self.config.hands.keypoint_scale}

    def run(self, work: Work) -> Lens:
        camera = camera_for(work.clip, work.info, self.config.camera)
        points, size = work["hands_2d"], hand_size(work.clip, self.config)
        sigmas = cast("float", size.sigma), cast("float", size.keypoint_scale_sigma)  # `hand_size` gives both
        known = Posterior.prior(camera.focal_sigma, *sigmas)
        if points.cam_m is not None:  # placed by the model with this lens: not by what the fit assumes
            return Lens(known, camera)
        return Lens(*focal_from_hands(known, points, camera, work.info, work.frame_s, **sizes_of(size)))

    def state(self, value: Lens) -> bytes:
        return pack(value, self._CLASSES)

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        return MISSING if state is None else unpack(state, self._CLASSES)


class Depth(BuiltinStage):
    """Depth maps of a learned model or of files. Its value, `DepthMaps` or None, is never stored."""

    name = "depth"
    after = ("probe", "lens")
    reads_frames = True
    versions = (*EVERY_STEP, "torch", "transformers", "pillow", "depth_model", "depth_folder")

    def key_settings(self) -> dict[str, Any]:
        return self.config.depth.model_dump(mode="json")

    def key_identity(self, versions: Mapping[str, str]) -> dict[str, str]:
        return {} if self.config.depth.provider == "geometry" else super().key_identity(versions)

    def load(self) -> None:
        self._model = depth_provider(self.config.depth)

    def run(self, work: Work) -> DepthMaps | None:
        if self._model is None:
            return None
        return self._model.maps(work.clip, work.info, work.frames, work["lens"].camera)

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        return None if self.config.depth.provider == "geometry" else MISSING


@dataclass(frozen=True)
class FoundCamera:
    """metres: with the evidence of the lens. camera: the final lens. estimated: the path, without metres yet."""

    metres: Metres
    camera: Camera
    estimated: EstimatedPath


class CameraStage(BuiltinStage):
    """The lens and the camera's path. Its value is `FoundCamera`."""

    name = "camera"
    after = ("probe", "images", "hands_2d", "lens")
    reads_frames = True
    clip_fields = ("camera",)
    versions = (*EVERY_STEP, "pycolmap", "corners", "camera_path")
    _CLASSES = (FoundCamera, Metres, Posterior, Camera, EstimatedPath, CameraPath)

    def key_settings(self) -> dict[str, Any]:
        return {"poses": self.config.camera.poses}

    def load(self) -> None:
        self._corners = CornerTracks()

    def run(self, work: Work) -> FoundCamera:
        lens = work["lens"]
        estimated = self._path(work, lens.camera)
        metres, camera = Metres(lens.known), lens.camera
        if estimated.camera is not camera and estimated.path.world_from_camera is not None:
            metres, camera = with_lens(metres, camera, estimated.camera, work.info), estimated.camera
        return FoundCamera(metres, camera, estimated)

    def _path(self, work: Work, camera: Camera) -> EstimatedPath:
        """Given poses unchanged; else, if the settings say so, estimated from the scene's corners, without a scale."""
        given = given_path(work.clip, work.frame_s)
        if given is None and self.config.camera.poses == "given":
            given = CameraPath(None, "none", "none", "not_given")
        if given is not None:
            return _as_given(given, camera)
        corners = self._corners.track(work.info, work.frames, work["hands_2d"], work["images"].cuts.tolist())
        return estimate_path(corners, None, camera, work.frame_s, work.info)

    def cells(self, value: FoundCamera, work: Work) -> dict[str, Any]:
        return camera_cells(value.camera)

    def state(self, value: FoundCamera) -> bytes:
        nothing = np.zeros(0, np.int64)  # the observations: nothing after this stage reads them
        return pack(replace(value, estimated=replace(value.estimated, frame=nothing, point=nothing)), self._CLASSES)

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        return MISSING if state is None else unpack(state, self._CLASSES)


def _as_given(path: CameraPath, camera: Camera) -> EstimatedPath:
    nothing = np.zeros(0, np.int64)
    poses = path.world_from_camera
    numbers = {} if poses is None else {"camera_coverage": float(np.isfinite(poses).all(axis=(1, 2)).mean())}
    return EstimatedPath(path, camera, np.zeros((0, 3)), nothing, nothing, numbers)


@dataclass(frozen=True)
class World:
    """path: the camera's, in metres where they are known. numbers: of it, for `quality`. hands_m: (T, 2, 21, 3) in the
    world, None without poses or restored from a row."""

    path: CameraPath
    numbers: dict[str, float]
    hands_m: NDArray[np.floating[Any]] | None


class WorldStage(BuiltinStage):
    """The camera's path in metres, as far as they are known, and the hands in its world. Its value is `World`."""

    name = "world"
    after = ("probe", "depth", "camera", "hands_3d", "tracks")
    versions = (*EVERY_STEP, "pycolmap", "camera_path", "lift")

    def run(self, work: Work) -> World:
        found, hands, maps = work["camera"], work["hands_3d"].hands, work["depth"]
        estimated = found.estimated
        if estimated.path.source == "estimated":
            estimated = with_scale(estimated, hands, work.frame_s, work.info, maps)
        path = with_unit(estimated.path, work["tracks"], hands, found.camera, work.info, work.frame_s, maps)
        return World(path, estimated.numbers, hands_to_world(hands, path))

    def cells(self, value: World, work: Work) -> dict[str, Any]:
        return world_cells(value.path, value.hands_m)

    def state(self, value: World) -> bytes:
        return pack((value.path, value.numbers), (CameraPath,))

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        return MISSING if state is None else World(*[*unpack(state, (CameraPath,)), None])


def with_unit(
    path: CameraPath,
    tracks: Tracks,
    hands: Hands,
    camera: Camera,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    maps: DepthMaps | None,
) -> CameraPath:
    """`path` with `unit_m`: known for metric paths, measured where a given path has an unknown unit, else None."""
    if path.world_from_camera is None or path.scale == "metric":
        return replace(path, unit_m=None if path.world_from_camera is None else 1.0)
    if path.source != "given":
        return path  # `with_scale` has measured it where it could
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
