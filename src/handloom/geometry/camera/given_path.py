"""Camera poses that came with a video, at the times of the sampled frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.errors import ClipError
from handloom.geometry.camera.intrinsics import HINT, STAGE, camera_content
from handloom.schemas.clip import Clip
from handloom.schemas.values import WORLD_SCALES, CameraPath

Floats = NDArray[np.float64]

MAX_GAP_S = 0.5
"""Between poses further apart frames have no pose. A head turns up to 200 degrees/s: 0.5 s is generous."""
ROTATION_TOLERANCE = 1e-2  # poses are often written as float32, or with four digits


def given_path(clip: Clip, frame_s: Floats) -> CameraPath | None:
    """The poses of the clip's camera file at `frame_s` (T,); None where it has none for these times.

    Between two poses the place is linear in time and the rotation is interpolated by SLERP. Before the first, after the
    last and beside a gap longer than `MAX_GAP_S`, the nearest pose is taken for times up to half a sampling step away;
    all other times are NaN: nothing is extrapolated.

    The world is the file's own. Its scale is the file's `world_scale`; where that is `none` or missing, `arbitrary`.

    Raises:
        ClipError: `bad_camera`, the poses cannot be used.
    """
    if clip.camera is None:
        return None
    try:
        parsed = parse_poses(clip.camera)
    except ValueError as error:
        problem = f"the given camera poses cannot be used: {error}"
        raise ClipError(clip.clip_id, STAGE, "bad_camera", problem, HINT) from None
    if parsed is None:
        return None
    pose_s, matrices, scale = parsed
    world_from_camera = interpolate(pose_s, matrices, np.asarray(frame_s, np.float64))
    if np.isnan(world_from_camera).all():
        return None
    return CameraPath(world_from_camera, "arbitrary" if scale == "none" else scale, "given")


def parse_poses(text: str) -> tuple[Floats, Floats, str] | None:
    """Times (P,), poses (P, 4, 4) with exact rotations, and the scale; None without poses. Raises ValueError."""
    content = camera_content(text)
    poses, scale = content.get("world_from_camera"), content.get("world_scale")
    scale = "none" if scale is None else scale
    if scale not in WORLD_SCALES:
        raise ValueError(f"world_scale is {str(scale)[:80]!r}, expected one of {', '.join(WORLD_SCALES)}")
    if poses is None or poses == []:
        return None
    if not isinstance(poses, list) or not all(isinstance(p, dict) and p.keys() == {"frame_s", "matrix"} for p in poses):
        raise ValueError("world_from_camera is not a list of objects with the two keys frame_s and matrix")
    try:
        pose_s = np.array([pose["frame_s"] for pose in poses], np.float64)
        matrices = np.array([pose["matrix"] for pose in poses], np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("world_from_camera holds something that is no number, or lists of different lengths") from None
    if pose_s.shape != (len(poses),) or matrices.shape != (len(poses), 16):
        raise ValueError(f"world_from_camera has matrices of shape {matrices.shape[1:]}, expected 16 numbers each")
    return pose_s, _checked(pose_s, matrices.reshape(-1, 4, 4)), scale


def _checked(pose_s: Floats, matrices: Floats) -> Floats:
    """The poses with the nearest exact rotations."""
    if not (np.isfinite(pose_s).all() and np.isfinite(matrices).all()):
        raise ValueError("world_from_camera holds a number that is not finite")
    if (late := np.flatnonzero(np.diff(pose_s) <= 0)).size:
        at = int(late[0]) + 1
        raise ValueError(f"world_from_camera[{at}].frame_s is {pose_s[at]:g}, expected more than {pose_s[at - 1]:g}")
    rotations = matrices[:, :3, :3]
    beyond = np.abs(rotations).max(axis=(1, 2), keepdims=True) > 2  # in no rotation; squares of 1e299 would overflow
    rotations = np.where(beyond, 0.0, rotations)
    off = np.abs(rotations.transpose(0, 2, 1) @ rotations - np.eye(3)).max(axis=(1, 2))
    bad = (off > ROTATION_TOLERANCE) | (np.linalg.det(rotations) <= 0) | (matrices[:, 3] != [0, 0, 0, 1]).any(axis=1)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(f"world_from_camera[{at}].matrix is no rotation and translation with the last row 0 0 0 1")
    u, _, vt = np.linalg.svd(rotations)
    exact = matrices.copy()
    exact[:, :3, :3] = u @ vt
    return exact


def interpolate(pose_s: Floats, matrices: Floats, frame_s: Floats) -> Floats:
    """(P,) rising times and (P, 4, 4) poses at (T,) times: (T, 4, 4), NaN where no pose is near enough."""
    tolerance = 0.5 * float(np.median(np.diff(frame_s))) if len(frame_s) > 1 else 0.5 / 15.0
    after = np.clip(np.searchsorted(pose_s, frame_s), 1, max(len(pose_s) - 1, 1))
    before, after = after - 1, np.minimum(after, len(pose_s) - 1)
    span = pose_s[after] - pose_s[before]
    share = np.clip((frame_s - pose_s[before]) / np.where(span > 0, span, 1.0), 0.0, 1.0)
    nearest = np.minimum(np.abs(frame_s - pose_s[before]), np.abs(frame_s - pose_s[after]))
    between = (frame_s >= pose_s[before]) & (frame_s <= pose_s[after]) & (span <= MAX_GAP_S)
    share = np.where(between, share, np.round(share))  # beside a gap: the nearest pose as it is
    turn = Rotation.from_matrix(matrices[:, :3, :3])
    arc = (turn[before].inv() * turn[after]).as_rotvec()
    result = np.tile(np.eye(4), (len(frame_s), 1, 1))
    result[:, :3, :3] = (turn[before] * Rotation.from_rotvec(share[:, None] * arc)).as_matrix()
    result[:, :3, 3] = (1 - share[:, None]) * matrices[before, :3, 3] + share[:, None] * matrices[after, :3, 3]
    result[~between & ~(nearest <= tolerance + 1e-6)] = np.nan  # a microsecond: container clocks are rounded
    return result
