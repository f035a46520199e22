"""Points of later grids that a hand may move: they follow things long after the first grid was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.world import rays_of
from handloom.geometry.interactions.moving import point_motion
from handloom.geometry.interactions.scene import Scene
from handloom.schemas.values import Camera

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NEAR_M = 0.2
"""Points are taken that move within this distance of a hand, across the line of sight: farther than a hand reaches,
as the places of lost hands are interpolated here."""
LEAST_FRAMES = 3
"""In which a point moves near a hand, to be taken."""


MOST = 3000
"""Points that are taken of all grids together, as many of each: memory grows with their number times the frames. Of a
grid of three seconds in which a hand moves a thing 20 to 150 are."""


@dataclass(frozen=True)
class LaterPoints:
    """A later grid: G points over the L frames of the clip from `first_frame` on.

    points_px: (L, G, 2) source pixels. visible: (L, G). depth_m: (L, G), NaN unknown.
    """

    first_frame: int
    points_px: NDArray[np.floating[Any]]
    visible: Bools
    depth_m: NDArray[np.floating[Any]]


def with_later_points(scene: Scene, camera: Camera, grids: Sequence[LaterPoints], most: int = MOST) -> Scene:
    """The scene with those points of later grids that move near a hand as more tracks, NaN outside of their frames.

    Most points of a grid rest: with all of them a clip of ten minutes would have 100,000 tracks. most: points of all
    grids together.
    """
    if not grids or not np.isfinite(scene.hands_m).any():
        return scene
    hands = np.stack([_without_gaps(scene.hands_m[:, hand]) for hand in range(scene.hands_m.shape[1])], axis=1)
    rays, depth, num = [scene.rays], [scene.depth_m], len(scene.frame_s)
    for grid in grids:
        part = _part(scene, camera, grid)
        at = slice(grid.first_frame, grid.first_frame + len(grid.visible))
        chosen = _moved_near_hands(part, hands[at], most // len(grids))
        for out, values in ((rays, part.rays), (depth, part.depth_m)):
            whole = np.full((num, len(chosen), *values.shape[2:]), np.nan)
            whole[at] = values[:, chosen]
            out.append(whole)
    more = sum(values.shape[1] for values in rays[1:])
    return replace(
        scene,
        rays=np.concatenate(rays, axis=1),
        depth_m=np.concatenate(depth, axis=1),
        on_hand=np.append(scene.on_hand, np.zeros(more, bool)),
        later=np.append(scene.later, np.ones(more, bool)),
    )


def _part(scene: Scene, camera: Camera, grid: LaterPoints) -> Scene:
    """The frames of a grid with its points alone."""
    at = slice(grid.first_frame, grid.first_frame + len(grid.visible))
    rays = rays_of(grid.points_px, camera)
    rays[~grid.visible] = np.nan
    depth = grid.depth_m.astype(float)
    none = np.zeros(grid.visible.shape[1], bool)
    starts = scene.starts[(scene.starts > at.start) & (scene.starts < at.stop)] - at.start
    return Scene(
        scene.frame_s[at], scene.hands_m[at], scene.seen[at], rays, depth, none, none, scene.poses[at],
        scene.on_path[at], starts, scene.is_metric,
    )  # fmt: skip


def _moved_near_hands(part: Scene, hands_m: Floats, most: int) -> NDArray[np.int64]:
    """Numbers of the points that move near one of the hands (L, 2, 21, 3); of more than `most` those that do so in most
    frames."""
    motion = point_motion(part)
    near = np.zeros(motion.moves.shape, bool)
    known = np.isfinite(hands_m).all(axis=(2, 3)) & np.isfinite(part.poses).all(axis=(1, 2))[:, None]
    for t, hand in np.argwhere(known):
        moving = np.flatnonzero(motion.creeps[t])
        cam = (hands_m[t, hand] - part.poses[t, :3, 3]) @ part.poses[t, :3, :3]
        if not len(moving) or (cam[:, 2] < 0.01).any():
            continue
        gap = (part.rays[t, moving, None, :2] - cam[:, :2] / cam[:, 2:]) * cam[:, 2:]
        near[t, moving] |= (gap**2).sum(-1).min(axis=1) < NEAR_M**2
    frames = near.sum(axis=0)
    chosen = np.argsort(-frames, kind="stable")[:most]
    return np.sort(chosen[frames[chosen] >= LEAST_FRAMES])


def _without_gaps(keypoints_m: Floats) -> Floats:
    """(T, 21, 3) with the frames between known ones interpolated; NaN before the first and after the last."""
    known = np.flatnonzero(np.isfinite(keypoints_m).all(axis=(1, 2)))
    out = keypoints_m.copy()
    if len(known) < 2:
        return out
    inside = np.arange(known[0], known[-1] + 1)
    for values, flat in zip(out.reshape(len(out), -1).T, keypoints_m.reshape(len(out), -1).T, strict=True):
        values[inside] = np.interp(inside, known, flat[known])
    return out
