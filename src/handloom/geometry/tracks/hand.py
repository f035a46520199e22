"""Depth of points on a hand or beside it: capsules of flesh around the hand's bones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.hand_topology import INDEX, KNUCKLE_LINE, METACARPALS, PHALANGES, THUMB, WRIST

Floats = NDArray[np.float64]

_WEB = (THUMB[0], INDEX[0])  # the flesh between thumb and palm
BONES = np.array([(WRIST, THUMB[0]), *PHALANGES, *METACARPALS, *KNUCKLE_LINE, _WEB])
"""(24, 2) pairs of keypoints with flesh between them: 4 of the thumb, 12 of the fingers, 8 of the palm."""
_NUM_FINGER_BONES, _NUM_THUMB_BONES = 16, 4
RADIUS_M = np.full(len(BONES), 0.020)
RADIUS_M[:_NUM_FINGER_BONES] = 0.0085
RADIUS_M[:_NUM_THUMB_BONES] = 0.011
THICKNESS_M = np.minimum(RADIUS_M, 0.013)
"""Half the width of a bone's flesh in the image, and its half thickness towards the camera (a palm is flat)."""
_LOOSE = 1.25  # radii within which a point counts as on the hand: keypoints are not exact


def flesh_depth(rays: Floats, keypoints_cam_m: Floats) -> Floats:
    """(n,) depth of a hand's surface along (n, 3) rays (x, y, 1), metres; NaN where a ray misses the hand.

    keypoints_cam_m: (21, 3), all finite.
    """
    return on_and_beside(rays, keypoints_cam_m, 0.05)[0]


def on_and_beside(rays: Floats, keypoints_cam_m: Floats, reach_m: float) -> tuple[Floats, Floats]:
    """(n,) depth of a hand's surface as in `flesh_depth`; and (n,) depth of its nearest bone for rays that pass it
    within `reach_m` across the line of sight, else NaN.
    """
    surface, beside = np.full(len(rays), np.nan), np.full(len(rays), np.nan)
    image = keypoints_cam_m[:, :2] / keypoints_cam_m[:, 2:]
    margin = max(reach_m, 0.03) / keypoints_cam_m[:, 2].min()
    (x, y), low, high = rays[:, :2].T, image.min(0) - margin, image.max(0) + margin
    near = np.flatnonzero((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
    if not len(near):
        return surface, beside
    gap, bone_z = _nearest_on_bones(rays[near], keypoints_cam_m)
    bone, column = on = np.nonzero(gap < _LOOSE * RADIUS_M[:, None])
    if len(bone):
        covered = np.maximum(0.0, 1 - (gap[on] / RADIUS_M[bone]) ** 2)
        thickness = THICKNESS_M[bone] * _share_of_depth(rays[near[column]], bone, keypoints_cam_m)
        depth = np.full(gap.shape, np.inf)
        depth[on] = bone_z[on] - thickness * np.sqrt(covered)
        depth = depth.min(axis=0)
        surface[near] = np.where(np.isfinite(depth), depth, np.nan)
    columns = np.flatnonzero(gap.min(axis=0) < reach_m)
    beside[near[columns]] = bone_z[gap[:, columns].argmin(axis=0), columns]
    return surface, beside


def _share_of_depth(rays: Floats, bone: NDArray[np.int64], keypoints_cam_m: Floats) -> Floats:
    """(m,) share of a bone's thickness that shortens the depth along the optical axis: 1 in the middle of the image and
    where a ray leans along the bone, 0.5 where it leans by 60 degrees across it.

    rays: (m, 3), of the bones with the numbers `bone` (m,).
    """
    axis = keypoints_cam_m[BONES[:, 1]] - keypoints_cam_m[BONES[:, 0]]
    axis = axis / np.maximum(np.sqrt((axis * axis).sum(1, keepdims=True)), 1e-9)
    length = np.sqrt(1 + (rays[:, :2] ** 2).sum(axis=1))
    along = sum(rays[:, i] * axis[bone, i] for i in range(3)) / length
    across = np.sqrt(np.maximum(1 - along * along, 1e-6))
    return np.minimum(1.0, 1 / (length * across))


def _nearest_on_bones(rays: Floats, keypoints_cam_m: Floats) -> tuple[Floats, Floats]:
    """(24, n) distance in metres, across the line of sight, of each ray from each bone; and the bone's depth there."""
    image = keypoints_cam_m[:, :2] / keypoints_cam_m[:, 2:]
    a, b = image[BONES[:, 0]], image[BONES[:, 1]]
    along = b - a
    length = np.maximum((along * along).sum(1), 1e-12)[:, None]
    (ax, ay), (bx, by) = a.T[..., None], along.T[..., None]
    x, y = np.ascontiguousarray(rays[:, :2].T)
    gap_x, gap_y = x - ax, y - ay  # (24, n), each axis by itself: twice as fast as with both behind
    share = gap_x * bx
    share += gap_y * by
    share /= length
    np.clip(share, 0, 1, out=share)
    gap_x -= share * bx
    gap_y -= share * by
    za, zb = keypoints_cam_m[BONES[:, 0], 2, None], keypoints_cam_m[BONES[:, 1], 2, None]
    depth = (1 - share) / za
    depth += share / zb
    np.divide(1, depth, out=depth)  # straight in space: the inverse of the depth is linear in the image
    # Across the line of sight: 60 degrees off the axis this is half of the distance in the plane of the image.
    along_ray = gap_x * x
    along_ray += gap_y * y
    along_ray *= along_ray
    along_ray /= 1 + x * x + y * y
    gap_x *= gap_x
    gap_y *= gap_y
    gap_x += gap_y
    gap_x -= along_ray
    np.sqrt(np.maximum(gap_x, 0.0, out=gap_x), out=gap_x)
    gap_x *= depth
    return gap_x, depth
