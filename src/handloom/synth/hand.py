"""An articulated hand: 21 keypoints by forward kinematics, and the capsules that give it flesh.

Right-hand frame, metres: origin at the wrist, x towards the little finger, y towards the fingertips, z out of the back
of the hand. A left hand is the mirror image (x -> -x). Bone lengths follow an adult hand of 0.19 m (Buchholz et al.,
Anthropometric data for describing the kinematics of the human hand, Ergonomics 35, 1992, rounded).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from handloom.schemas.values import LEFT, NUM_KEYPOINTS

Array = NDArray[np.float64]

FOREARM_M = 0.255
NUM_FINGERS = 5
NUM_CAPSULES = 28
_MCP = np.array([[-0.026, 0.092, 0.004], [-0.004, 0.094, 0.006], [0.017, 0.087, 0.004], [0.035, 0.076, -0.001]])
_SPLAY_RAD = np.radians([4.0, 0.0, -4.0, -9.0])
_PHALANX_M = np.array([[0.043, 0.026, 0.023], [0.047, 0.030, 0.024], [0.044, 0.028, 0.024], [0.034, 0.021, 0.021]])
_CMC = np.array([-0.021, 0.022, -0.010])
_THUMB_M = np.array([0.045, 0.034, 0.028])
_THUMB_REST = np.array([-0.62, 0.72, -0.30])
_THUMB_NAIL = np.array([-0.62, -0.15, 0.77])  # out of the thumb's nail; the thumb flexes away from it
_TIP_INSET = 0.6  # from the last capsule's end to the tip keypoint, over the tip's radius


@dataclass(frozen=True)
class Capsules:
    """Round cones of one hand and forearm over T frames, C = 28 of them.

    start_m, end_m: (T, C, 3). lateral, dorsal: (T, C, 3) unit vectors, lateral to the little finger's side of a right
    hand, dorsal out of the nail's side. radius_m: (C, 2) at start and end. kind: (C,) one of the constants below.
    """

    start_m: Array
    end_m: Array
    lateral: Array
    dorsal: Array
    radius_m: Array
    kind: NDArray[np.int64]

    def moved(self, rotation: Array, origin_m: Array) -> Capsules:
        """The same capsules in another frame; rotation (T, 3, 3) and origin (T, 3) take points to it."""
        points = [np.einsum("tij,tcj->tci", rotation, v) for v in (self.start_m, self.end_m, self.lateral, self.dorsal)]
        start, end = points[0] + origin_m[:, None], points[1] + origin_m[:, None]
        return Capsules(start, end, points[2], points[3], self.radius_m, self.kind)

    def at(self, frames: NDArray[np.integer[Any]]) -> Capsules:
        """The capsules of some frames."""
        start_m, end_m, lateral, dorsal = (v[frames] for v in (self.start_m, self.end_m, self.lateral, self.dorsal))
        return Capsules(start_m, end_m, lateral, dorsal, self.radius_m, self.kind)

    def frames(self) -> Array:
        """(T, C, 4, 4) pose of each capsule: its start, and axes that move rigidly with it."""
        out = np.tile(np.eye(4), (*self.start_m.shape[:2], 1, 1))
        out[..., :3, :3] = np.stack([self.lateral, np.cross(self.dorsal, self.lateral), self.dorsal], axis=-1)
        out[..., :3, 3] = self.start_m
        return out

    def mirrored(self) -> Capsules:
        """The mirror image, x -> -x."""
        flip = np.array([-1.0, 1.0, 1.0])
        start_m, end_m, lateral, dorsal = (v * flip for v in (self.start_m, self.end_m, self.lateral, self.dorsal))
        return Capsules(start_m, end_m, lateral, dorsal, self.radius_m, self.kind)


PHALANX, TIP, PALM, FOREARM, SLEEVE = range(5)

_FINGER_RADIUS_M = np.array([[0.0098, 0.0088, 0.0080, 0.0068], [0.0100, 0.0090, 0.0081, 0.0069],
                             [0.0094, 0.0084, 0.0076, 0.0065], [0.0082, 0.0072, 0.0066, 0.0057]])  # fmt: skip
_THUMB_RADIUS_M = np.array([0.0150, 0.0115, 0.0105, 0.0080])


def forward_kinematics(
    fingers_rad: Array, scale: float = 1.0, proportions: Array | None = None
) -> tuple[Array, Array, Array]:
    """Keypoints of a right hand in its own frame, from joint angles.

    Args:
        fingers_rad: (T, 5, 4); thumb to little finger. A finger's four are flexion at the MCP, abduction (towards the
            thumb), flexion at the PIP, flexion at the DIP; the thumb's are CMC flexion (opposition), CMC abduction,
            MCP flexion, IP flexion.
        scale: 1 is a hand of 0.19 m.
        proportions: (5,) length of each finger over the mean hand's; None: all 1. People differ by about 5 %.

    Returns:
        keypoints (T, 21, 3) metres in MediaPipe's order, and per phalanx the lateral and the dorsal unit vector
        (T, 5, 3, 3): finger, phalanx, xyz.
    """
    num = len(fingers_rad)
    longer = np.ones(5) if proportions is None else proportions
    keypoints = np.zeros((num, NUM_KEYPOINTS, 3))
    lateral, dorsal = np.zeros((num, 5, 3, 3)), np.zeros((num, 5, 3, 3))
    for finger in range(5):
        base, basis, lengths = _finger_base(finger)
        flexion = np.cumsum(fingers_rad[:, finger][:, [0, 2, 3]], axis=1)
        splay = fingers_rad[:, finger, 1] + (0.0 if finger == 0 else _SPLAY_RAD[finger - 1])
        point = np.broadcast_to(base, (num, 3))
        keypoints[:, 1 + 4 * finger] = point
        for k in range(3):
            along, side, back = _phalanx_axes(flexion[:, k], splay)
            point = point + longer[finger] * lengths[k] * (along @ basis)
            keypoints[:, 2 + 4 * finger + k] = point
            lateral[:, finger, k], dorsal[:, finger, k] = side @ basis, back @ basis
    return keypoints * scale, lateral, dorsal


def _finger_base(finger: int) -> tuple[Array, Array, Array]:
    """First joint (3,), rows of the finger's own x, y, z axes (3, 3), phalanx lengths (3,)."""
    if finger > 0:
        return _MCP[finger - 1], np.eye(3), _PHALANX_M[finger - 1]
    y = _THUMB_REST / np.linalg.norm(_THUMB_REST)
    z = _THUMB_NAIL - y * (y @ _THUMB_NAIL)
    z /= np.linalg.norm(z)
    return _CMC, np.stack([np.cross(y, z), y, z]), _THUMB_M


def _phalanx_axes(flexion: Array, splay: Array) -> tuple[Array, Array, Array]:
    """Along, lateral and dorsal axes (T, 3) of a phalanx after flexion about x and splay about z."""
    c, s, cs, ss = np.cos(flexion), np.sin(flexion), np.cos(splay), np.sin(splay)
    along = np.stack([-ss * c, cs * c, -s], axis=1)
    back = np.stack([-ss * s, cs * s, c], axis=1)
    return along, np.stack([cs, ss, np.zeros_like(c)], axis=1), back


def hand_capsules(
    keypoints_m: Array, lateral: Array, dorsal: Array, elbow_m: Array, shoulder_m: Array, scale: float
) -> Capsules:
    """Flesh of a right hand in its own frame.

    Args:
        keypoints_m, lateral, dorsal: as `forward_kinematics` returns them.
        elbow_m, shoulder_m: (T, 3) in the hand's frame.
        scale: as given to `forward_kinematics`.
    """
    num = len(keypoints_m)
    parts: list[tuple[Array, Array, Array, Array, tuple[float, float], int]] = []
    side, back = np.tile([1.0, 0.0, 0.0], (num, 1)), np.tile([0.0, 0.0, 1.0], (num, 1))
    for finger in range(5):
        radii = _THUMB_RADIUS_M if finger == 0 else _FINGER_RADIUS_M[finger - 1]
        for k in range(3):
            start, end = keypoints_m[:, 1 + 4 * finger + k], keypoints_m[:, 2 + 4 * finger + k]
            if k == 2:
                inset = _TIP_INSET * radii[3] * scale
                end = end - inset * (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
            kind = TIP if k == 2 else PHALANX
            parts.append((start, end, lateral[:, finger, k], dorsal[:, finger, k], (radii[k], radii[k + 1]), kind))

    def fixed(start: ArrayLike, end: ArrayLike, r0: float, r1: float, kind: int = PALM) -> None:
        begin, stop = (np.broadcast_to(np.asarray(p, float) * scale, (num, 3)) for p in (start, end))
        parts.append((begin, stop, side, back, (r0, r1), kind))

    for finger, carpal_x in enumerate((-0.012, -0.003, 0.006, 0.014)):
        fixed([carpal_x, 0.010, 0.0], _MCP[finger] * [1.0, 0.97, 0.6], 0.0135, 0.0112)
    fixed(_MCP[0] * [0.9, 0.93, 0] - [0, 0, 0.003], _MCP[3] * [0.9, 0.95, 0] - [0, 0, 0.003], 0.0100, 0.0095)
    fixed([0.020, 0.016, -0.006], [0.031, 0.062, -0.006], 0.0130, 0.0105)  # hypothenar
    thumb_mid = 0.45 * keypoints_m[:, 1] + 0.55 * keypoints_m[:, 2]
    index_mid = np.broadcast_to(_MCP[0] * [0.85, 0.62, 0] * scale, (num, 3))
    parts.append((thumb_mid, index_mid, side, back, (0.0095, 0.0100), PALM))  # web between thumb and index
    parts.append((np.broadcast_to(np.array([-0.010, 0.012, -0.004]) * scale, (num, 3)), keypoints_m[:, 1],
                  side, back, (0.0150, 0.0150), PALM))  # fmt: skip
    fixed([-0.011, -0.004, 0.0], [0.012, -0.004, 0.0], 0.0175, 0.0170)
    side, back = _about(elbow_m, side)
    for x in (-0.013, 0.013):
        start = np.broadcast_to(np.array([x, -0.008, 0.0]) * scale, (num, 3))
        end = 0.65 * elbow_m + np.array([0.8 * x * scale, 0.0, 0.0])
        parts.append((start, end, side, back, (0.0165, 0.0270), FOREARM))
    parts.append((0.48 * elbow_m, elbow_m, side, back, (0.0430 / scale, 0.0470 / scale), SLEEVE))
    side, back = _about(shoulder_m - elbow_m, side)
    parts.append((elbow_m, shoulder_m, side, back, (0.0470 / scale, 0.0560 / scale), SLEEVE))
    starts, ends, sides, backs = (np.stack([p[i] for p in parts], axis=1) for i in range(4))
    radius = np.array([p[4] for p in parts]) * scale
    return Capsules(starts, ends, sides, backs, radius, np.array([p[5] for p in parts]))


def _about(axis: Array, side: Array) -> tuple[Array, Array]:
    """Lateral and dorsal unit vectors (T, 3) normal to `axis` (T, 3), the lateral one as near to `side` as possible."""
    along = axis / np.linalg.norm(axis, axis=1, keepdims=True)
    lateral = side - along * (along * side).sum(1, keepdims=True)
    lateral = lateral / np.linalg.norm(lateral, axis=1, keepdims=True)
    return lateral, np.cross(along, lateral)


def as_handed(keypoints_m: Array, capsules: Capsules, hand: int) -> tuple[Array, Capsules]:
    """World-frame geometry of `hand`, given as a right hand: mirrored in x for the left."""
    if hand != LEFT:
        return keypoints_m, capsules
    return keypoints_m * np.array([-1.0, 1.0, 1.0]), capsules.mirrored()
