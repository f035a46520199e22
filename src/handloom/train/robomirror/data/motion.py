"""Motion as numbers of each frame: hands in the frame of the head, the head's step, and the body where it is asked.

The head is the camera: x right, y down, z forward, metres. A left hand's own axes are the mirror image of a right
hand's, so that both hands have keypoints alike. Unknown numbers are NaN.

======== ==================================================================================================
0 .. 68  left hand: wrist (3), two columns of its rotation (6), keypoints 1 to 20 in the wrist's axes (60)
69 .. 137 right hand, the same
138 .. 140 the head's step: where its origin lies in the frame of the step before
141 .. 146 two columns of its rotation in the frame of the step before
147 .. 149 the body, in a `MotionLayout` that has it: the middle of the hips, for a person of MediaPipe's usual size
150 .. 248 its 33 keypoints from there, in the head's axes
======== ==================================================================================================

Source of the 6 numbers of a rotation: Zhou et al., On the Continuity of Rotation Representations, CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handloom.geometry.bodies import MIRROR, NUM_BODY_KEYPOINTS
from handloom.geometry.hands.initial_pose import palm_frame
from handloom.geometry.interactions.rigid import inverse
from handloom.schemas.hand_topology import WRIST
from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS

PLACE, TURN, SHAPE = 3, 6, 3 * (NUM_KEYPOINTS - 1)
HAND_DIM = PLACE + TURN + SHAPE
HEAD_DIM = PLACE + TURN
HEAD = NUM_HANDS * HAND_DIM
MOTION_DIM = HEAD + HEAD_DIM
"""Numbers of a motion without the body."""
BODY_DIM = 3 * (1 + NUM_BODY_KEYPOINTS)
HIPS = slice(MOTION_DIM, MOTION_DIM + 3)
BODY = slice(MOTION_DIM + 3, MOTION_DIM + BODY_DIM)
_GROUPS: dict[str, tuple[slice, ...]] = {
    "wrist": tuple(slice(h * HAND_DIM, h * HAND_DIM + PLACE) for h in range(NUM_HANDS)),
    "wrist_turn": tuple(slice(h * HAND_DIM + PLACE, h * HAND_DIM + PLACE + TURN) for h in range(NUM_HANDS)),
    "shape": tuple(slice(h * HAND_DIM + PLACE + TURN, (h + 1) * HAND_DIM) for h in range(NUM_HANDS)),
    "head": (slice(HEAD, HEAD + PLACE),),
    "head_turn": (slice(HEAD + PLACE, MOTION_DIM),),
}
_PARTS = (slice(0, HAND_DIM), slice(HAND_DIM, HEAD), *_GROUPS["head"], *_GROUPS["head_turn"])


@dataclass(frozen=True)
class MotionLayout:
    """Which parts the numbers of a motion are of: hands and head, and, with `body`, the body behind them."""

    body: bool = False

    def __str__(self) -> str:
        return "hands, head and body" if self.body else "hands and head"

    @property
    def dim(self) -> int:
        """Numbers of a frame."""
        return MOTION_DIM + (BODY_DIM if self.body else 0)

    @property
    def groups(self) -> dict[str, tuple[slice, ...]]:
        """Numbers of one kind and unit: metres, columns of rotations, metres in the hand, metres a step, columns; of
        the body metres, and metres from the hips."""
        return _GROUPS | ({"hips": (HIPS,), "body": (BODY,)} if self.body else {})

    @property
    def parts(self) -> tuple[slice, ...]:
        """Numbers that are known or unknown together: each hand, the head's place, the head's rotation; the hips' place
        and each keypoint of the body."""
        points = (slice(at, at + 3) for at in range(BODY.start, BODY.stop, 3))
        return (*_PARTS, HIPS, *points) if self.body else _PARTS


HANDS_AND_HEAD = MotionLayout()
_MIRROR = np.array([-1.0, 1.0, 1.0])


def motion_of(
    keypoints_cam_m: NDArray,
    world_from_camera: NDArray,
    world_unit_m: float | None,
    body: tuple[NDArray, NDArray] | None = None,
) -> NDArray[np.float32]:
    """(T, 147) motion of a clip or window, or (T, 249) with the body.

    Args:
        keypoints_cam_m: (T, 2, 21, 3) metres in the camera of each frame; NaN where the hand is not known.
        world_from_camera: (T, 4, 4); NaN where the pose is not known.
        world_unit_m: metres in a unit of its translations; None: unknown, so that the head's places are.
        body: (T, 3) the middle of the hips in the camera of each frame, and (T, 33, 3) keypoints from there in the
            camera's axes; NaN where unknown.
    """
    out = np.full((len(keypoints_cam_m), MotionLayout(body is not None).dim), np.nan)
    for hand in range(NUM_HANDS):
        points = np.asarray(keypoints_cam_m[:, hand], np.float64)
        known = np.isfinite(points).all(axis=(1, 2))
        if known.any():
            out[known, hand * HAND_DIM : (hand + 1) * HAND_DIM] = _hand(points[known], hand == LEFT)
    poses = np.asarray(world_from_camera, np.float64)
    steps = inverse(poses[:-1]) @ poses[1:]
    if world_unit_m is not None:
        out[1:, HEAD : HEAD + PLACE] = steps[:, :3, 3] * world_unit_m
    out[1:, HEAD + PLACE : MOTION_DIM] = _columns(steps[:, :3, :3])
    if body is not None:
        out[:, HIPS], out[:, BODY] = body[0], body[1].reshape(len(out), -1)
    return out.astype(np.float32)


def mirrored(motion: Tensor) -> Tensor:
    """(..., 147) or (..., 249): the same motion in a mirror, left and right exchanged."""
    place = torch.tensor(_MIRROR, dtype=motion.dtype, device=motion.device)
    # Of a rotation R the mirror image is M R M with M = diag(-1, 1, 1).
    turn = torch.cat([place * place[0], place * place[1]])
    hand = torch.cat([place, turn, torch.ones(SHAPE, dtype=motion.dtype, device=motion.device)])
    left, right, head, body = motion.split([HAND_DIM, HAND_DIM, HEAD_DIM, motion.shape[-1] - MOTION_DIM], dim=-1)
    out = [right * hand, left * hand, head * hand[:HEAD_DIM]]
    if has_body(motion):
        hips, points = body[..., :3], body[..., 3:].unflatten(-1, (NUM_BODY_KEYPOINTS, 3))
        out += [hips * place, (points[..., MIRROR, :] * place).flatten(-2)]
    return torch.cat(out, dim=-1)


def has_body(motion: Tensor) -> bool:
    return motion.shape[-1] > MOTION_DIM


def bodies_of(motion: Tensor) -> tuple[Tensor, Tensor]:
    """Of (..., 249): (..., 3) the middle of the hips in the frame of the head, and (..., 33, 3) keypoints from there in
    its axes; NaN where unknown."""
    return motion[..., HIPS], motion[..., BODY].unflatten(-1, (NUM_BODY_KEYPOINTS, 3))


def points_of(motion: Tensor) -> Tensor:
    """(..., 42, 3) all keypoints of both hands in the frame of the head, (..., 75, 3) with those of the body."""
    hands = keypoints_of(motion).flatten(-3, -2)
    if not has_body(motion):
        return hands
    hips, points = bodies_of(motion)
    return torch.cat([hands, hips[..., None, :] + points], dim=-2)


def wrists_of(motion: Tensor) -> Tensor:
    """(..., 2, 4, 4) pose of each wrist in the frame of the head; NaN where unknown."""
    hands = motion[..., :HEAD].unflatten(-1, (NUM_HANDS, HAND_DIM))
    return _poses(hands[..., :PLACE], hands[..., PLACE : PLACE + TURN])


def head_steps_of(motion: Tensor) -> Tensor:
    """(..., 4, 4) pose of the head in the frame of the head one step before; NaN where unknown."""
    return _poses(motion[..., HEAD : HEAD + PLACE], motion[..., HEAD + PLACE : MOTION_DIM])


def keypoints_of(motion: Tensor) -> Tensor:
    """(..., 2, 21, 3) keypoints in the frame of the head, metres; NaN where the hand is unknown."""
    hands = motion[..., :HEAD].unflatten(-1, (NUM_HANDS, HAND_DIM))
    wrist = hands[..., None, :PLACE]
    shape = hands[..., PLACE + TURN :].unflatten(-1, (NUM_KEYPOINTS - 1, 3))
    sides = torch.ones(NUM_HANDS, 1, 3, dtype=motion.dtype, device=motion.device)
    sides[LEFT] = torch.tensor(_MIRROR)
    turn = rotation_of(hands[..., PLACE : PLACE + TURN])
    return torch.cat([wrist, wrist + (shape * sides) @ turn.transpose(-1, -2)], dim=-2)


def rotation_of(columns: Tensor) -> Tensor:
    """(..., 6) two columns, of any length and angle, to (..., 3, 3) a rotation (Gram and Schmidt)."""
    first, second = columns[..., :3], columns[..., 3:]
    x = torch.nn.functional.normalize(first, dim=-1)
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def _hand(points: NDArray[np.float64], is_left: bool) -> NDArray[np.float64]:
    """(N, 69) numbers of one known hand (N, 21, 3)."""
    sides = _MIRROR if is_left else np.ones(3)
    own_from_head = palm_frame(points * sides)  # of a left hand in the mirror
    shape = np.einsum("nij,nkj->nki", own_from_head, (points - points[:, WRIST, None]) * sides)
    turn = np.swapaxes(own_from_head, 1, 2) * sides[:, None] * sides
    return np.concatenate([points[:, WRIST], _columns(turn), shape[:, 1:].reshape(len(points), SHAPE)], axis=1)


def _columns(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([rotations[..., 0], rotations[..., 1]], axis=-1)


def _poses(place: Tensor, columns: Tensor) -> Tensor:
    turn = rotation_of(columns)
    upper = torch.cat([turn, place[..., None]], dim=-1)
    lower = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=place.dtype, device=place.device)
    return torch.cat([upper, lower.expand(*place.shape[:-1], 1, 4)], dim=-2)
