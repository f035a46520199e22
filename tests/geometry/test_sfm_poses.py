"""Single views against known points."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from handloom.geometry.sfm.poses import place, place_all, placed
from handloom.geometry.sfm.solver import Observations, Scene

FOCAL, NUM_FRAMES, NUM_POINTS = 400.0, 9, 80


def views(outliers: float, blind: int | None = None) -> tuple[Scene, Observations, np.ndarray]:
    """A scene whose first frame alone is placed, what the frames see of it, and their true poses."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 1, (NUM_POINTS, 2)), rng.uniform(1.5, 3, NUM_POINTS)])
    turns = Rotation.from_rotvec(np.linspace(0, 1, NUM_FRAMES)[:, None] * [0.1, 0.3, 0.05]).as_matrix()
    poses = np.concatenate([turns, np.linspace(0, 0.3, NUM_FRAMES)[:, None, None] * np.ones((3, 1))], axis=2)
    frames, tracks, pixels = [], [], []
    for frame, pose in enumerate(poses):
        local = points @ pose[:, :3].T + pose[:, 3]
        xy = FOCAL * local[:, :2] / local[:, 2:] + rng.normal(0, 0.2, (NUM_POINTS, 2))
        off = rng.random(NUM_POINTS) < outliers
        xy[off] += rng.uniform(-60, 60, (off.sum(), 2))
        num = 5 if frame == blind else NUM_POINTS
        frames.append(np.full(num, frame)), tracks.append(np.arange(num)), pixels.append(xy[:num])
    seen = Observations.of(*map(np.concatenate, (frames, tracks, pixels)), NUM_FRAMES, NUM_POINTS)
    known = np.full((NUM_FRAMES, 3, 4), np.nan)
    known[0] = poses[0]
    return Scene(known, points, FOCAL), seen, poses


def test_frames_are_placed_at_once_as_one_by_one():
    scene, seen, poses = views(outliers=0.3)
    found = place_all(scene, seen, list(range(1, NUM_FRAMES))).poses
    alone = np.stack([place(scene, seen, frame) for frame in range(1, NUM_FRAMES)])
    assert np.abs(found - poses).max() < 0.003
    assert np.abs(found[1:] - alone).max() < 1e-3


def test_a_frame_that_sees_too_little_is_not_placed():
    scene, seen, _ = views(outliers=0.0, blind=4)
    assert placed(place_all(scene, seen, list(range(1, NUM_FRAMES)))) == [0, 1, 2, 3, 5, 6, 7, 8]
