"""A kinematic hand: 20 joint angles and 36 numbers of shape give 21 keypoints, with exact derivatives.

Right-hand frame, metres: origin at the wrist, x towards the little finger, y towards the fingertips, z out of the back
of the hand. Left hands are fitted as their mirror images. Every digit is a planar chain that bends about its own x axis
(`flexion`) after a turn of its plane about its own z axis (`splay`); a finger's axes are the palm's, the thumb's are
turned towards opposition.

Source of the proportions: Buchholz et al., Anthropometric data for describing the kinematics of the human hand,
Ergonomics 35, 1992 (segment lengths as shares of the hand's length); width of the palm after Greiner, Hand
anthropometry of U.S. Army personnel, 1991. Joint ranges: Kapandji, The Physiology of the Joints, rounded outwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import NUM_KEYPOINTS

Array = NDArray[np.float64]

NUM_ANGLES = 20  # digit (thumb first) x (flexion at its base, splay, flexion at the middle joint, at the last joint)
NUM_SHAPE = 36  # differences from the template: base of each digit, 5 x 3 m; log length of 5 x 3 phalanges; 2 x 3 m of
# `SEEN_M`
HAND_LENGTH_M = 0.185  # wrist to tip of the middle finger
MIN_DEPTH_M = 0.02  # of every keypoint of a hand that a camera shows as a hand

# Thumb first.
_BASE_M = np.array(
    [
        [-0.023, 0.025, -0.013],
        [-0.024, 0.088, 0.000],
        [-0.003, 0.087, 0.003],
        [0.017, 0.0805, 0.001],
        [0.035, 0.069, -0.004],
    ]
)
_PHALANX_M = np.array(
    [
        [0.045, 0.034, 0.027],
        [0.044, 0.026, 0.020],
        [0.049, 0.030, 0.0215],
        [0.045, 0.0285, 0.0215],
        [0.036, 0.021, 0.019],
    ]
)
_SPLAY_REST = np.radians([0.0, 4.0, 0.0, -4.0, -9.0])
_THUMB_ALONG = np.array([-0.62, 0.72, -0.30])
_THUMB_NAIL = np.array([-0.62, -0.15, 0.77])

_DEG = np.pi / 180
# Chosen by hand as an adult's, not fitted to a data set, as the bones above. The hands that `synth` renders have bones
# of nearly these lengths, and a thumb with the same axes: rendered truth does not test this template. (digit, joint):
# mean and spread of a weak prior, and the range.
_REST_DEG = [[15, 0, 12, 15], [28, 0, 32, 18], [30, 0, 34, 18], [32, 0, 34, 18], [32, 0, 32, 18]]
ANGLE_REST = _DEG * np.array(_REST_DEG, np.float64).ravel()
ANGLE_SPREAD = _DEG * np.array([[22, 18, 22, 25]] + 4 * [[30, 8, 30, 20]]).ravel()
ANGLE_LOW = _DEG * np.array([[-35, -35, -15, -25]] + 4 * [[-30, -20, -5, -8]]).ravel()
ANGLE_HIGH = _DEG * np.array([[60, 40, 60, 85]] + 4 * [[95, 20, 115, 80]]).ravel()
SHAPE_SPREAD = np.concatenate(
    [np.tile([0.0025, 0.0025, 0.002], 5), np.full(15, 0.05), np.tile([0.005, 0.006, 0.004], 2)]
)


def _axes() -> Array:
    """(5, 3, 3): rows are each digit's own x, y, z."""
    y = _THUMB_ALONG / np.linalg.norm(_THUMB_ALONG)
    z = _THUMB_NAIL - y * (y @ _THUMB_NAIL)
    z /= np.linalg.norm(z)
    return np.stack([np.stack([np.cross(y, z), y, z])] + 4 * [np.eye(3)])


_AXES = _axes()
# From the joints of the wrist and the root of the thumb to where a hand model marks them: MediaPipe's keypoints lie
# nearer to the fingers.
SEEN_M = np.array([[0.0, 0.022, 0.0], [0.0, 0.012, 0.0]])


@dataclass(frozen=True)
class Posed:
    """Keypoints in the hand's frame and their derivatives.

    points_m: (N, 21, 3). seen_m: (N, 21, 3), where a hand model marks them. by_angle: (N, 21, 3, 20) and by_shape:
    (N, 21, 3, S), of `seen_m`.
    """

    points_m: Array
    seen_m: Array
    by_angle: Array
    by_shape: Array


def template_palm() -> Array:
    """(5, 3) keypoints `PALM` of the template, metres, in the hand's frame."""
    return np.concatenate([np.zeros((1, 3)), _BASE_M[1:]])


def pose(angles: Array, shape: Array, derivatives: bool = True, by_shape: bool = True) -> Posed:
    """Keypoints of a right hand from angles (N, 20), radians, and one shape (36,); without `derivatives` or `by_shape`
    the arrays of these are empty."""
    num = len(angles)
    digit = angles.reshape(num, 5, 4)
    base = _BASE_M + shape[:15].reshape(5, 3)
    length = _PHALANX_M * np.exp(shape[15:30].reshape(5, 3))
    flexion = np.cumsum(digit[:, :, [0, 2, 3]], axis=2)  # (N, 5, 3)
    splay = digit[:, :, 1, None] + _SPLAY_REST[:, None]
    c, s, cs, ss = np.cos(flexion), np.sin(flexion), np.cos(splay), np.sin(splay)
    bone = length[..., None] * _in_palm(np.stack([-ss * c, cs * c, -s], axis=-1))
    chain = np.concatenate([np.broadcast_to(base[:, None], (num, 5, 1, 3)), bone], axis=2)
    points = np.zeros((num, NUM_KEYPOINTS, 3))
    points[:, 1:] = np.cumsum(chain, axis=2).reshape(num, 20, 3)
    seen = points.copy()
    seen[:, :2] += SEEN_M + shape[30:].reshape(2, 3)
    if not derivatives:
        return Posed(points, seen, np.zeros((num, 0)), np.zeros((num, 0)))

    by_flexion = length[..., None] * _in_palm(np.stack([ss * s, -cs * s, -c], axis=-1))
    by_splay = length[..., None] * _in_palm(np.stack([-cs * c, -ss * c, np.zeros_like(c)], axis=-1))
    by_angle = np.zeros((num, NUM_KEYPOINTS, 3, 5, 4))
    for d in range(5):
        for k in range(3):  # phalanx k moves the keypoints beyond it
            beyond = slice(2 + 4 * d + k, 5 + 4 * d)
            for joint in range(k + 1):
                by_angle[:, beyond, :, d, (0, 2, 3)[joint]] += by_flexion[:, d, k, None]
            by_angle[:, beyond, :, d, 1] += by_splay[:, d, k, None]
    by_angle = by_angle.reshape(num, NUM_KEYPOINTS, 3, NUM_ANGLES)
    return Posed(points, seen, by_angle, _by_shape(bone) if by_shape else np.zeros((num, 0)))


def _by_shape(bone: Array) -> Array:
    """(N, 21, 3, 36) from bones (N, 5, 3, 3)."""
    by = np.zeros((len(bone), NUM_KEYPOINTS, 3, NUM_SHAPE))
    for keypoint in range(2):
        by[:, keypoint, range(3), range(30 + 3 * keypoint, 33 + 3 * keypoint)] = 1
    for d in range(5):
        for k in range(3):
            by[:, 2 + 4 * d + k : 5 + 4 * d, :, 15 + 3 * d + k] = bone[:, d, k, None]
        for axis in range(3):
            by[:, 1 + 4 * d : 5 + 4 * d, axis, 3 * d + axis] = 1
    return by


def _in_palm(vectors: Array) -> Array:
    """(N, 5, 3, 3) vectors in each digit's axes to the palm's: only the thumb's axes differ."""
    turned = vectors.copy()
    turned[:, 0] = vectors[:, 0] @ _AXES[0]
    return turned


def angles_of(points_m: Array) -> Array:
    """Joint angles (N, 20), radians, of hands in their own frame (N, 21, 3), of any bone lengths; clipped to the
    range."""
    digits = points_m[:, 1:].reshape(-1, 5, 4, 3)
    bone = np.diff(digits, axis=2)
    bone = np.concatenate([bone[:, :1] @ _AXES[0].T, bone[:, 1:]], axis=1)
    splay = np.arctan2(-bone[:, :, 0, 0], np.maximum(bone[:, :, 0, 1], 1e-3)) - _SPLAY_REST
    splay = np.clip(splay, ANGLE_LOW.reshape(5, 4)[:, 1], ANGLE_HIGH.reshape(5, 4)[:, 1])
    turn = splay + _SPLAY_REST
    along = bone[..., 1] * np.cos(turn)[..., None] - bone[..., 0] * np.sin(turn)[..., None]
    flexion = np.arctan2(-bone[..., 2], along)
    bend = (np.diff(flexion, axis=2) + np.pi) % (2 * np.pi) - np.pi
    angles = np.stack([flexion[:, :, 0], splay, bend[:, :, 0], bend[:, :, 1]], axis=2)
    return np.clip(angles.reshape(-1, NUM_ANGLES), ANGLE_LOW, ANGLE_HIGH)
