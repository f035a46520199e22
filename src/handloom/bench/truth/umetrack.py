"""HOT3D's own hand: the UmeTrack profile that comes with every recording. No licensed file is needed.

Source: Han et al., UmeTrack: Unified multi-view end-to-end hand tracking for VR, SIGGRAPH Asia 2022; field names as in
HOT3D's `__hand_shapes.json__` and `umetrack_hand_user_profile.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.floating]

_FINGERS, _JOINTS = 5, 4  # thumb first; a finger's joints are two hinges at its base and one at each of the next two
_THUMB_ROOT = 1  # joint at the root of the thumb, which has no landmark
_LANDMARKS = (5, 20, 6, 7, 0, 8, 9, 10, 1, 11, 12, 13, 2, 14, 15, 16, 3, 17, 18, 19, 4)
"""MediaPipe's 21 keypoints among the profile's landmarks (tips, wrist, then joints of each finger); 20 is `_THUMB_ROOT`
here, where the profile has the middle of the palm."""


@dataclass(frozen=True)
class UmeTrackHand:
    """A person's left hand at rest, metres; the right one is its mirror image. axes, joints_m: (20, 3); landmarks_m:
    (21, 3); weights: (21, 17) of each landmark on root, wrist and three bones a finger."""

    axes: Floats
    joints_m: Floats
    landmarks_m: Floats
    weights: Floats

    @staticmethod
    def of_profile(profile: dict[str, Any]) -> UmeTrackHand:
        """From the JSON object, with or without `hand_model` around it. Raises KeyError or ValueError."""
        model = profile.get("hand_model", profile)
        joints = np.array(model["joint_rest_positions"], np.float64)[: _FINGERS * _JOINTS] / 1000
        axes = np.array(model["joint_rotation_axes"], np.float64)[: _FINGERS * _JOINTS]
        landmarks = np.array(model["landmark_rest_positions"], np.float64)[:20] / 1000
        bones = np.array(model["landmark_rest_bone_indices"], np.int64)[:20]
        shares = np.array(model["landmark_rest_bone_weights"], np.float64)[:20]
        if not (joints.shape == axes.shape == landmarks.shape == (20, 3) and bones.shape == shares.shape):
            raise ValueError(f"a profile of {joints.shape} joints, {landmarks.shape} landmarks, {bones.shape} weights")
        weights = np.zeros((21, 2 + 3 * _FINGERS))
        np.add.at(weights, (np.arange(20)[:, None], bones), shares)
        weights[20, 2] = 1.0
        return UmeTrackHand(axes, joints, np.concatenate([landmarks, joints[_THUMB_ROOT : _THUMB_ROOT + 1]]), weights)

    def keypoints_m(self, angles: Floats, world_from_wrist: Floats, right: bool) -> NDArray[np.float64]:
        """(T, 21, 3) in MediaPipe's order, from joint angles (T, 20 or more) and wrists (T, 4, 4)."""
        num = len(angles)
        wrist = np.array(world_from_wrist, np.float64)
        if right:
            wrist[:, :3, 0] *= -1
        turns = Rotation.from_rotvec((self.axes * np.asarray(angles)[:, :20, None]).reshape(-1, 3))
        local = np.tile(np.eye(4), (num, 20, 1, 1))
        local[..., :3, :3] = turns.as_matrix().reshape(num, 20, 3, 3)
        local[..., :3, 3] = self.joints_m - np.einsum("tjab,jb->tja", local[..., :3, :3], self.joints_m)
        bones = [wrist, wrist]
        for finger in range(_FINGERS):
            pose = wrist
            for joint in range(_JOINTS):
                pose = pose @ local[:, _JOINTS * finger + joint]
                if joint > 0:
                    bones.append(pose)
        blended = np.einsum("kb,tbij->tkij", self.weights, np.stack(bones, axis=1))
        points = np.einsum("tkij,kj->tki", blended[..., :3, :3], self.landmarks_m) + blended[..., :3, 3]
        return points[:, _LANDMARKS]
