"""The arrays of one clip: those of its row, and what pages draw that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.draw.segments.things import moved_things
from handloom.geometry.bodies import NUM_BODY_KEYPOINTS, SEEN_VISIBILITY, hips_in_camera
from handloom.geometry.camera.intrinsics import rays, slopes
from handloom.geometry.camera.world import rays_of
from handloom.geometry.cross_quality import palm_speeds
from handloom.schemas.tables.row import row_camera

Array = NDArray[Any]

SPEED, THINGS, BOXES = "hand_speed_m_s", "things", "things_box_m"
BODY, BORDER = "body_keypoints_cam_m", "image_border_rays"
TRACKS, GRIDS = "track_points_cam_m", "regrid_points_cam_m"
BORDER_STEPS = 16  # of a side of the image


def arrays_of(row: Mapping[str, Any]) -> dict[str, Callable[[], Array]]:
    """What gives each array of a row, by its name: its columns, and those that follow from them.

    `hand_speed_m_s`: `speeds_of`. `things` (K, T, 4, 4) and `things_box_m` (K, 6): poses and boxes of held things.
    `body_keypoints_cam_m`: `body_of`. Where the lens distorts, as pages know no lens: `image_border_rays`: `border_of`;
    `regrid_points_cam_m` (V, 3), and `track_points_cam_m` (T, N, 3) where the row has no places in the world: points in
    the camera's frame, metres, NaN where the depth is unknown.
    """
    stored = {name: one for name, one in row.items() if isinstance(one, np.ndarray) and one.dtype.kind in "fiub"}
    found: dict[str, Callable[[], Array]] = {name: partial(np.asarray, one) for name, one in stored.items()}
    if (speeds := speeds_of(row)) is not None:
        found[SPEED] = lambda: speeds
    if things := moved_things(dict(row)):
        found[THINGS] = lambda: np.stack([one.poses for one in things]).astype(np.float32)
        found[BOXES] = lambda: np.stack([one.box_m for one in things]).astype(np.float32)
    if not _has(row, "camera_matrix"):
        return found
    if _has(row, "body_keypoints_px", "body_keypoints_hip_m", "body_keypoint_visibility"):
        found[BODY] = lambda: body_of(row)
    if _has(row, "camera_distortion"):
        found[BORDER] = lambda: border_of(row)
        if _has(row, "track_points_px", "track_depth_m") and not _has(row, "track_points_world_m"):
            found[TRACKS] = lambda: _lifted(row, "track")
        if _has(row, "regrid_points_px", "regrid_depth_m"):
            found[GRIDS] = lambda: _lifted(row, "regrid")
    return found


def _has(row: Mapping[str, Any], *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def speeds_of(row: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """(T, 2) m/s of each palm from the frame before, NaN in the first frame and where unknown; in the world where the
    path is in metres, else in the camera's frame. None without hands in metres."""
    in_world = row.get("world_scale") == "metric" and row.get("hand_keypoints_world_m") is not None
    points = row.get("hand_keypoints_world_m" if in_world else "hand_keypoints_cam_m")
    if points is None or not len(points):
        return None
    speeds = palm_speeds(points.astype(np.float64), np.asarray(row["frame_s"], np.float64))
    return np.concatenate([np.full((1, 2), np.nan), speeds]).astype(np.float32)


def body_of(row: Mapping[str, Any]) -> NDArray[np.float32]:
    """(T, 33, 3) the body's keypoints in the camera's frame, metres of a person of the network's usual size, so that
    they appear where they were seen. NaN where the network only guesses a keypoint, or the place is unknown."""
    shape = (len(row["frame_s"]), NUM_BODY_KEYPOINTS)
    seen = np.asarray(row["body_keypoint_visibility"]) >= SEEN_VISIBILITY
    hip_m = np.where(seen[..., None], np.asarray(row["body_keypoints_hip_m"], np.float64).reshape(*shape, 3), np.nan)
    points_px = np.asarray(row["body_keypoints_px"], np.float64).reshape(*shape, 2)
    return (hip_m + hips_in_camera(slopes(points_px, row_camera(row)), hip_m)[:, None]).astype(np.float32)


def border_of(row: Mapping[str, Any]) -> NDArray[np.float32]:
    """(64, 3) unit directions in the camera's frame of what lies on the image's border, from its upper left corner
    clockwise. NaN where the lens shows nothing."""
    along = np.arange(BORDER_STEPS) / BORDER_STEPS
    still, back = np.zeros(BORDER_STEPS), 1 - along
    ring = np.concatenate(
        [np.stack(side, 1) for side in ((along, still), (1 + still, along), (back, 1 + still), (still, back))]
    )
    return rays(ring * [row["width"], row["height"]] - 0.5, row_camera(row)).astype(np.float32)


def _lifted(row: Mapping[str, Any], kind: str) -> NDArray[np.float32]:
    depth = np.asarray(row[f"{kind}_depth_m"], np.float64)[..., None]
    return (rays_of(row[f"{kind}_points_px"], row_camera(row)) * np.where(depth > 0, depth, np.nan)).astype(np.float32)
