"""A spec put on stage: the camera's path, both hands' keypoints and flesh, the object's path, and what is visible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS, RIGHT
from handloom.synth.actions import ACTIONS, NOUNS, HandScript, ObjectShape, wrist_and_rotation
from handloom.synth.hand import FOREARM, Capsules, as_handed, forward_kinematics, hand_capsules
from handloom.synth.scene import SceneSpec, Truth
from handloom.synth.solids import first_hit
from handloom.synth.visibility import hidden_by_capsules

Array = NDArray[np.float64]

_HEAD = np.array([0.0, -0.33, 0.46])
_GAZE = np.array([0.01, 0.055, 0.035])
_CLEARANCE_M = 0.002
_SHOULDER = np.array([0.19, -0.40, 0.20])  # of the right arm


@dataclass(frozen=True)
class Stage:
    """truth, and per hand (0 left, 1 right) its capsules in the world or None; shape: the one object's."""

    truth: Truth
    capsules: tuple[Capsules | None, Capsules | None]
    shape: ObjectShape


def build_stage(spec: SceneSpec) -> Stage:
    """Everything that moves in a scene, frame by frame; the same spec gives the same stage."""
    rng = np.random.default_rng([spec.seed, 1])
    shape = NOUNS[spec.noun]
    share = np.arange(spec.num_frames) / max(spec.num_frames - 1, 1)
    frame_s = spec.start_s + np.arange(spec.num_frames) / spec.fps
    script = ACTIONS[spec.action].script(rng, share, shape)
    mirrored = spec.main_hand == LEFT
    world_from_camera = camera_path(spec, frame_s - spec.start_s)

    keypoints = np.full((spec.num_frames, NUM_HANDS, NUM_KEYPOINTS, 3), np.nan)
    capsules: list[Capsules | None] = [None, None]
    helper = LEFT + RIGHT - spec.main_hand
    for hand, part in ((spec.main_hand, script.main), (helper, script.other)):
        if hand == spec.main_hand or spec.hands == "both":
            keypoints[:, hand], capsules[hand] = _place_hand(part, spec.hand_scale, hand)

    world_from_object = _transforms(script.turn, script.centre_m, mirrored)[:, None]
    camera_matrix = spec.camera_matrix()
    cam = to_camera(world_from_camera, keypoints)
    pixels = project(cam, camera_matrix)
    with np.errstate(invalid="ignore"):
        inside = (cam[..., 2] > 0) & (pixels >= -0.5).all(-1) & (pixels < [spec.width - 0.5, spec.height - 0.5]).all(-1)
    by_others, by_itself = _hidden(cam, world_from_camera, capsules, world_from_object, shape)
    truth = Truth(
        frame_s, camera_matrix, world_from_camera, pixels, cam, keypoints,
        inside & ~by_others & ~by_itself, (inside & ~by_others).sum(-1) * 2 > NUM_KEYPOINTS, world_from_object,
    )  # fmt: skip
    return Stage(truth, (capsules[0], capsules[1]), shape)


def camera_path(spec: SceneSpec, since_s: Array) -> Array:
    """(T, 4, 4) world_from_camera: a head above the table that sways, looks around and leans, smoothly."""
    rng = np.random.default_rng([spec.seed, 2])
    phase, hertz = rng.uniform(0, 2 * np.pi, (2, 6)), rng.uniform(0.15, 0.55, (2, 6))
    angle = 2 * np.pi * hertz[:, None] * since_s[:, None] + phase[:, None]
    sway = spec.camera_motion * (np.sin(angle[0]) + 0.5 * np.sin(2 * angle[1]))
    head = _HEAD + rng.uniform(-1, 1, 3) * [0.03, 0.02, 0.025] + 0.014 * sway[:, :3]
    gaze = _GAZE + rng.uniform(-1, 1, 3) * [0.015, 0.015, 0.01] + 0.020 * sway[:, 3:]
    forward = _unit(gaze - head)
    roll = 0.03 * sway[:, 5] + rng.uniform(-0.05, 0.05)
    right = _unit(np.cross(forward, [0.0, 0.0, 1.0]))
    down = np.cross(forward, right)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    out = np.tile(np.eye(4), (len(since_s), 1, 1))
    out[:, :3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], axis=2)
    out[:, :3, 3] = head
    return out


def to_camera(world_from_camera: Array, points_world_m: Array) -> Array:
    """(T, ..., 3) world points in each frame's camera."""
    shifted = points_world_m - world_from_camera[:, :3, 3].reshape(-1, *(1,) * (points_world_m.ndim - 2), 3)
    return np.einsum("tji,t...j->t...i", world_from_camera[:, :3, :3], shifted)


def project(points_cam_m: Array, camera_matrix: Array) -> Array:
    """(..., 3) camera points to (..., 2) pixels; NaN behind the camera."""
    with np.errstate(invalid="ignore"):
        depth = np.where(points_cam_m[..., 2:] > 1e-6, points_cam_m[..., 2:], np.nan)
    focal, centre = np.diag(camera_matrix)[:2], camera_matrix[:2, 2]
    return points_cam_m[..., :2] / depth * focal + centre


def _place_hand(script: HandScript, scale: float, hand: int) -> tuple[Array, Capsules]:
    wrist, rotation, elbow = wrist_and_rotation(script, _SHOULDER)
    local, lateral, dorsal = forward_kinematics(script.fingers_rad, scale)

    def flesh_at(wrist_m: Array) -> Capsules:
        arm = [np.einsum("tji,tj->ti", rotation, joint - wrist_m) for joint in (elbow, _SHOULDER)]
        return hand_capsules(local, lateral, dorsal, *arm, scale).moved(rotation, wrist_m)

    flesh = flesh_at(wrist)
    wrist = wrist + _lift_m(flesh)
    flesh = flesh_at(wrist)
    return as_handed(np.einsum("tij,tkj->tki", rotation, local) + wrist[:, None], flesh, hand)


def _lift_m(flesh: Capsules) -> Array:
    """(T, 3) straight up, as far as the hand would sink into the table."""
    hand = flesh.kind < FOREARM
    ends = np.stack([flesh.start_m[..., 2], flesh.end_m[..., 2]], axis=2)[:, hand]
    lowest = (ends - flesh.radius_m[hand]).min(axis=(1, 2))
    return np.maximum(_CLEARANCE_M - lowest, 0.0)[:, None] * np.array([0.0, 0.0, 1.0])


def _transforms(rotation: Array, origin_m: Array, mirrored: bool) -> Array:
    out = np.tile(np.eye(4), (len(origin_m), 1, 1))
    flip = np.diag([-1.0, 1.0, 1.0]) if mirrored else np.eye(3)
    out[:, :3, :3], out[:, :3, 3] = flip @ rotation @ flip, origin_m @ flip
    return out


def _hidden(
    cam: Array, world_from_camera: Array, capsules: list[Capsules | None], world_from_object: Array, shape: ObjectShape
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(T, 2, 21) keypoints hidden by another hand or the object, and by the hand's own flesh."""
    others, own = np.zeros(cam.shape[:-1], bool), np.zeros(cam.shape[:-1], bool)
    for hand, flesh in enumerate(capsules):
        if flesh is None:
            continue
        ends = [to_camera(world_from_camera, p) for p in (flesh.start_m, flesh.end_m)]
        for seen in range(NUM_HANDS):
            hidden = hidden_by_capsules(cam[:, seen], *ends, flesh.radius_m, own=hand == seen)
            (own if hand == seen else others)[:, seen] |= hidden
    object_from_camera = np.linalg.inv(world_from_object[:, 0]) @ world_from_camera
    flat = cam.reshape(len(cam), -1, 3)
    for t, matrix in enumerate(object_from_camera):  # a ray reaches its keypoint at 1
        hit = first_hit(shape, matrix[:3, 3], flat[t] @ matrix[:3, :3].T).distance
        others[t] |= (hit < 0.98).reshape(cam.shape[1:3])
    return others, own


def _unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)
