"""Scenes of scripted sequences without rendering: hands and things where they are, and points that are seen exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.geometry.camera.world import to_camera
from handloom.geometry.interactions.scene import Scene, make_scene
from handloom.schemas.values import TrackKind
from handloom.synth.script.scene import SceneSpec
from handloom.synth.stage import build_stage
from handloom.synth.truth import Truth

POINTS_OF_A_THING, STEP_M = 24, 0.05
MIDDLE_M = np.array([0.0, 0.10, 0.0])
"""Of what is done on the table."""


@dataclass(frozen=True)
class Viewpoint:
    """Another place of the camera: turned around the middle of the table, to the left of the person where positive, so
    many times as far from it, and so much higher. is_worn: whether it is still on the person's head."""

    turn_deg: float = 0.0
    farther: float = 1.0
    higher_m: float = 0.0
    is_worn: bool = False

    def camera(self, world_from_camera: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, 4, 4) the path of a camera seen from here; it keeps looking at the same place of the table."""
        turn = Rotation.from_euler("z", -self.turn_deg, degrees=True).as_matrix()
        out = world_from_camera.copy()
        place = MIDDLE_M + (out[:, :3, 3] - MIDDLE_M) * self.farther @ turn.T
        lower = place.copy()
        place[:, 2] += self.higher_m
        forward = out[:, :3, 2] @ turn.T
        reach = (lower[:, 2] / -forward[:, 2])[:, None]
        gaze = lower + reach * forward - place
        gaze /= np.linalg.norm(gaze, axis=1, keepdims=True)
        right = np.cross(gaze, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        out[:, :3, :3] = np.stack([right, np.cross(gaze, right), gaze], axis=2)
        out[:, :3, 3] = place
        return out


def exact_scene(
    spec: SceneSpec, noise_px: float = 0.0, seed: int = 0, viewpoint: Viewpoint | None = None
) -> tuple[Scene, Truth]:
    """What the pipeline would store if it saw the hands and 24 points of each thing exactly; depths of what rests.

    Beside them a grid of points on the table. Points of hands are on their keypoints. viewpoint: of a camera that moves
    as the person's, elsewhere.
    """
    stage = build_stage(spec)
    truth, rng = stage.truth, np.random.default_rng([seed, spec.seed])
    num = len(truth.frame_s)
    x, y = np.meshgrid(np.arange(-0.4, 0.41, STEP_M), np.arange(-0.1, 0.61, STEP_M))
    table = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    world, rests = [np.tile(table, (num, 1, 1))], [np.ones((num, len(table)), bool)]
    for thing, shape in enumerate(stage.shapes):
        local = rng.uniform(-1, 1, (POINTS_OF_A_THING, 3)) * shape.half_m
        pose = truth.world_from_object[:, thing]
        world.append(np.einsum("tij,nj->tni", pose[:, :3, :3], local) + pose[:, None, :3, 3])
        still = np.ones(num, bool)
        still[1:] = np.linalg.norm(np.diff(pose[:, :3, 3], axis=0), axis=1) < 1e-6
        rests.append(np.tile(still[:, None], (1, len(local))))
    hands = truth.keypoints_world_m.reshape(num, -1, 3)
    world.append(hands)
    rests.append(np.zeros(hands.shape[:2], bool))
    points, rest = np.concatenate(world, axis=1), np.concatenate(rests, axis=1)
    path = truth.world_from_camera if viewpoint is None else viewpoint.camera(truth.world_from_camera)
    turn, centre = path[:, :3, :3], path[:, :3, 3]
    cam = np.einsum("tji,tnj->tni", turn, points - centre[:, None])
    px = truth.lens.project(cam) + noise_px * rng.normal(size=(*cam.shape[:2], 2))
    visible = np.isfinite(px).all(-1) & (cam[..., 2] > 0.05)
    visible &= ((px >= 0) & (px < truth.size)).all(-1)
    kind = np.repeat([TrackKind.GRID, TrackKind.LEFT_HAND], [points.shape[1] - hands.shape[1], hands.shape[1]])
    scene = make_scene(
        truth.frame_s, truth.lens.camera, path, 1.0, "metric", to_camera(truth.keypoints_world_m, path),
        np.zeros((num, 2), bool), px, visible, np.where(visible & rest, cam[..., 2], np.nan), kind,
        np.empty(0, np.int64), viewpoint is None or viewpoint.is_worn,
    )  # fmt: skip
    return scene, truth
