"""The door to pycolmap: two views, one view against known points, and bundle adjustment. One thread, fixed seeds.

Poses are camera from world, (3, 4) [R | t]. Pixels are of a pinhole with the principal point at (0, 0), undistorted.

Source: Schoenberger and Frahm, Structure-from-Motion Revisited, CVPR 2016 (COLMAP); Agarwal et al., Ceres Solver.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """SIGTERM does after the block what it did before: pycolmap (glog) prints a trace of the stack and ends the
    process, whoever had asked for the signal. From any thread, as `signal.signal` is not."""
    sigaction = getattr(ctypes.CDLL(None), "sigaction", None)
    before = ctypes.create_string_buffer(1024)  # a `struct sigaction`, which nobody looks into
    kept = sigaction is not None and sigaction(signal.SIGTERM, None, before) == 0
    try:
        yield
    finally:
        if kept and sigaction is not None:
            sigaction(signal.SIGTERM, before, None)


def _with_its_own_symbols() -> ModuleType:
    """pycolmap, bound to the C++ library that it was built for, and without its handler of SIGTERM.

    decord opens its libraries to the whole process (RTLD_GLOBAL), among them the hash tables of an older C++ library: a
    pycolmap that is imported later walks through its parameters in another order, and poses differ in the last digits.
    """
    flags = sys.getdlopenflags()
    if "decord" in sys.modules:
        sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        with _kept_sigterm():
            return import_module("pycolmap")
    finally:
        sys.setdlopenflags(flags)


pycolmap = _with_its_own_symbols()
# pycolmap has no types: for a type checker its objects are Any. The names are those of its classes.
Reconstruction: TypeAlias = Any
Adjuster: TypeAlias = Any
AdjustmentOptions: TypeAlias = Any
ColmapCamera: TypeAlias = Any
Rigid: TypeAlias = Any
RansacOptions: TypeAlias = Any

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED = 0
_SIZE = (640, 480)  # of the camera object; the solvers used here do not read it


@dataclass(frozen=True)
class Scene:
    """Cameras and points. poses: (F, 3, 4), NaN unknown. points: (N, 3), NaN unknown. focal: pixels.

    focal_sigma: its relative standard deviation if observations are off by one pixel; NaN where it was not refined.
    """

    poses: Floats
    points: Floats
    focal: float
    focal_sigma: float = float("nan")


@dataclass(frozen=True)
class Observations:
    """Where tracks were seen. frame, track: (M,) indices; xy: (M, 2) pixels. Sorted by frame, then by track.

    first: (F + 1,) where each frame's observations begin. slack: (F,) how much less exact than usual each frame is, >=
    1.
    """

    frame: Ints
    track: Ints
    xy: Floats
    first: Ints
    num_tracks: int
    slack: Floats

    @staticmethod
    def of(
        frame: Ints, track: Ints, xy: Floats, num_frames: int, num_tracks: int, slack: Floats | None = None
    ) -> Observations:
        first = np.searchsorted(frame, np.arange(num_frames + 1))
        return Observations(frame, track, xy, first, num_tracks, np.ones(num_frames) if slack is None else slack)

    def at(self, frame: int) -> tuple[Ints, Floats]:
        span = slice(self.first[frame], self.first[frame + 1])
        return self.track[span], self.xy[span]

    def kept(self, keep: NDArray[np.bool_]) -> Observations:
        kept = self.frame[keep], self.track[keep], self.xy[keep]
        return Observations.of(*kept, len(self.first) - 1, self.num_tracks, self.slack)


def relative_pose(
    xy_a: Floats, xy_b: Floats, focal: float, max_error_px: float
) -> tuple[Floats, NDArray[np.bool_]] | None:
    """Pose (3, 4) of camera b in a's frame, translation of length 1, and the inliers; None where there is none."""
    camera, options = _camera(focal), _ransac(max_error_px)
    found = pycolmap.estimate_essential_matrix(xy_a, xy_b, camera, camera, options)
    if found is None or not np.isfinite(found["cam2_from_cam1"].matrix()).all():
        return None
    return found["cam2_from_cam1"].matrix(), np.asarray(found["inlier_mask"], bool)


def absolute_pose(points: Floats, xy: Floats, focal: float, max_error_px: float, guess: Floats | None) -> Floats | None:
    """Pose (3, 4) of a camera that sees known points, refined from `guess` or found by RANSAC."""
    camera = _camera(focal)
    refine = pycolmap.AbsolutePoseRefinementOptions()
    refine.loss_function_scale, refine.max_num_iterations = 1.0, 20
    if guess is not None:
        mask = np.ones(len(xy), bool)
        found = pycolmap.refine_absolute_pose(_rigid(guess), xy, points, mask, camera, refine)
    else:
        estimate = pycolmap.AbsolutePoseEstimationOptions()
        estimate.ransac = _ransac(max_error_px)
        found = pycolmap.estimate_and_refine_absolute_pose(xy, points, camera, estimate, refine)
    if found is None or not np.isfinite(pose := found["cam_from_world"].matrix()).all():
        return None
    return pose


def bundle_adjust(
    scene: Scene,
    observations: Observations,
    *,
    free: NDArray[np.bool_] | None = None,
    refine_focal: bool = False,
    loss_px: float = 1.0,
    iterations: int = 15,
) -> Scene | None:
    """The scene adjusted to the observations of known points in known cameras (Cauchy loss of `loss_px`).

    free: (F,) cameras that may move; None: all, with COLMAP's gauge of two fixed cameras. A point must be seen by two
    cameras. None where the problem has no usable solution.
    """
    seen = _known_twice(scene, observations)
    if not len(seen.frame):
        return None
    model, frames, tracks = _model(scene, seen, _camera(scene.focal))
    config = pycolmap.BundleAdjustmentConfig()
    for frame in frames:
        config.add_image(int(frame) + 1)
        if free is not None and not free[frame]:
            config.set_constant_rig_from_world_pose(int(frame) + 1)
    if free is None or free[frames].all():
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value  # no warning where a step is tried again
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(_options(refine_focal, loss_px, iterations), config, model)
    if not adjuster.solve().is_solution_usable():
        return None
    focal_sigma = _focal_sigma(model, adjuster) if refine_focal else scene.focal_sigma
    return _solved(scene, model, frames, tracks, focal_sigma)


def _known_twice(scene: Scene, observations: Observations) -> Observations:
    """Observations of known points in known cameras that see the point twice or more: COLMAP ends the process on
    others."""
    known = np.isfinite(scene.poses).all(axis=(1, 2))[observations.frame]
    known &= np.isfinite(scene.points).all(axis=1)[observations.track] & np.isfinite(observations.xy).all(axis=1)
    often = np.bincount(observations.track[known], minlength=len(scene.points)) >= 2
    return observations.kept(known & often[observations.track])


def _solved(scene: Scene, model: Reconstruction, frames: Ints, tracks: Ints, focal_sigma: float) -> Scene:
    """`scene` with the solution's cameras, points and focal length."""
    poses, points = scene.poses.copy(), scene.points.copy()
    for frame in frames:
        poses[frame] = model.image(int(frame) + 1).cam_from_world().matrix()
    for track in tracks:
        points[track] = model.point3D(int(track) + 1).xyz
    return Scene(poses, points, float(model.camera(1).params[0]), focal_sigma)


@dataclass(frozen=True)
class RadialLens:
    """A lens with one radial term, the principal point at (0, 0).

    A ray at the angle t off the axis is seen at focal * r * (1 + radial * r^2) pixels from the middle, with r = tan(t),
    or r = t for a `fisheye`.
    covariance: (2, 2) of (log focal, radial) if observations are off by one pixel; NaN unknown.
    cost: mean of log(1 + squared error) of the observations that it was found from; 0 unknown.
    """

    focal: float
    radial: float = 0.0
    fisheye: bool = False
    covariance: Floats = field(default_factory=lambda: np.full((2, 2), np.nan))
    cost: float = 0.0


def refine_lens(scene: Scene, seen: Observations, lens: RadialLens) -> tuple[Scene, RadialLens] | None:
    """The scene and the lens, adjusted to observations as the lens shows them; None without a usable solution."""
    seen = _known_twice(scene, seen)
    if not len(seen.frame):
        return None
    model, frames, tracks = _model(scene, seen, _radial_camera(lens))
    config = pycolmap.BundleAdjustmentConfig()
    for frame in frames:
        config.add_image(int(frame) + 1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    options = _options(True, 1.0, 20)
    options.refine_extra_params = True
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, model)
    if not adjuster.solve().is_solution_usable():
        return None
    focal, _, _, radial = (float(number) for number in model.camera(1).params)
    covariance = _lens_covariance(model, adjuster)
    if focal <= 0 or covariance is None:
        return None
    unit = np.array([1 / focal, 1.0])
    found = RadialLens(focal, radial, lens.fisheye, covariance * np.outer(unit, unit))
    return _solved(scene, model, frames, tracks, scene.focal_sigma), found


def _radial_camera(lens: RadialLens) -> ColmapCamera:
    models = pycolmap.CameraModelId
    kind = models.SIMPLE_RADIAL_FISHEYE if lens.fisheye else models.SIMPLE_RADIAL
    camera = pycolmap.Camera.create_from_model_id(1, kind, lens.focal, *_SIZE)
    camera.params = [lens.focal, 0.0, 0.0, lens.radial]
    return camera


def _focal_sigma(model: Reconstruction, adjuster: Adjuster) -> float:
    focal = _lens_covariance(model, adjuster)
    return float("inf") if focal is None else float(np.sqrt(max(focal[0, 0], 0.0)) / model.camera(1).params[0])


def _lens_covariance(model: Reconstruction, adjuster: Adjuster) -> Floats | None:
    """Covariance of the camera's free parameters; None where it cannot be computed."""
    covariance = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), model, adjuster)
    return None if covariance is None else covariance.get_other_params_cov(model.camera(1).params)


def _model(scene: Scene, seen: Observations, camera: ColmapCamera) -> tuple[Reconstruction, Ints, Ints]:
    """COLMAP's own container: frame f is image f + 1, track n is point n + 1."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    frames = np.unique(seen.frame)
    for frame in frames:
        image = pycolmap.Image(name=str(frame), keypoints=seen.at(frame)[1], camera_id=1, image_id=int(frame) + 1)
        model.add_image_with_trivial_frame(image, _rigid(scene.poses[frame]))
    slot = np.arange(len(seen.frame)) - seen.first[seen.frame]
    order = np.argsort(seen.track, kind="stable")
    tracks, starts = np.unique(seen.track[order], return_index=True)
    images, slots = (seen.frame[order] + 1).tolist(), slot[order].tolist()
    for track, start, end in zip(tracks.tolist(), starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        point = pycolmap.Point3D()
        point.xyz = scene.points[track]
        elements = pycolmap.Track()
        elements.elements = [pycolmap.TrackElement(images[i], slots[i]) for i in range(start, end)]
        point.track = elements
        model.add_point3D_with_id(track + 1, point)
    return model, frames, tracks


def _options(refine_focal: bool, loss_px: float, iterations: int) -> AdjustmentOptions:
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length, options.refine_extra_params = refine_focal, False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_px
    options.ceres.max_num_images_direct_sparse_cpu_solver = 10_000  # cameras of a video share points with few others
    solver = options.ceres.solver_options
    solver.num_threads, solver.max_num_iterations, solver.function_tolerance = 1, iterations, 1e-5
    return options


def _camera(focal: float) -> ColmapCamera:
    model = pycolmap.CameraModelId.SIMPLE_PINHOLE
    camera = pycolmap.Camera.create_from_model_id(1, model, focal, *_SIZE)
    camera.params = [focal, 0.0, 0.0]
    return camera


def _rigid(pose: Floats) -> Rigid:
    return pycolmap.Rigid3d(pycolmap.Rotation3d(np.ascontiguousarray(pose[:, :3])), pose[:, 3])


def _ransac(max_error_px: float) -> RansacOptions:
    options = pycolmap.RANSACOptions()
    options.max_error, options.random_seed, options.num_threads = max_error_px, SEED, 1
    options.min_num_trials, options.max_num_trials, options.min_inlier_ratio = 100, 1000, 0.25
    return options
