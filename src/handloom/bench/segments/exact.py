"""Scenes of scripted sequences without rendering: hands and things where they are, and points that are seen exactly."""

from __future__ import annotations

import numpy as np

from handloom.geometry.interactions.scene import Scene, make_scene
from handloom.schemas.values import TrackKind
from handloom.synth.script.scene import SceneSpec
from handloom.synth.stage import build_stage
from handloom.synth.truth import Truth

POINTS_OF_A_THING, STEP_M = 24, 0.05


def exact_scene(spec: SceneSpec, noise_px: float = 0.0, seed: int = 0) -> tuple[Scene, Truth]:
    """What the pipeline would store if it saw the hands and 24 points of each thing exactly; depths of what rests.

    Beside them a grid of points on the table. Points of hands are on their keypoints.
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
    turn, centre = truth.world_from_camera[:, :3, :3], truth.world_from_camera[:, :3, 3]
    cam = np.einsum("tji,tnj->tni", turn, points - centre[:, None])
    px = truth.lens.project(cam) + noise_px * rng.normal(size=(*cam.shape[:2], 2))
    visible = np.isfinite(px).all(-1) & (cam[..., 2] > 0.05)
    visible &= ((px >= 0) & (px < truth.size)).all(-1)
    kind = np.repeat([TrackKind.GRID, TrackKind.LEFT_HAND], [points.shape[1] - hands.shape[1], hands.shape[1]])
    scene = make_scene(
        truth.frame_s, truth.lens.camera, truth.world_from_camera, 1.0, "metric", truth.keypoints_cam_m,
        np.zeros((num, 2), bool), px, visible, np.where(visible & rest, cam[..., 2], np.nan), kind,
        np.empty(0, np.int64),
    )  # fmt: skip
    return scene, truth
